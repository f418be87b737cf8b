package upstream

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Balances. A customer's session stays with its gateway under all of them.
const (
	RoundRobin = "round_robin" // by weight, smoothly
	LeastConn  = "least_conn"  // the one with fewer open connections for its weight, of two drawn by weight
	IPHash     = "ip_hash"     // by the client's address: rendezvous hashing, weighted
	UserHash   = "user_hash"   // by the account, likewise
)

// maxTurns bounds a group's table of turns.
const maxTurns = 1 << 16

// maxDraws is how often least_conn draws a gateway before it looks at all of them.
const maxDraws = 4

// balancer chooses among the gateways of one group. Safe for concurrent use.
type balancer struct {
	balance  string
	gateways []*gateway
	spots    []spot   // for the hashes
	sums     []uint64 // of the weights up to each gateway, itself included
	turns    []uint16 // one round of round robin, by index; empty = too long for a table
	turn     atomic.Uint64

	mu      sync.Mutex // guards weights
	weights []int      // smooth round robin's running ones
}

// spot is a gateway's place in rendezvous hashing.
type spot struct {
	seed, salt uint64
	inverse    float64 // 1/weight
}

func (b *balancer) init(balance string, gateways []*gateway) {
	b.balance, b.gateways = balance, gateways
	b.weights = make([]int, len(gateways))
	sum := uint64(0)
	for _, g := range gateways {
		sum += uint64(g.Weight)
		b.sums = append(b.sums, sum)
		b.spots = append(b.spots, newSpot(g))
	}
	b.makeTurns(sum)
}

func newSpot(g *gateway) spot {
	seed := hashKey(g.Name, "")
	return spot{seed: seed, salt: mix(^seed), inverse: 1 / float64(g.Weight)}
}

// makeTurns plays a whole round, as nobody interferes.
func (b *balancer) makeTurns(sum uint64) {
	divisor := uint64(0)
	for _, g := range b.gateways {
		divisor = gcd(divisor, uint64(g.Weight))
	}
	round := sum / divisor
	if round > maxTurns || len(b.gateways) > math.MaxUint16 || round*uint64(len(b.gateways)) > 1<<24 {
		return
	}
	everyone := candidates{route: &Route{}, attempts: &attempts{}, desperate: true}
	for range round {
		b.turns = append(b.turns, uint16(b.smooth(&everyone).index))
	}
}

// gcd is the greatest common divisor; gcd(0, n) = n.
func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// hashes reports whether the customer decides about the gateway.
func (b *balancer) hashes() bool { return b.balance == IPHash || b.balance == UserHash }

// candidates are the gateways that may be picked.
type candidates struct {
	route     *Route
	attempts  *attempts // has those that were tried
	now       time.Time
	desperate bool // those that are not usable, too

	refused  [16]*gateway
	refusals int
}

func (c *candidates) has(g *gateway) bool {
	if c.attempts.has(g.index) || !c.route.eligible.has(g.index) || g.full() {
		return false
	}
	return c.desperate || g.health.usableFor(c.route.customer, c.now) && !slices.Contains(c.refused[:c.refusals], g)
}

// pick chooses a gateway that was not tried yet. Those that are not usable come last, so
// that a pool whose gateways all failed a moment ago still tries. nil = none left.
func (r *Route) pick(a *attempts, now time.Time) *gateway {
	c := candidates{route: r, attempts: a, now: now}
	for g := r.choose(&c); g != nil; g = r.choose(&c) {
		// With so many refusals in one pick an exchange too many does no harm.
		if g.health.chosen(now) || c.refusals == len(c.refused) {
			return g
		}
		c.refused[c.refusals] = g
		c.refusals++
	}
	c.desperate = true
	return r.choose(&c)
}

func (r *Route) choose(c *candidates) *gateway {
	b := &r.group.balancer
	switch {
	case r.sticky || b.hashes():
		return b.rendezvous(r.key, c)
	case b.balance == LeastConn:
		return b.leastConn(c)
	default:
		return b.roundRobin(c)
	}
}

