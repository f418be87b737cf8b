package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	dto "github.com/prometheus/client_model/go"

	"maskrelay/masking"
)

// dialFrom connects to the relay's first address from a loopback address of the customer's own.
func (r *rig) dialFrom(ip string) *customer {
	r.t.Helper()
	return r.dialFromTLS(ip, nil)
}

func (r *rig) dialFromTLS(ip string, secured *tls.Config) *customer {
	r.t.Helper()
	return r.dialBy(&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: patience}, 0, secured)
}

// strangers waits until so many are on the books.
func (r *rig) strangers(n int) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%d strangers", n), func() bool { return r.server.strangers.count.Load() == int64(n) })
}

// idles reports whether net/http serves no request.
func (r *rig) idles() bool {
	r.server.connsMu.Lock()
	defer r.server.connsMu.Unlock()
	for c := range r.server.conns {
		if p := c.at(); p == phaseJudged || p == phaseHandling {
			return false
		}
	}
	return true
}

func (r *rig) dropped(reason string) int {
	var m dto.Metric
	must(r.t, r.server.metrics.dropped.WithLabelValues(reason).Write(&m))
	return int(m.GetCounter().GetValue())
}

const unauthorized = "CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n\r\n"

// The lines do what slices would do.
func TestStrangersLines(t *testing.T) {
	s := newStrangers()
	const people, places, many = 40, 5, 8
	all := make([]*stranger, people)
	from := make(map[*stranger]origin)
	var waiting []*stranger
	for i := range all {
		all[i] = &stranger{}
	}
	pick := func() origin {
		n := rand.IntN(places)
		if n == 0 {
			return origin{}
		}
		return origin{netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(n)}), 32)}
	}
	of := func(o origin) (n int) {
		for _, x := range waiting {
			if o != (origin{}) && from[x] == o {
				n++
			}
		}
		return n
	}
	leave := func(x *stranger) { waiting = slices.DeleteFunc(waiting, func(y *stranger) bool { return y == x }) }
	for range 20_000 {
		x, o := all[rand.IntN(people)], pick()
		known := slices.Contains(waiting, x)
		got, want := 0, 0
		switch rand.IntN(7) {
		case 0, 1:
			got = s.wait(x, o)
			leave(x)
			from[x] = o
			waiting = append(waiting, x)
			want = of(o)
		case 2:
			s.take(x)
			leave(x)
		case 3:
			s.again(x)
			if known {
				leave(x)
				waiting = append(waiting, x)
			}
		case 4: // at its place among all, and the last of its origin
			if got = s.isFrom(x, o); known {
				from[x] = o
				want = of(o)
			}
			leave(x)
			s.take(x)
		case 5:
			i, origins := 0, make(map[origin]bool)
			for _, y := range waiting {
				origins[from[y]] = from[y] != (origin{})
			}
			delete(origins, origin{})
			if of(o) > many && of(o)*len(origins) > len(waiting) {
				i = slices.IndexFunc(waiting, func(y *stranger) bool { return from[y] == o })
			}
			if s.evictFor(o, many) != (len(waiting) > 0) {
				t.Fatal("evictFor and the model disagree")
			}
			if len(waiting) > 0 {
				waiting = slices.Delete(waiting, i, i+1)
			}
		case 6:
			i := slices.IndexFunc(waiting, func(y *stranger) bool { return o != (origin{}) && from[y] == o })
			if s.evictFrom(o) != (i >= 0) {
				t.Fatal("evictFrom and the model disagree")
			}
			if i >= 0 {
				waiting = slices.Delete(waiting, i, i+1)
			}
		}
		if got != want {
			t.Fatalf("%d of the origin, want %d", got, want)
		}
		inLine := 0
		for y, i := s.all.first, 0; y != nil; y, i = y.behind[ofAll], i+1 {
			if i >= len(waiting) || waiting[i] != y {
				t.Fatal("the line is in another order")
			}
			inLine++
		}
		if inLine != len(waiting) || s.count.Load() != int64(inLine) {
			t.Fatalf("%d in the line, %d counted, want %d", inLine, s.count.Load(), len(waiting))
		}
	}
	for s.evictFor(origin{}, many) {
	}
	if s.origins() != 0 || len(s.unused) > keptCrowds {
		t.Errorf("%d origins are left, %d kept", s.origins(), len(s.unused))
	}
}

