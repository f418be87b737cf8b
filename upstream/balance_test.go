package upstream

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func inPool(g Gateway, pool string) Gateway {
	g.Pool = pool
	return g
}

// weighted are gateways a, b, c… with these weights.
func weighted(tb testing.TB, weights ...int) []Gateway {
	tb.Helper()
	gateways := make([]Gateway, len(weights))
	for i, w := range weights {
		name := string(rune('a' + i))
		if len(weights) > 26 {
			name = fmt.Sprintf("g%d", i)
		}
		g, err := ParseGateway(GatewayConfig{Name: name, URL: "http://gw.example:1", Weight: w})
		if err != nil {
			tb.Fatal(err)
		}
		gateways[i] = g
	}
	return gateways
}

func equal(n int) []int { return slices.Repeat([]int{1}, n) }

// upTo is 1, 2, … n.
func upTo(n int) []int {
	weights := make([]int, n)
	for i := range weights {
		weights[i] = i + 1
	}
	return weights
}

// route finds a route that there is.
func route(tb testing.TB, p *Pool, c Choice) *Route {
	tb.Helper()
	r, err := p.Route(c)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func clientAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
}

// sessionOf is a route that is bound, without a look at whether a gateway can carry the session.
func sessionOf(p *Pool, account, session string) *Route {
	return &Route{pool: p, group: p.plain.group, key: hashKey(account, session), sticky: true}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	tests := map[string]struct {
		weights []int
		want    string
	}{
		"equal":       {[]int{1, 1, 1}, "abcabc"},
		"weights":     {[]int{5, 1, 1}, "aabacaa"},
		"reduced":     {[]int{10, 2, 2}, "aabacaaaabacaa"},
		"one gateway": {[]int{7}, "aaa"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, Options{Gateways: weighted(t, test.weights...)})
			var got strings.Builder
			for range len(test.want) {
				got.WriteString(p.plain.pick(new(attempts), time.Now()).Name)
			}
			if got.String() != test.want {
				t.Errorf("%s, want %s", got.String(), test.want)
			}
		})
	}
}

func TestTurnsThatMakeNoTable(t *testing.T) {
	weights := []int{1000, 999, 997, 991}
	for range 62 {
		weights = append(weights, 983)
	}
	for _, sums := range []struct {
		weights []int
		table   bool
	}{{weights, len(weights)*63000 < 1<<24}, {[]int{1000, 999}, true}, {slices.Repeat([]int{997, 1000}, 40), false}} {
		p := newPool(t, Options{Gateways: weighted(t, sums.weights...)})
		if got := len(p.plain.group.balancer.turns) > 0; got != sums.table {
			t.Errorf("%d gateways: a table of turns: %t", len(sums.weights), got)
		}
		wantShares(t, p, 10000, func(i int) *gateway { return p.plain.pick(new(attempts), time.Now()) })
	}
}

// wantShares picks n times and wants each gateway's part within 2 % of all. It returns
// the largest deviation, by the gateway's own due.
func wantShares(t *testing.T, p *Pool, n int, pick func(i int) *gateway) float64 {
	t.Helper()
	picks := map[*gateway]int{}
	for i := range n {
		picks[pick(i)]++
	}
	sum := 0
	for _, g := range p.gateways {
		if g.health.usable(time.Now()) {
			sum += g.Weight
		}
	}
	worst := 0.0
	for _, g := range p.gateways {
		due := float64(n) * float64(g.Weight) / float64(sum)
		if !g.health.usable(time.Now()) {
			due = 0
		}
		off := math.Abs(float64(picks[g]) - due)
		if off > 0.02*float64(n) {
			t.Errorf("%s: %d of %d picks, due %.0f", g.Name, picks[g], n, due)
		}
		if due > 0 {
			worst = max(worst, off/due)
		}
	}
	return worst
}

func TestFairness(t *testing.T) {
	const picks = 10000
	now := time.Now()
	pools := map[string][]int{
		"1": equal(1), "3": equal(3), "16": equal(16), "64": equal(64), "1:2": {1, 2}, "5:1:1": {5, 1, 1}, "1 to 16": upTo(16),
		"1000:1": {1000, 1},
	}
	for name, weights := range pools {
		run := func(balance string, pick func(p *Pool, i int) *gateway) {
			t.Run(balance+" "+name, func(t *testing.T) {
				p := newPool(t, Options{Gateways: weighted(t, weights...), Balance: strings.Fields(balance)[0]})
				worst := wantShares(t, p, picks, func(i int) *gateway { return pick(p, i) })
				t.Logf("at most %.2f %% off a gateway's due", 100*worst)
				if balance == RoundRobin && worst > 0.02 {
					t.Errorf("%.2f %% off", 100*worst)
				}
			})
		}
		plain := func(p *Pool, _ int) *gateway { return p.plain.pick(new(attempts), now) }
		run(RoundRobin, plain)
		run(LeastConn+" idle", plain)
		run(LeastConn+" held", func(p *Pool, _ int) *gateway {
			g := plain(p, 0)
			g.tryAcquire()
			return g
		})
		run(IPHash, func(p *Pool, i int) *gateway {
			return route(t, p, Choice{Client: clientAddr(i)}).pick(new(attempts), now)
		})
		run(UserHash, func(p *Pool, i int) *gateway {
			return route(t, p, Choice{Account: fmt.Sprintf("customer%d", i)}).pick(new(attempts), now)
		})
		run(RoundRobin+" sessions", func(p *Pool, i int) *gateway {
			return sessionOf(p, "alice", fmt.Sprint(i)).pick(new(attempts), now)
		})
	}
}

