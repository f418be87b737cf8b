package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
	"maskrelay/upstream/vendor"
)

const balancer = "127.0.0.9:4711"

// visit is a visitor of a relay that does not run: the test is the engine.
func visit(t *testing.T, s setup) (*rig, *visitor) {
	t.Helper()
	s.idle = true
	r := newRig(t, s)
	return r, r.visitor(balancer)
}

func (r *rig) visitor(from string) *visitor {
	r.t.Helper()
	v, reply := r.server.listeners[0].arrive(netip.MustParseAddrPort(from))
	if v == nil {
		r.t.Fatalf("turned away with %q", reply)
	}
	return v.(*visitor)
}

// ends closes the books of a verdict's exchange as the engine would.
func (r *rig) ends(v tunnel.Verdict) {
	r.t.Helper()
	if v.Action != tunnel.Open {
		r.t.Fatalf("action %d, want a tunnel", v.Action)
	}
	v.Exchange.Done(tunnel.Result{Ending: tunnel.ClientGone})
}

// A head that comes in pieces is judged once it is whole, and goes to net/http when it
// comes byte by byte: looking at it again and again would cost its square.
func TestHeadInPieces(t *testing.T) {
	head := connectTo("shop.example:443")
	r, v := visit(t, setup{})
	for i := range maxLooks {
		if got := v.Head([]byte(head[:i+1])); got.Action != tunnel.Wait || got.Consumed != 0 {
			t.Fatalf("look %d: action %d", i, got.Action)
		}
	}
	whole := v.Head([]byte(head + "early"))
	if whole.Consumed != len(head) {
		t.Errorf("%d bytes consumed of %d", whole.Consumed, len(head))
	}
	r.ends(whole)
	v = r.visitor(balancer)
	for i := range maxLooks {
		v.Head([]byte(head[:i+1]))
	}
	if got := v.Head([]byte(head[:maxLooks+1])); got.Action != tunnel.Pass || got.Consumed != 0 {
		t.Errorf("action %d, want the head passed on", got.Action)
	}
	v.Gone()
}

// What cannot be decided without waiting, or is no plain CONNECT, is net/http's, with
// nothing consumed and nothing taken.
func TestWhatIsPassedOn(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte(customerPassword), bcrypt.MinCost)
	must(t, err)
	slow := func(c *Config) {
		list, err := account.ParseList(customerName + ":" + string(hash))
		must(t, err)
		c.Accounts, err = account.NewStore(account.StoreConfig{List: list})
		must(t, err)
	}
	type waiting struct{ limit.Limiter }
	plain := connectTo("shop.example:443")
	for _, one := range []struct {
		name, head string
		config     func(*Config)
	}{
		{"a plain request", request("GET", "http://shop.example/"), nil},
		{"a malformed target", connectTo("shop..example:443"), nil},
		{"a password to be compared", plain, slow},
		{"a limiter that waits", plain, func(c *Config) { c.Limiter = waiting{c.Limiter} }},
	} {
		t.Run(one.name, func(t *testing.T) {
			r, v := visit(t, setup{config: one.config})
			if got := v.Head([]byte(one.head)); got.Action != tunnel.Pass || got.Consumed != 0 {
				t.Errorf("action %d, %d consumed", got.Action, got.Consumed)
			}
			if n := len(r.log.exchanges()); n != 0 {
				t.Errorf("%d exchanges are booked", n)
			}
			v.Gone()
		})
	}
}

func TestVisitorIsRefused(t *testing.T) {
	head := func(lines string) string {
		return "CONNECT shop.example:443 HTTP/1.1\r\nHost: x\r\n" + lines + "\r\n"
	}
	full := func(c *Config) { c.Limiter = fullLimiter{c.Limiter.(limit.Immediate)} }
	for _, one := range []struct {
		name, head string
		outcome    Outcome
		last       bool
		config     func(*Config)
	}{
		{"no login", head(""), AuthRequired, false, nil},
		{"no login, close", head("Connection: close\r\n"), AuthRequired, true, nil},
		{"no login, HTTP/1.0", "CONNECT shop.example:443 HTTP/1.0\r\n\r\n", AuthRequired, true, nil},
		{"wrong login", head(basic(customerName, "x")), AuthFailed, false, nil},
		{"parameters", head(basic(customerName+"-country-us", customerPassword)), BadParams, true, nil},
		{"client", head(login()), ClientDenied, true, func(c *Config) { c.AllowFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }},
		{"rate", head(login()), CapRate, false, full},
	} {
		t.Run(one.name, func(t *testing.T) {
			r, v := visit(t, setup{config: one.config})
			got := v.Head([]byte(one.head + "more"))
			reply := r.server.replyTo(one.outcome, &vendor.Fault{Kind: vendor.Unavailable, Key: vendor.Country})
			if got.Action != tunnel.Answer || got.Consumed != len(one.head) || got.Last != one.last || string(got.Reply) != string(reply.Bytes(one.last)) {
				t.Errorf("got %+v", got)
			}
			if o := r.outcome(1); o != one.outcome {
				t.Errorf("booked as %s", o)
			}
			r.server.leaving.Store(true)
			if got := v.Head([]byte(one.head)); !got.Last || string(got.Reply) != string(reply.Bytes(true)) {
				t.Errorf("a relay that leaves keeps the connection: %+v", got)
			}
			v.Gone()
		})
	}
}

