package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

func startVendor(t *testing.T, c upstreamtest.VendorConfig) *upstreamtest.Vendor {
	t.Helper()
	v, err := upstreamtest.StartVendor(c)
	must(t, err)
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func gatewayOf(t *testing.T, name, url string) Gateway {
	t.Helper()
	g, err := ParseGateway(GatewayConfig{Name: name, URL: url})
	must(t, err)
	return g
}

func newPool(t *testing.T, o Options) *Pool {
	t.Helper()
	if o.DialTimeout == 0 {
		o.DialTimeout = 2 * time.Second
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	p, err := NewPool(o)
	must(t, err)
	t.Cleanup(func() {
		p.Close()
		for _, name := range p.Pools() {
			if n := p.groups[name].budget.state.Load() / budgetUnderway; n != 0 {
				t.Errorf("pool %s: %d exchanges seem to be under way for ever", name, n)
			}
		}
	})
	return p
}

func startEcho(t *testing.T) *upstreamtest.Target {
	t.Helper()
	echo, err := upstreamtest.StartEcho()
	must(t, err)
	t.Cleanup(func() { _ = echo.Close() })
	return echo
}

// closedAddr is a loopback address where nobody listens.
func closedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func echoThrough(t *testing.T, c *Conn) {
	t.Helper()
	_, err := io.WriteString(c, "ping")
	must(t, err)
	b := make([]byte, 4)
	_, err = io.ReadFull(c, b)
	must(t, err)
	if string(b) != "ping" {
		t.Errorf("echo %q", b)
	}
	must(t, c.Close())
	c.Release()
}

func TestConnectSaysOnlyWhatItMust(t *testing.T) {
	echo := startEcho(t)
	v := startVendor(t, upstreamtest.VendorConfig{Username: "user", Password: "p:a@s%s w"})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
	must(t, err)
	echoThrough(t, c)
	head := string(v.Conns()[0].Requests()[0].Raw)
	want := "CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: " + echo.Addr() + "\r\nProxy-Authorization: Basic dXNlcjpwOmFAcyVzIHc=\r\n\r\n"
	if head != want {
		t.Errorf("the vendor got\n%q, want\n%q", head, want)
	}
	if n := p.gateways[0].conns.Load(); n != 0 {
		t.Errorf("%d connections counted after the end", n)
	}
}

func TestConnectPassesTheCustomersLogin(t *testing.T) {
	echo := startEcho(t)
	v := startVendor(t, upstreamtest.VendorConfig{Username: "customer", Password: "own"})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", "http://"+v.Addr())}})
	c, err := p.Connect(t.Context(), Request{Target: echo.Addr(), Authorization: "Basic Y3VzdG9tZXI6b3du"})
	must(t, err)
	echoThrough(t, c)
}

func TestConnectOverTLS(t *testing.T) {
	echo := startEcho(t)
	ca, err := upstreamtest.NewCA()
	must(t, err)
	cert, err := ca.Server("localhost")
	must(t, err)
	v := startVendor(t, upstreamtest.VendorConfig{TLS: serverTLS(cert)})
	_, port, err := net.SplitHostPort(v.Addr())
	must(t, err)
	t.Run("verified", func(t *testing.T) {
		g := gatewayOf(t, "", "https://localhost:"+port)
		g.roots = ca.Pool()
		p := newPool(t, Options{Gateways: []Gateway{g}})
		c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
		must(t, err)
		echoThrough(t, c)
		if name := v.Conns()[0].ServerName(); name != "localhost" {
			t.Errorf("SNI %q", name)
		}
	})
	refusals := map[string]func(*Gateway){
		"unknown authority": func(*Gateway) {},
		"other name":        func(g *Gateway) { g.roots = ca.Pool(); g.Host = "127.0.0.1" },
	}
	for name, prepare := range refusals {
		t.Run(name, func(t *testing.T) {
			g := gatewayOf(t, "", "https://localhost:"+port)
			prepare(&g)
			p := newPool(t, Options{Gateways: []Gateway{g}})
			wantCause(t, p, CauseTLS)
		})
	}
}

// wantCause connects in vain and checks why.
func wantCause(t *testing.T, p *Pool, want Cause) {
	t.Helper()
	_ = failureOf(t, p, want)
}

func failureOf(t *testing.T, p *Pool, want Cause) *ConnectError {
	t.Helper()
	c, err := p.Connect(t.Context(), Request{Target: "target.example:443"})
	if err == nil {
		_ = c.Close()
		t.Fatal("connected")
	}
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != want {
		t.Fatalf("error %v, want cause %s", err, want)
	}
	for _, g := range p.gateways {
		if n := g.conns.Load(); n != 0 {
			t.Errorf("%s: %d connections counted after the failure", g.Name, n)
		}
	}
	return failure
}

func TestConnectFailures(t *testing.T) {
	tests := map[string]struct {
		behaviour upstreamtest.Behaviour
		want      Cause
	}{
		"silent":         {upstreamtest.Silent(), CauseTimeout},
		"closes":         {upstreamtest.CloseBeforeReply(), CauseClosed},
		"resets":         {upstreamtest.ResetBeforeReply(), CauseClosed},
		"mid head":       {upstreamtest.CloseMidHead(), CauseClosed},
		"407 no length":  {upstreamtest.Refuse407NoLength(), CauseAuth},
		"200 with body":  {upstreamtest.ConnectWithBody(false), CauseBody},
		"200 chunked":    {upstreamtest.ConnectWithBody(true), CauseBody},
		"huge head":      {upstreamtest.HugeHead(64 << 10), CauseMalformed},
		"endless":        {upstreamtest.Endless(), CauseMalformed},
		"endless 1xx":    {upstreamtest.EndlessInformational(), CauseMalformed},
		"own 503":        {upstreamtest.Loud(503, "NO_RAY"), CauseServer},
		"target refused": {upstreamtest.Loud(403, "PORT_BLOCKED"), CauseForbidden},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: test.behaviour})
			p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL())}, ConnectTimeout: 300 * time.Millisecond})
			failure := failureOf(t, p, test.want)
			if failure.Gateway != "gw" || failure.Phase != PhaseConnect {
				t.Errorf("failure %v", failure)
			}
			waitFor(t, func() bool { return v.Open() == 0 })
		})
	}
}

