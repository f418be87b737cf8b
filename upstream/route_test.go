package upstream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/vendor"
)

func TestRouteHashesWhatItSays(t *testing.T) {
	choice := Choice{Account: "alice", Client: clientAddr(1)}
	tests := []struct {
		name, balance string
		change        func(*Choice)
		same          bool
	}{
		{"address, other user", IPHash, func(c *Choice) { c.Account = "bob" }, true},
		{"address, other address", IPHash, func(c *Choice) { c.Client = clientAddr(2) }, false},
		{"user, other address", UserHash, func(c *Choice) { c.Client = clientAddr(2) }, true},
		{"user, other user", UserHash, func(c *Choice) { c.Account = "bob" }, false},
	}
	for _, test := range tests {
		p := newPool(t, Options{Gateways: weighted(t, 1, 1, 1), Balance: test.balance})
		other := choice
		test.change(&other)
		if same := route(t, p, choice).key == route(t, p, other).key; same != test.same {
			t.Errorf("%s: the same key: %t", test.name, same)
		}
	}
	p := newPool(t, Options{Gateways: weighted(t, 1, 1, 1), Balance: UserHash})
	one, two := route(t, p, Choice{Client: clientAddr(1)}), route(t, p, Choice{Client: clientAddr(2)})
	if one.key == two.key {
		t.Error("all who have no name go to one gateway")
	}
}

func TestNothingIsAllocatedForAnExchange(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastConn} {
		p := newPool(t, Options{Gateways: weighted(t, upTo(64)...), Balance: balance})
		var a attempts
		n := testing.AllocsPerRun(1000, func() {
			r, err := p.Route(Choice{Account: "alice", Client: clientAddr(1)})
			if err != nil {
				t.Fatal(err)
			}
			a.start(r, time.Now())
			if a.next(time.Now()) == nil {
				t.Fatal("none")
			}
			a.end(true)
		})
		if n != 0 {
			t.Errorf("%s: %g allocations", balance, n)
		}
	}
}

func TestRoute(t *testing.T) {
	p := newPool(t, Options{Gateways: []Gateway{
		inPool(weighted(t, 1)[0], "zeta"), inPool(weighted(t, 1, 1)[1], DefaultPool),
	}})
	if got := strings.Join(p.Pools(), " "); got != "default zeta" {
		t.Errorf("pools %s", got)
	}
	if !p.HasPool("") || !p.HasPool("zeta") || p.HasPool("beta") {
		t.Error("HasPool")
	}
	for pool, want := range map[string]string{"": "b", "default": "b", "zeta": "a"} {
		r := route(t, p, Choice{Pool: pool, Account: "alice"})
		if g := r.pick(new(attempts), time.Now()); g.Name != want {
			t.Errorf("pool %q: %s", pool, g.Name)
		}
		if again := route(t, p, Choice{Pool: pool, Account: "alice", Params: vendor.Params{Pool: pool}}); again != r {
			t.Errorf("pool %q: another route for the same customer without wishes", pool)
		}
	}
	if _, err := p.Route(Choice{Pool: "beta"}); !errors.Is(err, ErrNoPool) {
		t.Errorf("error %v", err)
	}
	if p.routeOr(nil).group.name != DefaultPool {
		t.Error("those who bring no route are not in the default pool")
	}
	alone := newPool(t, Options{Gateways: []Gateway{inPool(weighted(t, 1)[0], "zeta")}})
	if alone.routeOr(nil).group.name != "zeta" {
		t.Error("without a default pool the first is not taken")
	}
}
