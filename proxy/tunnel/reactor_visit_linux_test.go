//go:build amd64 || arm64

package tunnel

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guest is a Visitor whose heads are lines.
type guest struct {
	house  *house
	judge  func(line string) (Verdict, bool) // nil or false: as house does
	gone   atomic.Int32
	passed atomic.Int32
	last   atomic.Int64 // length of the bytes judged last
	seat   atomic.Pointer[Seat]
	waits  atomic.Int32
}

func (g *guest) Waits(s Seat) {
	g.seat.Store(&s)
	g.waits.Add(1)
}

// place is where he was told that he waits; nobody's before.
func (g *guest) place() Seat {
	if s := g.seat.Load(); s != nil {
		return *s
	}
	return Seat{}
}

// house receives guests.
type house struct {
	t      *testing.T
	engine *Engine
	addr   string
	words  func(n int) []byte // of TimedOut
	arrive func() (Visitor, []byte)
	judge  func(line string) (Verdict, bool)
	pass   func(*net.TCPConn, []byte)
	script func() *script

	receiveBuffer int // of the connections; 0 = the kernel's choice

	mu       sync.Mutex
	guests   []*guest
	troubles []error
}

// newHouse is a front; serve opens it.
func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t}
	h.engine = NewEngine(Options{Trouble: h.trouble})
	t.Cleanup(func() {
		h.engine.Close()
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, g := range h.guests {
			if n := g.gone.Load() + g.passed.Load(); n != 1 {
				t.Errorf("a visitor went %d times", n)
			}
		}
	})
	return h
}

func (h *house) trouble(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubles = append(h.troubles, err)
}

func (h *house) troubled() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.troubles)
}

// enter makes a guest that is counted at the end.
func (h *house) enter() *guest {
	g := &guest{house: h, judge: h.judge}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.guests = append(h.guests, g)
	return g
}

// guest is the i-th that came; a stranger to whom nothing has happened if none has yet.
func (h *house) guest(i int) *guest {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i >= len(h.guests) {
		return &guest{house: h}
	}
	return h.guests[i]
}

func (h *house) serve(headTimeout, keepAlive time.Duration) *house {
	h.t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(h.t, err)
	h.addr = l.Addr().String()
	if h.receiveBuffer > 0 {
		rc, err := l.SyscallConn()
		must(h.t, err)
		must(h.t, rc.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, h.receiveBuffer)
		}))
		must(h.t, err)
	}
	must(h.t, h.engine.Serve(l, Reception{
		Arrive: func(netip.AddrPort) (Visitor, []byte) {
			if h.arrive != nil {
				return h.arrive()
			}
			return h.enter(), nil
		},
		HeadTimeout: headTimeout, KeepAlive: keepAlive, Trouble: h.trouble,
	}))
	return h
}

func (h *house) visit() net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	must(h.t, err)
	must(h.t, c.SetDeadline(time.Now().Add(patience)))
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (g *guest) Head(b []byte) Verdict {
	g.last.Store(int64(len(b)))
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return Verdict{}
	}
	line := string(b[:end])
	if g.judge != nil {
		if v, ok := g.judge(line); ok {
			v.Consumed = end + 1
			return v
		}
	}
	v := Verdict{Action: Answer, Consumed: end + 1, Reply: []byte("you said " + line + "\n")}
	switch line {
	case "bye":
		v.Last = true
	case "open":
		g.passed.Add(1) // no longer a visitor: Gone must not come
		v.Action, v.Exchange = Open, g.house.script()
	case "pass":
		v.Action = Pass
	case "drop":
		v.Action = Drop
	}
	return v
}

func (g *guest) TimedOut(n int) []byte {
	if g.house.words == nil {
		return nil
	}
	return g.house.words(n)
}

func (g *guest) Pass(c *net.TCPConn, unread []byte) {
	g.passed.Add(1)
	g.house.pass(c, unread)
}

func (g *guest) Gone() { g.gone.Add(1) }

func TestHeadByteByByte(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	c := h.visit()
	for i, b := range []byte("hello") {
		_, err := c.Write([]byte{b})
		must(t, err)
		until(t, func() bool { return h.engine.Visitors() == 1 && h.guest(0).last.Load() == int64(i+1) })
	}
	send(t, c, "\n")
	expect(t, c, "you said hello\n")
	must(t, c.Close())
	until(t, func() bool { return h.engine.Visitors() == 0 })
}

