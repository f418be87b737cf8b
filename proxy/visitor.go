package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"maskrelay/masking"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
)

// maxLooks is how often an incomplete head is looked at before net/http waits for the
// rest: each look begins at the head's start.
const maxLooks = 16

// visitor is a customer's connection that the engine has accepted. It judges plain
// CONNECTs and hands everything else to net/http unread. It implements tunnel.Visitor,
// whose rules say who may call what.
type visitor struct {
	listener *listener
	client   netip.AddrPort
	stranger stranger
	exchange *tunnelExchange // that is being judged; nil = none
	began    time.Duration   // when the time of the head that is awaited did, on the server's clock; 0 = not yet
	due      bool            // a PROXY header is still to come
	waits    bool            // among the strangers
	looks    uint8           // at the present head
}

var _ tunnel.Visitor = (*visitor)(nil)

// visitors are those that nobody uses: a visitor lives for as long as its head takes,
// and in a drop there is one for each tunnel.
var visitors = sync.Pool{New: func() any { return new(visitor) }}

// drop gives v back with its last call.
func (v *visitor) drop() {
	if v.waits { // one who came with his head was never a stranger
		v.server().strangers.take(&v.stranger)
	}
	*v = visitor{}
	visitors.Put(v)
}

// arrive takes up a connection for the listener; nil and a reply turn it away.
func (l *listener) arrive(peer netip.AddrPort) (tunnel.Visitor, []byte) {
	s := l.server
	peer = plainAddr(peer)
	if !s.enter(peer.Addr()) {
		return nil, s.replies.of(RelayFull).Bytes(true)
	}
	v := visitors.Get().(*visitor)
	*v = visitor{listener: l, client: peer, due: s.trusts(peer.Addr())}
	return v, nil
}

// Head implements tunnel.Visitor.
func (v *visitor) Head(b []byte) (verdict tunnel.Verdict) {
	defer v.recovered(&verdict)
	skipped := 0
	if v.due {
		source, n, err := parseProxyHeader(b)
		if err != nil {
			v.server().log.Debug().Err(err).Str("listener", v.listener.name).
				Str("peer", v.client.String()).Msg("connection dropped before its first request")
			return tunnel.Verdict{Action: tunnel.Drop}
		}
		if n == 0 {
			return tunnel.Verdict{Action: tunnel.Wait}
		}
		if source.IsValid() {
			v.client = source
		}
		v.due = false
		if v.waits {
			v.server().strangerIsFrom(&v.stranger, v.client.Addr())
		}
		skipped = n
	}
	verdict = tunnel.Verdict{Action: tunnel.Wait}
	if len(b) > skipped {
		verdict = v.judge(b[skipped:])
	}
	verdict.Consumed += skipped
	if verdict.Action == tunnel.Open {
		v.drop()
	}
	return verdict
}

// recovered answers a visitor for whom something panicked, as a request whose handler does
// is answered. What his exchange held goes back.
func (v *visitor) recovered(verdict *tunnel.Verdict) {
	bug := recover()
	if bug == nil {
		return
	}
	s := v.server()
	s.log.Error().Str("type", fmt.Sprintf("%T", bug)).Str("text", fmt.Sprint(bug)).
		Bytes("stack", debug.Stack()).Msg("a request's head could not be judged")
	r := record{id: s.nextID.Add(1), client: v.client.Addr(), listener: v.listener.name, outcome: Internal}
	if t := v.exchange; t != nil {
		v.exchange = nil
		t.id, t.counted = r.id, false // the visitor is counted
		r = t.record(Internal, 0)
		t.release()
	}
	reply := s.replies.of(Internal)
	r.status = reply.Status()
	s.book(&r)
	*verdict = tunnel.Verdict{Action: tunnel.Answer, Reply: reply.Bytes(true), Last: true}
}

// Waits implements tunnel.Visitor: he is a stranger until he has said who he is.
func (v *visitor) Waits(seat tunnel.Seat) {
	if !v.waits {
		v.began = v.server().now()
	}
	v.waits = true
	v.server().visitorWaits(v, seat)
}

// judge judges a head that begins with b.
func (v *visitor) judge(b []byte) tunnel.Verdict {
	head, n, kind := parseConnect(b)
	if kind == headIncomplete && v.looks < maxLooks {
		v.looks++
		if v.began == 0 {
			v.began = v.server().now()
		}
		return tunnel.Verdict{Action: tunnel.Wait}
	}
	v.looks = 0
	if kind != headPlain {
		return tunnel.Verdict{Action: tunnel.Pass}
	}
	verdict := v.admit(&head)
	if verdict.Action != tunnel.Pass {
		verdict.Consumed = n
	}
	return verdict
}

