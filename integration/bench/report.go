//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// column is one column of a table. Its text for a peer is empty when there is no figure.
type column struct {
	title string
	text  func(peer string) string
}

// metric shows one figure, divided by unit.
func (b *bench) metric(title, metric, format string, unit float64) column {
	return column{title, func(peer string) string {
		v, ok := b.results.median(peer, metric)
		if !ok {
			return ""
		}
		return fmt.Sprintf(format, v/unit)
	}}
}

// pair shows two figures in one column.
func (b *bench) pair(title string, metrics [2]string, format string) column {
	first, second := b.metric("", metrics[0], format, 1), b.metric("", metrics[1], format, 1)
	return column{title, func(peer string) string {
		if first.text(peer) == "" {
			return ""
		}
		return first.text(peer) + " / " + second.text(peer)
	}}
}

// times shows how often other's figure is in the peer's.
func (b *bench) times(title, other, metric string) column {
	return column{title, func(peer string) string {
		v, ok := b.results.ratio(peer, other, metric)
		if !ok {
			return ""
		}
		return fmt.Sprintf("%.2f", v)
	}}
}

const (
	theHTTP    = "haproxy-http"
	theTCP     = "haproxy-tcp"
	theGoproxy = "goproxy"
)

// against shows one figure with its ratios to both HAProxies.
func (b *bench) against(title, metric, format string, unit float64) []column {
	return []column{b.metric(title, metric, format, unit), b.times("× http", theHTTP, metric), b.times("× tcp", theTCP, metric)}
}

// table prints the peers that have a figure; nothing when none has.
func table(w *strings.Builder, title string, peers []*peer, columns []column) {
	var rows []string
	for _, p := range peers {
		row, any := "| "+p.name+" | "+p.kind+" |", false
		for _, c := range columns {
			text := c.text(p.name)
			if any = any || text != ""; text == "" {
				text = "–"
			}
			row += " " + text + " |"
		}
		if any {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## %s\n\n| peer | kind |", title)
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c.title)
	}
	fmt.Fprintf(w, "\n|---|---|%s\n%s\n", strings.Repeat("---:|", len(columns)), strings.Join(rows, "\n"))
}

// report returns everything as Markdown.
func (b *bench) report(peers []*peer) string {
	w := &strings.Builder{}
	fmt.Fprintf(w, "# maskrelay beside other relays\n\n%s\n", b.machine())
	for _, workers := range []string{"64", "512"} {
		prefix := cellRate + workers + "."
		table(w, "New tunnels, "+workers+" workers: connect, CONNECT, one byte there and back, close", peers, slices.Concat(
			b.against("CPU µs", prefix+"cpu", "%.0f", 1), b.against("tunnels/s", prefix+"persec", "%.0f", 1),
			[]column{b.pair("set-up p50 / p99 ms", [2]string{prefix + "setup50", prefix + "setup99"}, "%.1f"),
				b.pair("with echo p50 / p99 ms", [2]string{prefix + "whole50", prefix + "whole99"}, "%.1f")}))
	}
	table(w, "Held tunnels: what one more costs, and echo of one byte through one beside the held", peers, slices.Concat(
		b.against("RSS KB idle", "hold.rss", "%.2f", 1000), []column{b.metric("files", "hold.fds", "%.1f", 1), b.metric("goroutines", "hold.goroutines", "%.2f", 1)},
		b.against("RSS KB pending", "pending.rss", "%.2f", 1000)))
	table(w, "Echo through one tunnel beside the held", peers, slices.Concat(
		b.against("p50 µs", "hold.ping50", "%.0f", 1), b.against("p99 µs", "hold.ping99", "%.0f", 1)))
	table(w, "9,500 tunnels (fewer where one takes 6 files) as fast as the generator can", peers, slices.Concat(
		[]column{b.metric("seconds", "burst.seconds", "%.2f", 1)}, b.against("tunnels/s", "burst.persec", "%.0f", 1),
		[]column{b.metric("failed", "burst.failed", "%.0f", 1)}))
	b.bulkTables(w, peers)
	table(w, "Plain HTTP: GET of 1 KiB, 64 kept connections", peers, slices.Concat(
		b.against("CPU µs", "http.cpu", "%.1f", 1), []column{b.times("× goproxy", theGoproxy, "http.cpu")}, b.against("requests/s", "http.persec", "%.0f", 1),
		[]column{b.pair("p50 / p99 ms", [2]string{"http.whole50", "http.whole99"}, "%.1f")}))
	if b.raw {
		b.rawTable(w, peers)
	}
	fmt.Fprint(w, "\n## Notes\n\n")
	for _, note := range b.notes {
		fmt.Fprintf(w, "- %s\n", note)
	}
	fmt.Fprintf(w, "- %d of %d cells ran beside more than half a processor of other work; took %.0f s\n", b.noisy, b.starts, time.Since(b.began).Seconds())
	return w.String()
}

