package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gateway is the state of one Gateway. Safe for concurrent use.
type gateway struct {
	Gateway
	pool      *Pool
	group     *group
	index     int    // in group.gateways
	login     string // the Proxy-Authorization value, empty without credentials
	opened    prometheus.Observer
	endpoints *endpoints // nil for direct
	dialer    net.Dialer
	tls       *tls.Config // nil unless https
	timeout   time.Duration
	warm      *warm // nil = no connection is kept ready

	evictIdle atomic.Pointer[func()] // drops idle plain connections; nil = there are none
	idle      atomic.Int64           // of plain HTTP, which evictIdle would drop

	sameAccount members // of the group, at the same vendor with the same login; nil = not known

	siblings func() []*gateway // the gateways of its pool, itself among them
	health   health
	conns    atomic.Int64 // open connections, those being opened included
}

func (p *Pool) newGateway(g Gateway) *gateway {
	o := p.options
	state := &gateway{
		Gateway: g, pool: p, timeout: o.DialTimeout,
		login: g.authorization(), opened: p.metrics.seconds.WithLabelValues(g.Name),
	}
	p.overseer.start(state, time.Now())
	state.dialer = net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4},
	}
	state.dialer.SetMultipathTCP(false)
	if g.Scheme == SchemeDirect {
		state.dialer.ControlContext = checkedControl(o.CheckAddr)
		state.dialer.Resolver = o.resolver()
		return state
	}
	state.endpoints = newEndpoints(g, p.lookup, p.ports)
	if g.Scheme == SchemeHTTPS {
		state.tls = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			ServerName:         g.Host,
			RootCAs:            g.roots,
			NextProtos:         []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
		}
	}
	state.warm = newWarm(state)
	return state
}

// errDenied is what a direct dial to a forbidden address fails with.
var errDenied = errors.New("the target's address is not allowed")

// checkedControl looks at every address that a direct dial is about to use: the
// name was checked before, what it resolves to can only be checked here.
func checkedControl(check func(netip.Addr) error) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %w", errDenied, err)
		}
		if check == nil {
			return nil
		}
		if err := check(ap.Addr().Unmap()); err != nil {
			return fmt.Errorf("%w: %w", errDenied, err)
		}
		return nil
	}
}

// tryAcquire takes one of the gateway's connections; idle ones of plain HTTP make room.
func (g *gateway) tryAcquire() bool { return g.acquire() || g.evict() && g.acquire() }

// evict closes connections that nobody uses: those kept ready, and idle ones of plain
// HTTP. It reports whether there could be any.
func (g *gateway) evict() bool {
	some := g.warm.giveBack()
	if evict := g.evictIdle.Load(); evict != nil && g.idle.Load() > 0 {
		(*evict)()
		some = true
	}
	return some
}

func (g *gateway) acquire() bool {
	if n := g.conns.Add(1); g.MaxConns > 0 && n > int64(g.MaxConns) {
		g.conns.Add(-1)
		return false
	}
	return true
}

// full reports whether the gateway has no connection left, and none that it could give back.
func (g *gateway) full() bool {
	return g.MaxConns > 0 && g.conns.Load() >= int64(g.MaxConns) && g.idle.Load() == 0 && !g.warm.any()
}

func (g *gateway) release() { g.conns.Add(-1) }

// addresses fills dst with the addresses to try; port is the one to connect to, 0 = the
// gateway's own. It never waits: while the name is being looked up for the first time it
// returns the channel that is closed after that.
func (g *gateway) addresses(dst []*endpoint, port uint16, now time.Time) ([]*endpoint, <-chan struct{}, error) {
	addrs, asking, err := g.endpoints.ready(dst, port, now)
	if errors.Is(err, errNoPorts) && g.evict() {
		return g.endpoints.ready(dst, port, now)
	}
	return addrs, asking, err
}

// unreachable says why a gateway has no address to try.
func unreachable(err error) *ConnectError {
	switch {
	case errors.Is(err, errNoPorts):
		return &ConnectError{Phase: PhasePick, Cause: CauseNone, Err: err}
	case errors.Is(err, errNoSource):
		return &ConnectError{Phase: PhaseDial, Cause: CauseRefused, Err: err}
	default:
		return &ConnectError{Phase: PhaseResolve, Cause: ioCause(err, CauseResolve), Err: err}
	}
}

// link is a connection to a gateway, or for direct:// to the target.
type link struct {
	net.Conn
	held Held // what counts it, its owner's to release after the connection was closed
	warm bool // it stood ready, and may have ended meanwhile
}

