package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// probeInterval is how often a gateway that cannot be reached is tried by the pool
	// itself, how often the gateways are compared, and how often troubles are told.
	probeInterval = time.Second
	// healthInterval is Options.HealthInterval's default.
	healthInterval = 10 * time.Second
	// healthSpread is by how much of itself either way a health interval varies, so that
	// relays that started together do not probe together.
	healthSpread = 0.1
	// probeAddrs is how many of a gateway's addresses one round tries; the next round goes on.
	probeAddrs = 8
	// maxProbes is how many gateways are probed at once.
	maxProbes = 16
	// probePatience bounds the wait for the answer to a probe of the health target.
	probePatience = 10 * time.Second
)

// The kinds of probes.
const (
	probeConnect = "connect" // TCP, and TLS where the gateway has it
	probeTarget  = "target"  // a tunnel to the health target
)

// watch is the work of Pool.Run: probes, comparisons and events, until ctx ends. It
// returns when all of it has ended.
func (p *Pool) watch(ctx context.Context) {
	telling, told := context.WithCancel(context.WithoutCancel(ctx))
	var delivery, watchers sync.WaitGroup
	if p.overseer.events.notify != nil {
		delivery.Go(func() { p.overseer.events.deliver(telling) })
	}
	slots := make(chan struct{}, maxProbes)
	for _, g := range p.gateways {
		if g.endpoints != nil {
			b := prober{g: g, target: p.options.HealthTarget, interval: p.options.HealthInterval}
			if b.interval <= 0 {
				b.interval = healthInterval
			}
			watchers.Go(func() { b.run(ctx, slots) })
		}
	}
	watchers.Go(func() { p.compare(ctx) })
	watchers.Wait()
	told() // what the watchers had to say is in the queue
	delivery.Wait()
}

// compare looks for gateways that are slow beside the others, and tells troubles.
func (p *Pool) compare(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.compareAt(time.Now())
		}
	}
}

func (p *Pool) compareAt(now time.Time) {
	for _, g := range p.gateways {
		p.overseer.findSlow(&g.health, now)
		g.health.troubles.tell(g, p.overseer.events, now)
	}
}

// prober probes one gateway. Not safe for concurrent use.
type prober struct {
	g        *gateway
	target   string // host:port; "" = none
	interval time.Duration
	cursor   int // the address that the next round begins with
}

// run probes each interval, and each second while the gateway cannot be reached.
func (b *prober) run(ctx context.Context, slots chan struct{}) {
	tick := time.NewTicker(min(probeInterval, b.interval))
	defer tick.Stop()
	due := time.Now().Add(rand.N(b.interval))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Now().Before(due) && !b.g.health.gone() {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		b.round(ctx)
		<-slots
		due = time.Now().Add(varied(b.interval))
	}
}

// varied is d, a little longer or shorter.
func varied(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + healthSpread*(2*rand.Float64()-1)))
}

// gone reports whether the gateway could not be reached.
func (h *health) gone() bool {
	if h.until.Load() == 0 {
		return false
	}
	h.overseer.mu.Lock()
	defer h.overseer.mu.Unlock()
	return h.state == stateUnreachable
}

// round probes the gateway's addresses, and the health target if one is reached.
func (b *prober) round(ctx context.Context) {
	g := b.g
	failure := b.reach(ctx)
	now := time.Now()
	switch {
	case failure == nil:
		b.count(probeConnect, "ok")
		g.pool.overseer.reached(&g.health, now)
	case blameOf(failure) == blameNothing:
		return // no port or connection left for a probe, or Run ends
	default:
		b.count(probeConnect, string(failure.Cause))
		g.health.report(failure, 0, now)
		return
	}
	if b.target != "" && !g.health.gone() {
		b.tryTarget(ctx)
	}
}

// count counts a probe: "ok" or a cause.
func (b *prober) count(kind, result string) {
	b.g.pool.metrics.probes.WithLabelValues(b.g.Name, kind, result).Inc()
}

