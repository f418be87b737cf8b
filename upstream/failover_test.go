package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

// opens answers every CONNECT with a tunnel that leads nowhere.
var opens = upstreamtest.Raw{Bytes: []byte("HTTP/1.1 200 OK\r\n\r\n")}

// halfFails answers half of the requests with an error of its own.
func halfFails(seed uint64) upstreamtest.Behaviour {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 0))
	bad := upstreamtest.Loud(502, "NO_HOST_CONNECTION")
	return upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, req *upstreamtest.RecordedRequest) {
		mu.Lock()
		fails := r.IntN(2) == 0
		mu.Unlock()
		if fails {
			bad.Serve(ctx, c, req)
			return
		}
		opens.Serve(ctx, c, req)
	})
}

// fleet is a pool of vendors with these behaviours; nil = nobody listens.
type fleet struct {
	pool    *Pool
	vendors []*upstreamtest.Vendor
}

func startFleet(t *testing.T, change func([]Gateway), behaviours ...upstreamtest.Behaviour) *fleet {
	t.Helper()
	f := &fleet{}
	gateways := make([]Gateway, len(behaviours))
	for i, b := range behaviours {
		url := "http://" + closedAddr(t)
		var v *upstreamtest.Vendor
		if b != nil {
			v = startVendor(t, upstreamtest.VendorConfig{Behaviour: b, RecordLimit: -1})
			url = v.URL()
		}
		f.vendors = append(f.vendors, v)
		gateways[i] = gatewayOf(t, string(rune('a'+i)), url)
	}
	if change != nil {
		change(gateways)
	}
	f.pool = newPool(t, Options{Gateways: gateways, ConnectTimeout: 2 * time.Second})
	return f
}

// reached is how many attempts the vendors have seen.
func (f *fleet) reached() int {
	n := 0
	for _, v := range f.vendors {
		if v != nil {
			n += v.Accepted()
		}
	}
	return n
}

// served makes n exchanges, some at once, and counts those that were served.
func (f *fleet) served(t *testing.T, n int) int {
	t.Helper()
	var served, next atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for next.Add(1) <= int64(n) {
				c, err := f.pool.Connect(t.Context(), Request{Target: "target.example:443"})
				var failure *ConnectError
				switch {
				case err == nil:
					served.Add(1)
					_ = c.Close()
					c.Release()
				case !errors.As(err, &failure) || failure.Cause != CauseServer:
					t.Errorf("error %v", err)
				}
			}
		})
	}
	all.Wait()
	return int(served.Load())
}

func (f *fleet) retries(t *testing.T) (made, denied float64) {
	t.Helper()
	m := collected(t, f.pool, "maskrelay_upstream_retries_total")
	return m["default made"].GetCounter().GetValue(), m["default denied"].GetCounter().GetValue()
}

func TestOneOfThreeFailsHalf(t *testing.T) {
	const exchanges = 3000
	f := startFleet(t, nil, halfFails(1), opens, opens)
	served := f.served(t, exchanges)
	extra := f.reached() - exchanges
	made, denied := f.retries(t)
	t.Logf("%d of %d served, %d extra attempts, %g retries denied", served, exchanges, extra, denied)
	if served < exchanges*99/100 {
		t.Errorf("%d of %d served", served, exchanges)
	}
	if extra > exchanges/5 || float64(extra) != made {
		t.Errorf("%d extra attempts, %g counted", extra, made)
	}
}

func TestAllThreeFailHalf(t *testing.T) {
	for _, exchanges := range []int{1000, 3000} {
		f := startFleet(t, nil, halfFails(1), halfFails(2), halfFails(3))
		served := f.served(t, exchanges)
		extra := f.reached() - exchanges
		made, denied := f.retries(t)
		t.Logf("%d of %d served, %d extra attempts, %g retries denied", served, exchanges, extra, denied)
		if extra > exchanges/5 || float64(extra) != made {
			t.Errorf("%d exchanges: %d extra attempts, %g counted", exchanges, extra, made)
		}
		if extra < exchanges*18/100 || served < exchanges*55/100 || denied == 0 {
			t.Errorf("%d exchanges: %d served with %d extra attempts, %g denied: the budget is not used", exchanges, served, extra, denied)
		}
	}
}