// connect opens a connection to a port of the gateway's, 0 = its own, or takes one that
// stands ready, unless it is to be fresh. direct:// connects to the target.
func (g *gateway) connect(ctx context.Context, target string, port uint16, fresh bool) (link, *ConnectError) {
	if !fresh && port == 0 {
		if l, ok := g.warm.take(); ok {
			return l, nil
		}
	}
	if !g.tryAcquire() {
		return link{}, fullError()
	}
	l := link{held: Held{g: g}}
	var failure *ConnectError
	if g.Scheme == SchemeDirect {
		l.Conn, failure = g.dialTarget(ctx, target)
	} else {
		l.Conn, failure = g.dialHeld(ctx, &l.held, port)
	}
	if failure != nil {
		l.held.Release()
		return link{}, failure
	}
	return l, nil
}

// dialHeld opens a connection to a port of the gateway's, 0 = its own, TLS included,
// within the dial timeout. held is what counts it; after a failure, too, it is to be
// released.
func (g *gateway) dialHeld(ctx context.Context, held *Held, port uint16) (net.Conn, *ConnectError) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	conn, lane, failure := g.reach(ctx, port)
	if failure != nil {
		return nil, failure
	}
	held.lane = lane
	return g.secure(ctx, conn)
}

// secure adds TLS where the gateway has it. It closes conn when it fails.
func (g *gateway) secure(ctx context.Context, conn net.Conn) (net.Conn, *ConnectError) {
	if g.tls == nil {
		return conn, nil
	}
	secured := tls.Client(conn, g.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &ConnectError{Gateway: g.Name, Phase: PhaseTLS, Cause: netCause(ctx, err, CauseTLS), Err: err}
	}
	return secured, nil
}

// reach makes a TCP connection to one of the gateway's addresses until ctx ends. The
// caller owns the lane, too.
func (g *gateway) reach(ctx context.Context, port uint16) (*net.TCPConn, *lane, *ConnectError) {
	fail := func(failure *ConnectError) (*net.TCPConn, *lane, *ConnectError) {
		failure.Gateway = g.Name
		if errors.Is(ctx.Err(), context.Canceled) {
			failure.Cause = CauseCanceled
		}
		return nil, nil, failure
	}
	var w way
	addrs, err := g.await(ctx, w.buf[:0], port)
	if err != nil {
		return fail(unreachable(err))
	}
	deadline, _ := ctx.Deadline()
	w.start(addrs, port, momentOf(deadline))
	for {
		d, ok := w.next(time.Now())
		if !ok {
			return fail(w.failure(false))
		}
		conn, err := g.dialOne(ctx, d)
		if err == nil {
			w.reached(time.Now())
			return conn, w.lane, nil
		}
		canceled := errors.Is(ctx.Err(), context.Canceled)
		w.missed(err, !canceled, time.Now())
		if canceled {
			return fail(w.failure(true))
		}
	}
}

// await waits for addresses where there are none yet.
func (g *gateway) await(ctx context.Context, dst []*endpoint, port uint16) ([]*endpoint, error) {
	for {
		addrs, asking, err := g.addresses(dst, port, time.Now())
		if asking == nil {
			return addrs, err
		}
		select {
		case <-asking:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// dialOne makes the connection that d describes.
func (g *gateway) dialOne(ctx context.Context, d Dial) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	dialer := g.dialer
	if d.Source.IsValid() { // a zero local address would bind, too, and hold the port for every peer
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.Source, 0))
	}
	if d.Source.IsValid() || d.Ports[1] != 0 {
		dialer.ControlContext = outgoing(d)
	}
	conn, err := dialer.DialContext(ctx, "tcp", d.Addr.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// dialTarget is the direct:// way: no gateway, the target itself.
func (g *gateway) dialTarget(ctx context.Context, target string) (net.Conn, *ConnectError) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	conn, err := g.dialer.DialContext(ctx, "tcp", target)
	if err == nil {
		return conn, nil
	}
	cause := netCause(ctx, err, CauseRefused)
	var dns *net.DNSError
	switch {
	case errors.Is(err, errDenied):
		cause = CauseDenied
	case errors.As(err, &dns) && cause == CauseRefused:
		cause = CauseResolve
	}
	// The target's failure says nothing about this way out: the phase is not PhaseDial.
	return nil, &ConnectError{Gateway: g.Name, Phase: PhaseConnect, Cause: cause, Err: err}
}
