package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// drive is the I/O of one set-up, as an engine does it, only one step after the other.
func drive(ctx context.Context, s *Setup, r Request) (*Conn, error) {
	for {
		d, err := s.Next()
		if errors.Is(err, ErrBlocks) {
			return s.Resume(ctx, r)
		}
		if err != nil {
			return nil, err
		}
		var g gateway
		g.dialer.SetMultipathTCP(false)
		conn, err := g.dialOne(ctx, d)
		if err != nil {
			s.Failed(true, plain(ctx, err))
			continue
		}
		s.Connected()
		early, open, err := handshake(ctx, s, conn, d, r)
		if open {
			held := s.Opened()
			return &Conn{Conn: conn, Early: early, Gateway: held.Gateway(), Release: held.Release}, nil
		}
		_ = conn.Close()
		if err != nil { // otherwise Reply took it
			s.Failed(false, plain(ctx, err))
		}
	}
}

func handshake(ctx context.Context, s *Setup, conn net.Conn, d Dial, r Request) (early []byte, open bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(min(d.ReplyTimeout, time.Until(d.Deadline)))); err != nil {
		return nil, false, err
	}
	if _, err := conn.Write(s.AppendRequest(nil, r)); err != nil {
		return nil, false, err
	}
	b := make([]byte, 0, maxReplyHead)
	for {
		n, err := conn.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; n == 0 && err != nil {
			if errors.Is(err, io.EOF) && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, false, err
		}
		start, err := s.Reply(b)
		if errors.Is(err, ErrAsksMore) {
			if _, err := conn.Write(s.AppendRequest(nil, r)); err != nil {
				return nil, false, err
			}
			b = b[:0]
			continue
		}
		if err != nil {
			return nil, false, nil
		}
		if start > 0 {
			return b[start:], true, conn.SetDeadline(time.Time{})
		}
	}
}

// plain is the kind of error that a raw socket gives.
func plain(ctx context.Context, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.As(err, &errno):
		return errno
	default:
		return err
	}
}

// blocking and stepwise are the two ways to open a tunnel.
func blocking(ctx context.Context, p *Pool, r Request) (*Conn, error) { return p.Connect(ctx, r) }

func stepwise(ctx context.Context, p *Pool, r Request) (*Conn, error) {
	var s Setup
	s.Start(p, nil)
	defer s.Reset()
	return drive(ctx, &s, r)
}

// ending is what a set-up came to, and what the pool made of it.
type ending struct {
	open    bool
	gateway string
	early   string
	phase   Phase
	cause   Cause
	status  int

	accepted         int
	down             bool
	failures, opened float64
}

// quiet are the behaviours that end in a timeout; the rest is given all the time it needs.
var quiet = map[string]bool{"silent": true, "stall": true, "silent-mid-head": true, "continue-only": true}

// world is two gateways, or one if it is alone, of which the first behaves so.
type world struct {
	first   upstreamtest.Behaviour    // nil = nobody listens
	socks   *upstreamtest.SOCKSConfig // the first is a SOCKS5 gateway; nil = an HTTP one
	alone   bool
	timeout time.Duration
}

// endingOf opens a tunnel in one of the two ways, in a world of its own.
func endingOf(t *testing.T, w world, connect func(context.Context, *Pool, Request) (*Conn, error)) ending {
	t.Helper()
	url := "http://u:p@127.0.0.9:1" // a port that no test beside this one can be given
	e := ending{}
	accepted := func() int { return 0 }
	if w.first != nil {
		v := startVendor(t, upstreamtest.VendorConfig{Username: "u", Password: "p", Behaviour: w.first})
		url, accepted = v.URL(), v.Accepted
	}
	if w.socks != nil {
		v := startSOCKS(t, *w.socks)
		url, accepted = "socks5://u:p@"+v.Addr(), v.Accepted
	}
	o := Options{Gateways: []Gateway{gatewayOf(t, "first", url)}, ConnectTimeout: w.timeout}
	if !w.alone {
		o.Gateways = append(o.Gateways, gatewayOf(t, "second", startVendor(t, upstreamtest.VendorConfig{}).URL()))
	}
	p := newPool(t, o)
	c, err := connect(t.Context(), p, Request{Target: startEcho(t).Addr()})
	var failure *ConnectError
	switch {
	case err == nil:
		e.open, e.gateway, e.early = true, c.Gateway, string(c.Early)
		must(t, c.Close())
		c.Release()
	case errors.As(err, &failure):
		e.gateway, e.phase, e.cause, e.status = failure.Gateway, failure.Phase, failure.Cause, failure.Status
	default:
		t.Fatalf("error %v of type %T", err, err)
	}
	wantNothingHeld(t, p)
	e.accepted, e.down = accepted(), !p.gateways[0].health.usable(time.Now())
	for _, m := range collected(t, p, "maskrelay_upstream_failures_total") {
		e.failures += m.GetCounter().GetValue()
	}
	for _, m := range collected(t, p, "maskrelay_upstream_connect_seconds") {
		e.opened += float64(m.GetHistogram().GetSampleCount())
	}
	return e
}

