package upstream

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
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
	asks    sync.WaitGroup // look-ups under way; close waits for them

	mu      sync.Mutex // guards what follows
	addrs   []netip.Addr
	failed  map[netip.Addr]time.Time // when an address could not be reached; of addrs only
	err     error
	until   time.Time
	asking  chan struct{} // closed when the look-up under way ends; nil = none
	rotator uint32
}

func newEndpoints(g Gateway, lookup lookupFunc, timeout time.Duration) *endpoints {
	port, _ := strconv.ParseUint(g.Port, 10, 16) // ParseGateway checked it
	e := &endpoints{
		host: g.Host, port: uint16(port), lookup: lookup, timeout: timeout,
		failed: make(map[netip.Addr]time.Time),
	}
	if addr, err := netip.ParseAddr(g.Host); err == nil {
		e.fixed, e.addrs = true, []netip.Addr{addr}
	}
	return e
}

// close waits for look-ups that nobody waits for.
func (e *endpoints) close() { e.asks.Wait() }

// get returns the addresses, each call starting at the next one, so that
// connections spread over all of them; those that failed a moment ago come last.
func (e *endpoints) get(ctx context.Context) ([]netip.AddrPort, error) {
	e.mu.Lock()
	if !e.fixed && time.Now().After(e.until) && e.asking == nil {
		e.asking = make(chan struct{})
		e.asks.Go(e.ask)
	}
	if asking := e.asking; len(e.addrs) == 0 && asking != nil {
		e.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		e.mu.Lock()
	}
	defer e.mu.Unlock()
	if len(e.addrs) == 0 {
		return nil, e.err
	}
	return e.orderLocked(time.Now()), nil
}

func (e *endpoints) orderLocked(now time.Time) []netip.AddrPort {
	e.rotator++
	good := make([]netip.AddrPort, 0, len(e.addrs))
	var bad []netip.AddrPort
	for i := range e.addrs {
		addr := e.addrs[(int(e.rotator)+i)%len(e.addrs)]
		if at, failed := e.failed[addr]; failed && now.Sub(at) < addressCooldown {
			bad = append(bad, netip.AddrPortFrom(addr, e.port))
			continue
		}
		good = append(good, netip.AddrPortFrom(addr, e.port))
	}
	return append(good, bad...)
}

// report learns whether an address could be reached.
func (e *endpoints) report(addr netip.Addr, reached bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if reached {
		delete(e.failed, addr)
		return
	}
	for _, a := range e.addrs {
		if a == addr {
			e.failed[addr] = time.Now()
		}
	}
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
	failed := make(map[netip.Addr]time.Time)
	e.addrs = nil
	for _, a := range addrs[:min(len(addrs), resolveMaxAddrs)] {
		a = a.Unmap()
		e.addrs = append(e.addrs, a)
		if at, was := e.failed[a]; was {
			failed[a] = at
		}
	}
	e.failed = failed
}
