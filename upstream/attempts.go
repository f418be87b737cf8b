package upstream

import (
	"context"
	"time"
)

// moment is a time of this process's monotonic clock, in nanoseconds: a third of a
// [time.Time], for what a set-up keeps while it waits.
type moment int64

// epoch is when moments begin.
var epoch = time.Now()

func momentOf(t time.Time) moment { return moment(t.Sub(epoch)) }

// left is how long it is until m.
func (m moment) left(now time.Time) time.Duration { return time.Duration(m - momentOf(now)) }

// attempts is one set-up's way through the gateways: each at most once, until one
// serves, none is left, or the time for a set-up is over. Not safe for concurrent use.
type attempts struct {
	pool   *Pool // nil = there is no further attempt
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
}

func (a *attempts) start(p *Pool, now time.Time) {
	a.reset()
	a.pool, a.until = p, momentOf(now.Add(p.options.DialTimeout+p.options.ConnectTimeout))
}

// reset forgets everything and keeps its memory.
func (a *attempts) reset() {
	d := a.detour
	if d != nil {
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

// next chooses a gateway; nil = none, and err says why.
func (a *attempts) next(now time.Time) *gateway {
	if a.pool == nil {
		return nil
	}
	if a.detour != nil && a.detour.waiting != nil {
		g := a.detour.waiting
		a.detour.waiting = nil
		return g
	}
	g := a.pool.pick(a, now)
	if g == nil {
		a.pool = nil
		return nil
	}
	a.add(g.index)
	return g
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
	if failure.Phase != PhasePick {
		g.report(failure)
		a.pool.metrics.failed(failure)
	}
	// A gateway that was full says less than one that failed.
	if d := a.detoured(); d.last == nil || failure.Phase != PhasePick {
		d.last = failure
	}
	if !failure.retryable() || a.until.left(now) < 0 {
		a.pool = nil
	}
}

// run tries f with gateways until one serves. It ends with ctx, too.
func (a *attempts) run(ctx context.Context, f func(*gateway) *ConnectError) error {
	for {
		g := a.next(time.Now())
		if g == nil {
			return a.err()
		}
		failure := f(g)
		if failure == nil {
			g.report(nil)
			a.pool = nil
			return nil
		}
		a.failed(g, failure, time.Now())
		if ctx.Err() != nil {
			a.pool = nil
		}
	}
}

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
