package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"maskrelay/upstream"
)

// doctorReport is what the doctor found; its JSON form is part of the interface.
type doctorReport struct {
	OK           bool         `json:"ok"`
	Summary      string       `json:"summary"`
	Target       string       `json:"target"`
	User         string       `json:"user,omitempty"`
	Milliseconds float64      `json:"ms"`
	Parts        []doctorPart `json:"parts"`

	failed int // hops
}

// doctorPart is the hops that belong together.
type doctorPart struct {
	Kind   string      `json:"kind"` // target, customer, gateway or relay
	Name   string      `json:"name,omitempty"`
	URL    string      `json:"url,omitempty"`    // of a gateway, without credentials
	Pool   string      `json:"pool,omitempty"`   // of a gateway
	Vendor string      `json:"vendor,omitempty"` // of a gateway: the preset
	Hops   []doctorHop `json:"hops"`
}

// doctorHop is one step.
type doctorHop struct {
	Hop          string             `json:"hop"`
	Result       upstream.HopResult `json:"result"`
	Detail       string             `json:"detail,omitempty"`
	Milliseconds float64            `json:"ms"`
	Cause        string             `json:"cause,omitempty"`
	Status       int                `json:"status,omitempty"`
	VendorSays   string             `json:"vendor_says,omitempty"`
	Remedy       string             `json:"remedy,omitempty"`
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

func gatewayPart(d *upstream.Diagnosis) doctorPart {
	g := d.Gateway
	part := doctorPart{Kind: "gateway", Name: g.Name, URL: g.String(), Pool: g.Pool, Vendor: g.Vendor.Name}
	for _, h := range d.Hops {
		part.Hops = append(part.Hops, doctorHop{
			Hop: h.Name, Result: h.Result, Detail: h.Detail, Milliseconds: milliseconds(h.Took), Cause: string(h.Cause),
			Status: h.Status, VendorSays: h.Vendor, Remedy: h.Advice,
		})
	}
	return part
}

// hops is a number of them.
func hops(n int) string {
	if n == 1 {
		return "1 hop"
	}
	return fmt.Sprintf("%d hops", n)
}

// failed is the first hop that failed, nil if none did.
func (p *doctorPart) failed() *doctorHop {
	i := slices.IndexFunc(p.Hops, func(h doctorHop) bool { return h.Result == upstream.HopFailed })
	if i < 0 {
		return nil
	}
	return &p.Hops[i]
}

// part is the first of a kind, nil if there is none.
func (r *doctorReport) part(kind string) *doctorPart {
	i := slices.IndexFunc(r.Parts, func(p doctorPart) bool { return p.Kind == kind })
	if i < 0 {
		return nil
	}
	return &r.Parts[i]
}

// conclude fills in what is to be said of all hops together.
func (r *doctorReport) conclude(took time.Duration) {
	r.Milliseconds = milliseconds(took)
	var fine, skipped int
	for i := range r.Parts {
		for _, h := range r.Parts[i].Hops {
			switch h.Result {
			case upstream.HopOK:
				fine++
			case upstream.HopFailed:
				r.failed++
			default:
				skipped++
			}
		}
	}
	if r.OK = r.failed == 0; r.OK {
		r.Summary = "all is fine: " + hops(fine)
		if skipped > 0 {
			r.Summary += fmt.Sprintf(", %d skipped", skipped)
		}
		return
	}
	for i := range r.Parts {
		p := &r.Parts[i]
		if h := p.failed(); h != nil {
			r.Summary = fmt.Sprintf("%s %s: %s failed (%s): %s", p.Kind, p.Name, h.Hop, h.Cause, h.Remedy)
			break
		}
	}
	if r.failed > 1 {
		r.Summary += fmt.Sprintf(" (and %d more failed)", r.failed-1)
	}
}

func (r *doctorReport) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(visibleWriter{w})
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// coloured reports whether standard output is a terminal whose user did not ask for plain text (no-color.org).
func coloured(p process) bool {
	plain := func(v string) bool {
		value, set := strings.CutPrefix(v, "NO_COLOR=")
		return set && value != "" || v == "TERM=dumb"
	}
	if slices.ContainsFunc(p.environ, plain) {
		return false
	}
	f, ok := p.stdout.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// marks are how a result is shown, and its colour.
var marks = map[upstream.HopResult][2]string{
	upstream.HopOK:      {"ok", "32"},
	upstream.HopFailed:  {"FAIL", "1;31"},
	upstream.HopSkipped: {"-", "2"},
}

// writeText prints the hops as a tree, the summary last.
func (r *doctorReport) writeText(w io.Writer, colour bool) error {
	var b strings.Builder
	for i := range r.Parts {
		r.Parts[i].writeText(&b, colour)
	}
	word := "OK: "
	if !r.OK {
		word = "FAIL: "
	}
	b.WriteString("\n" + word + visible(r.Summary) + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *doctorPart) writeText(b *strings.Builder, colour bool) {
	b.WriteString(strings.TrimSpace(p.Kind + " " + visible(p.Name)))
	if p.URL != "" {
		fmt.Fprintf(b, "  (%s, pool %s, vendor %s)", visible(p.URL), visible(p.Pool), visible(p.Vendor))
	}
	b.WriteByte('\n')
	for _, h := range p.Hops {
		mark := marks[h.Result]
		shown := fmt.Sprintf("%-4s", mark[0])
		if colour {
			shown = "\x1b[" + mark[1] + "m" + shown + "\x1b[0m"
		}
		took := ""
		if h.Milliseconds > 0 {
			took = fmt.Sprintf("%.1f ms", h.Milliseconds)
		}
		fmt.Fprintf(b, "  %s  %-16s  %10s  %s\n", shown, h.Hop, took, visible(h.Detail))
		for _, more := range [][2]string{{"cause", h.Cause}, {"vendor", h.VendorSays}, {"do", h.Remedy}} {
			if more[1] != "" {
				fmt.Fprintf(b, "%38s%-6s  %s\n", "", more[0], visible(more[1]))
			}
		}
	}
}
