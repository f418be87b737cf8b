package upstream

import (
	"context"
	"time"
)

// attempts is one set-up's way through the gateways: each at most once, until one
// serves, none is left, or the time for a set-up is over. Not safe for concurrent use.
type attempts struct {
	pool    *Pool
	until   time.Time
	tried   gatewaySet
	waiting *gateway // chosen, but given back before it was tried; nil = none
	last    *ConnectError
	over    bool
}

func (a *attempts) start(p *Pool, now time.Time) {
	a.tried.clear()
	*a = attempts{pool: p, until: now.Add(p.options.DialTimeout + p.options.ConnectTimeout), tried: a.tried}
}

// next chooses a gateway; nil = none, and last says why.
func (a *attempts) next(now time.Time) *gateway {
	if a.over || a.pool == nil {
		return nil
	}
	if g := a.waiting; g != nil {
		a.waiting = nil
		return g
	}
	g := a.pool.pick(&a.tried, now)
	if g == nil {
		a.over = true
		return nil
	}
	a.tried.add(g.index)
	return g
}

// err is why there is no next gateway.
func (a *attempts) err() error {
	if a.last == nil {
		return errNotDialled
	}
	return a.last
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
	if a.last == nil || failure.Phase != PhasePick {
		a.last = failure
	}
	if !failure.retryable() || now.After(a.until) {
		a.over = true
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
			a.over = true
			return nil
		}
		a.failed(g, failure, time.Now())
		a.over = a.over || ctx.Err() != nil
	}
}

// gatewaySet is a set of gateways' indexes. The first 64 need no memory of their own.
type gatewaySet struct {
	first uint64
	rest  []uint64
}

func (s *gatewaySet) has(i int) bool {
	if i < 64 {
		return s.first&(1<<i) != 0
	}
	word := i/64 - 1
	return word < len(s.rest) && s.rest[word]&(1<<(i%64)) != 0
}

func (s *gatewaySet) add(i int) {
	if i < 64 {
		s.first |= 1 << i
		return
	}
	for len(s.rest) < i/64 {
		s.rest = append(s.rest, 0)
	}
	s.rest[i/64-1] |= 1 << (i % 64)
}

// clear empties the set and keeps its memory.
func (s *gatewaySet) clear() {
	s.first = 0
	clear(s.rest)
	s.rest = s.rest[:0]
}