// Customers of one /64 are one, and balancers are nobody.
func TestOrigins(t *testing.T) {
	s := &Server{config: Config{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::/64", "::1": "::/64", "10.1.2.3": "invalid Prefix",
	} {
		if got := s.originOf(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
	if s.originOf(netip.Addr{}) != (origin{}) {
		t.Error("no address has an origin")
	}
}

// An address that is over its share loses its own connections, the oldest first, whatever they wait for; others lose
// none, and get through.
func TestAddressOverItsShare(t *testing.T) { bothWays(t, testAddressOverItsShare) }

func testAddressOverItsShare(t *testing.T) {
	const more = 6
	phases := map[string]struct{ send, answer string }{
		"a byte":      {send: "C"},
		"half a head": {send: "CONNECT targ"},
		"half a GET":  {send: "GET http://shop.exa"},
		"refused":     {send: unauthorized, answer: "407"},
	}
	for name, phase := range phases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{maxOpen: 4 * minStrangersShare})
			echo := startEcho(t).Addr()
			other := r.dialFrom("127.0.0.3")
			other.send(connectTo(echo)[:1]) // the kernel keeps those who have sent nothing for a while
			r.strangers(1)
			var flood []*customer
			for n := range minStrangersShare + more {
				c := r.dialFrom("127.0.0.2")
				c.send(phase.send)
				if phase.answer != "" {
					c.expect(r.reply(AuthRequired, false))
					eventually(t, "it is idle", r.idles)
				}
				r.strangers(1 + min(n+1, minStrangersShare))
				if n >= minStrangersShare {
					flood[n-minStrangersShare].breaks()
				}
				flood = append(flood, c)
			}
			eventually(t, "they are counted", func() bool { return r.dropped("address") == more })
			if r.dropped("evicted") != 0 || !strings.Contains(r.log.text(), `"client":"127.0.0.2"`) {
				t.Errorf("log %s", r.log.text())
			}
			other.send(connectTo(echo)[1:]) // has waited longer than any of them
			other.expect(masking.Established)
			other.echoes()
			fresh := r.dialFrom("127.0.0.4")
			fresh.connect(echo)
			fresh.echoes()
			for _, c := range append(flood, other, fresh) {
				_ = c.raw.Close()
			}
			r.strangers(0)
			r.idle()
			if n := r.server.strangers.origins(); n != 0 {
				t.Errorf("%d origins are kept", n)
			}
		})
	}
}

// When there is no room the one goes that has waited longest, whoever reads from it.
func TestOldestStrangerOfAllGoes(t *testing.T) {
	const room = 6
	r := newRig(t, setup{maxOpen: room})
	var waiting []*customer
	for n := range room {
		c := r.dialFrom(fmt.Sprintf("127.0.0.%d", n+2))
		c.send([]string{"GET http://shop.exa", "CONNECT targ"}[n%2]) // net/http's, the engine's
		r.strangers(n + 1)
		eventually(t, "it is where it belongs", func() bool { return r.server.engine.Visitors() == (n+1)/2 })
		waiting = append(waiting, c)
	}
	for n, oldest := range waiting[:room-1] {
		c := r.dialFrom(fmt.Sprintf("127.0.0.%d", n+90))
		c.send(unauthorized)
		c.expect(r.reply(AuthRequired, false))
		oldest.breaks()
		eventually(t, "it is counted", func() bool { return r.dropped("evicted") == n+1 })
	}
	waiting[room-1].send(strings.TrimPrefix(unauthorized, "CONNECT targ"))
	waiting[room-1].expect(r.reply(AuthRequired, false))
	if !strings.Contains(r.log.text(), "no room") {
		t.Error("no word of it in the log")
	}
}

// One address that comes again and again makes its own room once it has half of its share; one with less does not,
// however few each of the others has.
func TestFloodMakesItsOwnRoom(t *testing.T) { bothWays(t, testFloodMakesItsOwnRoom) }