func (b *bench) bulkTables(w *strings.Builder, peers []*peer) {
	for _, t := range []struct{ title, prefix string }{
		{"Bulk, one stream", cellBulk + "1"}, {"Bulk, 16 streams", cellBulk + "16"},
		{"Bulk, 16 streams, relay not root, 1,000 idle tunnels beside", cellBulkUser + "16"},
	} {
		var columns []column
		for _, way := range []string{"down", "up"} {
			prefix := t.prefix + way + "."
			columns = append(columns, b.metric(way+" GB/s", prefix+"gbps", "%.2f", 1), b.best(prefix+"gbps", peers, true),
				b.metric("CPU s/GB", prefix+"cpu", "%.2f", 1), b.best(prefix+"cpu", peers, false))
		}
		table(w, t.title, peers, columns)
	}
}

// best shows the peer's figure in times of that relay's, not being maskrelay, whose median is the best: the largest, or the smallest.
func (b *bench) best(metric string, peers []*peer, largest bool) column {
	var rival string
	var record float64
	for _, p := range peers {
		v, ok := b.results.median(p.name, metric)
		if !ok || p.kind == kindDirect || b.isOurs[p.name] {
			continue
		}
		if rival == "" || largest == (v > record) {
			rival, record = p.name, v
		}
	}
	return b.times("× best", rival, metric)
}

// rawTable prints every sample.
func (b *bench) rawTable(w *strings.Builder, peers []*peer) {
	all := map[string]bool{}
	for _, p := range peers {
		for metric := range b.results[p.name] {
			all[metric] = true
		}
	}
	fmt.Fprint(w, "\n## Every round\n\n| metric |")
	for _, p := range peers {
		fmt.Fprintf(w, " %s |", p.name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(peers)))
	for _, metric := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(w, "| %s |", metric)
		for _, p := range peers {
			for round := 1; round <= b.rounds; round++ {
				if v, ok := b.results[p.name][metric][round]; ok {
					fmt.Fprintf(w, " %.4g", v)
				} else {
					fmt.Fprint(w, " –")
				}
			}
			fmt.Fprint(w, " |")
		}
		fmt.Fprintln(w)
	}
}

// machine says where and how this was measured.
func (b *bench) machine() string {
	cpu := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(info), "model name"); ok {
			cpu, _, _ = strings.Cut(strings.TrimLeft(after, "\t :"), "\n")
		}
	}
	var name unix.Utsname
	kernel := "Linux"
	if err := unix.Uname(&name); err == nil {
		kernel = "Linux " + unix.ByteSliceToString(name.Release[:])
	}
	where := "relay and load on all of them"
	if b.pinned {
		where = fmt.Sprintf("relay on %d, load and vendor on %d", b.relayCPUs.Count(), b.loadCPUs.Count())
	}
	return fmt.Sprintf("%s, %s, %s, %d processors: %s. Medians of %d interleaved rounds, %v a figure; ratios are medians of the ratios of one round. "+
		"\"× http\" and \"× tcp\" are HAProxy in HTTP and in TCP mode. Memory of a tunnel is the slope between %d and %d of them, of relays that need 6 files for one between fewer.",
		cpu, kernel, runtime.Version(), b.relayCPUs.Count()+b.loadCPUs.Count(), where, b.rounds, b.cellTime, fewTunnels, manyTunnels)
}
