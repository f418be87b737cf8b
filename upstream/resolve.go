package upstream

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	resolveTTL      = 30 * time.Second // how long an answer is taken without asking again
	resolveRetry    = 2 * time.Second  // how long a failure is taken
	resolveMaxAddrs = 64               // addresses kept of one answer
	addressCooldown = 30 * time.Second // how long an address that could not be reached comes last
)

// lookupFunc is net.Resolver.LookupNetIP.
type lookupFunc func(ctx context.Context, network, host string) ([]netip.Addr, error)

// endpoint is one address of a gateway. Safe for concurrent use.
type endpoint struct {
	addr     netip.AddrPort
	lanes    []*lane      // one per source that can reach it; does not change
	failedAt atomic.Int64 // Unix nanoseconds; 0 = it was reached
}

// open reports whether a connection may be tried: whether there are ports left.
func (ep *endpoint) open(now time.Time) bool {
	return slices.ContainsFunc(ep.lanes, func(l *lane) bool { return l.open(now) })
}

// take counts one more connection on the lane with the fewest; nil = none has a port left.
func (ep *endpoint) take(now time.Time) *lane {
	for {
		var best *lane
		var fewest int64
		for _, l := range ep.lanes {
			if n := l.inUse.Load(); l.open(now) && (best == nil || n < fewest) {
				best, fewest = l, n
			}
		}
		if best == nil || best.take() {
			return best
		}
	}
}

// report learns whether the address could be reached.
func (ep *endpoint) report(reached bool, now time.Time) {
	switch {
	case !reached:
		ep.failedAt.Store(now.UnixNano())
	case ep.failedAt.Load() != 0:
		ep.failedAt.Store(0)
	}
}

// failing reports whether the address could not be reached a moment ago.
func (ep *endpoint) failing(now time.Time) bool {
	at := ep.failedAt.Load()
	return at != 0 && now.UnixNano()-at < int64(addressCooldown)
}

// endpoints are the addresses of one gateway, every A and AAAA record of its
// name. Go's resolver does not cache; at a drop every tunnel would ask. Once there
// are addresses nobody waits for a look-up any more: it runs beside, and if it fails
// or hangs the old answer goes on being used. A name server's failure must not stop
// a gateway that works.
type endpoints struct {
	host    string
	port    uint16
	fixed   bool
	lookup  lookupFunc
	timeout time.Duration
	ports   *localPorts
	asks    sync.WaitGroup // look-ups under way; close waits for them

	mu      sync.Mutex // guards what follows
	addrs   []*endpoint
	err     error
	until   time.Time
	asking  chan struct{} // closed when the look-up under way ends; nil = none
	rotator uint32
}

func newEndpoints(g Gateway, lookup lookupFunc, timeout time.Duration, ports *localPorts) *endpoints {
	port, _ := strconv.ParseUint(g.Port, 10, 16) // ParseGateway checked it
	e := &endpoints{host: g.Host, port: uint16(port), lookup: lookup, timeout: timeout, ports: ports}
	if addr, err := netip.ParseAddr(g.Host); err == nil {
		e.fixed = true
		e.setLocked([]netip.Addr{addr})
	}
	return e
}

// close waits for look-ups that nobody waits for.
func (e *endpoints) close() { e.asks.Wait() }

// ready fills dst, up to its capacity, with the addresses to try, each call starting
// at the next one, so that connections spread over all of them; those that failed a
// moment ago come last, those without a port left not at all. It never waits: while
// there is no address yet and the name is being looked up it returns the channel that
// is closed when that ends. errNoPorts: no address has a port left.
func (e *endpoints) ready(dst []*endpoint, now time.Time) ([]*endpoint, <-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.fixed && now.After(e.until) && e.asking == nil {
		e.asking = make(chan struct{})
		e.asks.Go(e.ask)
	}
	if len(e.addrs) == 0 {
		if e.asking != nil {
			return nil, e.asking, nil
		}
		return nil, nil, e.err
	}
	if dst = e.orderLocked(dst, now); len(dst) > 0 {
		return dst, nil, nil
	}
	if !slices.ContainsFunc(e.addrs, func(ep *endpoint) bool { return len(ep.lanes) > 0 }) {
		return nil, nil, errNoSource
	}
	return nil, nil, errNoPorts
}

func (e *endpoints) orderLocked(dst []*endpoint, now time.Time) []*endpoint {
	e.rotator++
	first := int(e.rotator % uint32(len(e.addrs)))
	for _, failing := range [2]bool{false, true} {
		for i := range e.addrs {
			if len(dst) == cap(dst) {
				return dst
			}
			if ep := e.addrs[(first+i)%len(e.addrs)]; ep.failing(now) == failing && ep.open(now) {
				dst = append(dst, ep)
			}
		}
	}
	return dst
}

// portsFree is how many connections the local ports still allow to all addresses; not
// known without a range or while there is no address.
func (g *gateway) portsFree() (free int64, known bool) {
	if g.endpoints == nil || g.endpoints.ports.capacity == 0 {
		return 0, false
	}
	g.endpoints.mu.Lock()
	defer g.endpoints.mu.Unlock()
	for _, ep := range g.endpoints.addrs {
		for _, l := range ep.lanes {
			free += l.free()
		}
	}
	return free, len(g.endpoints.addrs) > 0
}

// ask looks the name up.
func (e *endpoints) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), e.timeout)
	defer cancel()
	addrs, err := e.lookup(ctx, "ip", e.host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("the name has no address")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.asking)
	e.asking = nil
	e.err = err
	if err != nil {
		e.until = time.Now().Add(resolveRetry)
		return
	}
	e.until = time.Now().Add(resolveTTL)
	e.setLocked(addrs[:min(len(addrs), resolveMaxAddrs)])
}

// setLocked takes up a new list of addresses; those that stay keep what is known of them.
func (e *endpoints) setLocked(addrs []netip.Addr) {
	before := e.addrs
	e.addrs = make([]*endpoint, 0, len(addrs))
	for _, a := range addrs {
		to := netip.AddrPortFrom(a.Unmap(), e.port)
		same := func(ep *endpoint) bool { return ep.addr == to }
		if slices.ContainsFunc(e.addrs, same) {
			continue
		}
		ep := &endpoint{addr: to}
		if i := slices.IndexFunc(before, same); i >= 0 {
			ep = before[i]
		}
		e.addrs = append(e.addrs, ep)
	}
	e.ports.swap(before, e.addrs)
}