// Who cannot be reached bears no load: nobody fails for want of tokens.
func TestDeadGatewayCostsNobody(t *testing.T) {
	const exchanges = 500
	f := startFleet(t, nil, nil, nil, opens)
	f.pool.plain.group.budget.state.Store(0) // not needed
	if served := f.served(t, exchanges); served != exchanges || f.reached() != exchanges {
		t.Errorf("%d served, %d attempts", served, f.reached())
	}
	if made, denied := f.retries(t); made != 0 || denied != 0 {
		t.Errorf("%g retries counted, %g denied", made, denied)
	}
}

func TestAtMostThreeAreReached(t *testing.T) {
	bad := upstreamtest.Loud(502, "NO_HOST_CONNECTION")
	f := startFleet(t, func(gateways []Gateway) {
		for i := range gateways {
			gateways[i].Weight = 10 - i // a, b, c … at first
		}
		gateways[1].MaxConns = 1
	}, nil, bad, bad, nil, bad, bad, opens)
	if !f.pool.gateways[1].tryAcquire() {
		t.Fatal("full already")
	}
	defer f.pool.gateways[1].release()
	_, err := f.pool.Connect(t.Context(), Request{Target: "target.example:443"})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseServer {
		t.Fatalf("error %v", err)
	}
	if n := f.reached(); n != maxAnswered {
		t.Errorf("%d gateways were reached", n)
	}
	if made, denied := f.retries(t); made != maxAnswered-1 || denied != 0 {
		t.Errorf("%g retries, %g denied", made, denied)
	}
}

// One gateway alone: there is nothing to retry, and nothing was denied.
func TestAloneNothingIsDenied(t *testing.T) {
	f := startFleet(t, nil, upstreamtest.Loud(502, "NO_HOST_CONNECTION"))
	for range 50 {
		wantCause(t, f.pool, CauseServer)
	}
	if made, denied := f.retries(t); made != 0 || denied != 0 {
		t.Errorf("%g retries, %g denied", made, denied)
	}
}

// atVendor makes g one of a vendor's, with a login there.
func atVendor(g Gateway, preset *vendor.Preset, login string) Gateway {
	g.Vendor, g.username = preset, login
	return g
}

func TestAccountWideIsTriedWithAnotherAccountOnly(t *testing.T) {
	f := startFleet(t, func(gateways []Gateway) {
		preset := &vendor.Preset{Name: "oxylabs"}
		for i, login := range []string{"customer-bob", "customer-bob", "customer-eve"} {
			gateways[i] = atVendor(gateways[i], preset, login)
			gateways[i].Weight = 3 - i
		}
	}, upstreamtest.Loud(407, "AUTH_FAILED"), opens, opens)
	c, err := f.pool.Connect(t.Context(), Request{Target: "target.example:443"})
	must(t, err)
	defer c.Release()
	defer func() { _ = c.Close() }()
	if c.Gateway != "c" || f.vendors[1].Accepted() != 0 {
		t.Errorf("through %s; the one with the same login was asked %d times", c.Gateway, f.vendors[1].Accepted())
	}
}

// told goes through a pool whose gateways fail with these causes, and says which were tried.
func told(t *testing.T, p *Pool, failures map[string]*ConnectError) string {
	t.Helper()
	var tried []string
	_ = p.try(t.Context(), nil, func(g *gateway, _ moment) *ConnectError {
		tried = append(tried, g.Name)
		if failure := failures[g.Name]; failure != nil {
			again := *failure
			return &again
		}
		return nil
	})
	return strings.Join(tried, "")
}

