package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// ErrBlocks says that a set-up cannot go on in steps: the next gateway's name is not
// resolved yet, or the gateway needs TLS or is direct://. Resume can go on.
var ErrBlocks = errors.New("upstream: the set-up would block")

// errNotDialled is what a Setup that was not started, or has succeeded, fails with.
var errNotDialled = errors.New("upstream: no connection is being set up")

// Setup opens one tunnel step by step without ever blocking: it decides, and its
// caller does the I/O. Next says what to dial and what to write there, Failed takes
// back what went wrong, AppendRequest says what to write, Reply reads the gateway's
// answer and Opened ends it:
//
//	d, err := s.Next()
//	connect to d.Addr; on an error: s.Failed(true, err), and Next again
//	s.Connected(), write what s.AppendRequest says and read into b; on an error: s.Failed(false, err), and Next again
//	n, err := s.Reply(b); on ErrAsksMore: write what s.AppendRequest says, and read into b anew;
//		on another error: close, and Next again; n > 0: open
//	held := s.Opened(); and held.Release() after the tunnel
//
// Which gateways and addresses are tried, for how long, and what is learned and
// counted is what Pool.Connect does. A set-up that is given up ends with
// Failed(…, context.Canceled) or with Reset; otherwise it goes on holding a gateway, and
// counts in its pool's budget for retries.
// The zero value is ready for Start. Not safe for concurrent use; meant to be reused.
// There is one for each handshake that a gateway has not answered yet, so it is kept
// small and does not keep the Request (see TestSetupIsSmall).
type Setup struct {
	attempts attempts
	g        *gateway // of which a connection is held; nil = none
	began    moment   // with g
	way      *way     // until the connection stands; nil with g nil
	lane     *lane    // of the connection that stands
	talk     negotiation
	own      bool // the request's login is the customer's own
}

// Dial is one step of a Setup: connect to Addr.
type Dial struct {
	Addr netip.AddrPort
	// Source is the address to bind to; invalid = any. Its port must be left to
	// connect (IP_BIND_ADDRESS_NO_PORT), or each port serves one gateway only.
	Source netip.Addr
	// Ports is the window for the local port, low and high (IP_LOCAL_PORT_RANGE, high
	// in the upper half); 0, 0 = the kernel's whole range. A kernel without windows
	// may ignore it.
	Ports [2]uint16
	// Timeout is how long to wait for the connection, ReplyTimeout from then until
	// Reply succeeds.
	Timeout, ReplyTimeout time.Duration
	// Deadline is the end of the whole set-up; no wait may go past it.
	Deadline time.Time
}

// Held is one of a gateway's connections. The zero value holds nothing. Its owner
// calls Release exactly once, after the connection was closed.
type Held struct {
	g    *gateway
	lane *lane
}

// Release gives the connection back.
func (h Held) Release() {
	if h.g != nil {
		h.lane.release()
		h.g.release()
	}
}

// Gateway is the gateway's name, empty for the zero value.
func (h Held) Gateway() string {
	if h.g == nil {
		return ""
	}
	return h.g.Name
}

// Start begins a set-up along r; nil is Request.Route's nil. Its time runs from now. What an earlier use still held is released.
func (s *Setup) Start(p *Pool, r *Route) {
	s.Reset()
	s.attempts.start(p.routeOr(r), time.Now())
}

// Reset releases what is held, reporting nothing. It keeps its memory for the next Start.
func (s *Setup) Reset() {
	if s.g != nil {
		s.g.health.endTrial(s.began)
		s.giveBack()
	}
	s.attempts.reset()
	*s = Setup{attempts: s.attempts}
}

// Next chooses the next gateway and address. With ErrBlocks only Resume can go on;
// nothing is held then. Any other error is the final *ConnectError, the last
// gateway's; nothing is held, and Next goes on saying so.
func (s *Setup) Next() (Dial, error) {
	now := time.Now()
	for {
		if s.g == nil {
			g := s.attempts.next(now)
			if g == nil {
				return Dial{}, s.attempts.err()
			}
			if !s.enter(g, now) {
				s.attempts.detoured().waiting = g
				return Dial{}, ErrBlocks
			}
			continue
		}
		if s.way == nil { // the caller has nothing to say of a connection that stood
			s.fail(&ConnectError{Phase: PhaseConnect, Cause: CauseClosed}, now)
			continue
		}
		d, ok := s.way.next(now)
		if !ok {
			s.fail(s.way.failure(false), now)
			continue
		}
		s.talk = negotiation{}
		left := s.attempts.until.left(now)
		d.Deadline = now.Add(left)
		d.ReplyTimeout = min(s.attempts.route.pool.options.ConnectTimeout, left)
		return d, nil
	}
}

