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

// Options configure a Pool. The zero value of an optional field is named.
type Options struct {
	Gateways       []Gateway     // at least one; direct:// stands alone
	Balance        string        // RoundRobin, LeastConn, IPHash or UserHash; "" = RoundRobin
	DialTimeout    time.Duration // TCP and TLS to a gateway
	ConnectTimeout time.Duration // the gateway's answer
	// CheckAddr is asked about every address that direct:// dials. nil = all allowed.
	CheckAddr func(netip.Addr) error
	// Lookup resolves gateways' names. nil = the system's resolver.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// DNSServer is the name server to ask, an address with or without a port; "" = the
	// system's. Not with Lookup.
	DNSServer string
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
	// HealthInterval is how often Run probes each gateway: TCP, and TLS where it has it.
	// 0 = 10 s; one that cannot be reached is tried each second.
	HealthInterval time.Duration
	// HealthTarget is a host:port to which each probe opens a tunnel, too, with the
	// gateway's own login and no wishes. "" = none.
	HealthTarget string
	// Notify is told what an operator should know of the gateways. It is called by Run
	// alone, one call at a time; events that come while it takes long wait, the 257th is
	// lost. nil = nobody wants to know.
	Notify func(Event)
}

// Pool is the set of gateways and what is known of them. Safe for concurrent use.
// Run must be running for gateways that are down to be found up again early.
type Pool struct {
	options  Options
	gateways []*gateway
	metrics  *metrics
	overseer *overseer
	ports    *localPorts
	lookup   lookup
	groups   map[string]*group // by the pool's name; does not change
	names    []string          // of groups, sorted
	plain    *Route            // of those who bring none
}

// NewPool validates o.
func NewPool(o Options) (*Pool, error) {
	if len(o.Gateways) == 0 {
		return nil, errors.New("upstream: no gateway")
	}
	if o.Balance == "" {
		o.Balance = RoundRobin
	}
	if !slices.Contains([]string{RoundRobin, LeastConn, IPHash, UserHash}, o.Balance) {
		return nil, fmt.Errorf("upstream: unknown balance %q", o.Balance)
	}
	if o.DialTimeout <= 0 || o.ConnectTimeout <= 0 {
		return nil, errors.New("upstream: a timeout is not positive")
	}
	ports, err := newLocalPorts(o)
	if err != nil {
		return nil, err
	}
	lookup, err := o.lookup()
	if err != nil {
		return nil, err
	}
	p := &Pool{options: o, metrics: newMetrics(), ports: ports, lookup: lookup}
	p.overseer = newOverseer(o, p.metrics)
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
	p.makeGroups(o.Balance)
	return p, nil
}

// checkGateway finds what does not go together with the other options.
func checkGateway(g Gateway, o Options, ports *localPorts) error {
	if err := CheckPool(g.Pool); err != nil {
		return fmt.Errorf("upstream: %s: %w", g.Name, err)
	}
	if g.Weight < 1 {
		return fmt.Errorf("upstream: %s: weight %d is not at least 1", g.Name, g.Weight)
	}
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
	// Route decides about the gateway and its login. nil = no wishes, and the default pool,
	// or the first gateway's if there is none; ip_hash and user_hash then know nobody.
	Route *Route
}

// Conn is an open tunnel to the target. The owner closes Conn and then calls
// Release once; Early are the target's bytes that came with the gateway's answer.
type Conn struct {
	net.Conn
	Early   []byte
	Gateway string
	Release func()

	login string // that the gateway was sent
}

// Connect opens a tunnel through the route's next gateway, or another if that fails and
// the other may do better, until one serves, three were reached, eight could not be, none
// is left, the pool's budget for retries is used up, or DialTimeout plus ConnectTimeout
// have passed. The error is a *ConnectError, the last gateway's.
func (p *Pool) Connect(ctx context.Context, r Request) (*Conn, error) {
	var s Setup
	s.Start(p, r.Route)
	return s.Resume(ctx, r)
}

// fullError says that a gateway has no connection left; another one may have.
func fullError() *ConnectError { return &ConnectError{Phase: PhasePick, Cause: CauseNone} }

// try runs f with gateways, each at most once, until one serves, none is left, or
// the time for a set-up, which f is told the end of, is over.
func (p *Pool) try(ctx context.Context, r *Route, f func(*gateway, moment) *ConnectError) error {
	var a attempts
	a.start(p.routeOr(r), time.Now())
	return a.run(ctx, func(g *gateway) *ConnectError { return f(g, a.until) })
}

// routeOr is r, or the route of those who bring none.
func (p *Pool) routeOr(r *Route) *Route {
	if r != nil {
		return r
	}
	return p.plain
}

// connectThrough opens a tunnel through g, blocking. A connection that stood ready and
// turns out to have ended says nothing about g: a fresh one does.
func (p *Pool) connectThrough(ctx context.Context, g *gateway, r Request) (*Conn, *ConnectError) {
	start := time.Now()
	route := p.routeOr(r.Route)
	for fresh := false; ; fresh = true {
		l, failure := g.connect(ctx, r.Target, route.port(g), fresh)
		if failure != nil {
			return nil, failure
		}
		early, failure := p.open(ctx, g, l.Conn, r)
		if failure == nil {
			g.opened.Observe(time.Since(start).Seconds())
			return &Conn{Conn: l.Conn, Early: early, Gateway: g.Name, Release: sync.OnceFunc(l.held.Release), login: cmp.Or(r.Authorization, route.login(g))}, nil
		}
		failure.own = r.Authorization != ""
		_ = l.Close()
		l.held.Release()
		if !l.warm || failure.Cause != CauseClosed {
			return nil, failure
		}
	}
}

// open shakes hands.
func (p *Pool) open(ctx context.Context, g *gateway, conn net.Conn, r Request) ([]byte, *ConnectError) {
	if g.Scheme == SchemeDirect {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.options.ConnectTimeout)
	defer cancel()
	return g.openTunnel(ctx, conn, p.routeOr(r.Route), r)
}

// Usable reports whether any gateway is up, or may be: it is about to be tried again.
func (p *Pool) Usable() bool {
	now := time.Now()
	for _, g := range p.gateways {
		if g.health.hopeful(now) {
			return true
		}
	}
	return false
}

// Run probes the gateways, compares them, keeps connections ready where a gateway has
// Warm, and calls Options.Notify, until ctx ends. A gateway that cannot be reached is
// tried each second, and is up at once when it answers, unless it keeps coming and going.
func (p *Pool) Run(ctx context.Context) {
	var warm sync.WaitGroup
	defer warm.Wait()
	warm.Go(func() { p.keepWarm(ctx) })
	p.watch(ctx)
}

// Close ends the look-ups of names and waits for what is under way. Nobody may use the
// pool any more.
func (p *Pool) Close() {
	for _, g := range p.gateways {
		if g.endpoints != nil {
			g.endpoints.close()
		}
	}
}
