package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
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
	// Sources are the local addresses that connections to gateways leave from, the one
	// with the fewest of them first; nil = the kernel chooses. A gateway address without
	// a source of its family is not used. Not for direct://.
	Sources []netip.Addr
	// Ports is the kernel's range of local ports, low and high, both included
	// (net.ipv4.ip_local_port_range), and PortsReserved how many of them are set aside.
	// With it, gateways are full before their ports run out, and ports are chosen from
	// small windows when many are in use. 0, 0 = not known: neither of these.
	Ports         [2]int
	PortsReserved int
	// GatewayMade reports whether a gateway made a plain response itself. nil = never.
	GatewayMade GatewayMade
}

// Pool is the set of gateways and what is known of them. Safe for concurrent use.
// Run must be running for gateways that are down to be found up again early.
type Pool struct {
	options  Options
	gateways []*gateway
	metrics  *metrics
	ports    *localPorts

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
	ports, err := newLocalPorts(o)
	if err != nil {
		return nil, err
	}
	p := &Pool{options: o, metrics: newMetrics(), ports: ports}
	names := make(map[string]bool, len(o.Gateways))
	for _, g := range o.Gateways {
		if names[g.Name] {
			return nil, fmt.Errorf("upstream: two gateways are called %q; give them names", g.Name)
		}
		if err := checkGateway(g, o, ports); err != nil {
			return nil, err
		}
		names[g.Name] = true
		p.gateways = append(p.gateways, p.newGateway(g))
	}
	return p, nil
}

// checkGateway finds what does not go together with the other options.
func checkGateway(g Gateway, o Options, ports *localPorts) error {
	if g.Scheme == SchemeDirect {
		switch {
		case len(o.Gateways) > 1:
			return errors.New("upstream: direct:// cannot be one of several gateways")
		case len(o.Sources) > 0:
			return errors.New("upstream: source addresses are for connections to gateways, and direct:// is none")
		}
		return nil
	}
	if addr, err := netip.ParseAddr(g.Host); err == nil && !ports.reaches(addr.Unmap()) {
		return fmt.Errorf("upstream: %s: %w", g.Name, errNoSource)
	}
	return nil
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
	var s Setup
	s.Start(p)
	return s.Resume(ctx, r)
}

// fullError says that a gateway has no connection left; another one may have.
func fullError() *ConnectError { return &ConnectError{Phase: PhasePick, Cause: CauseNone} }

// try runs f with gateways, each at most once, until one serves, none is left, or
// the time for a set-up is over.
func (p *Pool) try(ctx context.Context, f func(*gateway) *ConnectError) error {
	var a attempts
	a.start(p, time.Now())
	return a.run(ctx, f)
}

// connectThrough opens a tunnel through g, blocking.
func (p *Pool) connectThrough(ctx context.Context, g *gateway, r Request) (*Conn, *ConnectError) {
	if !g.tryAcquire() {
		return nil, fullError()
	}
	held := Held{g: g}
	start := time.Now()
	conn, failure := p.open(ctx, &held, r)
	if failure != nil {
		held.Release()
		return nil, failure
	}
	g.opened.Observe(time.Since(start).Seconds())
	conn.Gateway, conn.Release = g.Name, sync.OnceFunc(held.Release)
	return conn, nil
}

// open dials and shakes hands; held learns the lane.
func (p *Pool) open(ctx context.Context, held *Held, r Request) (*Conn, *ConnectError) {
	g := held.g
	if g.Scheme == SchemeDirect {
		conn, failure := g.dialTarget(ctx, r.Target)
		return &Conn{Conn: conn}, failure
	}
	conn, failure := g.dialHeld(ctx, held)
	if failure != nil {
		return nil, failure
	}
	reply, cancel := context.WithTimeout(ctx, p.options.ConnectTimeout)
	defer cancel()
	early, failure := openTunnel(reply, conn, r.Target, cmp.Or(r.Authorization, g.login))
	if failure != nil {
		_ = conn.Close()
		return nil, failure
	}
	return &Conn{Conn: conn, Early: early}, nil
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
