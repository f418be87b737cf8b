package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func originNo(n int) origin {
	return origin{netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(n)}), 32)}
}

// One address that asks for many turns has one when each other one has had one.
func TestHandshakesTakeTurns(t *testing.T) {
	h := newHandshakes(newStrangers(), 1)
	must(t, h.take(&stranger{}, originNo(1), time.Now().Add(patience)))
	var order []int
	var mu sync.Mutex // guards order
	var all sync.WaitGroup
	for n, who := range []int{1, 1, 1, 1, 2, 2, 3} {
		x := &stranger{}
		h.strangers.wait(x, originNo(who))
		all.Go(func() {
			if err := h.take(x, originNo(who), time.Now().Add(patience)); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, who)
			mu.Unlock()
			h.give()
		})
		eventually(t, "he waits", func() bool { return h.inLine() == n+1 })
	}
	h.give()
	all.Wait()
	if want := []int{1, 2, 3, 1, 2, 1, 1}; !slices.Equal(order, want) {
		t.Errorf("in the order %v, want %v", order, want)
	}
	if h.free != 1 || h.inLine() != 0 || len(h.lanes) != 0 || h.next.Len() != 0 {
		t.Errorf("%d free, %d wait, %d lanes", h.free, h.inLine(), len(h.lanes))
	}
}

// Whoever has waited too long, or is told to go, waits no more and leaves nothing.
func TestHandshakeGetsNoTurn(t *testing.T) {
	h := newHandshakes(newStrangers(), 1)
	must(t, h.take(&stranger{}, originNo(1), time.Now()))
	late, told, gone := &stranger{}, &stranger{}, &stranger{}
	for _, x := range []*stranger{late, told} {
		h.strangers.wait(x, originNo(2))
	}
	if h.take(late, originNo(2), time.Now()) == nil {
		t.Error("a turn after the deadline")
	}
	if h.take(gone, originNo(2), time.Now().Add(patience)) == nil {
		t.Error("a turn for one who is gone")
	}
	h.strangers.take(late)
	ended := make(chan error, 1)
	go func() { ended <- h.take(told, originNo(2), time.Now().Add(patience)) }()
	eventually(t, "he waits", func() bool {
		h.strangers.mu.Lock()
		defer h.strangers.mu.Unlock()
		return told.quit != nil
	})
	h.strangers.evictFor(origin{}, 0)
	if <-ended == nil {
		t.Error("a turn for one who was told to go")
	}
	h.give()
	if h.free != 1 || h.inLine() != 0 || len(h.lanes) != 0 {
		t.Errorf("%d free, %d wait, %d lanes", h.free, h.inLine(), len(h.lanes))
	}
	must(t, h.take(gone, originNo(3), time.Now()))
}

// helloOf is what a TLS customer sends first.
func helloOf(t *testing.T, c *tls.Config) string {
	t.Helper()
	near, far := net.Pipe()
	said := make(chan string, 1)
	go func() {
		b := make([]byte, 16<<10)
		n, _ := far.Read(b)
		said <- string(b[:n])
		_ = far.Close()
	}()
	_ = tls.Client(near, c).Handshake()
	must(t, near.Close())
	return <-said
}

// Slow and silent customers have no turn: others' handshakes go on beside any number of them.
func TestSlowHandshakesHoldNobodyUp(t *testing.T) {
	r, ca := tlsRig(t, setup{})
	r.server.handshakes.free = 1
	hello := helloOf(t, trusting(ca))
	for n := range 20 {
		c := r.dialAt(0, nil)
		c.unlike = true
		c.send(hello[:1+n*(len(hello)-2)/19]) // up to all but one byte
	}
	finished := r.dialAt(0, nil)
	finished.unlike = true
	finished.send(hello) // and never an answer
	r.strangers(21)
	echo := startEcho(t).Addr()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		mine := trusting(ca)
		mine.MinVersion, mine.MaxVersion = version, version
		c := r.dialAt(0, mine)
		c.connect(echo)
		c.echoes()
	}
	eventually(t, "all turns are back", func() bool {
		h := r.server.handshakes
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.free == 1
	})
}

// Who gets no turn in time is closed without a word and counted; who waits gets his in the end.
func TestHandshakesAreBounded(t *testing.T) {
	r, ca := tlsRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 500 * time.Millisecond }})
	h := r.server.handshakes
	h.mu.Lock()
	h.free = 0
	h.mu.Unlock()
	c := r.dialAt(0, trusting(ca))
	if err := c.Conn.(*tls.Conn).Handshake(); err == nil {
		t.Error("a handshake without a turn")
	}
	eventually(t, "it is counted", func() bool { return r.dropped("handshake") == 1 })
	eventually(t, "it is logged", func() bool { return strings.Contains(r.log.text(), "no turn") })
	r.idle()
	waiting := r.dialAt(0, trusting(ca))
	done := make(chan error, 1)
	go func() { done <- waiting.Conn.(*tls.Conn).Handshake() }()
	eventually(t, "it waits", func() bool { return h.inLine() == 1 })
	h.give()
	must(t, <-done)
}

