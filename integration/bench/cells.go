//go:build linux

package main

import (
	"fmt"
	"time"
)

// Names of the cells.
const (
	cellRate     = "rate"
	cellHold     = "hold"
	cellPending  = "pending"
	cellBurst    = "burst"
	cellBulk     = "bulk"
	cellBulkUser = "bulk-user"
	cellHTTP     = "http"
)

// tunnelCells are those that need CONNECT only.
var tunnelCells = []string{cellRate, cellHold, cellPending, cellBurst, cellBulk, cellBulkUser}

// measures maps each cell to what it does with a started peer.
var measures = map[string]func(*stand) error{
	cellRate: rate, cellHold: hold, cellPending: pending, cellBurst: burst, cellBulk: bulk, cellBulkUser: bulkUser, cellHTTP: plainHTTP,
}

const (
	fewTunnels   = 2000
	manyTunnels  = 9000
	burstTunnels = 9500
	idleBeside   = 1000
	firstBytes   = 4096 // there and back in each held tunnel, as much as a TLS handshake
	warmUp       = 300 * time.Millisecond
	holdLimit    = 60 * time.Second
)

// rate measures CPU time, rate and latency of new tunnels.
func rate(s *stand) error {
	for _, workers := range []int{64, 512} {
		o := order{Op: "rate", Addr: s.addr, Head: connectHead(echoTarget, s.peer.login()), Workers: workers, For: warmUp}
		if err := s.perUnit(o, fmt.Sprintf("%s%d.", cellRate, workers)); err != nil {
			return err
		}
	}
	return nil
}

// plainHTTP measures the same of plain requests.
func plainHTTP(s *stand) error {
	return s.perUnit(order{Op: "get", Addr: s.addr, Head: getHead(s.peer.login()), Workers: 64, For: warmUp}, "http.")
}

// perUnit gives an order to warm up and then for the cell's time, and records rate, CPU time and latencies of one tunnel or request.
func (s *stand) perUnit(o order, prefix string) error {
	if _, err := s.load.ask(o); err != nil {
		return err
	}
	before, err := s.watched.usage()
	if err != nil {
		return err
	}
	o.For = s.cellTime
	a, err := s.load.ask(o)
	if err != nil {
		return err
	}
	after, err := s.watched.usage()
	if err != nil {
		return err
	}
	s.failures(prefix, a)
	if a.Done == 0 {
		return fmt.Errorf("nothing ended well: %s", a.First)
	}
	s.record(prefix+"persec", float64(a.Done)/a.Took.Seconds())
	s.record(prefix+"cpu", float64(after.cpu-before.cpu)/1e3/float64(a.Done))
	if a.Setup.P50 > 0 {
		s.record(prefix+"setup50", a.Setup.P50/1e3)
		s.record(prefix+"setup99", a.Setup.P99/1e3)
	}
	s.record(prefix+"whole50", a.Whole.P50/1e3)
	s.record(prefix+"whole99", a.Whole.P99/1e3)
	return nil
}

// sizes returns between which numbers of tunnels the peer's slope is taken.
func (s *stand) sizes() (few, many int) {
	many = s.fitting(manyTunnels)
	return many * fewTunnels / manyTunnels, many
}

// fitting returns n, or how many tunnels the peer can hold if that is less.
func (s *stand) fitting(n int) int {
	if s.peer.most > 0 {
		n = min(n, s.peer.most)
	}
	return min(n, tunnelsFor(s.files, max(s.peer.perTunnel, 2)))
}

// tunnelsFor returns how many tunnels fit a process that may open so many files, with some left for itself.
func tunnelsFor(files uint64, perTunnel int) int { return (int(min(files, 1<<20)) - 400) / perTunnel }

// hold measures what one more idle tunnel costs, and echo through one while many are held.
func hold(s *stand) error {
	few, many := s.sizes()
	o := order{Op: "hold", Addr: s.addr, Head: connectHead(echoTarget, s.peer.login()), Echo: firstBytes, Workers: 64, For: holdLimit}
	err := s.slope("hold.", few, many, func(n int) error {
		o.Count = n
		a, err := s.load.ask(o)
		s.failures(cellHold, a)
		if err == nil && a.Failed > 0 {
			err = fmt.Errorf("%d of %d tunnels could not be opened: %s", a.Failed, n, a.First)
		}
		return err
	})
	if err != nil {
		return err
	}
	o.Op, o.For = "ping", 2*s.cellTime // its p99 needs many
	a, err := s.load.ask(o)
	if err != nil {
		return err
	}
	s.record("hold.ping50", a.Whole.P50)
	s.record("hold.ping99", a.Whole.P99)
	return s.release()
}

// release closes what the generator holds; a tunnel that the peer closed before is a failure.
func (s *stand) release() error {
	a, err := s.load.ask(order{Op: "release"})
	if err == nil && a.Failed > 0 {
		s.note("%d held tunnels were closed by the peer", a.Failed)
	}
	return err
}

