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
)

// lookupFunc is net.Resolver.LookupNetIP.
type lookupFunc func(ctx context.Context, network, host string) ([]netip.Addr, error)

// endpoints are the addresses of one gateway, every A and AAAA record of its
// name. Go's resolver does not cache; at a drop every tunnel would ask.
// An answer that can't be renewed goes on being used: a name server's failure
// must not stop a gateway that works.
type endpoints struct {
	host    string
	port    uint16
	fixed   bool
	lookup  lookupFunc
	timeout time.Duration

	mu      sync.Mutex // guards what follows
	addrs   []netip.Addr
	err     error
	until   time.Time
	asking  chan struct{} // closed when the look-up under way ends; nil = none
	rotator uint32
}

func newEndpoints(g Gateway, lookup lookupFunc, timeout time.Duration) *endpoints {
	port, _ := strconv.ParseUint(g.Port, 10, 16) // ParseGateway checked it
	e := &endpoints{host: g.Host, port: uint16(port), lookup: lookup, timeout: timeout}
	if addr, err := netip.ParseAddr(g.Host); err == nil {
		e.fixed, e.addrs = true, []netip.Addr{addr}
	}
	return e
}

// get returns the addresses, each call starting at the next one, so that
// connections spread over all of them.
func (e *endpoints) get(ctx context.Context) ([]netip.AddrPort, error) {
	e.mu.Lock()
	for !e.fixed && time.Now().After(e.until) {
		if e.asking == nil {
			e.ask(ctx)
			continue
		}
		if len(e.addrs) > 0 {
			break // somebody is asking; the old answer will do
		}
		asking := e.asking
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
	e.rotator++
	out := make([]netip.AddrPort, len(e.addrs))
	for i := range out {
		out[i] = netip.AddrPortFrom(e.addrs[(int(e.rotator)+i)%len(e.addrs)], e.port)
	}
	return out, nil
}

// ask looks the name up in the caller's goroutine with the lock released. The
// caller's leaving does not spoil the answer for those who wait for it.
func (e *endpoints) ask(ctx context.Context) {
	asking := make(chan struct{})
	e.asking = asking
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.timeout)
	addrs, err := e.lookup(ctx, "ip", e.host)
	cancel()
	if err == nil && len(addrs) == 0 {
		err = errors.New("the name has no address")
	}
	e.mu.Lock()
	e.err, e.asking = err, nil
	if err == nil {
		e.addrs = e.addrs[:0]
		for _, a := range addrs[:min(len(addrs), resolveMaxAddrs)] {
			e.addrs = append(e.addrs, a.Unmap())
		}
		e.until = time.Now().Add(resolveTTL)
	} else {
		e.until = time.Now().Add(resolveRetry)
	}
	close(asking)
}
