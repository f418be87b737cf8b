package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Balances.
const (
	RoundRobin = "round_robin" // by weight, smoothly
	LeastConn  = "least_conn"  // fewest open connections for its weight
)

// probeInterval is how often a gateway that is down is tried by the pool itself.
const probeInterval = time.Second

// Options configure a Pool. The zero value of an optional field is named.
type Options struct {
	Gateways       []Gateway     // at least one; direct:// stands alone
	Balance        string        // RoundRobin or LeastConn; "" = RoundRobin
	DialTimeout    time.Duration // TCP and TLS to a gateway
	ConnectTimeout time.Duration // the gateway's answer
	// CheckAddr is asked about every address that direct:// dials. nil = all allowed.
	CheckAddr func(netip.Addr) error
	// Lookup resolves gateways' names. nil = the system's resolver.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// GatewayMade reports whether a gateway made a plain response itself. nil = never.
	GatewayMade GatewayMade
}

// Pool is the set of gateways and what is known of them. Safe for concurrent use.
// Run must be running for gateways that are down to be found up again early.
type Pool struct {
	options  Options
	gateways []*gateway
	metrics  *metrics

	mu   sync.Mutex // guards the weights and next
	next int
}

// NewPool validates o.
func NewPool(o Options) (*Pool, error) {
	if len(o.Gateways) == 0 {
		return nil, errors.New("upstream: no gateway")
	}
	if o.Balance == "" {
		o.Balance = RoundRobin
	}
	if o.Balance != RoundRobin && o.Balance != LeastConn {
		return nil, fmt.Errorf("upstream: unknown balance %q", o.Balance)
	}
	if o.DialTimeout <= 0 || o.ConnectTimeout <= 0 {
		return nil, errors.New("upstream: a timeout is not positive")
	}
	p := &Pool{options: o, metrics: newMetrics()}
	names := make(map[string]bool, len(o.Gateways))
	for _, g := range o.Gateways {
		if names[g.Name] {
			return nil, fmt.Errorf("upstream: two gateways are called %q; give them names", g.Name)
		}
		if g.Scheme == SchemeDirect && len(o.Gateways) > 1 {
			return nil, errors.New("upstream: direct:// cannot be one of several gateways")
		}
		names[g.Name] = true
		p.gateways = append(p.gateways, newGateway(g, o))
	}
	return p, nil
}

// Request is what a tunnel needs from the vendor's side.
type Request struct {
	Target string // host:port, validated; goes to the gateway as it is
	// Authorization replaces the gateway's login (passthrough). Empty = the gateway's own.
	Authorization string
}

// Conn is an open tunnel to the target. The owner closes Conn and then calls
// Release once; Early are the target's bytes that came with the gateway's answer.
type Conn struct {
	net.Conn
	Early   []byte
	Gateway string
	Release func()
}