func testFloodMakesItsOwnRoom(t *testing.T) {
	const few = 6
	r := newRig(t, setup{maxOpen: 4 * minStrangersShare})
	others := make([]*customer, few)
	for n := range others {
		others[n] = r.dialFrom(fmt.Sprintf("127.0.0.%d", n+3))
		others[n].send("C")
		r.strangers(n + 1)
	}
	const tunnels = 4*minStrangersShare - few - minStrangersShare/2 - 8 // some are going while others come
	r.server.open.Add(tunnels)
	defer r.server.open.Add(-tunnels)
	for range 2 * minStrangersShare {
		c := r.dialFrom("127.0.0.2")
		c.send(unauthorized)
		c.expect(r.reply(AuthRequired, false))
	}
	for _, c := range others {
		c.send(unauthorized[1:])
		c.expect(r.reply(AuthRequired, false))
	}
	if n := r.dropped("refused"); n > 0 {
		t.Errorf("%d refused", n)
	}
}

// A customer who opens a few connections at once keeps them beside a crowd of single ones.
func TestBurstBesideACrowd(t *testing.T) { bothWays(t, testBurstBesideACrowd) }

func testBurstBesideACrowd(t *testing.T) {
	const crowd, burst = 60, 20
	r := newRig(t, setup{maxOpen: crowd})
	for n := range crowd {
		r.dialFrom(fmt.Sprintf("127.0.1.%d", n+1)).send("C")
		r.strangers(n + 1)
	}
	mine := make([]*customer, burst)
	for n := range mine {
		mine[n] = r.dialFrom("127.0.0.2")
		mine[n].send("C")
		eventually(t, "one of the crowd goes", func() bool { return r.dropped("evicted") == n+1 })
	}
	for _, c := range mine {
		c.send(unauthorized[1:])
		c.expect(r.reply(AuthRequired, false))
	}
}

// Connections of which a balancer has not said for whom they come, or that are its own, have no share: it speaks for
// many. Once it has said so, the customer has his.
func TestBalancerHasNoShare(t *testing.T) { bothWays(t, testBalancerHasNoShare) }

func testBalancerHasNoShare(t *testing.T) {
	const more = 5
	r := newRig(t, setup{maxOpen: 4 * minStrangersShare, config: func(c *Config) { c.ProxyFrom = allNetworks() }})
	var flood []*customer
	for range minStrangersShare + more {
		c := r.dial()
		c.send("P")
		flood = append(flood, c)
	}
	local := r.dial()
	local.send(header2(t, 0x20, "127.0.0.1:4000"))
	r.strangers(minStrangersShare + more + 1)
	if n := r.server.strangers.origins(); n != 0 {
		t.Fatalf("%d origins", n)
	}
	for _, c := range flood {
		_, _ = io.WriteString(c.raw, "ROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\n")
	}
	r.strangers(minStrangersShare + 1)
	eventually(t, "they are counted", func() bool { return r.dropped("address") == more })
	local.send(unauthorized)
	local.expect(r.reply(AuthRequired, false))
	c := r.dial()
	c.send("PROXY TCP4 198.51.100.8 192.0.2.1 4000 8080\r\n")
	c.connect(startEcho(t).Addr())
	c.echoes()
}

// While the host is short of memory there are no more strangers than are spare.
func TestStrangersWithoutMemory(t *testing.T) { bothWays(t, testStrangersWithoutMemory) }

func testStrangersWithoutMemory(t *testing.T) {
	var full atomic.Bool
	const spare, waiting = 4, 10
	r := newRig(t, setup{config: func(c *Config) { c.SpareConns, c.Full = spare, full.Load }})
	var strangers []*customer
	for n := range waiting {
		strangers = append(strangers, r.dial())
		strangers[n].send("C")
		r.strangers(n + 1)
	}
	full.Store(true)
	for n := range waiting - spare {
		c := r.dial()
		c.send(connectTo("target.test:443"))
		c.expect(r.reply(RelayFull, true))
		strangers[n].breaks()
		must(t, c.raw.Close())
		r.strangers(waiting - n - 1)
	}
	full.Store(false)
	strangers[waiting-1].send(connectTo(startEcho(t).Addr())[1:])
	strangers[waiting-1].expect(masking.Established)
}

// The time of a head is one, however it comes and whoever reads it.
func TestTrickledHeadsEnd(t *testing.T) { bothWays(t, testTrickledHeadsEnd) }

