//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
)

// panel is one group of bars of the chart.
type panel struct {
	title  string
	note   string // which direction is better
	metric string
	unit   float64
	format string
}

var panels = []panel{
	{"CPU time of a new tunnel, µs", "64 workers; less is better", "rate64.cpu", 1, "%.0f"},
	{"CPU time of a new tunnel, µs", "512 workers; less is better", "rate512.cpu", 1, "%.0f"},
	{"New tunnels a second, thousands", "512 workers; more is better", "rate512.persec", 1000, "%.1f"},
	{"Memory of an idle tunnel, KB", "resident, of the process; less is better", "hold.rss", 1000, "%.1f"},
	{"Bulk, CPU seconds per GB", "16 streams down; less is better", "bulk16down.cpu", 1, "%.2f"},
	{"Plain HTTP, CPU time of a request, µs", "less is better", "http.cpu", 1, "%.0f"},
}

// Measures of the chart in pixels.
const (
	chartWidth  = 940
	panelWidth  = 450
	barStep     = 21
	barHeight   = 14
	labelWidth  = 100
	valueWidth  = 56
	panelHead   = 48
	panelGap    = 26
	chartMargin = 12
)

// The chart has no background: its colours read on light and dark pages.
const chartStyle = `text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:13px}.note{fill:#57606a;font-size:11px}` +
	`.ours{fill:#0969da}.chain{fill:#8c959f}.pass,.limit{fill:#c4ccd4}.axis{stroke:#8c959f;stroke-width:1}.cut{stroke:#fff;stroke-width:3}` +
	`@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.ours{fill:#4493f8}.chain{fill:#7d8590}.pass,.limit{fill:#3d444d}.cut{stroke:#0d1117}}`

// chart draws the medians as SVG. Panels and bars without a figure are left out, and direct, which is no relay.
func (b *bench) chart(peers []*peer) []byte {
	relays := slices.DeleteFunc(slices.Clone(peers), func(p *peer) bool { return p.kind == kindDirect })
	var body bytes.Buffer
	y, rowHeight, column := 0, 0, 0
	for _, pan := range panels {
		bars := b.bars(pan, relays)
		if len(bars) == 0 {
			continue
		}
		if column == 2 {
			y, rowHeight, column = y+rowHeight, 0, 0
		}
		fmt.Fprintf(&body, "<g transform=\"translate(%d,%d)\">\n", chartMargin+column*(panelWidth+16), y)
		drawPanel(&body, pan, bars)
		body.WriteString("</g>\n")
		rowHeight = max(rowHeight, panelHead+len(bars)*barStep+panelGap)
		column++
	}
	height := y + rowHeight + 20
	legend := "blue: maskrelay · grey: does the same job (CONNECT, customer's login checked, vendor's put in) · light: passes bytes or logins on · medians, see README"
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="maskrelay beside other relays">`+"\n<style>%s</style>\n",
		chartWidth, height, chartWidth, height, chartStyle)
	out.Write(body.Bytes())
	fmt.Fprintf(&out, "<text class=\"note\" x=\"%d\" y=\"%d\">%s</text>\n</svg>\n", chartMargin, height-10, legend)
	return out.Bytes()
}

// bar is one peer's figure.
type bar struct {
	name, class string
	value       float64
}

func (b *bench) bars(pan panel, peers []*peer) []bar {
	var bars []bar
	for _, p := range peers {
		v, ok := b.results.median(p.name, pan.metric)
		if !ok {
			continue
		}
		class := p.kind
		if b.isOurs[p.name] {
			class = "ours"
		}
		bars = append(bars, bar{p.name, class, max(v, 0) / pan.unit})
	}
	return bars
}

func drawPanel(out *bytes.Buffer, pan panel, bars []bar) {
	fmt.Fprintf(out, "<text class=\"title\" y=\"20\">%s</text><text class=\"note\" y=\"36\">%s</text>\n", escape(pan.title), escape(pan.note))
	longest := scale(bars)
	full := float64(panelWidth - labelWidth - valueWidth)
	for i, bar := range bars {
		y := panelHead + i*barStep
		width := min(bar.value/longest, 1) * full
		fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", labelWidth-8, y+12, escape(bar.name))
		fmt.Fprintf(out, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>", bar.class, labelWidth, y, max(width, 1), barHeight)
		if bar.value > longest { // two cuts say that the bar goes on
			for _, x := range []float64{0.90, 0.93} {
				at := float64(labelWidth) + full*x
				fmt.Fprintf(out, "<path class=\"cut\" d=\"M%.0f %dl6 %d\"/>", at, y+barHeight+1, -barHeight-2)
			}
		}
		fmt.Fprintf(out, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", float64(labelWidth)+max(width, 1)+6, y+12, fmt.Sprintf(pan.format, bar.value))
	}
	fmt.Fprintf(out, "<path class=\"axis\" d=\"M%d %dv%d\"/>\n", labelWidth, panelHead-3, len(bars)*barStep)
}

// scale returns the value of a full bar: the largest, unless it dwarfs the others, which is when it is more than twice the next.
func scale(bars []bar) float64 {
	values := make([]float64, 0, len(bars))
	for _, b := range bars {
		values = append(values, b.value)
	}
	slices.Sort(values)
	for len(values) > 3 && values[len(values)-1] > 2*values[len(values)-2] {
		values = values[:len(values)-1]
	}
	return max(values[len(values)-1], 1e-9)
}

func escape(s string) string {
	var out bytes.Buffer
	_ = xml.EscapeText(&out, []byte(s)) // a Buffer takes all
	return out.String()
}
