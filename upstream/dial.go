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
)

// maxDialAddrs bounds the addresses tried for one connection to one gateway.
const maxDialAddrs = 3

// cooldown is how long a gateway that could not be reached is tried last.
const cooldown = 5 * time.Second

// gateway is the state of one Gateway. Safe for concurrent use.
type gateway struct {
	Gateway
	endpoints *endpoints
	dialer    net.Dialer
	tls       *tls.Config // nil unless https
	timeout   time.Duration

	evictIdle atomic.Pointer[func()] // drops idle plain connections; nil = there are none

	conns     atomic.Int64 // open connections, those being opened included
	downUntil atomic.Int64 // Unix nanoseconds; 0 = up
	weight    int          // smooth round robin's running weight; guarded by Pool.mu
}

func newGateway(g Gateway, o Options) *gateway {
	state := &gateway{Gateway: g, timeout: o.DialTimeout}
	state.dialer = net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4},
	}
	state.dialer.SetMultipathTCP(false)
	if g.Scheme == SchemeDirect {
		state.dialer.ControlContext = checkedControl(o.CheckAddr)
		return state
	}
	lookup := o.Lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupNetIP
	}
	state.endpoints = newEndpoints(g, lookup, o.DialTimeout)
	if g.Scheme == SchemeHTTPS {
		state.tls = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			ServerName:         g.Host,
			RootCAs:            g.roots,
			NextProtos:         []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(64),
		}
	}
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
func (g *gateway) tryAcquire() bool {
	if g.acquire() {
		return true
	}
	evict := g.evictIdle.Load()
	if evict == nil {
		return false
	}
	(*evict)()
	return g.acquire()
}

func (g *gateway) acquire() bool {
	if n := g.conns.Add(1); g.MaxConns > 0 && n > int64(g.MaxConns) {
		g.conns.Add(-1)
		return false
	}
	return true
}

func (g *gateway) release() { g.conns.Add(-1) }

func (g *gateway) isDown(now time.Time) bool { return g.downUntil.Load() > now.UnixNano() }

// report learns from an attempt; nil is a success.
func (g *gateway) report(e *ConnectError) {
	switch {
	case e == nil:
		g.downUntil.Store(0)
	case e.down():
		g.downUntil.Store(time.Now().Add(cooldown).UnixNano())
	}
}

// dial opens a connection to the gateway, TLS included, within the dial timeout.
func (g *gateway) dial(ctx context.Context) (net.Conn, *ConnectError) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	fail := func(phase Phase, err error, otherwise Cause) *ConnectError {
		return &ConnectError{Gateway: g.Name, Phase: phase, Cause: netCause(ctx, err, otherwise), Err: err}
	}
	addrs, err := g.endpoints.get(ctx)
	if err != nil {
		return nil, fail(PhaseResolve, err, CauseResolve)
	}
	conn, err := g.dialAny(ctx, addrs[:min(len(addrs), maxDialAddrs)])
	if err != nil {
		return nil, fail(PhaseDial, err, CauseRefused)
	}
	if g.tls == nil {
		return conn, nil
	}
	secured := tls.Client(conn, g.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fail(PhaseTLS, err, CauseTLS)
	}
	return secured, nil
}

// dialAny tries the addresses in turn, each with its share of the time that is left.
func (g *gateway) dialAny(ctx context.Context, addrs []netip.AddrPort) (net.Conn, error) {
	var errs []error
	for i, addr := range addrs {
		deadline, _ := ctx.Deadline()
		share := time.Until(deadline) / time.Duration(len(addrs)-i)
		one, cancel := context.WithTimeout(ctx, share)
		conn, err := g.dialer.DialContext(one, "tcp", addr.String())
		cancel()
		if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
			g.endpoints.report(addr.Addr(), err == nil)
		}
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
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