// Connect opens a tunnel through the pool's next gateway, or the one after if that
// fails, until one answers, all were tried, or DialTimeout plus ConnectTimeout have
// passed. The error is a *ConnectError, the last gateway's.
func (p *Pool) Connect(ctx context.Context, r Request) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.options.DialTimeout+p.options.ConnectTimeout)
	defer cancel()
	var conn *Conn
	err := p.try(ctx, func(g *gateway) *ConnectError {
		if !g.tryAcquire() {
			return fullError()
		}
		var failure *ConnectError
		if conn, failure = p.connectThrough(ctx, g, r); failure != nil {
			g.release()
		}
		return failure
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// fullError says that a gateway has no connection left; another one may have.
func fullError() *ConnectError { return &ConnectError{Phase: PhasePick, Cause: CauseNone} }

// try runs f with gateways, each at most once, until one serves, none is left, or
// the time for a set-up is over.
func (p *Pool) try(ctx context.Context, f func(*gateway) *ConnectError) error {
	var last *ConnectError
	tried := make([]*gateway, 0, 4)
	budget := time.Now().Add(p.options.DialTimeout + p.options.ConnectTimeout)
	for {
		g := p.pick(tried)
		if g == nil {
			return last
		}
		tried = append(tried, g)
		failure := f(g)
		if failure == nil {
			g.report(nil)
			return nil
		}
		if failure.Gateway == "" {
			failure.Gateway = g.Name
		}
		if failure.Phase != PhasePick {
			g.report(failure)
			p.metrics.failed(failure)
		}
		// A gateway that was full says less than one that failed.
		if last == nil || failure.Phase != PhasePick {
			last = failure
		}
		if !failure.retryable() || ctx.Err() != nil || time.Now().After(budget) {
			return last
		}
	}
}

func (p *Pool) connectThrough(ctx context.Context, g *gateway, r Request) (*Conn, *ConnectError) {
	start := time.Now()
	release := sync.OnceFunc(g.release)
	if g.Scheme == SchemeDirect {
		conn, failure := g.dialTarget(ctx, r.Target)
		if failure != nil {
			return nil, failure
		}
		p.metrics.connected(g.Name, time.Since(start))
		return &Conn{Conn: conn, Gateway: g.Name, Release: release}, nil
	}
	conn, failure := g.dial(ctx)
	if failure != nil {
		return nil, failure
	}
	reply, cancel := context.WithTimeout(ctx, p.options.ConnectTimeout)
	defer cancel()
	early, failure := openTunnel(reply, conn, r.Target, cmp.Or(r.Authorization, g.authorization()))
	if failure != nil {
		_ = conn.Close()
		return nil, failure
	}
	p.metrics.connected(g.Name, time.Since(start))
	return &Conn{Conn: conn, Early: early, Gateway: g.Name, Release: release}, nil
}

// pick chooses a gateway that was not tried yet. Those that are down come last, so
// that a pool whose gateways all failed a moment ago still tries. nil = none left.
func (p *Pool) pick(tried []*gateway) *gateway {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, down := range [2]bool{false, true} {
		g := p.chooseLocked(func(g *gateway) bool {
			return g.isDown(now) == down && !slices.Contains(tried, g)
		})
		if g != nil {
			return g
		}
	}
	return nil
}

func (p *Pool) chooseLocked(usable func(*gateway) bool) *gateway {
	if p.options.Balance == LeastConn {
		return p.leastConnLocked(usable)
	}
	return p.roundRobinLocked(usable)
}

// roundRobinLocked is smooth weighted round robin, as nginx does it: every usable
// gateway gains its weight, the richest is chosen and pays the sum.
func (p *Pool) roundRobinLocked(usable func(*gateway) bool) *gateway {
	var best *gateway
	total := 0
	for _, g := range p.gateways {
		if !usable(g) {
			continue
		}
		g.weight += g.Weight
		total += g.Weight
		if best == nil || g.weight > best.weight {
			best = g
		}
	}
	if best != nil {
		best.weight -= total
	}
	return best
}

// leastConnLocked compares connections per weight; ties go round.
func (p *Pool) leastConnLocked(usable func(*gateway) bool) *gateway {
	var best *gateway
	var bestConns int64
	p.next++
	for i := range p.gateways {
		g := p.gateways[(p.next+i)%len(p.gateways)]
		if !usable(g) {
			continue
		}
		// g.conns/g.Weight < best.conns/best.Weight without division
		conns := g.conns.Load()
		if best == nil || conns*int64(best.Weight) < bestConns*int64(g.Weight) {
			best, bestConns = g, conns
		}
	}
	return best
}

// Usable reports whether any gateway is up.
func (p *Pool) Usable() bool {
	now := time.Now()
	for _, g := range p.gateways {
		if !g.isDown(now) {
			return true
		}
	}
	return false
}

// Run probes gateways that are down until ctx ends: TCP, and TLS where the gateway
// has it. A gateway that stays unreachable stays down; one that answers is up at once.
func (p *Pool) Run(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var probes sync.WaitGroup
		for _, g := range p.gateways {
			if g.endpoints != nil && g.isDown(time.Now()) {
				probes.Go(func() { g.probe(ctx) })
			}
		}
		probes.Wait()
	}
}

// Close waits for what the pool has under way: look-ups, a few seconds at the most.
// Nobody may use the pool any more.
func (p *Pool) Close() {
	for _, g := range p.gateways {
		if g.endpoints != nil {
			g.endpoints.close()
		}
	}
}

func (g *gateway) probe(ctx context.Context) {
	conn, failure := g.dial(ctx)
	if failure == nil {
		_ = conn.Close()
	}
	g.report(failure)
}