// reach connects to up to probeAddrs addresses of the gateway at once, TLS included. The
// gateway is reached if one of them is; each address keeps its own failure in mind.
func (b *prober) reach(ctx context.Context) *ConnectError {
	ctx, cancel := context.WithTimeout(ctx, b.g.timeout)
	defer cancel()
	var w way
	if _, err := b.g.await(ctx, w.buf[:0], 0); err != nil {
		return b.g.named(ctx, unreachable(err))
	}
	addrs := b.next()
	if len(addrs) == 0 {
		return fullError()
	}
	failures := make([]*ConnectError, len(addrs))
	var all sync.WaitGroup
	for i, ep := range addrs {
		all.Go(func() { failures[i] = b.g.probeAddress(ctx, ep) })
	}
	all.Wait()
	var failure *ConnectError
	for _, f := range failures {
		switch {
		case f == nil:
			return nil
		case failure == nil || blameOf(f) != blameNothing:
			failure = f
		}
	}
	return failure
}

// next is the addresses of the next round.
func (b *prober) next() []*endpoint {
	all := b.g.endpoints.list()
	n := min(len(all), probeAddrs)
	if n == 0 {
		return nil
	}
	first := b.cursor % len(all)
	b.cursor = first + n
	return append(slices.Clone(all[first:min(first+n, len(all))]), all[:max(0, first+n-len(all))]...)
}

// list is all addresses that the gateway has now.
func (e *endpoints) list() []*endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.addrs)
}

// probeAddress connects to one address and hangs up. The connection counts among the
// gateway's; idle connections of customers do not make room for it.
func (g *gateway) probeAddress(ctx context.Context, ep *endpoint) *ConnectError {
	if !g.acquire() {
		return fullError()
	}
	defer g.release()
	var w way
	deadline, _ := ctx.Deadline()
	w.start(append(w.buf[:0], ep), 0, momentOf(deadline))
	defer w.drop()
	for {
		d, ok := w.next(time.Now())
		if !ok {
			return g.named(ctx, w.failure(false))
		}
		conn, err := g.dialOne(ctx, d)
		if err != nil {
			w.missed(err, !errors.Is(ctx.Err(), context.Canceled), time.Now())
			continue
		}
		w.reached(time.Now())
		return g.hangUp(ctx, conn)
	}
}

// hangUp closes a connection after TLS, where the gateway has it.
func (g *gateway) hangUp(ctx context.Context, conn net.Conn) *ConnectError {
	secured, failure := g.secure(ctx, conn)
	if failure == nil {
		_ = secured.Close() // it has served
	}
	return failure
}

// named completes a failure.
func (g *gateway) named(ctx context.Context, failure *ConnectError) *ConnectError {
	failure.Gateway = g.Name
	if errors.Is(ctx.Err(), context.Canceled) {
		failure.Cause = CauseCanceled
	}
	return failure
}

// tryTarget opens a tunnel to the health target with the gateway's own login and closes it.
func (b *prober) tryTarget(ctx context.Context) {
	g := b.g
	if !g.acquire() {
		return
	}
	held := Held{g: g}
	defer func() { held.Release() }()
	ctx, cancel := context.WithTimeout(ctx, g.timeout+min(g.pool.options.ConnectTimeout, probePatience))
	defer cancel()
	began := time.Now()
	failure := g.openOnce(ctx, &held, b.target)
	now := time.Now()
	if failure == nil {
		b.count(probeTarget, "ok")
	} else {
		failure.Gateway = g.Name
		// Without a login of ours a refused one shows that the gateway works.
		failure.own = failure.Cause == CauseAuth && !g.HasCredentials()
		if blameOf(failure) == blameNothing {
			return
		}
		b.count(probeTarget, string(failure.Cause))
	}
	g.pool.overseer.probed(&g.health, failure, now.Sub(began), now)
}

// openOnce opens a tunnel on a connection of its own and closes it again; held learns
// the connection's lane.
func (g *gateway) openOnce(ctx context.Context, held *Held, target string) *ConnectError {
	if g.Scheme == SchemeDirect {
		conn, failure := g.dialTarget(ctx, target)
		if failure == nil {
			_ = conn.Close() // it has served
		}
		return failure
	}
	conn, failure := g.dialHeld(ctx, held, 0)
	if failure != nil {
		return failure
	}
	_, failure = g.pool.open(ctx, g, conn, Request{Target: target, Route: g.group.plain})
	_ = conn.Close()
	return failure
}
