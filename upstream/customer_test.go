package upstream

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

// of plays n attempts of a customer's.
func (w *ward) of(who customer, i, n int, e *ConnectError) {
	for range n {
		w.wait(time.Millisecond)
		w.health(i).reportOf(who, e, time.Millisecond, w.now)
	}
}

func refusalOf(c Cause) *ConnectError {
	return &ConnectError{Gateway: "g0", Phase: PhaseConnect, Cause: c, Status: 502}
}

// A customer whose targets are all dead, which many vendors answer as they answer trouble
// of their own, takes no gateway from the others.
func TestOneCustomersTargetsEjectNobody(t *testing.T) {
	dead := refusalOf(CauseServer)
	tests := map[string]struct {
		play func(w *ward)
		want GatewayState
	}{
		"he is in the majority": {func(w *ward) {
			w.of(2, 0, 1, nil)
			for range 100 {
				w.of(1, 0, 20, dead)
				w.of(2, 0, 1, nil)
			}
		}, up},
		"another fails now and then": {func(w *ward) {
			w.of(3, 0, 5, nil)
			for i := range 100 {
				w.of(1, 0, 20, dead)
				if i%10 == 0 {
					w.of(2, 0, 1, dead)
					w.of(1, 0, 2, dead)
				}
				w.of(3, 0, 2, nil)
				w.of(2, 0, 2, nil)
			}
		}, up},
		"nobody else is there": {func(w *ward) { w.of(1, 0, failuresInRow, dead) }, out},
		"the others fail, too": {func(w *ward) { w.of(1, 0, 3, dead); w.of(2, 0, 2, dead) }, out},
		"the others failed with him before": {func(w *ward) {
			w.of(2, 0, 3, dead)
			w.of(1, 0, 2, dead)
		}, out},
		"it dies under everybody": {func(w *ward) {
			for range 50 {
				w.of(1, 0, 1, nil)
				w.of(2, 0, 1, nil)
				w.of(3, 0, 1, nil)
			}
			for range 2 {
				w.of(1, 0, 1, dead)
				w.of(2, 0, 1, dead)
				w.of(3, 0, 1, dead)
			}
		}, out},
		"it fails half of everybody's": {func(w *ward) {
			for range 20 {
				w.of(1, 0, 1, nil)
				w.of(2, 0, 1, dead)
				w.of(1, 0, 1, dead)
				w.of(2, 0, 1, nil)
			}
		}, out},
		"it dies, and one customer has most of the traffic": {func(w *ward) {
			w.of(1, 0, 180, nil)
			w.of(2, 0, 20, nil)
			for range 100 {
				w.of(1, 0, 9, dead)
				w.of(2, 0, 1, dead)
			}
		}, out},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWard(t, 2)
			test.play(w)
			if got := w.state(0); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// Who fails a trial lets the others go first to the next one.
func TestFailedTrialsAreNotRepeated(t *testing.T) {
	w := newWard(t, 2)
	dead := refusalOf(CauseTimeout)
	w.eject(0)
	w.wait(backoffMin)
	h := w.health(0)
	w.of(1, 0, 1, dead)
	w.wait(2 * backoffMin)
	if h.usableFor(1, w.now) || !h.usableFor(2, w.now) || !h.usableFor(0, w.now) {
		t.Errorf("usable for him %t, for another %t", h.usableFor(1, w.now), h.usableFor(2, w.now))
	}
	w.wait(backoffMin)
	if !h.usableFor(1, w.now) {
		t.Error("shut out for ever")
	}
	w.of(2, 0, trialsInRow, nil)
	w.want(up, up)
	if !h.usableFor(1, w.now) {
		t.Error("not usable when it is up")
	}
	e := &candidates{route: &Route{customer: 1}, attempts: new(attempts), now: w.now}
	if !e.has(w.pool.gateways[0]) {
		t.Error("no candidate")
	}
}

// The retries of one who fails always are paid from his share.
func TestOneCustomersRetriesAreHisOwn(t *testing.T) {
	p := literalPool(t, 3, Options{})
	retries := func(account string, n int) (made int) {
		r, err := p.Route(Choice{Account: account, Client: netip.MustParseAddr("192.0.2.7")})
		must(t, err)
		var a attempts
		for range n {
			now := time.Now()
			a.start(r, now)
			for g := a.next(now); g != nil; g = a.next(now) {
				a.failed(g, &ConnectError{Phase: PhaseConnect, Cause: CauseServer, Status: 502, took: time.Millisecond}, now)
				made++
			}
		}
		return made - n
	}
	other := "alice"
	for customerOf(&Choice{Account: other}) == customerOf(&Choice{Account: "eve"}) {
		other += "e"
	}
	eves := retries("eve", 1000)
	if eves < 150 || eves > 200 {
		t.Errorf("eve: %d retries", eves)
	}
	for range 50 { // served at once: they earn, and use nothing
		r, err := p.Route(Choice{Account: other})
		must(t, err)
		var a attempts
		a.start(r, time.Now())
		a.next(time.Now())
		a.end(true)
	}
	if others := retries(other, 10); others < 10 {
		t.Errorf("%s: %d retries of 10 exchanges, after eve's", other, others)
	}
	wantNothingHeld(t, p)
}

// A target can write any answer to a plain request, a vendor's own refusal, too.
func TestForgedRefusalsEjectNobody(t *testing.T) {
	forger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host == "good.example" {
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer forger.Close()
	var gateways []Gateway
	for _, name := range []string{"a", "b"} {
		address := strings.TrimPrefix(forger.URL, "http://")
		gateways = append(gateways, parsed(t, GatewayConfig{Name: name, URL: "http://bob:pw@" + address, Username: "{login}{?session:-s-{session}}"}))
	}
	p := newPool(t, Options{Gateways: gateways, GatewayMade: func(r *http.Response) bool { return r.StatusCode == 503 }})
	transport := NewTransport(p, nil)
	defer transport.Close()
	ask := func(account, host string) {
		c := Choice{Account: account}
		if account == "eve" { // all through one gateway
			c.Params.Session = "a"
		}
		route, err := p.Route(c)
		must(t, err)
		r := (&http.Request{Method: "POST", URL: &url.URL{Scheme: "http", Host: host, Path: "/"}, Host: host, Header: http.Header{}}).WithContext(t.Context())
		if response, _, err := transport.Do(PlainRequest{Request: r, Route: route, Key: account}); err == nil {
			_ = response.Body.Close()
		}
	}
	ask("alice", "good.example")
	ask("alice", "good.example")
	for range 100 {
		ask("eve", "evil.example")
		ask("eve", "evil.example")
		ask("eve", "evil.example")
		ask("alice", "good.example")
		ask("alice", "good.example")
	}
	for _, g := range p.Snapshot() {
		if g.State != StateUp {
			t.Errorf("%s is %s: %s", g.Name, g.State, g.Cause)
		}
	}
}

// A session's port that does not answer says nothing of the gateway's own.
func TestDeadSessionPortIsNotTheGateways(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: opens, RecordLimit: -1})
	vendorURL, err := url.Parse(v.URL())
	must(t, err)
	infatica, err := vendor.Load("infatica")
	must(t, err)
	if infatica.Spec().SessionPorts == nil {
		t.Fatal("no session ports")
	}
	// Nobody listens on the preset's ports of this address.
	gw := parsed(t, GatewayConfig{Name: "gw", Vendor: "infatica", URL: "http://bob:pw@127.0.0.9:1"})
	gw.Host, gw.Port = vendorURL.Hostname(), vendorURL.Port()
	spare := gatewayOf(t, "spare", v.URL())
	p := newPool(t, Options{Gateways: []Gateway{gw, spare}, DialTimeout: 2 * time.Second})
	for name, open := range ways {
		t.Run(name, func(t *testing.T) {
			for range failuresInRow - 1 {
				route, err := p.Route(Choice{Account: "eve", Params: vendor.Params{Session: "a"}})
				must(t, err)
				c, err := open(context.Background(), p, Request{Target: "t.example:443", Route: route})
				if err == nil {
					_ = c.Close()
					c.Release()
					t.Skip("somebody listens there")
				}
			}
			s := p.Snapshot()[0]
			if s.State != StateUp || s.Endpoints[0].State != EndpointUp {
				t.Errorf("%s, its address %s", s.State, s.Endpoints[0].State)
			}
			p.gateways[0].health.doubts.Store(0)
		})
	}
}
