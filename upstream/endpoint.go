package upstream

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	addressCooldown = 30 * time.Second       // how long an address or a family that failed is left alone
	familyProven    = 10 * time.Minute       // how long one connection proves its address family
	familyTrial     = time.Second            // how long to wait for what a try that was to prove a family comes to
	reachedGrain    = 100 * time.Millisecond // how exactly it is known when a family was reached last
)

// family is one address family of a gateway's name.
type family struct {
	reachedAt, failedAt atomic.Int64 // stamps; 0 = never
	triedAt             int64        // when it was last put to the test; guarded by endpoints.mu
}

// proven reports whether the family worked lately, and not only before it failed.
func (f *family) proven(now time.Time) bool {
	at := f.reachedAt.Load()
	return at != 0 && at >= f.failedAt.Load() && stampOf(now)-at < int64(familyProven)
}

// failing reports whether the last that was heard of the family is a recent failure.
func (f *family) failing(now time.Time) bool {
	at := f.failedAt.Load()
	return at > f.reachedAt.Load() && stampOf(now)-at < int64(addressCooldown)
}

// tryLocked reports whether the caller is the one who puts a family to the test that is
// not proven: one at a time, and none for addressCooldown after a failure.
func (f *family) tryLocked(now time.Time) bool {
	n := stampOf(now)
	if n-f.failedAt.Load() < int64(addressCooldown) || n-f.triedAt < int64(familyTrial) {
		return false
	}
	f.triedAt = n
	return true
}

// report learns whether an address of the family could be reached, soon enough. It writes rarely.
func (f *family) report(reached bool, now time.Time) {
	n := stampOf(now)
	switch at := f.reachedAt.Load(); {
	case !reached:
		f.failedAt.Store(n)
	case n-at >= int64(reachedGrain) || f.failedAt.Load() >= at:
		f.reachedAt.Store(n)
	}
}

// endpoint is one address of a gateway. Safe for concurrent use.
type endpoint struct {
	addr     netip.AddrPort
	family   *family
	lanes    []*lane      // one per source that can reach it; does not change
	conns    atomic.Int64 // connections to it, those being opened included, to whatever port
	failedAt atomic.Int64 // stamp; 0 = it was reached since, or never tried

	makeOthers sync.Once
	others     []*lane // towards other ports of this address
}

// elsewhere reports whether port is not the gateway's own, which 0 stands for.
func (ep *endpoint) elsewhere(port uint16) bool { return port != 0 && port != ep.addr.Port() }

// lanesTo are the lanes to a port of the address.
func (ep *endpoint) lanesTo(port uint16) []*lane {
	if !ep.elsewhere(port) {
		return ep.lanes
	}
	ep.makeOthers.Do(func() {
		for _, l := range ep.lanes {
			// Each destination port has all the local ports to itself: there is no limit to count for.
			ep.others = append(ep.others, &lane{lanePorts: new(lanePorts), all: l.all, source: l.source, ep: ep})
		}
	})
	return ep.others
}

// open reports whether a connection may be tried: whether there are ports left.
func (ep *endpoint) open(port uint16, now time.Time) bool {
	if ep.elsewhere(port) {
		return len(ep.lanes) > 0
	}
	return slices.ContainsFunc(ep.lanes, func(l *lane) bool { return l.open(now) })
}

// short reports whether the local ports towards the address run out soon.
func (ep *endpoint) short(port uint16, now time.Time) bool {
	return !ep.elsewhere(port) && !slices.ContainsFunc(ep.lanes, func(l *lane) bool { return l.open(now) && !l.short() })
}

// take counts one more connection on the lane with the fewest; nil = none has a port
// left. Towards other ports than the gateway's there is always one: that one of them
// found no port says nothing of the others.
func (ep *endpoint) take(port uint16, now time.Time) *lane {
	lanes := ep.lanesTo(port)
	for {
		best := fewest(lanes, func(l *lane) bool { return l.open(now) })
		if best == nil && ep.elsewhere(port) {
			best = fewest(lanes, func(*lane) bool { return true })
		}
		if best == nil || best.take() {
			return best
		}
	}
}

// portsFree is how many connections the local ports still allow, from all sources.
func (ep *endpoint) portsFree() (free int64) {
	for _, l := range ep.lanes {
		free += l.free()
	}
	return free
}

// fewest is the lane with the fewest connections of those that may be used, nil if none may.
func fewest(lanes []*lane, usable func(*lane) bool) *lane {
	var best *lane
	var least int64
	for _, l := range lanes {
		if n := l.inUse.Load(); usable(l) && (best == nil || n < least) {
			best, least = l, n
		}
	}
	return best
}

// report learns whether the address could be reached.
func (ep *endpoint) report(reached bool, now time.Time) {
	ep.family.report(reached, now)
	switch {
	case !reached:
		ep.failedAt.Store(stampOf(now))
	case ep.failedAt.Load() != 0:
		ep.failedAt.Store(0)
	}
}

// failing reports whether the address could not be reached when it was last tried.
func (ep *endpoint) failing() bool { return ep.failedAt.Load() != 0 }

// try reports whether the caller is the one who tries again an address that failed:
// one connection each addressCooldown, while the others keep to what works.
func (ep *endpoint) try(now time.Time) bool {
	at := ep.failedAt.Load()
	return at != 0 && stampOf(now)-at >= int64(addressCooldown) && ep.failedAt.CompareAndSwap(at, stampOf(now))
}
