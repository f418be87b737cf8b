//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options are what the flags say.
type options struct {
	builds   []build
	peers    []string // by name, empty = all
	cells    []string // in the order of allCells
	rounds   int
	cellTime time.Duration
	svg      string
	raw      bool
}

// allCells is the order in which a round runs.
var allCells = append(slices.Clone(tunnelCells), cellHTTP)

func parseOptions(args []string) (*options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	builds := flags.String("maskrelay", "bin/maskrelay", "binaries to measure: PATH, or NAME=PATH[;VAR=VALUE]... with commas between several; VAR is a setting without MASKRELAY_, or !VAR of the environment")
	peers := flags.String("peers", "", "names, with commas between (default all)")
	cells := flags.String("cells", strings.Join(allCells, ","), "what to measure")
	rounds := flags.Int("rounds", 3, "interleaved rounds; medians are taken over them")
	cellTime := flags.Duration("cell-time", time.Second, "how long one figure is measured")
	svg := flags.String("svg", "", "file for the chart")
	raw := flags.Bool("raw", false, "print the figures of every round too")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	opt := &options{rounds: *rounds, cellTime: *cellTime, svg: *svg, raw: *raw}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected %q", flags.Arg(0))
	}
	if *rounds < 1 || *rounds > 100 || *cellTime < 100*time.Millisecond || *cellTime > time.Minute {
		return nil, errors.New("-rounds must be 1 to 100, -cell-time 100ms to 1m")
	}
	for _, cell := range strings.Split(*cells, ",") {
		if !slices.Contains(allCells, cell) {
			return nil, fmt.Errorf("-cells: unknown %q; there are %s", cell, strings.Join(allCells, ", "))
		}
	}
	for _, cell := range allCells {
		if slices.Contains(strings.Split(*cells, ","), cell) {
			opt.cells = append(opt.cells, cell)
		}
	}
	var err error
	if opt.builds, err = parseBuilds(*builds); err != nil {
		return nil, err
	}
	if *peers != "" {
		opt.peers = strings.Split(*peers, ",")
	}
	_, err = opt.choose()
	return opt, err
}

// parseBuilds reads the value of -maskrelay.
func parseBuilds(text string) ([]build, error) {
	var list []build
	for _, item := range strings.Split(text, ",") {
		parts := strings.Split(item, ";")
		name, path, named := strings.Cut(parts[0], "=")
		if !named {
			name, path = "maskrelay", parts[0]
		}
		abs, err := filepath.Abs(path)
		if err != nil || path == "" || name == "" {
			return nil, fmt.Errorf("-maskrelay: %q is not PATH or NAME=PATH", item)
		}
		if slices.ContainsFunc(list, func(b build) bool { return b.name == name }) {
			return nil, fmt.Errorf("-maskrelay: %q twice", name)
		}
		if slices.ContainsFunc(otherPeers(), func(p *peer) bool { return p.name == name }) {
			return nil, fmt.Errorf("-maskrelay: %q is another peer's name", name)
		}
		list = append(list, build{name: name, path: abs, env: parts[1:]})
	}
	return list, nil
}

// choose returns the peers that take part, in the order of the report.
func (o *options) choose() ([]*peer, error) {
	var all []*peer
	for _, b := range o.builds {
		all = append(all, relayPeer(b))
	}
	all = append(all, otherPeers()...)
	if len(o.peers) == 0 {
		return all, nil
	}
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	for _, want := range o.peers {
		if !slices.Contains(names, want) {
			return nil, fmt.Errorf("-peers: unknown %q; there are %s", want, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(p *peer) bool { return !slices.Contains(o.peers, p.name) }), nil
}