// roundRobin gives everyone his turn; turns of those that are no candidates are shared
// out among the candidates in the same manner. So are second tries, which have no turns:
// whoever came next would begin with the gateway that failed.
func (b *balancer) roundRobin(c *candidates) *gateway {
	if n := uint64(len(b.turns)); n > 0 && c.refusals == 0 && c.attempts.first() {
		turn := b.turn.Add(1) - 1
		if g := b.gateways[b.turns[turn%n]]; c.has(g) {
			return g
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.smooth(c)
}

// smooth is smooth weighted round robin, as nginx does it: every candidate gains its
// weight, the richest is chosen and pays the sum. b.mu is held, or b not in use yet.
func (b *balancer) smooth(c *candidates) *gateway {
	best, total := -1, 0
	for i, g := range b.gateways {
		if !c.has(g) {
			continue
		}
		b.weights[i] += g.Weight
		total += g.Weight
		if best < 0 || b.weights[i] > b.weights[best] {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	b.weights[best] -= total
	return b.gateways[best]
}

// leastConn is the power of two choices: of two gateways, drawn by weight, the one with
// fewer connections for its weight. It comes close to looking at all of them, without
// sending all relays of a fleet to the same one.
func (b *balancer) leastConn(c *candidates) *gateway {
	first := b.draw(c, nil)
	if first == nil {
		return nil
	}
	second := b.draw(c, first)
	// second's conns/weight < first's conns/weight without division
	if second != nil && second.busy()*int64(first.Weight) < first.busy()*int64(second.Weight) {
		return second
	}
	return first
}

// busy is how many connections exchanges have; those that stand ready are nobody's yet.
func (g *gateway) busy() int64 { return g.conns.Load() - g.warm.ready() }

// draw draws a candidate by weight that is not except; nil = there is none.
func (b *balancer) draw(c *candidates, except *gateway) *gateway {
	total, gap, width := b.sums[len(b.sums)-1], uint64(0), uint64(0)
	if except != nil {
		width = uint64(except.Weight)
		gap = b.sums[except.index] - width
	}
	if total == width {
		return nil
	}
	for range maxDraws {
		x := rand.Uint64N(total - width)
		if x >= gap && width > 0 {
			x += width // the numbers of except are left out
		}
		i, _ := slices.BinarySearch(b.sums, x+1)
		if g := b.gateways[i]; c.has(g) {
			return g
		}
	}
	return b.drawFromAll(c, except)
}

// drawFromAll looks at all gateways: most seem to be no candidates.
func (b *balancer) drawFromAll(c *candidates, except *gateway) *gateway {
	total := 0
	for _, g := range b.gateways {
		if g != except && c.has(g) {
			total += g.Weight
		}
	}
	if total == 0 {
		return nil
	}
	x := rand.IntN(total)
	var last *gateway // health may change between the two looks
	for _, g := range b.gateways {
		if g == except || !c.has(g) {
			continue
		}
		if x -= g.Weight; x < 0 {
			return g
		}
		last = g
	}
	return last
}

// rendezvous is weighted rendezvous hashing (highest random weight): each gateway draws
// an exponentially distributed number with its weight as the rate, from the key and its
// name alone, and the smallest wins. So a gateway that goes leaves its keys to the others
// by weight, one that comes or gains weight takes only what becomes its own, and nothing
// else moves.
//
// The numbers are -log(1-u)/weight. As u < -log(1-u) < u/(1-u), the smallest u/weight
// nearly always shows without a logarithm who wins.
func (b *balancer) rendezvous(key uint64, c *candidates) *gateway {
	at, smallest, second := 0, math.Inf(1), math.Inf(1)
	for i := range b.spots {
		s := &b.spots[i]
		if x := s.draw(key) * s.inverse; x < smallest {
			at, smallest, second = i, x, smallest
		} else if x < second {
			second = x
		}
	}
	g := b.gateways[at]
	if smallest <= second*(1-b.spots[at].draw(key)) && c.has(g) {
		return g
	}
	return b.rendezvousAmong(key, c)
}

// rendezvousAmong is rendezvous where it is close, or the winner no candidate.
func (b *balancer) rendezvousAmong(key uint64, c *candidates) *gateway {
	var best *gateway
	smallest := math.Inf(1)
	for i := range b.spots {
		s := &b.spots[i]
		u := s.draw(key)
		if u*s.inverse >= smallest {
			continue
		}
		if x := -math.Log1p(-u) * s.inverse; x < smallest && c.has(b.gateways[i]) {
			best, smallest = b.gateways[i], x
		}
	}
	return best
}

// draw is a number for a key, uniform in (0, 1), neither end included.
func (s *spot) draw(key uint64) float64 {
	// The key and the gateway's numbers are mixed already: a multiplication will do.
	high, low := bits.Mul64(key^s.seed, key^s.salt)
	return (float64(int64((high^low)>>12)) + 0.5) * 0x1p-52 // 52 bits, so that the half is exact
}
