package proxy

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"maskrelay/masking"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
	"maskrelay/upstream"
)

var established = []byte(masking.Established)

// tunnelExchange is the exchange of a tunnel, from its head's judgement to its log
// line, and all that it holds of the relay meanwhile. It is what an idle tunnel costs
// this package, so it is kept small (see TestTunnelExchangeIsSmall): what is one
// customer's lies in his identity, what is needed for the set-up alone goes with it.
// It implements tunnel.Exchange, whose rules say who may call what.
type tunnelExchange struct {
	listener *listener // whose it is, and by it the server
	who      *identity
	target   string // host:port
	client   clientAddr
	id       uint64
	start    time.Duration // server clock
	lease    limit.Lease
	opening  *upstream.Setup // while the upstream side is being opened step by step
	held     upstream.Held   // of a gateway
	peer     *openPeer       // nil unless the upstream side was opened otherwise
	connect  uint32          // until the upstream was open; µs, an hour and more
	opened   bool
	upgraded bool // a websocket, not a CONNECT
	slot     bool // holds one of the relay's
	counted  bool // is one of Server.open
}

// openPeer is what belongs to an upstream side that was not opened step by step.
type openPeer struct {
	gateway  string
	release  func()
	greeting []byte // in the place of the 200; dropped once it is on its way
}

// clientAddr is a customer's address in the least space. It has no zone: see plainAddr.
type clientAddr [16]byte

func addrOf(a netip.Addr) clientAddr { return a.As16() }

// addr is what addrOf was given, if that was not IPv4 written as IPv6.
func (a clientAddr) addr() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// openings are the set-ups that nobody uses. They are reset: they hold nothing.
var openings = sync.Pool{New: func() any { return new(upstream.Setup) }}

// Key implements tunnel.Exchange.
func (t *tunnelExchange) Key() string { return t.who.key }

// begin starts the set-up along a route; nil = the default one. The set-up's time runs
// from here.
func (t *tunnelExchange) begin(r *upstream.Route) {
	t.opening = openings.Get().(*upstream.Setup)
	t.opening.Start(t.server().config.Upstream, r)
}

// Next implements tunnel.Exchange.
func (t *tunnelExchange) Next() (tunnel.Attempt, error) {
	if t.opening == nil {
		t.begin(nil)
	}
	d, err := t.opening.Next()
	if errors.Is(err, upstream.ErrBlocks) {
		return tunnel.Attempt{}, tunnel.ErrBlocks
	}
	if err != nil {
		t.dropOpening()
		return tunnel.Attempt{}, err
	}
	return tunnel.Attempt{
		Addr: d.Addr, Source: d.Source, Ports: d.Ports,
		Timeout: d.Timeout, ReplyTimeout: d.ReplyTimeout, Limit: max(time.Until(d.Deadline), 1),
	}, nil
}

// AppendRequest implements tunnel.Exchange.
func (t *tunnelExchange) AppendRequest(b []byte) []byte {
	return t.opening.AppendRequest(b, t.request())
}

// Connected implements tunnel.Exchange.
func (t *tunnelExchange) Connected() { t.opening.Connected() }

// Reply implements tunnel.Exchange.
func (t *tunnelExchange) Reply(b []byte) (int, error) {
	n, err := t.opening.Reply(b)
	if errors.Is(err, upstream.ErrAsksMore) {
		return 0, tunnel.ErrAsksMore
	}
	return n, err
}

// Failed implements tunnel.Exchange.
func (t *tunnelExchange) Failed(connecting bool, err error) { t.opening.Failed(connecting, err) }

// Open implements tunnel.Exchange. It goes on where Next could not.
func (t *tunnelExchange) Open(ctx context.Context) (tunnel.Peer, error) {
	if t.opening == nil {
		t.begin(nil)
	}
	conn, err := t.opening.Resume(ctx, t.request())
	t.dropOpening()
	if err != nil {
		return tunnel.Peer{}, err
	}
	t.peer = &openPeer{gateway: conn.Gateway, release: conn.Release}
	return tunnel.Peer{Conn: conn.Conn, Early: conn.Early}, nil
}

