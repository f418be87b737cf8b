package upstream

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// The hashes are as even as chance: keys thrown at random would do no better.
func TestHashesAreEven(t *testing.T) {
	for name, weights := range map[string][]int{"3": equal(3), "16": equal(16), "64": equal(64), "1 to 16": upTo(16), "9:1": {9, 1}} {
		t.Run(name, func(t *testing.T) {
			const keys = 100000
			p := newPool(t, Options{Gateways: weighted(t, weights...), Balance: UserHash})
			sum := 0
			for _, w := range weights {
				sum += w
			}
			picks := map[string]float64{}
			for i := range keys {
				picks[route(t, p, Choice{Account: fmt.Sprint("user", i)}).pick(new(attempts), time.Now()).Name]++
			}
			chi, freedom := 0.0, float64(len(weights)-1)
			for _, g := range p.gateways {
				due := keys * float64(g.Weight) / float64(sum)
				chi += (picks[g.Name] - due) * (picks[g.Name] - due) / due
			}
			if limit := freedom + 4*math.Sqrt(2*freedom); chi > limit {
				t.Errorf("chi squared is %.0f, by chance it would be about %.0f and hardly above %.0f", chi, freedom, limit)
			}
		})
	}
}

// owners says whose each of n sessions is.
func owners(tb testing.TB, gateways []Gateway, n int) []string {
	tb.Helper()
	p, err := NewPool(Options{Gateways: gateways, DialTimeout: 1, ConnectTimeout: 1})
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	names := make([]string, n)
	for i := range names {
		names[i] = sessionOf(p, "alice", fmt.Sprint(i)).pick(new(attempts), time.Now()).Name
	}
	return names
}

func TestRendezvousMovesTheLeast(t *testing.T) {
	const sessions = 10000
	base := weighted(t, 1, 2, 3, 4)
	before := owners(t, base, sessions)
	heavier := slices.Clone(base)
	heavier[1].Weight = 4
	tests := map[string]struct {
		gateways []Gateway
		leaves   string  // only from it, if not empty
		joins    string  // only to it, if not empty
		share    float64 // of the sessions that move
	}{
		"one goes":         {base[:3], "d", "", 0.4},
		"one comes":        {append(slices.Clone(base), weighted(t, 1, 1, 1, 1, 5)[4]), "", "e", 5.0 / 15},
		"one gains weight": {heavier, "", "b", 4.0/12 - 2.0/10},
		"other order":      {[]Gateway{base[2], base[0], base[3], base[1]}, "-", "-", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			moved := 0
			for i, now := range owners(t, test.gateways, sessions) {
				if now == before[i] {
					continue
				}
				moved++
				if test.leaves != "" && before[i] != test.leaves || test.joins != "" && now != test.joins {
					t.Fatalf("session %d moved from %s to %s", i, before[i], now)
				}
			}
			if share := float64(moved) / sessions; math.Abs(share-test.share) > 0.02 {
				t.Errorf("%.3f of the sessions moved, want %.3f", share, test.share)
			}
		})
	}
}

// The hash is a contract between the relays of a fleet, also while they are of two
// versions: a change moves the customers' sessions.
func TestHashesStayAsTheyAre(t *testing.T) {
	if got := strings.Join(owners(t, weighted(t, 1, 2, 3), 24), ""); got != hashGolden {
		t.Errorf("%s, want %s", got, hashGolden)
	}
	p := newPool(t, Options{Gateways: weighted(t, 1, 1, 1), Balance: IPHash})
	v4 := route(t, p, Choice{Client: netip.MustParseAddr("192.0.2.1")})
	if mapped := route(t, p, Choice{Client: netip.MustParseAddr("::ffff:192.0.2.1")}); mapped.key != v4.key {
		t.Error("IPv4 written as IPv6 is somebody else")
	}
	_ = route(t, p, Choice{}) // no address
	if hashKey("alice", "x") == hashKey("alicex", "") || hashKey("a", "bc") == hashKey("ab", "c") {
		t.Error("account and session run together")
	}
}

const hashGolden = "bbccccacbccbcbaacbbabccb"

// A session waits for its gateway elsewhere, and comes back.
func TestSessionsComeBack(t *testing.T) {
	for _, balance := range []string{RoundRobin, LeastConn, IPHash, UserHash} {
		p := newPool(t, Options{Gateways: weighted(t, 1, 1, 1), Balance: balance})
		r := sessionOf(p, "alice", "s")
		now := time.Now()
		home := r.pick(new(attempts), now)
		takeDown(home, now)
		away := r.pick(new(attempts), now)
		for range 10 {
			if g := r.pick(new(attempts), now); g != away || g == home {
				t.Fatalf("%s: %s, then %s, then %s", balance, home.Name, away.Name, g.Name)
			}
		}
		if g := r.pick(new(attempts), now.Add(time.Hour)); g != home {
			t.Errorf("%s: %s does not come back to %s", balance, g.Name, home.Name)
		}
	}
}

// The short cut chooses as the whole calculation does.
func TestRendezvousShortCut(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {1, 1000}, {3, 1, 2}, upTo(40)} {
		p := newPool(t, Options{Gateways: weighted(t, weights...)})
		b := &p.plain.group.balancer
		c := candidates{route: p.plain, attempts: new(attempts), now: time.Now()}
		for i := range 5000 {
			key := hashKey("alice", fmt.Sprint(i))
			if got, want := b.rendezvous(key, &c), b.rendezvousAmong(key, &c); got != want {
				t.Fatalf("%d gateways, key %d: %s, want %s", len(weights), i, got.Name, want.Name)
			}
		}
	}
}
