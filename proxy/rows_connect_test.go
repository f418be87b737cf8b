package proxy

import (
	"context"
	"io"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/masking"
	"maskrelay/proxy/limit"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// rows runs one sub-test a row of a hazard list.
func rows(t *testing.T, list []row) {
	for _, one := range list {
		t.Run(one.name, one.run)
	}
}

type row struct {
	name string
	run  func(*testing.T)
}

// TestConnectRows drives the hazards that a CONNECT meets in goproxy and net/http.
func TestConnectRows(t *testing.T) { bothWays(t, testConnectRows) }

func testConnectRows(t *testing.T) {
	rows(t, []row{
		{"C1 no direct dial", noDirectDial},
		{"C2 early bytes", earlyBytes},
		{"C3 client leaves while the vendor is silent", clientLeaves},
		{"C4 no default port", noDefaultPort},
		{"C5 one constant 200", constantEstablished},
		{"C6 server speaks first", serverFirst},
		{"C7 silent vendor", silentVendor},
		{"C8 200 with a body", established200WithBody},
		{"C9 any 2xx after any 1xx", any2xx},
		{"C10 refusal without a length", refusalWithoutLength},
		{"C11 fixed error bodies", fixedErrorBodies},
		{"C12 own request head", ownRequestHead},
		{"C13 verified TLS gateway", verifiedGateway},
		{"C14 half-open and idle tunnels end", halfOpenEnds},
		{"C15 unwrapped before the tunnel", unwrappedBeforeTunnel},
		{"C16 refusals keep the connection", refusalsKeepConnection},
		{"C17 whole challenge", wholeChallenge},
		{"C18 no goroutine of net/http is held", noServeGoroutine},
		{"C19 HTTP/1 only", http1Only},
		{"C20 CONNECT with a body", connectWithBody},
		{"C21 no proxy from the environment", noEnvironment},
		{"C22 no interception", noInterception},
		{"C23 own authentication", ownAuthentication},
	})
}

func noDirectDial(t *testing.T) {
	r := newRig(t, setup{})
	echo := startEcho(t)
	must(t, r.vendor.Close()) // nobody answers at the gateway's address
	c := r.dial()
	c.send(connectTo(echo.Addr()))
	c.expect(r.reply(UpstreamFailed, true))
	c.ends()
	if n := echo.Accepted(); n != 0 {
		t.Errorf("the relay dialled the target itself, %d times", n)
	}
	h := r.server.http.Handler.(*handler)
	if _, err := h.goproxy.ConnectDial("tcp", echo.Addr()); err == nil {
		t.Error("goproxy's ConnectDial dials")
	}
	if _, err := h.goproxy.ConnectDialWithReq(nil, "tcp", echo.Addr()); err == nil {
		t.Error("goproxy's ConnectDialWithReq dials")
	}
	if _, err := h.goproxy.Tr.DialContext(context.Background(), "tcp", echo.Addr()); err == nil {
		t.Error("goproxy's transport dials")
	}
}

// gatedLimiter holds every Acquire until the gate opens.
type gatedLimiter struct {
	limit.Limiter
	entered chan struct{}
	gate    chan struct{}
	deaf    bool // to the context
}

func (g *gatedLimiter) Acquire(ctx context.Context, key string, caps limit.Caps) (*limit.Lease, error) {
	g.entered <- struct{}{}
	if g.deaf {
		<-g.gate
	}
	select {
	case <-g.gate:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return g.Limiter.Acquire(ctx, key, caps)
}

func earlyBytes(t *testing.T) {
	t.Run("in the packet", func(t *testing.T) {
		r := newRig(t, setup{})
		c := r.dial()
		c.send(connectTo(startEcho(t).Addr()) + "HELLO")
		c.expect(masking.Established + "HELLO")
	})
	whileHandled := func(t *testing.T, secured bool) {
		gated := &gatedLimiter{entered: make(chan struct{}, 1), gate: make(chan struct{})}
		s := setup{config: func(c *Config) { gated.Limiter, c.Limiter = c.Limiter, gated }}
		var c *customer
		var r *rig
		if secured {
			var ca *upstreamtest.CA
			r, ca = tlsRig(t, s)
			c = r.dialAt(0, trusting(ca))
		} else {
			r = newRig(t, s)
			c = r.dial()
		}
		c.send(connectTo(startEcho(t).Addr()))
		<-gated.entered
		c.send("H")
		// Over TLS net/http takes the byte; elsewhere it stays in the socket.
		eventually(t, "the byte has come", func() bool { return nothingUnread(t, r.server) == (secured || !canWatch) })
		c.send("ELLO")
		close(gated.gate)
		c.expect(masking.Established + "HELLO")
	}
	t.Run("while the handler runs", func(t *testing.T) { whileHandled(t, false) })
	t.Run("while the handler runs, TLS", func(t *testing.T) { whileHandled(t, true) })
	t.Run("many", func(t *testing.T) {
		r := newRig(t, setup{})
		c := r.dial()
		sink := started(t)(upstreamtest.StartSink())
		const n = 3 << 20
		var all strings.Builder
		_, err := io.Copy(&all, upstreamtest.Pattern(n))
		must(t, err)
		c.send(connectTo(sink.Addr()) + all.String())
		c.fin()
		c.expect(masking.Established + upstreamtest.SinkLine(upstreamtest.PatternDigest(n), n))
		c.ends()
	})
}

func clientLeaves(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()}})
	const n = 20
	var left []*customer
	for range n {
		c := r.dial()
		c.send(connectTo("target.test:443"))
		left = append(left, c)
	}
	eventually(t, "all at the vendor", func() bool { return r.vendor.Open() == n })
	for i, c := range left {
		if i%2 == 0 {
			must(t, c.Close())
		} else {
			c.reset()
		}
	}
	eventually(t, "no upstream connection left", func() bool { return r.vendor.Open() == 0 })
	r.idle()
	eventually(t, "no goroutine left", func() bool { return !goroutineIn("tunnel.(*tunnel)") })
	for i := range n {
		if o := r.outcome(i + 1); o != ClientGone {
			t.Errorf("outcome %s, want %s", o, ClientGone)
		}
	}
}

