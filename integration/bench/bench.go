//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one run. It is for one goroutine.
type bench struct {
	*options
	dir       string // readable by all
	self      string // copy of this program in dir
	port      string // of the relays, each at an address of its own
	files     uint64
	relayCPUs unix.CPUSet
	loadCPUs  unix.CPUSet
	pinned    bool
	vendor    *roleProcess
	load      *roleProcess
	isOurs    map[string]bool // names of maskrelay's builds
	starts    int
	noisy     int // starts beside other work
	round     int
	results   results
	notes     []string
	began     time.Time
}

// runBench measures and prints the report. Cells that fail are noted in it; only what makes all of it useless is an error.
func runBench(ctx context.Context, opt *options) (err error) {
	b := &bench{options: opt, isOurs: map[string]bool{}, results: results{}, began: time.Now()}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.prepare(); err != nil {
		return err
	}
	peers, err := b.choose()
	if err != nil {
		return err
	}
	var present []*peer
	for _, p := range peers {
		if lacking := p.missing(); len(lacking) > 0 {
			b.notes = append(b.notes, fmt.Sprintf("%s not run: %v missing", p.name, lacking))
			continue
		}
		present = append(present, p)
	}
	err = b.run(ctx, present)
	if err != nil {
		b.notes = append(b.notes, fmt.Sprintf("not complete: %v", err))
	}
	_, writeErr := io.WriteString(os.Stdout, b.report(present))
	err = errors.Join(err, writeErr)
	if b.svg != "" && err == nil {
		err = os.WriteFile(b.svg, b.chart(present), 0o644)
	}
	return err
}

// minTunnels is what every cell but hold, pending and burst needs.
const minTunnels = idleBeside + 100

// prepare puts the programs where every user can read them, and starts generator and vendor.
func (b *bench) prepare() error {
	var err error
	if b.files, err = raiseFileLimit(); err != nil {
		return err
	}
	if b.relayCPUs, b.loadCPUs, b.pinned, err = halves(); err != nil {
		return err
	}
	if !b.pinned {
		b.notes = append(b.notes, "one processor only: relay and load share it, nothing is pinned")
	}
	if os.Getenv(insideVariable) != inOwnNamespace {
		b.notes = append(b.notes, "no network namespace of its own (that needs root): with the machine's range of source ports, connect() is dear for every relay at such rates")
	}
	if most := tunnelsFor(b.files, 2); most < burstTunnels {
		if most < minTunnels {
			return fmt.Errorf("a process may open %d files, at least %d are needed (ulimit -n)", b.files, 2*minTunnels+400)
		}
		b.notes = append(b.notes, fmt.Sprintf("a process may open %d files: hold, pending and burst stop at %d tunnels instead of %d and %d", b.files, most, manyTunnels, burstTunnels))
	}
	if b.dir, err = os.MkdirTemp("", "maskrelay-bench-"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if b.self, err = b.copyProgram(self, "bench"); err != nil {
		return err
	}
	for i := range b.builds {
		own := &b.builds[i]
		if len(b.peers) > 0 && !slices.Contains(b.peers, own.name) {
			continue
		}
		b.isOurs[own.name] = true
		if own.path, err = b.copyProgram(own.path, "maskrelay-"+strconv.Itoa(i)); err != nil {
			return fmt.Errorf("-maskrelay: %w (build it by \"make build\")", err)
		}
	}
	b.port = strconv.Itoa(20000 + rand.IntN(12000)) // below the ephemeral ports
	if b.vendor, err = startRole(b.self, roleVendor, b.loadSet()); err != nil {
		return err
	}
	b.load, err = startRole(b.self, roleGenerator, b.loadSet())
	return err
}

func (b *bench) relaySet() *unix.CPUSet {
	if !b.pinned {
		return nil
	}
	return &b.relayCPUs
}

func (b *bench) loadSet() *unix.CPUSet {
	if !b.pinned {
		return nil
	}
	return &b.loadCPUs
}

// close ends what prepare started.
func (b *bench) close() error {
	for _, r := range []*roleProcess{b.load, b.vendor} {
		if r != nil {
			r.end()
		}
	}
	return os.RemoveAll(b.dir)
}

// copyProgram copies a program into the bench's directory and returns its path.
func (b *bench) copyProgram(path, name string) (to string, err error) {
	in, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	to = filepath.Join(b.dir, name)
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return to, errors.Join(err, out.Chmod(0o755), out.Close())
}

// run measures every cell of every peer, interleaved: the order of the peers turns by one a round, so that none is always first.
func (b *bench) run(ctx context.Context, peers []*peer) error {
	for b.round = 1; b.round <= b.rounds; b.round++ {
		for _, cell := range b.cells {
			for i := range peers {
				p := peers[(i+b.round)%len(peers)]
				if !p.fits(cell) {
					continue
				}
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				fmt.Fprintf(os.Stderr, "\r\x1b[K%4.0fs round %d of %d: %s %s", time.Since(b.began).Seconds(), b.round, b.rounds, cell, p.name)
				if err := b.measure(p, cell); err != nil {
					return err
				}
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return nil
}

// measure runs one cell of one peer. Its error is noted, and returned only if generator or vendor are lost with it.
func (b *bench) measure(p *peer, cell string) error {
	before := b.listenNoise()
	s, err := b.start(p, cell)
	if err == nil {
		err = measures[cell](s)
		var used usage
		if s.relay != nil && s.relay.running() {
			used, _ = s.relay.usage() // without it the cell counts as noisy
		}
		if before.others(b, used.cpu) > 0.5 {
			b.noisy++
		}
		s.end()
	}
	if err != nil {
		b.notes = append(b.notes, fmt.Sprintf("%s, %s, round %d: %v", p.name, cell, b.round, err))
	}
	if !b.vendor.running() || !b.load.running() {
		return fmt.Errorf("generator or vendor ended: %w", err)
	}
	return nil
}