func TestWhereToTryAgain(t *testing.T) {
	refused := func(cause Cause) *ConnectError { return &ConnectError{Phase: PhaseConnect, Cause: cause} }
	oxylabs, decodo := &vendor.Preset{Name: "oxylabs"}, &vendor.Preset{Name: "decodo"}
	generic, err := vendor.Load(vendor.Generic)
	must(t, err)
	// a is tried first, then b …, as far as they may be.
	pool := func(t *testing.T) *Pool {
		gateways := weighted(t, 1000, 300, 100, 30, 10, 3)
		for i, of := range []struct {
			preset *vendor.Preset
			login  string
		}{{oxylabs, "bob"}, {oxylabs, "bob"}, {oxylabs, "eve"}, {decodo, "bob"}, {generic, "bob"}, {generic, "bob"}} {
			gateways[i] = atVendor(gateways[i], of.preset, of.login)
		}
		return newPool(t, Options{Gateways: gateways})
	}
	tests := []struct {
		name     string
		failures map[string]*ConnectError
		want     string
	}{
		{"served", nil, "a"},
		{"auth", map[string]*ConnectError{"a": refused(CauseAuth)}, "ac"},
		{"quota", map[string]*ConnectError{"a": refused(CauseQuota)}, "ac"},
		{"threads", map[string]*ConnectError{"a": refused(CauseThreads)}, "ac"},
		{"rate", map[string]*ConnectError{"a": refused(CauseRate)}, "ac"},
		{"params", map[string]*ConnectError{"a": refused(CauseParams)}, "ac"},
		{"no exit", map[string]*ConnectError{"a": refused(CauseNoExit)}, "ac"},
		{"session", map[string]*ConnectError{"a": refused(CauseSession)}, "ac"},
		{"two accounts", map[string]*ConnectError{"a": refused(CauseNoExit), "c": refused(CauseAuth)}, "acd"},
		{"own trouble", map[string]*ConnectError{"a": refused(CauseServer)}, "ab"},
		{"TLS", map[string]*ConnectError{"a": {Phase: PhaseTLS, Cause: CauseTLS}}, "ab"},
		{"own trouble, then the account", map[string]*ConnectError{"a": refused(CauseTimeout), "b": refused(CauseAuth)}, "abc"},
		{"three answered", map[string]*ConnectError{"a": refused(CauseServer), "b": refused(CauseClosed), "c": refused(CauseServer)}, "abc"},
		{"three accounts", map[string]*ConnectError{"a": refused(CauseAuth), "c": refused(CauseAuth), "d": refused(CauseAuth)}, "acd"},
		{"a generic one shares no account", map[string]*ConnectError{
			"a": {Phase: PhaseDial, Cause: CauseRefused}, "b": {Phase: PhaseDial, Cause: CauseTimeout},
			"c": fullError(), "d": {Phase: PhaseResolve, Cause: CauseResolve}, "e": refused(CauseAuth),
		}, "abcdef"},
		{"forbidden", map[string]*ConnectError{"a": refused(CauseForbidden)}, "a"},
		{"target's name", map[string]*ConnectError{"a": refused(CauseTargetDNS)}, "a"},
		{"target's host", map[string]*ConnectError{"a": refused(CauseUnreachable)}, "a"},
		{"status", map[string]*ConnectError{"a": refused(CauseStatus)}, "a"},
		{"left", map[string]*ConnectError{"a": {Phase: PhaseDial, Cause: CauseCanceled}}, "a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := told(t, pool(t), test.failures); got != test.want {
				t.Errorf("tried %s, want %s", got, test.want)
			}
		})
	}
}

