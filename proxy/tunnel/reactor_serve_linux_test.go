//go:build amd64 || arm64

package tunnel

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestStopServing(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	fresh, half, between := h.visit(), h.visit(), h.visit()
	send(t, half, "half a li")
	send(t, between, "hello\n")
	expect(t, between, "you said hello\n")
	until(t, func() bool { return h.engine.Visitors() == 3 })
	until(t, func() bool {
		return h.engine.reactors.each(func(r *reactor) int {
			n := 0
			r.slab.each(func(v *tunnel) { n += len(v.setup.head) })
			return n
		}) == 9
	})
	h.engine.StopServing()
	expectEOF(t, fresh)
	expectEOF(t, between)
	if _, err := net.Dial("tcp", h.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	send(t, half, "ne\n")
	expect(t, half, "you said half a line\n")
	must(t, half.Close())
	until(t, func() bool { return h.engine.Visitors() == 0 })
}

func TestTurnedAway(t *testing.T) {
	h := newHouse(t)
	var reply atomic.Pointer[string]
	h.arrive = func() (Visitor, []byte) {
		if r := reply.Load(); r != nil {
			return nil, []byte(*r)
		}
		return nil, nil
	}
	h.serve(patience, patience)
	c := h.visit()
	expectEOF(t, c)
	word := "come again later\n"
	reply.Store(&word)
	c = h.visit()
	send(t, c, "let me in\n")
	expect(t, c, word)
	expectEOF(t, c)
	must(t, c.Close())
	until(t, func() bool { return h.engine.away.Load() == 0 })
	// Those who stay are let go all the same, and there are never too many.
	answered := 0
	for range 3 * maxAway {
		c := h.visit()
		if b, err := io.ReadAll(c); err == nil && string(b) == word {
			answered++
		}
		if n := h.engine.away.Load(); n > maxAway {
			t.Fatalf("%d at once", n)
		}
	}
	if answered < maxAway {
		t.Errorf("%d were answered", answered)
	}
	until(t, func() bool { return h.engine.away.Load() == 0 })
}

func TestServeAfterClose(t *testing.T) {
	e := NewEngine(Options{})
	e.Close()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	if err := e.Serve(l, Reception{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the listener is open: %v", err)
	}
}

func TestServeWithoutReactors(t *testing.T) {
	e := NewEngine(Options{pumpsOnly: true})
	defer e.Close()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	if err := e.Serve(l, Reception{}); e.Receives() || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is open")
	}
}

func TestCloseWithVisitors(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	fresh, half, lingering := h.visit(), h.visit(), h.visit()
	send(t, half, "half a li")
	send(t, lingering, "bye\n")
	expect(t, lingering, "you said bye\n")
	until(t, func() bool { return h.engine.Visitors() == 3 })
	h.engine.Close()
	expectEOF(t, fresh)
	expectEOF(t, lingering)
	if _, err := half.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
	if n := h.engine.Visitors(); n != 0 {
		t.Errorf("%d visitors are left", n)
	}
}

// A bug in what a visitor calls costs that connection, and is told.
func TestVisitorsPanic(t *testing.T) {
	bug := func(string) (Verdict, bool) { panic("bug") }
	verdict := func(v Verdict) func(string) (Verdict, bool) {
		return func(string) (Verdict, bool) { return v, true }
	}
	tests := map[string]struct {
		spoil func(*house)
		act   func(*house, net.Conn)
	}{
		"Head":           {func(h *house) { h.judge = bug }, nil},
		"no exchange":    {func(h *house) { h.judge = verdict(Verdict{Action: Open}) }, nil},
		"unknown action": {func(h *house) { h.judge = verdict(Verdict{Action: 99}) }, nil},
		"TimedOut":       {func(h *house) { h.words = func(int) []byte { panic("bug") } }, func(*house, net.Conn) {}},
		"Gone":           {func(h *house) { h.arrive = func() (Visitor, []byte) { return goneBug{h.enter()}, nil } }, func(_ *house, c net.Conn) { send(t, c, "drop\n") }},
		"Gone, evicted": {func(h *house) { h.arrive = func() (Visitor, []byte) { return goneBug{h.enter()}, nil } }, func(h *house, _ net.Conn) {
			until(t, func() bool { return h.guest(0).waits.Load() == 1 })
			h.guest(0).place().Evict()
		}},
		"Waits": {func(h *house) { h.arrive = func() (Visitor, []byte) { return waitsBug{h.enter()}, nil } }, func(*house, net.Conn) {}},
		"Gone, dismissed": {func(h *house) { h.arrive = func() (Visitor, []byte) { return goneBug{h.enter()}, nil } }, func(h *house, _ net.Conn) {
			until(t, func() bool { return h.engine.Visitors() == 1 })
			h.engine.StopServing()
		}},
		"Arrive": {func(h *house) { h.arrive = func() (Visitor, []byte) { panic("bug") } }, func(*house, net.Conn) {}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			test.spoil(h)
			h.serve(100*time.Millisecond, patience)
			c := h.visit()
			if test.act == nil {
				send(t, c, "hello\n")
			} else {
				test.act(h, c)
			}
			_, _ = io.Copy(io.Discard, c)
			if name != "unknown action" {
				until(t, func() bool { return h.troubled() > 0 })
			}
			until(t, func() bool { return h.engine.Visitors() == 0 && h.engine.Count() == 0 })
		})
	}
}

// goneBug is a guest with a bug.
type goneBug struct{ *guest }

func (g goneBug) Gone() { g.guest.Gone(); panic("bug") }

// waitsBug is a guest with another one.
type waitsBug struct{ *guest }

func (waitsBug) Waits(Seat) { panic("bug") }

// One who sends head after head has his turn, and then others have theirs.
func TestVisitorsTakeTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one reactor
	h := newHouse(t)
	row, most := 0, 0
	h.judge = func(string) (Verdict, bool) {
		row++
		most = max(most, row)
		for start := time.Now(); time.Since(start) < 10*time.Microsecond; {
			runtime.Gosched() // the work of a front, slower than the sender
		}
		return Verdict{Action: Answer}, true
	}
	h.receiveBuffer = 4 << 20 // so that there is always more than one read takes
	h.serve(patience, patience)
	c := h.visit()
	until(t, func() bool { return h.engine.Visitors() == 1 })
	const length = 64
	heads := strings.Repeat(strings.Repeat("x", length-1)+"\n", 1<<20/length)
	sent := make(chan struct{})
	go func() { defer close(sent); _, _ = io.WriteString(c, heads) }()
	lined := 0
	for total := 0; total < len(heads)/length; {
		h.engine.reactors.each(func(r *reactor) int {
			total, row = total+row, 0
			lined = max(lined, len(r.ready))
			return 0
		})
	}
	<-sent
	if limit := 2 * readsAtOnce * bufferSize / length; most > limit {
		t.Errorf("%d heads in a row, want at most %d", most, limit)
	}
	if lined > 1 {
		t.Errorf("lined up %d times", lined)
	}
}
