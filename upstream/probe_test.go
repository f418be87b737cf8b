package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// happenings collects events.
type happenings struct {
	mu  sync.Mutex
	all []Event
}

func (h *happenings) note(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, e)
}

// has reports whether something happened, "gateway kind cause".
func (h *happenings) has(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.all, func(e Event) bool {
		return strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Gateway, e.Kind, e.Cause)) == what
	})
}

// runPool runs a pool that probes every 10 ms and has back-offs of 50 ms.
func runPool(t *testing.T, o Options) (*Pool, *happenings) {
	t.Helper()
	var seen happenings
	if o.HealthInterval == 0 {
		o.HealthInterval = 10 * time.Millisecond
	}
	o.Notify = seen.note
	p := newPool(t, o)
	p.overseer.spread = func(time.Duration) time.Duration { return 50 * time.Millisecond }
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, g := range p.gateways {
			if n := g.conns.Load(); n != 0 {
				t.Errorf("%s: %d connections are still counted", g.Name, n)
			}
			if g.endpoints != nil {
				for _, ep := range g.endpoints.list() {
					for _, l := range ep.lanes {
						if n := l.inUse.Load(); n != 0 {
							t.Errorf("%s: %d ports are still counted", ep.addr, n)
						}
					}
				}
			}
		}
	})
	return p, &seen
}

func stateOf(p *Pool, i int) GatewayState { return p.Snapshot()[i].State }

func probeCount(t *testing.T, p *Pool, gateway, kind, result string) float64 {
	t.Helper()
	return collected(t, p, "maskrelay_upstream_probes_total")[kind+" "+result+" "+gateway].GetCounter().GetValue()
}

func TestProbeFindsGatewayGoneAndBack(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{})
	other := startVendor(t, upstreamtest.VendorConfig{})
	p, seen := runPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL()), gatewayOf(t, "other", other.URL())}})
	waitFor(t, func() bool { return probeCount(t, p, "gw", probeConnect, "ok") > 1 })
	must(t, v.Close())
	waitFor(t, func() bool { return stateOf(p, 0) == StateUnreachable && seen.has("gw down refused") })
	if !p.Usable() {
		t.Error("not usable")
	}
	startVendor(t, upstreamtest.VendorConfig{Addr: v.Addr()})
	waitFor(t, func() bool { return stateOf(p, 0) == StateUp && seen.has("gw up") })
	if n := failedCount(t, p, "gw", CauseRefused); n != 0 {
		t.Errorf("probes count as %g attempts", n)
	}
}

func TestProbeVerifiesTLS(t *testing.T) {
	ca, err := upstreamtest.NewCA()
	must(t, err)
	cert, err := ca.Server("localhost")
	must(t, err)
	v := startVendor(t, upstreamtest.VendorConfig{TLS: serverTLS(cert)})
	_, port, err := net.SplitHostPort(v.Addr())
	must(t, err)
	good, bad := gatewayOf(t, "good", "https://localhost:"+port), gatewayOf(t, "bad", "https://localhost:"+port)
	good.roots = ca.Pool()
	p, seen := runPool(t, Options{
		Gateways: []Gateway{good, bad},
		Lookup:   func(context.Context, string, string) ([]netip.Addr, error) { return addrs("127.0.0.1"), nil },
	})
	waitFor(t, func() bool { return seen.has("bad down tls") && probeCount(t, p, "good", probeConnect, "ok") > 1 })
	if s := stateOf(p, 0); s != StateUp {
		t.Errorf("the good one is %s", s)
	}
}

func TestProbeOfTheHealthTarget(t *testing.T) {
	echo := startEcho(t)
	bad := startVendor(t, upstreamtest.VendorConfig{Username: "user", Password: "pass", Behaviour: upstreamtest.Loud(407, "AUTH_FAILED")})
	good := startVendor(t, upstreamtest.VendorConfig{Username: "user", Password: "pass"})
	p, seen := runPool(t, Options{
		Gateways:     []Gateway{gatewayOf(t, "bad", bad.URL()), gatewayOf(t, "good", good.URL())},
		HealthTarget: echo.Addr(),
	})
	waitFor(t, func() bool { return seen.has("bad down auth") })
	if n := probeCount(t, p, "bad", probeTarget, string(CauseAuth)); n < probesInRow {
		t.Errorf("ejected after %g probes", n)
	}
	waitFor(t, func() bool { return probeCount(t, p, "good", probeTarget, "ok") > 3 && seen.has("bad trouble auth") })
	if s := stateOf(p, 1); s != StateUp || seen.has("good trouble auth") {
		t.Errorf("the good one is %s", s)
	}
	want := "CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: " + echo.Addr() + "\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
	if !strings.Contains(string(good.Received()), want) || strings.Count(string(good.Received()), "CONNECT") != strings.Count(string(good.Received()), want) {
		t.Errorf("the vendor got\n%q", good.Received())
	}
	bad.SetBehaviour(nil)
	waitFor(t, func() bool { return stateOf(p, 0) == StateUp && seen.has("bad up") })
}