// A token that was taken for a gateway that then could not be reached serves for the next
// one, or is given back.
func TestTokensOfTheUnreachable(t *testing.T) {
	server := &ConnectError{Phase: PhaseConnect, Cause: CauseServer}
	dead := &ConnectError{Phase: PhaseDial, Cause: CauseRefused}
	tests := map[string]struct {
		failures     map[string]*ConnectError
		tokens       int // before
		tried        string
		left         int // tokens
		made, denied uint64
	}{
		"serves for the next": {map[string]*ConnectError{"a": server, "b": dead}, 1, "abc", 0, 1, 0},
		"given back":          {map[string]*ConnectError{"a": server, "b": dead, "c": dead}, 1, "abc", 1, 0, 0},
		"used up":             {map[string]*ConnectError{"a": server, "b": server}, 1, "ab", 0, 1, 1},
		"none":                {map[string]*ConnectError{"a": server}, 0, "a", 0, 0, 1},
		"none needed":         {map[string]*ConnectError{"a": dead, "b": dead}, 0, "abc", 0, 0, 0},
		"none to be tried":    {map[string]*ConnectError{"a": dead, "b": dead, "c": server}, 0, "abc", 0, 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, Options{Gateways: weighted(t, 100, 10, 1)})
			b := &p.plain.group.budget
			b.state.Store(uint64(test.tokens * budgetToken))
			if tried := told(t, p, test.failures); tried != test.tried {
				t.Errorf("tried %s, want %s", tried, test.tried)
			}
			if b.made.Load() != test.made || b.denied.Load() != test.denied {
				t.Errorf("%d made, %d denied", b.made.Load(), b.denied.Load())
			}
			if got := b.left(); got != test.left {
				t.Errorf("%d tokens left, want %d", got, test.left)
			}
		})
	}
}

// A set-up that is given up in the middle of a retry has used its token.
func TestResetSpendsTheToken(t *testing.T) {
	p := newPool(t, Options{Gateways: weighted(t, 2, 1)})
	var a attempts
	a.start(p.plain, time.Now())
	g := a.next(time.Now())
	a.failed(g, &ConnectError{Phase: PhaseConnect, Cause: CauseServer}, time.Now())
	if g = a.next(time.Now()); g == nil || g.Name != "b" {
		t.Fatalf("%v", g)
	}
	a.reset()
	b := &p.plain.group.budget
	if made, left := b.made.Load(), b.left(); made != 1 || left != 14 {
		t.Errorf("%d made, %d left", made, left)
	}
}

// Which gateways can do what is asked decides where it may go.
func TestAble(t *testing.T) {
	country := &vendor.Fault{Kind: vendor.Unavailable, Key: vendor.Country}
	needs := &vendor.Fault{Kind: vendor.Needs, Key: vendor.City, Other: vendor.Country}
	malformed := &vendor.Fault{Kind: vendor.Malformed}
	tests := map[string]struct {
		faults []*vendor.Fault
		want   []int // eligible of the first 3
		fault  *vendor.Fault
	}{
		"all":              {[]*vendor.Fault{nil, nil, nil}, []int{0, 1, 2}, nil},
		"one":              {[]*vendor.Fault{country, nil, needs}, []int{1}, nil},
		"two":              {[]*vendor.Fault{nil, country, nil}, []int{0, 2}, nil},
		"none: the first":  {[]*vendor.Fault{needs, country, malformed}, nil, needs},
		"malformed is not": {[]*vendor.Fault{malformed, country, needs}, nil, country},
		"only malformed":   {[]*vendor.Fault{malformed}, nil, &vendor.Fault{Kind: vendor.Unavailable, Key: vendor.State}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			group := &group{}
			for i, f := range test.faults {
				can := func(vendor.Params) *vendor.Fault { return f }
				group.kinds = append(group.kinds, kind{fault: can, members: members{1 << i}})
			}
			able, fault := group.able(vendor.Params{State: "ny", City: "x"})
			if fmt.Sprint(fault) != fmt.Sprint(test.fault) || fault != nil && *fault != *test.fault {
				t.Fatalf("fault %+v, want %+v", fault, test.fault)
			}
			if fault != nil {
				return
			}
			for i := range 3 {
				if able.has(i) != slices.Contains(test.want, i) {
					t.Errorf("%d: able %t", i, able.has(i))
				}
			}
		})
	}
}

// Without a login of ours nothing can carry a customer's wishes.
func TestRouteWithoutALogin(t *testing.T) {
	for _, url := range []string{"http://gw.example:1", Direct} {
		p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "g", url)}})
		_, err := p.Route(Choice{Account: "alice", Params: vendor.Params{Session: "s", TTL: time.Minute}})
		var fault *vendor.Fault
		if !errors.As(err, &fault) || *fault != (vendor.Fault{Kind: vendor.Unavailable, Key: vendor.Session}) {
			t.Errorf("%s: error %v", url, err)
		}
	}
}
