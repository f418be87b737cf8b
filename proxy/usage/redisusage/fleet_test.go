package redisusage

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/usage"
)

// swallower is a TCP proxy to a Redis that, while told to, lets commands through and loses the
// answers: it closes a connection instead of passing one on.
type swallower struct {
	net.Listener
	to     string
	losing atomic.Bool
	lost   atomic.Int64
	all    sync.WaitGroup
}

func swallow(t *testing.T, to string) *swallower {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &swallower{Listener: ln, to: to}
	s.all.Go(s.serve)
	t.Cleanup(func() {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		s.all.Wait()
	})
	return s
}

func (s *swallower) serve() {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		s.all.Go(func() { s.carry(c) })
	}
}

func (s *swallower) carry(c net.Conn) {
	r, err := net.Dial("tcp", s.to)
	if err != nil {
		_ = c.Close()
		return
	}
	var commands sync.WaitGroup
	commands.Go(func() {
		_, _ = io.Copy(r, c)
		_ = r.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if err == nil && s.losing.Load() {
			s.lost.Add(1)
			err = io.EOF
		} else if n > 0 {
			_, _ = c.Write(buf[:n])
		}
		if err != nil {
			break
		}
	}
	_, _ = c.Close(), r.Close()
	commands.Wait()
}

func TestLostAnswersAreNotCountedTwice(t *testing.T) {
	server := lab.StartRedis(t)
	through := swallow(t, server.Addr)
	l := openLedger(t, through.Addr().String(), "")
	batch := func(seq int64) usage.Batch {
		e := entry("alice", seq, 300)
		e.Quota = usage.Quota{Bytes: 1000, Period: usage.Monthly}
		return usage.Batch{Node: "a", At: time.Now(), Entries: []usage.Entry{e}}
	}
	if _, err := l.Book(t.Context(), batch(1)); err != nil {
		t.Fatal(err)
	}
	var crossed []int64
	for seq := int64(2); seq <= 4; seq++ {
		// Redis's clock is asked before, so the loss must hit the booking alone.
		l.now = func(context.Context) (time.Time, error) {
			through.losing.Store(true)
			return time.Now(), nil
		}
		if _, err := l.Book(t.Context(), batch(seq)); err == nil {
			t.Fatal("booked without an answer")
		}
		through.losing.Store(false)
		l.now = l.time
		lab.Wait(t, 10*time.Second, "the entry to be booked", func() bool {
			totals, err := l.Book(t.Context(), batch(seq))
			if err != nil {
				return false
			}
			crossed = append(crossed, totals[0].Crossed...)
			return true
		})
	}
	if through.lost.Load() < 3 {
		t.Fatalf("%d answers were lost, the test means 3", through.lost.Load())
	}
	if got := sentOf(t, l, "alice"); got != 1200 {
		t.Errorf("%d bytes, want 1200", got)
	}
	if len(crossed) != 2 || crossed[0] != 80 || crossed[1] != 100 {
		t.Errorf("crossings %v, want 80 and 100 once each though the answers that told them were lost", crossed)
	}
}

// relayNode is one relay's counting, with its own way to Redis.
type relayNode struct {
	meter     *usage.Meter
	books     *usage.Books
	stop      func()
	exhausted chan string
}

// customers is what the relays of a test have in common.
type customers struct {
	quota  atomic.Int64 // of each, by the month
	events atomic.Int64 // crossings told
}

func startNode(t *testing.T, addr, name string, all *customers) *relayNode {
	t.Helper()
	n := &relayNode{meter: usage.NewMeter(), exhausted: make(chan string, 1024)}
	n.books = usage.NewBooks(usage.BooksConfig{
		Meter: n.meter, Ledger: New(dial(t, addr, "")), Node: name,
		Quota: func(string) (usage.Quota, bool) {
			return usage.Quota{Bytes: all.quota.Load(), Period: usage.Monthly}, true
		},
		InUse:     func(string) bool { return true },
		Exhausted: func(name string) { n.exhausted <- name },
		Crossed:   func(usage.Event) { all.events.Add(1) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.books.Run(ctx) }()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(n.stop)
	return n
}

func (n *relayNode) waitExhausted(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case <-n.exhausted:
	case <-time.After(limit):
		t.Fatalf("not told within %v that the quota is used up", limit)
	}
}

// Two relays, one quota: what one moves ends the other, crossings are told once, a relay that
// starts anew knows at once, and a raised quota opens all again.
func TestTwoRelaysAndARestart(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	var all customers
	all.quota.Store(1000)
	a, b := startNode(t, server.Addr, "a", &all), startNode(t, server.Addr, "b", &all)
	onA, onB := a.meter.Of("alice"), b.meter.Of("alice")
	onB.Moved(true, 100)
	onA.Moved(false, 950)
	a.waitExhausted(t, 15*time.Second) // it may have to hear of what b moved
	b.waitExhausted(t, 15*time.Second)
	if !onA.Exhausted() || !onB.Exhausted() {
		t.Error("told, but the counters do not say so")
	}
	a.stop()
	again := startNode(t, server.Addr, "a2", &all)
	fresh := again.meter.Of("alice")
	again.waitExhausted(t, 5*time.Second)
	if !fresh.Exhausted() {
		t.Error("the relay that started anew does not know")
	}
	all.quota.Store(2000)
	again.books.Refresh()
	b.books.Refresh()
	lab.Wait(t, 5*time.Second, "the raised quota to open the account", func() bool { return !fresh.Exhausted() && !onB.Exhausted() })
	fresh.Moved(true, 600)
	lab.Wait(t, 15*time.Second, "the 80 % of the raised quota", func() bool { return all.events.Load() >= 3 })
	b.stop()
	again.stop()
	if got := all.events.Load(); got != 3 {
		t.Errorf("%d crossings were told, want 80 and 100 of the first quota, 80 of the second", got)
	}
	rows, err := again.books.Report(t.Context(), usage.Query{})
	if err != nil || len(rows) != 1 || rows[0].Bytes() != 1650 {
		t.Errorf("report %+v, error %v, want 1650 bytes", rows, err)
	}
}

// Traffic goes on while Redis is away; all of it is booked once when it is back.
func TestRedisAwayForAWhile(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	var all customers
	all.quota.Store(1 << 40)
	n := startNode(t, server.Addr, "a", &all)
	c := n.meter.Of("alice")
	direct := openLedger(t, server.Addr, "")
	c.Moved(true, 1)
	lab.Wait(t, 5*time.Second, "the first booking", func() bool { return sentOf(t, direct, "alice") == 1 })
	server.Freeze(t)
	stop := make(chan struct{})
	moved := make(chan int64)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := int64(1); ; n++ {
			c.Moved(true, 1)
			select {
			case <-stop:
				moved <- n + 1
				return
			case <-tick.C:
			}
		}
	}()
	timer := time.NewTimer(5 * time.Second) // longer than from one booking to the next
	<-timer.C
	server.Thaw(t)
	close(stop)
	want := <-moved
	lab.Wait(t, 10*time.Second, "all to be booked", func() bool {
		totals, err := direct.Totals(t.Context(), []string{"alice"})
		return err == nil && len(totals) == 1 && totals[0].All.Sent >= want
	})
	n.stop()
	if got := sentOf(t, direct, "alice"); got != want {
		t.Errorf("%d bytes are booked, %d were moved", got, want)
	}
}