func TestPipelinedHeads(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	c := h.visit()
	var want strings.Builder
	var heads strings.Builder
	for i := range 5000 { // more than one read, and cut in the middle
		fmt.Fprintf(&heads, "head number %d of many\n", i)
		fmt.Fprintf(&want, "you said head number %d of many\n", i)
	}
	go func() { _, _ = io.WriteString(c, heads.String()) }()
	expect(t, c, want.String())
	send(t, c, "half")
	send(t, c, " of it\nbye\nnever judged\n")
	expect(t, c, "you said half of it\nyou said bye\n")
	expectEOF(t, c)
}

// The last word arrives though bytes are unread.
func TestLastWordArrives(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	for range 20 {
		c := h.visit()
		release := hold(t, h.engine)
		send(t, c, "bye\n"+strings.Repeat("unread ", 4000))
		release()
		expect(t, c, "you said bye\n")
		expectEOF(t, c)
		must(t, c.Close())
	}
	until(t, func() bool { return h.engine.Visitors() == 0 })
}

// Who goes on talking after the last word is not listened to for long.
func TestLingeringIsBounded(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	c := h.visit()
	send(t, c, "bye\n")
	expect(t, c, "you said bye\n")
	_, err := io.Copy(c, io.LimitReader(neverEnding('x'), 64<<20))
	if err == nil {
		t.Error("64 MB were taken")
	}
	until(t, func() bool { return h.engine.Visitors() == 0 })
	silent := h.visit() // and who says nothing, not waited for
	send(t, silent, "bye\n")
	until(t, func() bool { return h.engine.Visitors() == 0 && h.guest(1).gone.Load() == 1 })
}

func TestPassHandsOverTheRest(t *testing.T) {
	h := newHouse(t)
	type handed struct {
		conn   *net.TCPConn
		unread string
	}
	passed := make(chan handed, 1)
	h.pass = func(c *net.TCPConn, unread []byte) { passed <- handed{c, string(unread)} }
	h.serve(patience, patience)
	for _, rest := range []string{"", "the rest", strings.Repeat("x", 30<<10)} {
		c := h.visit()
		release := hold(t, h.engine)
		send(t, c, "hello\npass\n"+rest)
		release()
		expect(t, c, "you said hello\n")
		p := <-passed
		send(t, c, "and more")
		if p.unread != rest {
			t.Errorf("handed over %d bytes, want %d", len(p.unread), len(rest))
		}
		expect(t, p.conn, "and more")
		send(t, p.conn, "answer")
		expect(t, c, "answer")
		must(t, p.conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, err := p.conn.Read(make([]byte, 1)); err == nil {
			t.Error("no deadline")
		}
		must(t, p.conn.Close())
		expectEOF(t, c)
	}
	if n := h.engine.Visitors(); n != 0 {
		t.Errorf("%d visitors are left", n)
	}
}

func TestDrop(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	c := h.visit()
	send(t, c, "drop\n")
	expectEOF(t, c)
	until(t, func() bool { return h.guest(0).gone.Load() == 1 })
}

func TestHeadTimeout(t *testing.T) {
	const limit = 60 * time.Millisecond
	for name, words := range map[string]string{"with a word": "too late\n", "without": ""} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			counted := make(chan int, 1)
			h.words = func(n int) []byte { counted <- n; return []byte(words) }
			h.serve(limit, patience)
			start := time.Now()
			c := h.visit()
			send(t, c, "half a li")
			expect(t, c, words)
			expectEOF(t, c)
			if d := time.Since(start); d < limit {
				t.Errorf("after %v", d)
			}
			if n := <-counted; n != 9 {
				t.Errorf("%d bytes had come", n)
			}
		})
	}
}