// A vendor that does not serve the health target has not failed, but the operator hears of it.
func TestProbeOfARefusedTarget(t *testing.T) {
	for name, test := range map[string]struct {
		behaviour upstreamtest.Behaviour
		cause     Cause
		told      bool
	}{
		"target forbidden":      {upstreamtest.Loud(403, "NOT_ALLOWED"), CauseForbidden, true},
		"no login of ours, 407": {upstreamtest.Loud(407, "WHO_ARE_YOU"), CauseAuth, false},
	} {
		t.Run(name, func(t *testing.T) {
			other := startVendor(t, upstreamtest.VendorConfig{})
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: test.behaviour})
			p, seen := runPool(t, Options{
				Gateways:     []Gateway{gatewayOf(t, "gw", v.URL()), gatewayOf(t, "other", other.URL())},
				HealthTarget: startEcho(t).Addr(),
			})
			trouble := "gw trouble " + string(test.cause)
			waitFor(t, func() bool {
				return probeCount(t, p, "gw", probeTarget, string(test.cause)) > 3 && (!test.told || seen.has(trouble))
			})
			if s := stateOf(p, 0); s != StateUp || seen.has(trouble) != test.told {
				t.Errorf("%s, told: %t", s, seen.has(trouble))
			}
		})
	}
}

func TestProbesCountAmongConnections(t *testing.T) {
	var p atomic.Pointer[Pool]
	counted := make(chan int64, 100)
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(
		func(_ context.Context, _ *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
			select {
			case counted <- p.Load().gateways[0].conns.Load():
			default:
			}
		})})
	g := gatewayOf(t, "gw", v.URL())
	g.MaxConns = 1
	pool := newPool(t, Options{Gateways: []Gateway{g}, HealthTarget: "target.example:443"})
	p.Store(pool)
	b := prober{g: pool.gateways[0], target: "target.example:443", interval: time.Second}
	b.round(t.Context())
	select {
	case n := <-counted:
		if n != 1 {
			t.Errorf("%d connections counted while the probe was under way", n)
		}
	default:
		t.Error("the target was not probed")
	}
	if n := pool.gateways[0].conns.Load(); n != 0 {
		t.Errorf("%d connections counted after the probe", n)
	}
	// A full gateway is not probed, and that says nothing of it.
	accepted := v.Accepted()
	if !pool.gateways[0].tryAcquire() {
		t.Fatal("full")
	}
	b.round(t.Context())
	pool.gateways[0].release()
	if v.Accepted() != accepted || stateOf(pool, 0) != StateUp {
		t.Errorf("%d connections more, %s", v.Accepted()-accepted, stateOf(pool, 0))
	}
}

func TestProbesGoThroughAllAddresses(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{})
	_, port, err := net.SplitHostPort(v.Addr())
	must(t, err)
	var all []netip.Addr
	for i := range 10 {
		all = append(all, netip.MustParseAddr(fmt.Sprintf("127.0.0.%d", i+1)))
	}
	p := newPool(t, Options{
		Gateways: []Gateway{gatewayOf(t, "gw", "http://gw.example:"+port)},
		Lookup:   func(context.Context, string, string) ([]netip.Addr, error) { return all, nil },
	})
	b := prober{g: p.gateways[0], interval: time.Second}
	failing := func() (n int) {
		for _, ep := range p.Snapshot()[0].Endpoints {
			if ep.State == "failing" {
				n++
			}
		}
		return n
	}
	b.round(t.Context())
	if n := failing(); n != 7 { // .2 to .8
		t.Errorf("%d addresses are failing after a round", n)
	}
	b.round(t.Context())
	if n := failing(); n != 9 {
		t.Errorf("%d addresses are failing after two rounds", n)
	}
	if stateOf(p, 0) != StateUp {
		t.Errorf("%s, though one address answers", stateOf(p, 0))
	}
	must(t, v.Close())
	b.round(t.Context()) // begins at .7 and goes on to .4: none answers
	if stateOf(p, 0) != StateUnreachable {
		t.Errorf("%s, though none answers", stateOf(p, 0))
	}
}