// fullLimiter refuses everybody for a while.
type fullLimiter struct{ limit.Immediate }

func (fullLimiter) AcquireNow(*limit.Lease, string, limit.Caps) error {
	return &limit.ExceededError{Cap: limit.CapConnRate, Limit: 1, RetryAfter: time.Second}
}

// A header that a balancer sends in pieces is waited for, and names the customer.
func TestVisitorThroughABalancer(t *testing.T) {
	head := connectTo("shop.example:443")
	for _, header := range []string{"PROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\n", header2(t, 0x21, "198.51.100.7:4000")} {
		r, v := visit(t, setup{config: balanced})
		for i := range len(header) - 1 {
			if got := v.Head([]byte(header[:i+1])); got.Action != tunnel.Wait || got.Consumed != 0 {
				t.Fatalf("%d bytes: %+v", i+1, got)
			}
			if reply := v.TimedOut(i + 1); reply != nil {
				t.Fatalf("a balancer that is slow hears %q", reply)
			}
		}
		if got := v.Head([]byte(header)); got.Action != tunnel.Wait || got.Consumed != len(header) {
			t.Fatalf("the whole header: %+v", got)
		}
		got := v.Head([]byte(head))
		if x := got.Exchange.(*tunnelExchange); x.client.addr().String() != "198.51.100.7" {
			t.Errorf("client %v", x.client)
		}
		r.ends(got)
		together := r.visitor(balancer).Head([]byte(header + head + "early"))
		if together.Consumed != len(header)+len(head) {
			t.Errorf("%d bytes consumed", together.Consumed)
		}
		r.ends(together)
	}
	r, v := visit(t, setup{config: balanced})
	if got := v.Head([]byte(head)); got.Action != tunnel.Drop {
		t.Errorf("no header: action %d, want the connection dropped", got.Action)
	}
	v.Gone()
	v = r.visitor(balancer)
	if got := v.Head([]byte("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n")); got.Action != tunnel.Pass || got.Consumed != len("PROXY UNKNOWN\r\n") {
		t.Errorf("a plain request behind the header: %+v", got)
	}
	v.Gone()
}

// What was read with a head is not kept for a long connection's life.
func TestRestForgetsWhatWasRead(t *testing.T) {
	client, server := net.Pipe()
	defer func() { _ = client.Close() }()
	defer func() { _ = server.Close() }()
	head := bytes.NewReader([]byte("the beginning"))
	r := &rest{Conn: server, head: head}
	got, err := io.ReadAll(io.LimitReader(r, int64(head.Len())))
	if err != nil || string(got) != "the beginning" {
		t.Fatalf("read %q, %v", got, err)
	}
	if head.Size() != 0 {
		t.Errorf("%d bytes are kept", head.Size())
	}
	go func() { _, _ = client.Write([]byte("and more")) }()
	buf := make([]byte, 64)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "and more" {
		t.Errorf("then %q, %v", buf[:n], err)
	}
}

func TestVisitorTimesOut(t *testing.T) {
	r, v := visit(t, setup{})
	if reply := v.TimedOut(0); reply != nil {
		t.Errorf("one who sent nothing hears %q", reply)
	}
	if reply := v.TimedOut(5); string(reply) != r.reply(HeadTimeout, true) || r.outcome(1) != HeadTimeout {
		t.Errorf("got %q", reply)
	}
	v.Gone()
}

// The exchange hands the engine's failures to the upstream's pool, which says when
// there is no other way, and nothing is held any more.
func TestExchangeFails(t *testing.T) {
	r, v := visit(t, setup{})
	x := v.Head([]byte(connectTo("shop.example:443"))).Exchange
	a, err := x.Next()
	if err != nil || a.Addr.String() != r.vendor.Addr() || a.Timeout <= 0 || a.ReplyTimeout <= 0 || a.Limit <= 0 {
		t.Fatalf("attempt %+v, %v", a, err)
	}
	request := string(x.AppendRequest([]byte("kept")))
	if !strings.HasPrefix(request, "keptCONNECT shop.example:443 HTTP/1.1\r\n") || strings.Contains(request, customerName) {
		t.Errorf("request %q", request)
	}
	x.Failed(true, syscall.ECONNREFUSED)
	_, err = x.Next()
	if err == nil || string(x.Refusal(err)) != r.reply(UpstreamFailed, true) {
		t.Errorf("error %v, reply %q", err, x.Refusal(err))
	}
	x.Done(tunnel.Result{Ending: tunnel.Refused, Err: err})
	if o := r.outcome(1); o != UpstreamFailed {
		t.Errorf("outcome %s", o)
	}
}