// goroutineIn reports whether any goroutine has function in its stack.
func goroutineIn(function string) bool {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 2) // a Builder takes everything
	return strings.Contains(b.String(), function)
}

func noDefaultPort(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	c.send(connectTo("target.test"))
	c.expect(r.reply(BadRequest, true))
	c.ends()
	if r.vendor.Accepted() != 0 {
		t.Error("the vendor was asked")
	}
}

func constantEstablished(t *testing.T) {
	r := newRig(t, setup{})
	echo := startEcho(t)
	for _, version := range []string{"HTTP/1.0", "HTTP/1.1"} {
		c := r.dial()
		c.send("CONNECT " + echo.Addr() + " " + version + "\r\nHost: " + echo.Addr() + "\r\n" + login() + "\r\n")
		c.expect(masking.Established)
		c.echoes()
	}
}

func serverFirst(t *testing.T) {
	const banner = "220 early banner\r\n"
	t.Run("with the vendor's 200", func(t *testing.T) {
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.EarlyData([]byte(banner))}})
		c := r.dial()
		c.send(connectTo("target.test:25"))
		c.expect(masking.Established + banner)
		c.echoes()
	})
	t.Run("after it", func(t *testing.T) {
		r := newRig(t, setup{})
		c := r.dial()
		c.send(connectTo(started(t)(upstreamtest.StartBanner([]byte(banner))).Addr()))
		c.expect(masking.Established + banner)
		c.echoes()
	})
}

func silentVendor(t *testing.T) {
	for _, name := range []string{"silent", "stall", "silent-mid-head", "continue-only"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{
				vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Behaviours()[name]},
				pool:   func(o *upstream.Options) { o.ConnectTimeout = 150 * time.Millisecond },
			})
			c := r.dial()
			c.send(connectTo("target.test:443"))
			c.expect(r.reply(UpstreamTimeout, true))
			c.ends()
			must(t, c.Close())
			if o := r.outcome(1); o != UpstreamTimeout {
				t.Errorf("outcome %s", o)
			}
			r.idle()
		})
	}
	t.Run("no TLS handshake", func(t *testing.T) {
		mute := started(t)(upstreamtest.StartSink())
		r := newRig(t, setup{
			gateways: []upstream.GatewayConfig{{Name: "mute", URL: "https://" + mute.Addr()}},
			pool:     func(o *upstream.Options) { o.DialTimeout = 150 * time.Millisecond },
		})
		c := r.dial()
		c.send(connectTo("target.test:443"))
		c.expect(r.reply(UpstreamTimeout, true))
		c.ends()
	})
}

func established200WithBody(t *testing.T) {
	for name, chunked := range map[string]bool{"length": false, "chunked": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.ConnectWithBody(chunked)}})
			c := r.dial()
			c.send(connectTo("target.test:443") + "early")
			c.expect(r.reply(UpstreamFailed, true))
			c.ends()
		})
	}
}

func any2xx(t *testing.T) {
	echo := startEcho(t)
	for _, name := range []string{"relay-204", "relay-299", "relay-informational-first", "relay-http10", "relay-length-zero"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Behaviours()[name]}})
			c := r.dial()
			c.connect(echo.Addr())
			c.echoes()
		})
	}
}

func refusalWithoutLength(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Refuse407NoLength()}})
	c := r.dial()
	c.send(connectTo("target.test:443"))
	c.expect(r.reply(UpstreamFailed, true))
	c.ends()
	eventually(t, "the vendor's connection is closed", func() bool { return r.vendor.Open() == 0 })
}

func fixedErrorBodies(t *testing.T) {
	for _, status := range []int{400, 401, 402, 403, 404, 407, 429, 500, 502, 503} {
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Loud(status, "WORDS_OF_THE_VENDOR")}})
		c := r.dial()
		c.send(connectTo("target.test:443"))
		c.expect(r.reply(UpstreamFailed, true))
		c.ends()
	}
}

func ownRequestHead(t *testing.T) {
	r := newRig(t, setup{})
	echo := startEcho(t)
	c := r.dial()
	c.send(connectTo(echo.Addr(), "User-Agent: customer-agent/1.0\r\n", "X-Forwarded-For: 192.0.2.7\r\n",
		"Proxy-Connection: keep-alive\r\n", "Connection: keep-alive\r\n"))
	c.expect(masking.Established)
	c.echoes()
	got := string(r.vendor.Conns()[0].Requests()[0].Raw)
	want := "CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: " + echo.Addr() + "\r\n" + basic(vendorUsername, vendorPassword) + "\r\n"
	if got != want {
		t.Errorf("the vendor received\n%q\nwant\n%q", got, want)
	}
}

func noServeGoroutine(t *testing.T) {
	r := newRig(t, setup{})
	echo := startEcho(t)
	var opened sync.WaitGroup
	for range 30 {
		c := r.dial()
		opened.Go(func() { c.connect(echo.Addr()); c.echoes() })
	}
	opened.Wait()
	// The vendor and the echo have no HTTP server; the judge has no connection.
	eventually(t, "net/http has let go", func() bool { return !goroutineIn("net/http.(*conn).serve") })
	if n := r.server.engine.Count(); n != 30 {
		t.Errorf("%d tunnels, want 30", n)
	}
}