// Between heads the time is KeepAlive, within one it is HeadTimeout: neither cuts the other short.
func TestKeepAlive(t *testing.T) {
	const short = 60 * time.Millisecond
	t.Run("ends", func(t *testing.T) {
		h := newHouse(t).serve(patience, short)
		c := h.visit()
		send(t, c, "hello\n")
		expect(t, c, "you said hello\n")
		expectEOF(t, c)
	})
	t.Run("a head has its own time", func(t *testing.T) {
		h := newHouse(t).serve(patience, short)
		c := h.visit()
		send(t, c, "hello\n")
		expect(t, c, "you said hello\n")
		send(t, c, "wor")
		time.Sleep(2 * short) // time is the thing under test
		send(t, c, "ld\n")
		expect(t, c, "you said world\n")
	})
	t.Run("a head has no more than its own time", func(t *testing.T) {
		h := newHouse(t)
		h.words = func(n int) []byte { return fmt.Appendf(nil, "%d bytes\n", n) }
		h.serve(short, patience)
		c := h.visit()
		send(t, c, "hello\n")
		expect(t, c, "you said hello\n")
		send(t, c, "wor")
		expect(t, c, "3 bytes\n")
		expectEOF(t, c)
	})
}

func TestVisitorBecomesATunnel(t *testing.T) {
	h := newHouse(t)
	results := make(chan Result, 1)
	addr := gateway(t, echo(accepted+"banner "))
	h.script = func() *script {
		return &script{
			greeting: greeting, request: request, reply: readReply,
			next: func() (Attempt, error) {
				return Attempt{Addr: addr, Timeout: patience, ReplyTimeout: patience}, nil
			},
			done: func(r Result) { results <- r },
		}
	}
	h.serve(patience, patience)
	c := h.visit()
	send(t, c, "hello\nopen\nearly ")
	expect(t, c, "you said hello\n"+greeting+"banner early ")
	if h.engine.Visitors() != 0 || h.engine.Count() != 1 {
		t.Errorf("%d visitors, %d tunnels", h.engine.Visitors(), h.engine.Count())
	}
	halfClose(t, c)
	expectEOF(t, c)
	if r := <-results; r.Ending != Closed || r.Sent != 6 || r.Received != 13 {
		t.Errorf("result %+v", r)
	}
}

// A visitor is told of his seat when he begins to wait, and of no other time. Whoever has
// left it is not found there any more.
func TestSeats(t *testing.T) {
	h := newHouse(t).serve(patience, patience)
	visitors := make([]net.Conn, 3)
	for i := range visitors {
		visitors[i] = h.visit()
		until(t, func() bool { return h.guest(i).waits.Load() == 1 })
	}
	send(t, visitors[0], "hello\nand half a li") // he begins to wait anew
	expect(t, visitors[0], "you said hello\n")
	until(t, func() bool { return h.guest(0).waits.Load() == 2 })
	send(t, visitors[2], "half a li") // he does not
	until(t, func() bool { return h.guest(2).last.Load() == 9 })
	left := h.guest(1).place()
	must(t, visitors[1].Close())
	until(t, func() bool { return h.guest(1).gone.Load() == 1 })
	next := h.visit()
	until(t, func() bool { return h.guest(3).waits.Load() == 1 })
	left.Evict()
	Seat{}.Evict()
	send(t, next, "hello\n")
	expect(t, next, "you said hello\n")
	for _, i := range []int{2, 0} {
		if n := h.guest(i).waits.Load(); n != int32(2-i/2) {
			t.Errorf("visitor %d was told %d times", i, n)
		}
		h.guest(i).place().Evict()
		until(t, func() bool { return h.guest(i).gone.Load() == 1 })
		_, _ = io.Copy(io.Discard, visitors[i])
	}
	if n := h.engine.Visitors(); n != 1 {
		t.Errorf("%d visitors are left", n)
	}
}

// One who comes with his head does not wait; the seat of one who has become a tunnel is
// not his any more.
func TestTunnelHasNoSeat(t *testing.T) {
	h := newHouse(t)
	addr := gateway(t, echo(accepted))
	h.script = func() *script {
		return &script{
			greeting: greeting, request: request, reply: readReply,
			next: func() (Attempt, error) {
				return Attempt{Addr: addr, Timeout: patience, ReplyTimeout: patience}, nil
			},
		}
	}
	h.serve(patience, patience)
	c := h.visit()
	until(t, func() bool { return h.guest(0).waits.Load() == 1 })
	send(t, c, "open\n")
	expect(t, c, greeting)
	h.guest(0).place().Evict()
	h.engine.reactors.each(func(*reactor) int { return 0 }) // it has been heard
	send(t, c, "still here")
	expect(t, c, "still here")
}