// slope opens few and then many tunnels by open, which is given how many more, and records what one costs.
func (s *stand) slope(prefix string, few, many int, open func(int) error) error {
	if err := open(few); err != nil {
		return err
	}
	before, err := s.settled()
	if err != nil {
		return err
	}
	if err := open(many - few); err != nil {
		return err
	}
	after, err := s.settled()
	if err != nil {
		return err
	}
	more := float64(many - few)
	s.record(prefix+"rss", float64(after.rss-before.rss)/more)
	s.record(prefix+"fds", float64(after.fds-before.fds)/more)
	if s.goroutines == nil {
		return nil
	}
	n, err := s.goroutines()
	if err != nil {
		return err
	}
	s.record(prefix+"goroutines", float64(n)/float64(many))
	return nil
}

// settled waits, three seconds at the most, until memory and files of the peer stay what they are, and returns them.
func (s *stand) settled() (usage, error) {
	last, err := s.watched.holding()
	for range 12 {
		if err != nil {
			break
		}
		time.Sleep(250 * time.Millisecond)
		now, nowErr := s.watched.holding()
		same := now == last
		last, err = now, nowErr
		if same {
			break
		}
	}
	return last, err
}

// pendingBatch is how many heads go out before the bench waits until the vendor has them: accept queues hold 4,096.
const pendingBatch = 500

// pending measures what one more handshake costs that the vendor does not answer.
func pending(s *stand) error {
	few, many := s.sizes()
	o := order{Op: "hold", Addr: s.addr, Head: connectHead(silentTarget, s.peer.login()), Workers: 64, For: holdLimit, Pending: true}
	reached := 0
	start := time.Now()
	err := s.slope("pending.", few, many, func(n int) error {
		for n > 0 {
			o.Count = min(n, pendingBatch)
			n -= o.Count
			reached += o.Count
			a, err := s.load.ask(o)
			if err != nil {
				return err
			}
			if a.Failed > 0 {
				return fmt.Errorf("%d of %d could not be sent: %s", a.Failed, o.Count, a.First)
			}
			if err := s.awaitSilent(reached, start.Add(holdLimit)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.release()
}

// awaitSilent waits until the vendor has n heads that it does not answer.
func (s *stand) awaitSilent(n int, until time.Time) error {
	for {
		a, err := s.vendor.ask(order{Op: "silent"})
		if err != nil || a.Done >= int64(n) {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("the vendor got %d of %d requests", a.Done, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// burst opens tunnels as fast as the generator can.
func burst(s *stand) error {
	n := s.fitting(burstTunnels)
	a, err := s.load.ask(order{Op: "hold", Addr: s.addr, Head: connectHead(echoTarget, s.peer.login()), Count: n, Workers: 512, For: holdLimit})
	if err != nil {
		return err
	}
	s.failures(cellBurst, a)
	s.record("burst.seconds", a.Took.Seconds())
	s.record("burst.persec", float64(a.Done)/a.Took.Seconds())
	s.record("burst.failed", float64(a.Failed))
	return s.release()
}

// bulk moves zeros, one and many streams, down and up.
func bulk(s *stand) error {
	for _, streams := range []int{1, 16} {
		for _, upload := range []bool{false, true} {
			if err := s.move(cellBulk, streams, upload); err != nil {
				return err
			}
		}
	}
	return nil
}

// bulkUser does it with idle tunnels beside.
func bulkUser(s *stand) error {
	o := order{Op: "hold", Addr: s.addr, Head: connectHead(echoTarget, s.peer.login()), Count: idleBeside, Workers: 64, For: holdLimit}
	for _, upload := range []bool{false, true} {
		a, err := s.load.ask(o) // move releases all
		if err != nil {
			return err
		}
		if a.Failed > 0 {
			return fmt.Errorf("%d of %d idle tunnels could not be opened: %s", a.Failed, o.Count, a.First)
		}
		if err := s.move(cellBulkUser, 16, upload); err != nil {
			return err
		}
	}
	return nil
}

// move measures one kind of bulk.
func (s *stand) move(cell string, streams int, upload bool) error {
	target, way := sourceTarget, "down"
	if upload {
		target, way = sinkTarget, "up"
	}
	prefix := fmt.Sprintf("%s%d%s.", cell, streams, way)
	if _, err := s.load.ask(order{Op: "bulk", Addr: s.addr, Head: connectHead(target, s.peer.login()), Count: streams, Upload: upload}); err != nil {
		return err
	}
	time.Sleep(warmUp)
	type mark struct {
		at    time.Time
		bytes int64
		cpu   time.Duration
	}
	look := func() (mark, error) {
		a, err := s.load.ask(order{Op: "moved"})
		if err != nil {
			return mark{}, err
		}
		u, err := s.watched.usage()
		return mark{time.Now(), a.Bytes, u.cpu}, err
	}
	before, err := look()
	if err != nil {
		return err
	}
	time.Sleep(s.cellTime)
	after, err := look()
	if err != nil {
		return err
	}
	gb := float64(after.bytes-before.bytes) / 1e9
	if gb < 0.001 {
		s.note("%s stalled: %.0f kB in %v", prefix, gb*1e6, s.cellTime)
	} else {
		s.record(prefix+"gbps", gb/after.at.Sub(before.at).Seconds())
		s.record(prefix+"cpu", (after.cpu-before.cpu).Seconds()/gb)
	}
	return s.release()
}