// Both ways of setting up come to the same with whatever a gateway does.
func TestSetupIsConnectInSteps(t *testing.T) {
	behaviours := upstreamtest.Behaviours()
	behaviours["nobody listens"] = nil
	behaviours["quota"] = upstreamtest.Loud(402, "TRAFFIC_EXHAUSTED")
	behaviours["target denied"] = upstreamtest.Loud(403, "PORT_BLOCKED")
	behaviours["threads"] = upstreamtest.Loud(429, "THREADS")
	behaviours["own error"] = upstreamtest.Loud(502, "NO_HOST_CONNECTION")
	behaviours["bad request"] = upstreamtest.Loud(400, "BAD")
	for name, b := range behaviours {
		for _, alone := range []bool{true, false} {
			t.Run(map[bool]string{true: "alone/", false: "with another/"}[alone]+name, func(t *testing.T) {
				t.Parallel()
				w := world{first: b, alone: alone, timeout: 20 * time.Second}
				if quiet[name] {
					w.timeout = time.Second
				}
				want, got := endingOf(t, w, blocking), endingOf(t, w, stepwise)
				// How much came with the answer's head is the network's choice.
				want.early, got.early = "", ""
				if want != got {
					t.Errorf("Connect %+v\nsteps   %+v", want, got)
				}
			})
		}
	}
}

func TestSetupCarriesATunnel(t *testing.T) {
	echo := startEcho(t)
	v := startVendor(t, upstreamtest.VendorConfig{Username: "u", Password: "p"})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL())}})
	c, err := stepwise(t.Context(), p, Request{Target: echo.Addr()})
	must(t, err)
	if n := p.gateways[0].conns.Load(); n != 1 {
		t.Errorf("%d connections counted", n)
	}
	echoThrough(t, c)
	wantNothingHeld(t, p)
}

func TestSetupOfACustomerWhoLeft(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL())}})
	for name, connect := range map[string]func(context.Context, *Pool, Request) (*Conn, error){"blocking": blocking, "steps": stepwise} {
		t.Run(name, func(t *testing.T) {
			before := v.Accepted()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error)
			go func() {
				_, err := connect(ctx, p, Request{Target: "target.example:443"})
				ended <- err
			}()
			waitFor(t, func() bool { return v.Accepted() == before+1 })
			cancel()
			var failure *ConnectError
			if err := <-ended; !errors.As(err, &failure) || failure.Cause != CauseCanceled {
				t.Errorf("error %v", err)
			}
			waitFor(t, func() bool { return v.Open() == 0 })
			wantNothingHeld(t, p)
			if failedCount(t, p, "gw", CauseCanceled) != 0 || !p.Usable() {
				t.Error("the gateway is blamed")
			}
		})
	}
}

// What was tried in steps is not tried or counted again by the blocking rest.
func TestResumeGoesOnWhereStepsEnd(t *testing.T) {
	echo := startEcho(t)
	ca, err := upstreamtest.NewCA()
	must(t, err)
	cert, err := ca.Server("localhost")
	must(t, err)
	v := startVendor(t, upstreamtest.VendorConfig{TLS: serverTLS(cert)})
	refusing := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Loud(429, "THREADS")})
	_, port, err := net.SplitHostPort(v.Addr())
	must(t, err)
	secured := gatewayOf(t, "secured", "https://localhost:"+port)
	secured.roots = ca.Pool()
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "refusing", refusing.URL()), secured}})
	c, err := stepwise(t.Context(), p, Request{Target: echo.Addr()})
	must(t, err)
	if c.Gateway != "secured" || refusing.Accepted() != 1 || failedCount(t, p, "refusing", CauseRate) != 1 || connectedCount(t, p, "secured") != 1 {
		t.Errorf("through %s, the other asked %d times", c.Gateway, refusing.Accepted())
	}
	echoThrough(t, c)
	wantNothingHeld(t, p)

	t.Run("in vain", func(t *testing.T) {
		other := secured
		other.roots = nil
		p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "refusing", refusing.URL()), other}})
		_, err := stepwise(t.Context(), p, Request{Target: echo.Addr()})
		var failure *ConnectError
		if !errors.As(err, &failure) || failure.Gateway != "secured" || failure.Cause != CauseTLS {
			t.Errorf("error %v", err)
		}
		wantNothingHeld(t, p)
	})
	t.Run("of nothing", func(t *testing.T) {
		var s Setup
		s.Start(p, nil)
		s.Reset()
		if c, err := s.Resume(t.Context(), Request{Target: echo.Addr()}); err == nil {
			t.Errorf("opened %v", c)
		}
	})
}

// A connection holds its port until what counts it is released.
func TestDialHoldsItsLane(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL())}, Ports: [2]int{32768, 60999}})
	g := p.gateways[0]
	lane := g.endpoints.addrs[0].lanes[0]
	c, failure := g.connect(t.Context(), "", 0, true)
	if failure != nil {
		t.Fatal(failure)
	}
	if n := lane.inUse.Load(); n != 1 {
		t.Errorf("%d counted", n)
	}
	if _, ok := c.Conn.(syscall.Conn); !ok {
		t.Error("the socket cannot be reached through it")
	}
	must(t, c.Close())
	c.held.Release()
	wantNothingHeld(t, p)
}