func TestProbeOfANameThatDoesNotResolve(t *testing.T) {
	p := newPool(t, Options{
		Gateways: []Gateway{gatewayOf(t, "gw", "http://gw.example:1")},
		Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
			return nil, errors.New("no such host")
		},
	})
	b := prober{g: p.gateways[0], interval: time.Second}
	b.round(t.Context())
	if s := p.Snapshot()[0]; s.State != StateUnreachable || s.Cause != CauseResolve || s.Advice == "" {
		t.Errorf("%+v", s)
	}
}

// Run's end ends probes that hang, and what they found out then is not held against anybody.
func TestRunEndsHangingProbes(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
	p := newPool(t, Options{
		Gateways:       []Gateway{gatewayOf(t, "gw", v.URL())},
		ConnectTimeout: time.Hour, HealthInterval: 10 * time.Millisecond, HealthTarget: "target.example:443",
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	waitFor(t, func() bool { return len(v.Received()) > 0 })
	cancel()
	<-done
	if n := p.gateways[0].health.window.sum(momentOf(time.Now())).attempts(); n != 0 || p.gateways[0].conns.Load() != 0 {
		t.Errorf("%d attempts, %d connections", n, p.gateways[0].conns.Load())
	}
}

// Run does not return before what happened was told.
func TestRunTellsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Event
		p := literalPool(t, 2, Options{HealthInterval: time.Hour, Notify: func(e Event) {
			time.Sleep(time.Minute) // synctest's clock
			told = append(told, e)
		}})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, g := range p.gateways {
			g.health.report(&ConnectError{Gateway: g.Name, Phase: PhaseDial, Cause: CauseRefused}, 0, time.Now())
		}
		p.Run(ctx)
		if len(told) != 2 || told[0].Gateway != "g0" || told[1].Gateway != "g1" {
			t.Errorf("%+v", told)
		}
	})
}

// With one gateway of three failing half of its answers it is out of use after little
// traffic, and nobody notices.
func TestGatewayThatFailsHalfIsEjected(t *testing.T) {
	echo := startEcho(t)
	var answers atomic.Int64
	half := upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, r *upstreamtest.RecordedRequest) {
		if answers.Add(1)%2 == 0 {
			upstreamtest.CloseBeforeReply().Serve(ctx, c, r)
			return
		}
		upstreamtest.Relay{}.Serve(ctx, c, r)
	})
	ill := startVendor(t, upstreamtest.VendorConfig{Behaviour: half})
	o := Options{Gateways: []Gateway{gatewayOf(t, "ill", ill.URL())}, HealthInterval: time.Minute}
	for _, name := range []string{"a", "b"} {
		o.Gateways = append(o.Gateways, gatewayOf(t, name, startVendor(t, upstreamtest.VendorConfig{}).URL()))
	}
	p := newPool(t, o)
	exchanges := 0
	for ; stateOf(p, 0) == StateUp; exchanges++ {
		if exchanges > 3*2*minSamples {
			t.Fatal("still in use")
		}
		c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
		must(t, err)
		echoThrough(t, c)
	}
	before := ill.Accepted()
	for range 30 {
		c, err := p.Connect(t.Context(), Request{Target: echo.Addr()})
		must(t, err)
		echoThrough(t, c)
	}
	if ill.Accepted() != before {
		t.Errorf("used %d times more", ill.Accepted()-before)
	}
	s := p.Snapshot()[0]
	if s.State != StateEjected || s.Cause != CauseClosed || s.SuccessRate == nil || *s.SuccessRate >= .6 || s.Failures[CauseClosed] < 5 {
		t.Errorf("after %d exchanges: %+v", exchanges, s)
	}
}

// A gateway that swallows connections is looked at by the pool, which has the time to
// wait, and by no exchange before that look has ended.
func TestSilentGatewayIsLeftToTheProbes(t *testing.T) {
	const dial = 10 * time.Second
	p := literalPool(t, 2, Options{DialTimeout: dial})
	h, now := &p.gateways[0].health, time.Now()
	silent := &ConnectError{Phase: PhaseDial, Cause: CauseTimeout}
	for look := range 4 {
		h.report(silent, 0, now)
		next := now.Add(probeInterval + dial)
		if h.usable(next) {
			t.Errorf("after %d looks an exchange is as early as the next look", look+1)
		}
		if late := next.Add(2 * probeInterval); !h.usable(late) {
			t.Errorf("after %d looks nobody tries if the pool does not", look+1)
		}
		now = next
	}
}

// Relays that started together do not go on probing together.
func TestIntervalsVary(t *testing.T) {
	const d = 10 * time.Second
	least, most := d, d
	for range 1000 {
		v := varied(d)
		least, most = min(least, v), max(most, v)
	}
	if least < d*9/10 || most > d*11/10 || least > d*92/100 || most < d*108/100 {
		t.Errorf("%s to %s", least, most)
	}
}