func takeDown(g *gateway, now time.Time) {
	g.health.report(&ConnectError{Phase: PhaseDial, Cause: CauseRefused}, 0, now)
}

// What a gateway that is down would have got is shared out by weight.
func TestFairnessWithOneDown(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastConn, IPHash, UserHash} {
		for name, weights := range map[string][]int{"equal": equal(3), "weights": {4, 1, 2}, "64": equal(64)} {
			t.Run(balance+" "+name, func(t *testing.T) {
				p := newPool(t, Options{Gateways: weighted(t, weights...), Balance: balance})
				takeDown(p.gateways[0], time.Now())
				wantShares(t, p, 10000, func(i int) *gateway {
					r := route(t, p, Choice{Account: fmt.Sprint("user", i), Client: clientAddr(i)})
					g := r.pick(new(attempts), time.Now())
					if balance == LeastConn {
						g.tryAcquire()
					}
					return g
				})
			})
		}
	}
}

func TestLeastConn(t *testing.T) {
	picks := func(p *Pool, n int) string {
		var b strings.Builder
		for range n {
			g := p.plain.pick(new(attempts), time.Now())
			g.tryAcquire()
			b.WriteString(g.Name)
		}
		return b.String()
	}
	t.Run("by weight", func(t *testing.T) {
		p := newPool(t, Options{Gateways: weighted(t, 2, 1), Balance: LeastConn})
		got := picks(p, 300)
		if a, b := strings.Count(got, "a"), strings.Count(got, "b"); a < 199 || a > 201 || a+b != 300 {
			t.Errorf("%d and %d", a, b)
		}
	})
	t.Run("evens out", func(t *testing.T) {
		p := newPool(t, Options{Gateways: weighted(t, 1, 1), Balance: LeastConn})
		p.gateways[0].conns.Store(10)
		if got := picks(p, 10); got != "bbbbbbbbbb" {
			t.Error(got)
		}
	})
	t.Run("only the last is usable", func(t *testing.T) {
		p := newPool(t, Options{Gateways: weighted(t, equal(26)...), Balance: LeastConn})
		for _, g := range p.gateways[:25] {
			takeDown(g, time.Now())
		}
		if got := picks(p, 20); got != strings.Repeat("z", 20) {
			t.Error(got)
		}
	})
}

// Each gateway once, the usable ones first, under every balance.
func TestPickTriesEachOnceUsableFirst(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastConn, IPHash, UserHash} {
		for _, n := range []int{1, 3, 70} {
			t.Run(fmt.Sprint(balance, n), func(t *testing.T) {
				p := newPool(t, Options{Gateways: weighted(t, upTo(n)...), Balance: balance})
				now := time.Now()
				for i := 0; i < n; i += 2 {
					takeDown(p.gateways[i], now)
				}
				var a attempts
				for at := range n {
					g := p.plain.pick(&a, now)
					if g == nil || a.has(g.index) || g.health.usable(now) != (at < n/2) {
						t.Fatalf("pick %d: %+v", at, g)
					}
					a.add(g.index)
				}
				if g := p.plain.pick(&a, now); g != nil {
					t.Errorf("one more: %s", g.Name)
				}
			})
		}
	}
}

func TestPickKeepsToTheEligibleAndPassesOverTheRefused(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastConn, UserHash} {
		p := newPool(t, Options{Gateways: weighted(t, 9, 1, 1, 1), Balance: balance})
		r := &Route{pool: p, group: p.plain.group, eligible: members{0b0110}}
		for range 100 {
			c := candidates{route: r, attempts: new(attempts), now: time.Now()}
			c.refused[0], c.refusals = p.gateways[1], 1
			if g := r.choose(&c); g != p.gateways[2] {
				t.Fatalf("%s: %v", balance, g)
			}
		}
		takeDown(p.gateways[1], time.Now())
		takeDown(p.gateways[2], time.Now())
		if g := r.pick(new(attempts), time.Now()); g != p.gateways[1] && g != p.gateways[2] {
			t.Errorf("%s: with all eligible ones down %v", balance, g)
		}
	}
}

// Picks of many at once are as fair as one after the other.
func TestRoundRobinInParallel(t *testing.T) {
	p := newPool(t, Options{Gateways: weighted(t, 3, 2, 1)})
	var picks [3]atomic.Int64
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 1000 {
				picks[p.plain.pick(new(attempts), time.Now()).index].Add(1)
			}
		})
	}
	all.Wait()
	if a, b, c := picks[0].Load(), picks[1].Load(), picks[2].Load(); a != 3000 || b != 2000 || c != 1000 {
		t.Errorf("%d, %d and %d", a, b, c)
	}
}
