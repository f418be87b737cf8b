package upstream

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

// A pool of which nothing can be reached is not searched to its end for each customer:
// every one of its gateways would get as many connections as there are customers.
func TestUnreachableGatewaysAreNotAllTried(t *testing.T) {
	const gateways = 3 * maxMissed
	p := literalPool(t, gateways, Options{})
	for round := range 3 { // as they become unreachable, and when all of them are
		s, dials := startSetup(p), 0
		for {
			if _, err := s.Next(); err != nil {
				break
			}
			dials++
			s.Failed(true, syscall.ECONNREFUSED)
		}
		wantEnd(t, s, "", PhaseDial, CauseRefused)
		if dials != maxMissed {
			t.Errorf("round %d: %d dials", round, dials)
		}
	}
	for _, g := range p.gateways {
		if g.health.usable(time.Now()) {
			t.Errorf("%s was not tried in all rounds", g.Name)
		}
	}
	wantNothingHeld(t, p)
}

// Gateways that are full are no candidates; one with connections to give back is.
func TestFullGatewaysAreNoCandidates(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastConn, IPHash} {
		t.Run(balance, func(t *testing.T) {
			gateways := weighted(t, 1, 1, 1)
			for i := range gateways {
				gateways[i].MaxConns = 2
			}
			p := newPool(t, Options{Gateways: gateways, Balance: balance})
			r := route(t, p, Choice{Client: clientAddr(1)})
			a, c := p.gateways[0], p.gateways[2]
			for _, g := range p.gateways {
				g.conns.Store(2)
			}
			if g := r.pick(new(attempts), time.Now()); g != nil {
				t.Errorf("picked %s of full ones", g.Name)
			}
			c.conns.Store(1)
			for range 6 {
				if g := r.pick(new(attempts), time.Now()); g != c {
					t.Fatalf("picked %v", g)
				}
			}
			c.conns.Store(2)
			a.idle.Add(1)
			if g := r.pick(new(attempts), time.Now()); g != a {
				t.Errorf("picked %v, not the one with an idle connection", g)
			}
			for _, g := range p.gateways {
				g.conns.Store(0)
			}
			a.idle.Add(-1)
		})
	}
}

// Second tries have no turns: else whoever comes after one that failed would begin with
// the gateway that failed.
func TestRetriesDoNotTakeTurns(t *testing.T) {
	p := newPool(t, Options{Gateways: weighted(t, 1, 1)})
	first := map[string]int{}
	for range 100 {
		var a attempts
		now := time.Now()
		a.start(p.plain, now)
		g := a.next(now)
		first[g.Name]++
		if g == p.gateways[0] {
			a.failed(g, fullError(), now)
			if g = a.next(now); g != p.gateways[1] {
				t.Fatalf("the second try is through %v", g)
			}
		}
		a.end(true)
	}
	if first["a"] != 50 {
		t.Errorf("first tries: %v", first)
	}
}

// A trial that is given up makes room for the next one at once.
func TestResetEndsTheTrial(t *testing.T) {
	for name, url := range map[string]string{"dialled": "http://192.0.2.1:1", "blocking": "https://192.0.2.1:1"} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "g", url)}})
			h := &p.gateways[0].health
			h.until.Store(1)
			s := startSetup(p)
			if _, err := s.Next(); err != nil && !errors.Is(err, ErrBlocks) {
				t.Fatal(err)
			}
			if h.usable(time.Now()) {
				t.Fatal("there is no trial under way")
			}
			s.Reset()
			if !h.usable(time.Now()) {
				t.Error("the trial is still under way")
			}
			wantNothingHeld(t, p)
		})
	}
}
