package upstream

import (
	"context"
	"slices"
	"time"
)

// moment is a time of this process's monotonic clock, in nanoseconds: a third of a
// [time.Time], for what a set-up keeps while it waits.
type moment int64

// epoch is when moments begin.
var epoch = time.Now()

func momentOf(t time.Time) moment { return moment(t.Sub(epoch)) }

// stampOf is a moment that is far from 0, which stands for never.
func stampOf(t time.Time) int64 { return epochStamp + int64(momentOf(t)) }

var epochStamp = epoch.UnixNano()

// left is how long it is until m.
func (m moment) left(now time.Time) time.Duration { return time.Duration(m - momentOf(now)) }

// maxMissed is how many gateways that cannot be reached are tried for one exchange. What
// is known to be down comes last, so more than one means that all of a pool is down, or
// that much of it goes down right now; then not every exchange tries everything.
const maxMissed = 8

// attempts is one set-up's way through the gateways of its pool: each at most once, until
// one serves, none is left that may do better, maxAnswered were reached, maxMissed were
// not, the pool's budget for retries is used up, or the time for a set-up is over. From start on it counts
// among the exchanges under way until end or reset. Not safe for concurrent use.
type attempts struct {
	route  *Route // nil = there is no further attempt
	until  moment
	tried  uint64  // the gateways' indexes, up to 63
	detour *detour // nil = all went straight so far
}

// detour is what only a set-up needs for which something has gone wrong, or that has
// very many gateways.
type detour struct {
	tried   []uint64 // the gateways' indexes from 64 on
	waiting *gateway // chosen, but given back before it was tried; nil = none
	last    *ConnectError

	answered uint8 // attempts that reached a gateway
	missed   uint8 // attempts that tried to, and did not
	owes     bool  // the next attempt costs a token
	paid     bool  // a token was taken, and no gateway was reached with it yet
}

func (a *attempts) start(r *Route, now time.Time) {
	a.reset()
	r.purse().each((*budget).begin)
	a.route, a.until = r, momentOf(now.Add(r.pool.options.DialTimeout+r.pool.options.ConnectTimeout))
}

// reset forgets everything and keeps its memory.
func (a *attempts) reset() {
	d := a.detour
	if a.route != nil && d != nil && d.paid {
		a.spend() // an attempt that is given up may have reached its gateway
	}
	a.end(false)
	if d != nil {
		if d.waiting != nil {
			d.waiting.health.endTrial(momentOf(time.Now()))
		}
		clear(d.tried)
		*d = detour{tried: d.tried[:0]}
	}
	*a = attempts{detour: d}
}

// detoured is the detour, made if there is none yet.
func (a *attempts) detoured() *detour {
	if a.detour == nil {
		a.detour = new(detour)
	}
	return a.detour
}

// customer is whose set-up it is.
func (a *attempts) customer() customer {
	if a.route == nil {
		return 0
	}
	return a.route.customer
}

// next chooses a gateway; nil = none, and err says why.
func (a *attempts) next(now time.Time) *gateway {
	if a.route == nil {
		return nil
	}
	if a.detour != nil && a.detour.waiting != nil {
		g := a.detour.waiting
		a.detour.waiting = nil
		return g
	}
	if !a.affordable() {
		a.end(false)
		return nil
	}
	g := a.route.pick(a, now)
	if g == nil {
		if d := a.detoured(); d.last == nil {
			d.last = fullError()
		}
		a.end(false)
		return nil
	}
	a.add(g.index)
	return g
}

// affordable reports whether there may be another attempt, and takes a token if it
// costs one.
func (a *attempts) affordable() bool {
	d := a.detour
	if d == nil || !d.owes {
		return true
	}
	if !a.anyLeft() || !a.route.purse().take() {
		return false
	}
	d.owes, d.paid = false, true
	return true
}

