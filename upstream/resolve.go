package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	resolveMinTTL   = 5 * time.Second  // an answer is never taken for less
	resolveMaxTTL   = 5 * time.Minute  // nor for more
	resolveRetry    = 2 * time.Second  // how long a failure is taken; doubles with each
	resolveMaxRetry = 30 * time.Second // up to this
	resolveTimeout  = 15 * time.Second // one look-up
	resolveMaxAddrs = 64               // addresses kept of one answer
)

// endpoints are the addresses of one gateway, every A and AAAA record of its name. Once
// there are addresses nobody waits for a look-up any more: they are renewed in the
// background a little before their TTL ends, used or not, and if that fails or hangs the
// old answer goes on being used. A name server's failure must not stop a gateway that
// works. Safe for concurrent use.
type endpoints struct {
	host     string
	port     uint16
	fixed    bool // an address literal
	lookup   lookup
	ports    *localPorts
	asks     sync.WaitGroup // look-ups under way; close waits for them
	families [2]family      // IPv4, IPv6

	mu      sync.Mutex // guards what follows
	addrs   []*endpoint
	gone    []*endpoint // no longer in the answer, but with connections
	dual    bool        // addrs has both families
	rotator uint32
	closed  bool
	asking  chan struct{}      // closed when the look-up under way ends; nil = none
	cancel  context.CancelFunc // ends it
	renewal *time.Timer        // of the next look-up; nil = there was none yet

	// answered is when addrs were learned, ttl how long they hold; err is why the latest
	// look-up failed, failed when, failing since when they fail, and retry how long after
	// that the next one follows. Zero: there was none.
	answered, failed, failing time.Time
	ttl, retry                time.Duration
	err                       error
}

func newEndpoints(g Gateway, look lookup, ports *localPorts) *endpoints {
	port, _ := strconv.ParseUint(g.Port, 10, 16) // ParseGateway checked it
	e := &endpoints{host: g.Host, port: uint16(port), lookup: look, ports: ports}
	if addr, err := netip.ParseAddr(g.Host); err == nil {
		e.fixed = true
		e.setLocked([]netip.Addr{addr})
	}
	return e
}

// close ends what runs in the background and waits for it. Nobody asks any more after it.
func (e *endpoints) close() {
	e.mu.Lock()
	e.closed = true
	if e.renewal != nil {
		e.renewal.Stop()
	}
	if e.cancel != nil {
		e.cancel()
	}
	e.mu.Unlock()
	e.asks.Wait()
}

// ready fills dst, up to its capacity, with the addresses to try in their order (see
// orderLocked); port is the one to connect to, 0 = the gateway's own. It never waits:
// while there is no address yet and the name is being looked up it returns the channel
// that is closed when that ends. errNoPorts: no address has a port left.
func (e *endpoints) ready(dst []*endpoint, port uint16, now time.Time) ([]*endpoint, <-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.addrs) == 0 {
		if now.Sub(e.failed) >= resolveRetry { // somebody waits: no longer pause than this
			e.askLocked()
		}
		if e.asking != nil {
			return nil, e.asking, nil
		}
		return nil, nil, e.err
	}
	if dst = e.orderLocked(dst, port, now); len(dst) > 0 {
		return dst, nil, nil
	}
	if !slices.ContainsFunc(e.addrs, func(ep *endpoint) bool { return len(ep.lanes) > 0 }) {
		return nil, nil, errNoSource
	}
	return nil, nil, errNoPorts
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
		free += ep.portsFree()
	}
	return free, len(g.endpoints.addrs) > 0
}

// renewLocked has the name looked up after d.
func (e *endpoints) renewLocked(d time.Duration) {
	switch {
	case e.closed:
	case e.renewal == nil:
		e.renewal = time.AfterFunc(d, e.renew)
	default:
		e.renewal.Reset(d)
	}
}

func (e *endpoints) renew() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.askLocked()
}

// askLocked begins a look-up unless there is one under way.
func (e *endpoints) askLocked() {
	if e.closed || e.asking != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	e.asking, e.cancel = make(chan struct{}), cancel
	waited := len(e.addrs) == 0
	e.asks.Go(func() {
		defer cancel()
		e.ask(ctx, waited)
	})
}

// ask looks the name up; waited: there are customers who wait for it.
func (e *endpoints) ask(ctx context.Context, waited bool) {
	found, err := e.lookup(ctx, e.host, waited)
	found.addrs = slices.DeleteFunc(slices.Clone(found.addrs), func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() || a.IsMulticast() })
	if err == nil && len(found.addrs) == 0 {
		err = errors.New("the name has no address that could be a gateway's")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.asking)
	e.asking = nil
	now := time.Now()
	if err != nil {
		e.failLocked(err, now)
		return
	}
	ttl := min(max(found.ttl, resolveMinTTL), resolveMaxTTL)
	if found.unheard != [2]bool{} { // half an answer
		ttl = min(ttl, resolveMaxRetry)
	}
	e.answered, e.ttl = now, ttl
	e.err, e.retry, e.failing = nil, 0, time.Time{}
	e.setLocked(append(found.addrs[:min(len(found.addrs), resolveMaxAddrs)], e.unheardLocked(found)...))
	// A little early, so that the old answer is not used for longer than it holds; and not all relays at once.
	e.renewLocked(ttl - time.Duration(rand.Int64N(int64(ttl/5))) - ttl/20)
}

func (e *endpoints) failLocked(err error, now time.Time) {
	if e.err == nil {
		e.failing = now
	}
	e.err, e.failed = err, now
	e.retry = min(max(2*e.retry, resolveRetry), resolveMaxRetry)
	e.renewLocked(e.retry + time.Duration(rand.Int64N(int64(e.retry/5))))
}

// unheardLocked are the addresses of families about which no name server said anything.
func (e *endpoints) unheardLocked(found answer) (addrs []netip.Addr) {
	for _, ep := range e.addrs {
		if a := ep.addr.Addr(); found.unheard[familyOf(a)] {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// setLocked takes up a new list of addresses; those that stay, or come back while
// connections to them are open, keep what is known of them.
func (e *endpoints) setLocked(addrs []netip.Addr) {
	before := slices.Concat(e.addrs, e.gone)
	e.addrs, e.gone = make([]*endpoint, 0, len(addrs)), nil
	for _, a := range addrs {
		to := netip.AddrPortFrom(a.Unmap(), e.port)
		same := func(ep *endpoint) bool { return ep.addr == to }
		if slices.ContainsFunc(e.addrs, same) || len(e.addrs) == resolveMaxAddrs {
			continue
		}
		ep := &endpoint{addr: to, family: &e.families[familyOf(to.Addr())]}
		if i := slices.IndexFunc(before, same); i >= 0 {
			ep = before[i]
		}
		e.addrs = append(e.addrs, ep)
	}
	for _, ep := range before {
		if ep.conns.Load() > 0 && !slices.Contains(e.addrs, ep) {
			e.gone = append(e.gone, ep)
		}
	}
	e.dual = slices.ContainsFunc(e.addrs, func(ep *endpoint) bool { return ep.family != e.addrs[0].family })
	e.ports.swap(before, slices.Concat(e.addrs, e.gone))
}

// familyOf is the index of an address's family in endpoints.families.
func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 0
	}
	return 1
}