func testTrickledHeadsEnd(t *testing.T) {
	long := strings.Repeat("x", 2000)
	heads := map[string]string{
		"CONNECT":         "CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\nA: " + long,
		"GET":             "GET http://target.test/ HTTP/1.1\r\nHost: x\r\nA: " + long,
		"request line":    "CONNECT " + long,
		"no method":       long,
		"after a refusal": unauthorized + "CONNECT " + long,
	}
	r := newRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 200 * time.Millisecond }})
	for name, head := range heads {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			if rest, ok := strings.CutPrefix(head, unauthorized); ok {
				c.send(unauthorized)
				c.expect(r.reply(AuthRequired, false))
				head = rest
			}
			trickles(t, c, head)
		})
	}
	balanced := newRig(t, setup{config: func(c *Config) { c.HeaderTimeout, c.ProxyFrom = 200*time.Millisecond, allNetworks() }})
	balanced.run("PROXY header", func(t *testing.T) {
		tlvs := header2(t, 0x21, "198.51.100.7:4000")
		tlvs = tlvs[:14] + "\x0f\xff" + tlvs[16:] + long
		trickles(t, balanced.dial(), tlvs)
	})
}

// trickles sends byte after byte, which a relay must not bear for long.
func trickles(t *testing.T, c *customer, s string) {
	t.Helper()
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = io.Copy(io.Discard, c.br) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := range len(s) {
		select {
		case <-ended:
			return
		case <-tick.C: // the pace of a slow customer
		}
		if _, err := io.WriteString(c.raw, s[i:i+1]); err != nil {
			return
		}
	}
	t.Errorf("all of %d bytes were taken", len(s))
}

// What a visitor has used of a head's time net/http does not give him again.
func TestHeadsTimeGoesOn(t *testing.T) {
	r, v := visit(t, setup{})
	v.began = time.Second
	for range maxLooks {
		v.Head([]byte("CONNECT "))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, l.Close()) }()
	client, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer func() { must(t, client.Close()) }()
	conn, err := l.Accept()
	must(t, err)
	v.Pass(conn.(*net.TCPConn), []byte("CONNECT "))
	c := r.server.passed.take()
	defer func() { must(t, c.Close()) }()
	if want := r.server.epoch.Add(time.Second + r.server.config.HeaderTimeout); !c.headBy.Equal(want) {
		t.Errorf("until %v, want %v", c.headBy, want)
	}
	c.headBy = time.Unix(1, 0)
	must(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
	if _, err := c.raw.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("error %v, want a timeout", err)
	}
}

// Heads of ten thousand lines, or of a megabyte, are refused at once and not kept.
func TestHugeHeads(t *testing.T) { bothWays(t, testHugeHeads) }

func testHugeHeads(t *testing.T) {
	r := newRig(t, setup{})
	for name, first := range map[string]string{"CONNECT": "CONNECT target.test:443 HTTP/1.1\r\n", "GET": "GET http://target.test/ HTTP/1.1\r\n"} {
		for what, lines := range map[string]string{"lines": strings.Repeat("A: b\r\n", 10_000), "bytes": "A: " + strings.Repeat("b", 1<<20)} {
			r.run(name+", "+what, func(t *testing.T) {
				c := r.dial()
				go func() { _, _ = io.WriteString(c.raw, first+"Host: x\r\n"+lines) }() // never to its end
				c.expect(r.reply(HeadTooLarge, true))
			})
		}
	}
}

// A PROXY header that claims to be longer than any is refused by its first bytes, as is one from somebody who is no
// balancer.
func TestProxyHeaderThatClaimsTooMuch(t *testing.T) { bothWays(t, testProxyHeaderThatClaimsTooMuch) }

func testProxyHeaderThatClaimsTooMuch(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.ProxyFrom = allNetworks() }})
	for _, kind := range []byte{0x20, 0x21} {
		c := r.dial()
		h := header2(t, proxyproto.ProtocolVersionAndCommand(kind), "198.51.100.7:4000")
		c.send(h[:14] + "\xff\xff")
		c.breaks()
	}
	tlvs := strings.Repeat("\x04\x00\x00", 1000) // a thousand of type NOOP, without a value
	h := header2(t, 0x21, "198.51.100.7:4000")
	length := len(h) - 16 + len(tlvs)
	c := r.dial()
	c.send(h[:14] + string([]byte{byte(length >> 8), byte(length)}) + h[16:] + tlvs)
	c.connect(startEcho(t).Addr())
	c.echoes()
	untrusted := newRig(t, setup{})
	for _, h := range []string{"PROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\n", h} {
		c := untrusted.dial()
		c.send(h)
		c.expect(untrusted.reply(BadRequest, true))
	}
}