// anyLeft reports whether there is a gateway that was not tried.
func (a *attempts) anyLeft() bool {
	return slices.ContainsFunc(a.route.group.gateways, func(g *gateway) bool {
		return !a.has(g.index) && a.route.eligible.has(g.index)
	})
}

// spend notes that the token that was taken has served its purpose.
func (a *attempts) spend() {
	a.detour.paid = false
	a.route.group.budget.used()
}

// end notes that there is no further attempt, and whether the last one served.
func (a *attempts) end(served bool) {
	if a.route == nil {
		return
	}
	p, d := a.route.purse(), a.detour
	if d != nil && d.paid {
		if served {
			a.spend()
		} else {
			d.paid = false
			p.each((*budget).refund)
		}
	}
	reached := served || d != nil && d.answered > 0
	p.each(func(b *budget) { b.end(reached) })
	a.route = nil
}

// err is why there is no next gateway.
func (a *attempts) err() error {
	if a.detour == nil || a.detour.last == nil {
		return errNotDialled
	}
	return a.detour.last
}

// failed learns that g did not serve.
func (a *attempts) failed(g *gateway, failure *ConnectError, now time.Time) {
	if failure.Gateway == "" {
		failure.Gateway = g.Name
	}
	failure.elsewhere = failure.Phase == PhaseDial && failure.Cause != CauseCanceled && a.route.port(g) != 0
	failure.wishes = !a.route.choice.Params.IsZero()
	g.health.reportOf(a.route.customer, failure, failure.took, now) // one that was full ends a trial
	if failure.Phase != PhasePick {
		a.route.pool.metrics.failed(failure)
	}
	// A gateway that was full says less than one that failed.
	d := a.detoured()
	if d.last == nil || failure.Phase != PhasePick {
		d.last = failure
	}
	switch {
	case failure.reached():
		a.answered(g, failure)
	case failure.down():
		d.missed++
	}
	if !failure.retryable() || d.answered >= maxAnswered || d.missed >= maxMissed || a.until.left(now) < 0 {
		a.end(false)
	}
}

// answered learns that g was reached and did not serve.
func (a *attempts) answered(g *gateway, failure *ConnectError) {
	d := a.detour
	d.answered++
	d.owes = true
	if d.paid {
		a.spend()
	}
	switch failure.Cause.class() {
	case classAccount, classWishes: // other ways to the same account lead to the same answer
		for i := range a.route.group.gateways {
			if g.sameAccount != nil && g.sameAccount.has(i) {
				a.add(i)
			}
		}
	default:
	}
}

// run tries f with gateways until one serves. It ends with ctx, too.
func (a *attempts) run(ctx context.Context, f func(*gateway) *ConnectError) error {
	defer a.end(false)
	for {
		start := time.Now()
		g := a.next(start)
		if g == nil {
			return a.err()
		}
		failure := f(g)
		now := time.Now()
		if failure == nil {
			g.health.reportOf(a.route.customer, nil, now.Sub(start), now)
			a.end(true)
			return nil
		}
		failure.took = now.Sub(start)
		a.failed(g, failure, now)
		if ctx.Err() != nil {
			a.end(false)
		}
	}
}

// first reports whether no attempt has failed so far.
func (a *attempts) first() bool { return a.detour == nil || a.detour.last == nil }

// has reports whether the gateway of an index was tried.
func (a *attempts) has(i int) bool {
	if i < 64 {
		return a.tried&(1<<i) != 0
	}
	word := i/64 - 1
	return a.detour != nil && word < len(a.detour.tried) && a.detour.tried[word]&(1<<(i%64)) != 0
}

// add notes that the gateway of an index is tried.
func (a *attempts) add(i int) {
	if i < 64 {
		a.tried |= 1 << i
		return
	}
	d := a.detoured()
	for len(d.tried) < i/64 {
		d.tried = append(d.tried, 0)
	}
	d.tried[i/64-1] |= 1 << (i % 64)
}