// admit is the gate of a plain CONNECT. What cannot be decided without waiting is
// passed on, and decided there from the start: nothing has been counted or taken.
func (v *visitor) admit(head *connectHead) tunnel.Verdict {
	s := v.server()
	authority := string(head.authority) // a copy, for the tunnel's life
	target, err := ParseTarget(authority)
	if err != nil {
		return tunnel.Verdict{Action: tunnel.Pass}
	}
	q := question{client: v.client.Addr(), target: target, from: v.listener.name, pool: v.listener.pool, hurried: true}
	if head.authorized {
		q.headers, q.header = 1, head.authorization
	}
	who, cause, o := s.judge(context.Background(), &q)
	if o == undecided {
		return tunnel.Verdict{Action: tunnel.Pass}
	}
	t := &tunnelExchange{listener: v.listener, who: who, target: authority, client: addrOf(q.client), start: s.now()}
	v.exchange = t
	if o == OK {
		o = s.lend(t)
	}
	switch {
	case o == undecided:
		return tunnel.Verdict{Action: tunnel.Pass}
	case o != OK:
		return v.refuse(t, s.replyTo(o, q.fault), &record{outcome: o, cause: cause}, head.closes)
	}
	// A reload that ends the account from here on finds the tunnel: the reactor
	// registers it before it looks at anything else.
	t.id, t.counted = s.nextID.Add(1), true
	t.begin(q.route)
	v.exchange = nil
	return tunnel.Verdict{Action: tunnel.Open, Exchange: t}
}

// lend makes t hold a lease of its account and a slot of the relay; undecided if the
// limiter would have to wait.
func (s *Server) lend(t *tunnelExchange) Outcome {
	limiter, ok := s.config.Limiter.(limit.Immediate)
	if !ok {
		return undecided
	}
	if s.fair.Waits() && s.fair.Pressed() {
		return undecided // before the limiter is asked, who would count the attempt twice
	}
	if err := limiter.AcquireNow(&t.lease, t.who.key, t.who.caps); err != nil {
		return limitOutcome(err)
	}
	if !s.room(t.who) {
		t.lease.Release()
		if s.fair.Waits() && !s.memoryFull() {
			return undecided
		}
		return RelayFull
	}
	t.slot = true
	return OK
}

// refuse answers with a reply, and closes the exchange's books: why has outcome and cause.
func (v *visitor) refuse(t *tunnelExchange, reply *masking.Reply, why *record, closes bool) tunnel.Verdict {
	s := v.server()
	last := closes || endsWith(why.outcome, reply.Status(), true) || s.leaving.Load()
	v.began = 0
	t.id = s.nextID.Add(1)
	r := t.record(why.outcome, reply.Status())
	r.cause = why.cause
	s.book(&r)
	v.exchange = nil
	return tunnel.Verdict{Action: tunnel.Answer, Reply: reply.Bytes(last), Last: last}
}

// TimedOut implements tunnel.Visitor. Those who have sent nothing get nothing, as do
// balancers who have not said for whom they come.
func (v *visitor) TimedOut(n int) []byte {
	if n == 0 || v.due {
		return nil
	}
	s := v.server()
	reply := s.replies.of(HeadTimeout)
	s.book(&record{
		id: s.nextID.Add(1), client: v.client.Addr(), listener: v.listener.name, outcome: HeadTimeout, status: reply.Status(),
	})
	return reply.Bytes(true)
}

// Pass implements tunnel.Visitor: net/http goes on. The time for a head that has begun
// does not begin anew.
func (v *visitor) Pass(conn *net.TCPConn, unread []byte) {
	defer v.drop()
	s := v.server()
	if v.waits { // as the connection, from here on
		s.strangers.take(&v.stranger)
	}
	c := &frontConn{
		raw: conn, stream: conn, server: s, listener: v.listener, client: v.client, prepared: true,
	}
	if v.began > 0 {
		c.headBy = s.epoch.Add(v.began + s.config.HeaderTimeout)
	}
	if len(unread) > 0 {
		c.in.early = takeHeadBuffer(len(unread))
		*c.in.early = append(*c.in.early, unread...)
	}
	s.list(c)
	if !s.passed.put(c) {
		_ = c.Close()
	}
}

// Gone implements tunnel.Visitor.
func (v *visitor) Gone() {
	v.server().open.Add(-1)
	v.drop()
}

func (v *visitor) server() *Server { return v.listener.server }