// waitFor waits for a state.
func waitFor(t *testing.T, state func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !state(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the state did not come")
		}
	}
}

func TestConnectWithOddAnswers(t *testing.T) {
	behaviours := map[string]upstreamtest.Behaviour{
		"1xx first": upstreamtest.InformationalFirst(),
		"204":       upstreamtest.No200Tunnel(),
		"split":     upstreamtest.SplitReply(),
	}
	for name, b := range behaviours {
		t.Run(name, func(t *testing.T) {
			echo := startEcho(t)
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: b})
			p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
			c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
			must(t, err)
			echoThrough(t, c)
		})
	}
}

func TestEarlyBytesAreKept(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.EarlyData([]byte("220 smtp.example\r\n"))})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	c, err := p.Connect(t.Context(), Request{Target: "target.example:25"})
	must(t, err)
	if string(c.Early) != "220 smtp.example\r\n" {
		t.Errorf("early %q", c.Early)
	}
	must(t, c.Close())
	c.Release()
}

func TestFailover(t *testing.T) {
	tests := map[string]struct {
		first     upstreamtest.Behaviour // nil = nobody listens
		otherUsed bool
	}{
		"refused":       {nil, true},
		"silent":        {upstreamtest.Silent(), true},
		"bad login":     {upstreamtest.Refuse407NoLength(), true},
		"quota":         {upstreamtest.Loud(402, "TRAFFIC_EXHAUSTED"), true},
		"threads":       {upstreamtest.Loud(429, "THREADS"), true},
		"own error":     {upstreamtest.Loud(502, "NO_HOST_CONNECTION"), true},
		"body":          {upstreamtest.ConnectWithBody(false), true},
		"closes":        {upstreamtest.CloseBeforeReply(), true},
		"target denied": {upstreamtest.Loud(403, "PORT_BLOCKED"), false},
		"bad request":   {upstreamtest.Loud(400, "BAD"), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			echo := startEcho(t)
			good := startVendor(t, upstreamtest.VendorConfig{})
			first := "http://" + closedAddr(t)
			if test.first != nil {
				first = startVendor(t, upstreamtest.VendorConfig{Behaviour: test.first}).URL()
			}
			p := newPool(t, Options{
				Gateways:       []Gateway{gatewayOf(t, "first", first), gatewayOf(t, "second", good.URL())},
				ConnectTimeout: 300 * time.Millisecond,
			})
			c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
			if !test.otherUsed {
				if err == nil || good.Accepted() != 0 {
					t.Fatalf("error %v, second gateway asked %d times", err, good.Accepted())
				}
				return
			}
			must(t, err)
			if c.Gateway != "second" {
				t.Errorf("through %s", c.Gateway)
			}
			echoThrough(t, c)
		})
	}
}

// A gateway that cannot be reached is tried last, and found up again by a probe.
func TestDownGatewayIsTriedLastAndComesBack(t *testing.T) {
	echo := startEcho(t)
	good := startVendor(t, upstreamtest.VendorConfig{})
	addr := closedAddr(t)
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "down", "http://"+addr), gatewayOf(t, "up", good.URL())}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { p.Run(ctx) })
	for range 4 {
		c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
		must(t, err)
		echoThrough(t, c)
	}
	if good.Accepted() != 4 {
		t.Errorf("the good gateway served %d of 4", good.Accepted())
	}
	if p.gateways[0].health.usable(time.Now()) || !p.Usable() {
		t.Error("the gateway is not down, or the pool not usable")
	}
	startVendor(t, upstreamtest.VendorConfig{Addr: addr})
	waitFor(t, func() bool { return p.gateways[0].health.usable(time.Now()) })
}

func TestAllDown(t *testing.T) {
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "a", "http://"+closedAddr(t))}})
	start := time.Now()
	wantCause(t, p, CauseRefused)
	if p.Usable() {
		t.Error("usable")
	}
	wantCause(t, p, CauseRefused) // tried all the same
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %s", took)
	}
}

