//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

func (b *bench) report(w io.Writer, peers []*peer) error {
	var metrics []string
	for _, p := range peers {
		for m := range b.results[p.name] {
			if !slices.Contains(metrics, m) {
				metrics = append(metrics, m)
			}
		}
	}
	slices.Sort(metrics)
	fmt.Fprint(w, "| metric |")
	for _, p := range peers {
		fmt.Fprintf(w, " %s |", p.name)
	}
	fmt.Fprintln(w, "\n|---|"+strings.Repeat("---|", len(peers)))
	for _, m := range metrics {
		fmt.Fprintf(w, "| %s |", m)
		for _, p := range peers {
			v, ok := b.results.median(p.name, m)
			if !ok {
				fmt.Fprint(w, " - |")
			} else {
				fmt.Fprintf(w, " %.4g %.3g |", v, b.results[p.name][m])
			}
		}
		fmt.Fprintln(w)
	}
	for _, n := range b.notes {
		fmt.Fprintln(w, "-", n)
	}
	_ = runtime.NumCPU
	_ = os.Stdout
	return nil
}