// A customer who leaves at any step of the set-up leaves nothing behind.
func TestExchangeIsGivenUp(t *testing.T) {
	r, first := visit(t, setup{})
	steps := []func(x tunnel.Exchange){
		func(tunnel.Exchange) {},
		func(x tunnel.Exchange) { _, _ = x.Next() }, // and no word of its failure
		func(x tunnel.Exchange) { _, _ = x.Next(); x.Failed(true, context.Canceled) },
		func(x tunnel.Exchange) { _, _ = x.Next(); x.Failed(false, context.Canceled) },
		func(x tunnel.Exchange) {
			_, _ = x.Next()
			_, _ = x.Reply([]byte("HTTP/1.1 200 "))
			x.Failed(false, io.EOF)
		},
		func(x tunnel.Exchange) {
			_, _ = x.Next()
			_, _ = x.Reply([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			x.Opened()
		},
	}
	for i, step := range steps {
		v := first
		if i > 0 {
			v = r.visitor(balancer)
		}
		x := v.Head([]byte(connectTo("shop.example:443"))).Exchange
		step(x)
		x.Done(tunnel.Result{Ending: tunnel.ClientGone})
		if n := r.server.slots.InUse() + r.limiter.InUse(customerName) + int(r.server.open.Load()); n != 0 {
			t.Errorf("step %d: %d are held", i, n)
		}
	}
}

// A visitor that panics ends its own exchange and no more: it is answered and logged as a
// handler's is, and nothing stays taken.
func TestPanicEndsOneVisitor(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.Limiter = brokenNow{c.Limiter.(limit.Immediate)} }})
	for n := range 3 {
		c := r.dial()
		c.send(connectTo("target.test:443"))
		c.expect(r.reply(Internal, true))
		c.ends()
		if o := r.outcome(n + 1); o != Internal {
			t.Errorf("outcome %s", o)
		}
	}
	r.idle()
}

// What a visitor had taken before the bug goes back.
func TestPanicOfVisitorGivesBack(t *testing.T) {
	r, v := visit(t, setup{})
	s := r.server
	pool := s.config.Upstream
	s.config.Upstream = nil // a bug, once the lease and the slot are taken
	verdict := v.Head([]byte(connectTo("shop.example:443")))
	s.config.Upstream = pool
	if verdict.Action != tunnel.Answer || !verdict.Last || string(verdict.Reply) != r.reply(Internal, true) {
		t.Errorf("verdict %+v", verdict)
	}
	if o := r.outcome(1); o != Internal {
		t.Errorf("outcome %s", o)
	}
	v.Gone()
	if n := s.slots.InUse() + r.limiter.InUse(customerName) + int(s.open.Load()); n != 0 {
		t.Errorf("%d are held", n)
	}
}

// brokenNow is a bug of ours.
type brokenNow struct{ limit.Immediate }

func (brokenNow) AcquireNow(*limit.Lease, string, limit.Caps) error { panic("a bug") }

func BenchmarkHeadToOpen(b *testing.B) {
	r := newRig(b, setup{idle: true})
	head := []byte(plainHeadOf("shop.example:443"))
	l := r.server.listeners[0]
	peer := netip.MustParseAddrPort(balancer)
	b.ReportAllocs()
	for b.Loop() {
		v, _ := l.arrive(peer)
		verdict := v.Head(head)
		if verdict.Action != tunnel.Open {
			b.Fatal("refused")
		}
		verdict.Exchange.(*tunnelExchange).release()
	}
}

// plainHeadOf is a CONNECT as browsers send it.
func plainHeadOf(target string) string {
	return connectTo(target, "Proxy-Connection: keep-alive\r\n",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n")
}

// BenchmarkExchange is all that package proxy does for one tunnel.
func BenchmarkExchange(b *testing.B) {
	r := newRig(b, setup{idle: true})
	r.server.log = r.server.log.Output(io.Discard).With().Timestamp().Logger()
	head := []byte(plainHeadOf("shop.example:443"))
	answer := []byte("HTTP/1.1 200 Connection established\r\n\r\n")
	l := r.server.listeners[0]
	peer := netip.MustParseAddrPort(balancer)
	var request []byte
	b.ReportAllocs()
	for b.Loop() {
		v, _ := l.arrive(peer)
		x := v.Head(head).Exchange
		if _, err := x.Next(); err != nil {
			b.Fatal(err)
		}
		request = x.AppendRequest(request[:0])
		if n, err := x.Reply(answer); n == 0 || err != nil {
			b.Fatal(n, err)
		}
		x.Opened()
		x.Moved(true, 1)
		x.Moved(false, 1)
		x.Done(tunnel.Result{Ending: tunnel.Closed, Sent: 1, Received: 1, Duration: time.Millisecond})
	}
}