// A flood of handshakes from one address, beside which another one's are done.
func TestHandshakeFlood(t *testing.T) {
	r, ca := tlsRig(t, setup{maxOpen: 4 * minStrangersShare})
	r.server.handshakes.free = 1
	hello := helloOf(t, trusting(ca))
	stop := make(chan struct{})
	var flood sync.WaitGroup
	for range 4 {
		flood.Go(func() {
			for range 400 {
				select {
				case <-stop:
					return
				default:
				}
				c := r.dialFrom("127.0.0.2")
				c.unlike = true
				_, _ = io.WriteString(c.raw, hello)
			}
		})
	}
	echo := startEcho(t).Addr()
	for n := range 10 {
		c := r.dialFromTLS(fmt.Sprintf("127.0.0.%d", n+3), trusting(ca))
		c.connect(echo)
		c.echoes()
	}
	close(stop)
	flood.Wait()
	if n := r.server.strangers.count.Load(); n > minStrangersShare+1 {
		t.Errorf("%d strangers, %d from one address allowed", n, minStrangersShare)
	}
}

// What comes before the handshake is over is bounded: in a record, in many, and of those who never say hello.
func TestHugeHandshakes(t *testing.T) {
	r, _ := tlsRig(t, setup{config: func(c *Config) { c.HeaderTimeout = time.Minute }})
	if n := r.server.handshakes.free; n != max(runtime.GOMAXPROCS(0)-1, 1) {
		t.Errorf("%d handshakes at once", n)
	}
	record := "\x16\x03\x01\x40\x00" + strings.Repeat("x", 16<<10)
	for name, sent := range map[string]string{
		"a hello of 60,000 bytes":  "\x16\x03\x01\x40\x00\x01\x00\xea\x60" + strings.Repeat("x", 16<<10-4) + record + record + record,
		"the first of it, no more": "\x16\x03\x01\x40\x00\x01\x00\xea\x60" + strings.Repeat("x", 16<<10-4) + record[:100],
		"a hello of a megabyte":    "\x16\x03\x01\x40\x00\x01\x10\x00\x00" + strings.Repeat("x", 16<<10-4) + record,
		"records of a byte":        strings.Repeat("\x16\x03\x01\x00\x01\x01", 1) + strings.Repeat("\x16\x03\x01\x00\x01\x00", 4000),
		"no TLS":                   strings.Repeat("GET / HTTP/1.1\r\n", 2000),
	} {
		r.run(name, func(t *testing.T) {
			c := r.dialAt(0, nil)
			c.unlike = true
			_, _ = io.WriteString(c.raw, sent)
			c.breaks()
			r.idle()
		})
	}
}

// The handshake's time is one, however it comes, and the head's after it the same.
func TestTrickledHandshakesEnd(t *testing.T) {
	r, ca := tlsRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 200 * time.Millisecond }})
	hello := trusting(ca)
	for len(hello.NextProtos) < 100 {
		hello.NextProtos = append(hello.NextProtos, strings.Repeat("p", 20))
	}
	r.run("hello", func(t *testing.T) { trickles(t, r.dialAt(0, nil), helloOf(t, hello)) })
	r.run("head", func(t *testing.T) {
		c := r.dialAt(0, trusting(ca))
		must(t, c.Conn.(*tls.Conn).Handshake())
		ended := make(chan struct{})
		go func() { defer close(ended); _, _ = io.Copy(io.Discard, c.br) }()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range 2000 {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			if _, err := io.WriteString(c.Conn, "x"); err != nil {
				return
			}
		}
		t.Error("all of it was taken")
	})
}

// A session is resumed by its ticket, and needs no signature for that.
func TestTicketsResume(t *testing.T) {
	r, ca := tlsRig(t, setup{})
	mine := trusting(ca)
	mine.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for n := range 2 {
		c := r.dialAt(0, mine)
		c.send(unauthorized)
		c.expect(r.reply(AuthRequired, false))
		if resumed := c.Conn.(*tls.Conn).ConnectionState().DidResume; resumed != (n == 1) {
			t.Errorf("connection %d: resumed %v", n, resumed)
		}
		must(t, c.Conn.Close())
	}
}