func TestFullGatewaysAreSkipped(t *testing.T) {
	echo := startEcho(t)
	v := startVendor(t, upstreamtest.VendorConfig{})
	g := gatewayOf(t, "", v.URL())
	g.MaxConns = 1
	p := newPool(t, Options{Gateways: []Gateway{g}})
	c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
	must(t, err)
	_, err = p.Connect(t.Context(), Request{Target: echo.Addr()})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseNone {
		t.Errorf("error %v", err)
	}
	echoThrough(t, c)
	c, err = p.Connect(t.Context(), Request{Target: echo.Addr()})
	must(t, err)
	echoThrough(t, c)
}

// The gateway that is full is passed over, not the customer refused.
func TestFullGatewayLeavesItToAnother(t *testing.T) {
	echo := startEcho(t)
	a, b := startVendor(t, upstreamtest.VendorConfig{}), startVendor(t, upstreamtest.VendorConfig{})
	full := gatewayOf(t, "full", a.URL())
	full.MaxConns = 1
	p := newPool(t, Options{Gateways: []Gateway{full, gatewayOf(t, "free", b.URL())}})
	held := make([]*Conn, 6)
	for i := range held {
		c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
		must(t, err)
		held[i] = c
	}
	if a.Accepted() != 1 || b.Accepted() != 5 {
		t.Errorf("%d and %d connections", a.Accepted(), b.Accepted())
	}
	for _, c := range held {
		echoThrough(t, c)
	}
}

func TestDirect(t *testing.T) {
	echo := startEcho(t)
	denied := errors.New("no")
	tests := map[string]struct {
		target string
		check  func(netip.Addr) error
		want   Cause
	}{
		"allowed":      {echo.Addr(), nil, ""},
		"denied":       {echo.Addr(), func(netip.Addr) error { return denied }, CauseDenied},
		"name, denied": {"localhost:" + strings.Split(echo.Addr(), ":")[1], func(netip.Addr) error { return denied }, CauseDenied},
		"refused":      {closedAddr(t), nil, CauseRefused},
		"no such name": {"no-such-host.invalid:80", nil, CauseResolve},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", Direct)}, CheckAddr: test.check})
			c, err := p.Connect(t.Context(), Request{Target: test.target})
			if test.want == "" {
				must(t, err)
				echoThrough(t, c)
				return
			}
			var failure *ConnectError
			if !errors.As(err, &failure) || failure.Cause != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if !p.Usable() {
				t.Error("a target's failure took the way out down")
			}
		})
	}
}

func TestNewPoolErrors(t *testing.T) {
	g := gatewayOf(t, "g", "http://gw.example:1")
	ok := Options{Gateways: []Gateway{g}, DialTimeout: 1, ConnectTimeout: 1}
	tests := map[string]func(*Options){
		"no gateway":        func(o *Options) { o.Gateways = nil },
		"same name":         func(o *Options) { o.Gateways = []Gateway{g, g} },
		"two pools, same":   func(o *Options) { o.Gateways = []Gateway{g, inPool(g, "other")} },
		"no pool":           func(o *Options) { o.Gateways = []Gateway{inPool(g, "")} },
		"pool with a dash":  func(o *Options) { o.Gateways = []Gateway{inPool(g, "a-b")} },
		"no weight":         func(o *Options) { light := g; light.Weight = 0; o.Gateways = []Gateway{light} },
		"direct and others": func(o *Options) { o.Gateways = append([]Gateway{g}, gatewayOf(t, "", Direct)) },
		"balance":           func(o *Options) { o.Balance = "best" },
		"timeout":           func(o *Options) { o.DialTimeout = 0 },
		"no range":          func(o *Options) { o.Ports = [2]int{2000, 1000} },
		"half a range":      func(o *Options) { o.Ports = [2]int{0, 1000} },
		"beyond ports":      func(o *Options) { o.Ports = [2]int{1024, 65536} },
		"all reserved":      func(o *Options) { o.Ports, o.PortsReserved = [2]int{1000, 1009}, 10 },
		"negative reserve":  func(o *Options) { o.Ports, o.PortsReserved = [2]int{1000, 1009}, -1 },
		"source twice":      func(o *Options) { o.Sources = addrs("127.0.0.2", "::ffff:127.0.0.2") },
		"no address":        func(o *Options) { o.Sources = []netip.Addr{{}} },
		"any address":       func(o *Options) { o.Sources = addrs("::") },
		"multicast":         func(o *Options) { o.Sources = addrs("224.0.0.1") },
		"zone":              func(o *Options) { o.Sources = addrs("fe80::1%eth0") },
		"too many sources":  func(o *Options) { o.Sources = make([]netip.Addr, maxSources+1) },
		"source of direct":  func(o *Options) { o.Gateways, o.Sources = []Gateway{gatewayOf(t, "", Direct)}, addrs("127.0.0.2") },
		"no such family": func(o *Options) {
			o.Gateways, o.Sources = []Gateway{gatewayOf(t, "", "http://[::1]:1")}, addrs("127.0.0.2")
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			o := ok
			spoil(&o)
			if _, err := NewPool(o); err == nil {
				t.Error("accepted")
			}
		})
	}
}