// dropOpening ends the set-up, with all that it may still hold, and keeps its memory for
// another one.
func (t *tunnelExchange) dropOpening() {
	if t.opening == nil {
		return
	}
	t.opening.Reset()
	openings.Put(t.opening)
	t.opening = nil
}

func (t *tunnelExchange) request() upstream.Request {
	return upstream.Request{Target: t.target, Authorization: t.who.authorization}
}

// Opened implements tunnel.Exchange.
func (t *tunnelExchange) Opened() tunnel.Terms {
	s := t.server()
	if t.opening != nil {
		t.held = t.opening.Opened()
		t.dropOpening()
	}
	connect := s.now() - t.start
	t.opened, t.connect = true, uint32(min(connect.Microseconds(), math.MaxUint32))
	terms := tunnel.Terms{Greeting: established, Shared: s.bandwidths.take(t.who.key)}
	s.metrics.opened(connect)
	t.who.usage(s.config.Meter).Opened()
	if t.upgraded {
		terms.Greeting = t.peer.greeting
		t.peer.greeting = nil
	}
	return terms
}

// Refusal implements tunnel.Exchange.
func (t *tunnelExchange) Refusal(err error) []byte {
	s := t.server()
	o, _ := upstreamOutcome(err, s.config.Auth == AuthPassthrough)
	if o == ClientGone {
		return nil
	}
	return s.replies.of(o).Bytes(true)
}

// Moved implements tunnel.Exchange. It is called for every move of every tunnel: two
// atomic additions.
func (t *tunnelExchange) Moved(sent bool, n int) {
	s := t.server()
	s.metrics.moved(t.who.usage(s.config.Meter), sent, n)
}

// Done implements tunnel.Exchange.
func (t *tunnelExchange) Done(result tunnel.Result) {
	s := t.server()
	gateway := t.gateway()
	t.release()
	r := t.record(endings[result.Ending], 0)
	r.upstream, r.sent, r.received, r.err = gateway, result.Sent, result.Received, result.Err
	switch {
	case result.Ending == tunnel.Refused:
		r.outcome, r.cause = upstreamOutcome(result.Err, s.config.Auth == AuthPassthrough)
		r.upstream = gatewayOf(result.Err)
		r.status = s.replies.of(r.outcome).Status()
	case result.Ending == tunnel.Killed && s.quotaUsed(t.who):
		r.outcome = QuotaUsed
		r.status = t.openStatus()
	case result.Ending == tunnel.Failed:
		s.log.Error().Err(result.Err).Msg("a tunnel failed")
		if r.status = t.openStatus(); !t.opened {
			r.status = s.replies.of(Internal).Status() // by Refusal
		}
	default:
		r.status = t.openStatus()
	}
	s.book(&r)
}

// openStatus is what the customer was answered when the tunnel opened, 0 if it did not.
func (t *tunnelExchange) openStatus() int {
	switch {
	case !t.opened:
		return 0
	case t.upgraded:
		return http.StatusSwitchingProtocols
	}
	return http.StatusOK
}

// record is the exchange's, for its end.
func (t *tunnelExchange) record(o Outcome, status int) record {
	method := http.MethodConnect
	if t.upgraded {
		method = http.MethodGet
	}
	return record{
		id: t.id, account: t.who.name, client: t.client.addr(), listener: t.listener.name, method: method, target: t.target,
		outcome: o, status: status, connect: time.Duration(t.connect) * time.Microsecond, duration: t.server().now() - t.start,
	}
}

func (t *tunnelExchange) server() *Server { return t.listener.server }

// gateway names the upstream side, if there is one.
func (t *tunnelExchange) gateway() string {
	if t.peer != nil {
		return t.peer.gateway
	}
	return t.held.Gateway()
}

// release gives back what the tunnel held.
func (t *tunnelExchange) release() {
	s := t.server()
	t.dropOpening()
	t.held.Release()
	if t.opened {
		s.bandwidths.drop(t.who.key)
	}
	if t.peer != nil {
		t.peer.release()
	}
	t.lease.Release()
	if t.slot {
		s.fair.Release()
	}
	if t.counted {
		s.open.Add(-1)
	}
}

func gatewayOf(err error) string {
	var failure *upstream.ConnectError
	if errors.As(err, &failure) {
		return failure.Gateway
	}
	return ""
}