// enter takes one of g's connections, or notes why there is none. It reports false
// if g can only be entered by a caller that may block.
func (s *Setup) enter(g *gateway, now time.Time) bool {
	if g.tls != nil || g.endpoints == nil {
		return false
	}
	w, port := freeWays.Get().(*way), s.attempts.route.port(g)
	addrs, asking, err := g.addresses(w.buf[:0], port, now)
	if asking != nil {
		w.forget()
		return false
	}
	if !g.tryAcquire() {
		w.forget()
		s.attempts.failed(g, fullError(), now)
		return true
	}
	s.g, s.way, s.began = g, w, momentOf(now)
	if err != nil {
		s.fail(unreachable(err), now)
		return true
	}
	w.start(addrs, port, min(s.attempts.until, momentOf(now.Add(g.timeout))))
	return true
}

// AppendRequest appends to b what is to be written to the gateway of the last Next: the
// request for a tunnel, which holds a login, or after ErrAsksMore the next part of it.
func (s *Setup) AppendRequest(b []byte, r Request) []byte {
	if s.g == nil {
		return b
	}
	s.own = r.Authorization != ""
	return s.talk.appendRequest(b, s.g, s.attempts.route, r)
}

// Connected says that the connection of the last Next stands. It may be left out: whatever
// else says so will do. It makes the wait for the answer cheap.
func (s *Setup) Connected() {
	if s.g != nil {
		s.stands(time.Now())
	}
}

// Failed reports that what the last Next said did not come off: before the connection
// stood (connecting) or after. err is a syscall.Errno, io.EOF, io.ErrUnexpectedEOF,
// os.ErrDeadlineExceeded, or context.Canceled if the customer left; the latter ends
// the set-up. The connection is not the gateway's any more; the caller closes it.
func (s *Setup) Failed(connecting bool, err error) {
	if s.g == nil {
		return
	}
	now := time.Now()
	canceled := errors.Is(err, context.Canceled)
	if !connecting || s.way == nil {
		s.stands(now)
		s.fail(&ConnectError{Phase: PhaseConnect, Cause: ioCause(err, CauseClosed), Err: err}, now)
		return
	}
	s.way.missed(dialError(s.way.addr(), err), !canceled, now)
	if canceled || !s.way.more(now) {
		s.fail(s.way.failure(canceled), now)
	}
}

// dialError is err as a net.Dialer would have said it.
func dialError(addr netip.AddrPort, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = os.NewSyscallError("connect", errno)
	}
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
}

// Reply looks at all that the gateway has sent since the connection stood; b grows
// from call to call, and 16 KB of it decide. With n > 0 the tunnel is open and b[n:]
// is the target's. (0, nil): more is needed. ErrAsksMore: b is done with, the caller
// writes what AppendRequest says now, and the next b begins behind this one. Any other
// error is a *ConnectError: the gateway refused or makes no sense; it was given back, the
// caller closes and calls Next.
func (s *Setup) Reply(b []byte) (n int, err error) {
	if s.g == nil {
		return 0, errNotDialled
	}
	n, more, failure := s.talk.look(s.g, b)
	if failure != nil {
		now := time.Now()
		s.stands(now)
		s.fail(failure, now)
		return 0, failure
	}
	if more {
		return 0, ErrAsksMore
	}
	return n, nil
}

// Opened ends a set-up after Reply said that the tunnel is open. The caller owns what
// it returns and releases it after the tunnel's end.
func (s *Setup) Opened() Held {
	if s.g == nil {
		return Held{}
	}
	now := time.Now()
	s.stands(now)
	s.g.health.reportOf(s.attempts.customer(), nil, -s.began.left(now), now)
	s.g.opened.Observe((-s.began.left(now)).Seconds())
	held := Held{g: s.g, lane: s.lane}
	s.g, s.lane = nil, nil
	s.attempts.end(true)
	return held
}

// Resume goes on with what Next left when it said ErrBlocks, and blocks until a tunnel
// is open, no gateway is left, or the set-up's time or ctx is over; results are
// Connect's. The gateways tried so far are not tried or counted again. With nothing to
// go on with it fails as Next would.
func (s *Setup) Resume(ctx context.Context, r Request) (*Conn, error) {
	if s.g != nil {
		s.giveBack()
	}
	r.Route = s.attempts.route
	ctx, cancel := context.WithTimeout(ctx, s.attempts.until.left(time.Now()))
	defer cancel()
	var conn *Conn
	err := s.attempts.run(ctx, func(g *gateway) (failure *ConnectError) {
		conn, failure = g.pool.connectThrough(ctx, g, r)
		return failure
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// stands notes once that the connection to the address was made. The answer may be long
// in coming: what was needed for the connection alone is given back.
func (s *Setup) stands(now time.Time) {
	if s.way == nil {
		return
	}
	s.way.reached(now)
	s.lane, s.way.lane = s.way.lane, nil
	s.way.forget()
	s.way = nil
}

// fail ends the attempt through the gateway.
func (s *Setup) fail(failure *ConnectError, now time.Time) {
	g := s.g
	failure.own, failure.took = s.own, -s.began.left(now)
	s.giveBack()
	s.attempts.failed(g, failure, now)
}

func (s *Setup) giveBack() {
	if s.way != nil {
		s.way.drop()
		s.way.forget()
		s.way = nil
	}
	s.lane.release()
	s.lane = nil
	s.g.release()
	s.g = nil
}
