package upstream

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"maskrelay/upstream/vendor"
)

// ErrAsksMore is what Setup.Reply says when the gateway has answered a part of the
// handshake and waits for the next: AppendRequest says what, and Reply begins with what
// comes after that.
var ErrAsksMore = errors.New("upstream: the gateway waits for more")

// negotiation is the handshake with one gateway, in its protocol. It decides and does no
// I/O: Setup and the blocking way both follow it. The zero value begins. There is one in
// each Setup: it is small.
type negotiation struct {
	scan  replyScan // of http and https gateways
	socks socks     // of socks5 gateways
}

// appendRequest appends what is to be written now. It may be asked again for the same.
func (n *negotiation) appendRequest(b []byte, g *gateway, route *Route, r Request) []byte {
	if g.Scheme == SchemeSOCKS5 {
		return n.socks.append(b, n.socks.wish(g, route, r))
	}
	return appendConnect(b, r.Target, cmp.Or(r.Authorization, route.login(g)))
}

// look looks at all that g has sent since it was written to. size > 0: the tunnel is
// open, and b[size:] is the target's. more: appendRequest is due, and b is done with.
// None of these: more bytes are needed.
func (n *negotiation) look(g *gateway, b []byte) (size int, more bool, failure *ConnectError) {
	if g.Scheme != SchemeSOCKS5 {
		size, failure = n.scan.look(g, b)
		return size, false, failure
	}
	size, more, failure = n.socks.look(b)
	if failure != nil {
		failure.Advice = g.Vendor.Advice(vendor.Cause(failure.Cause))
	}
	return size, more, failure
}

// replyBuffers holds the buffers of handshakes under way; none is held after.
var replyBuffers = sync.Pool{New: func() any { return new([maxReplyHead]byte) }}

// openTunnel asks g for a tunnel over conn and returns the bytes that came after its
// answer (the target's first words; the caller owns them). An HTTP gateway gets Host and
// Proxy-Authorization and nothing else. ctx's end and the deadline interrupt it; on
// return no deadline is set.
func (g *gateway) openTunnel(ctx context.Context, conn net.Conn, route *Route, r Request) ([]byte, *ConnectError) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	early, failure := g.negotiate(ctx, conn, route, r)
	if !stop() && failure == nil {
		// ctx ended as the answer came; its function may set the deadline at any time.
		return nil, &ConnectError{Phase: PhaseConnect, Cause: netCause(ctx, ctx.Err(), CauseTimeout), Err: ctx.Err()}
	}
	_ = conn.SetDeadline(time.Time{})
	return early, failure
}

// negotiate writes and reads by turns until the tunnel is open.
func (g *gateway) negotiate(ctx context.Context, conn net.Conn, route *Route, r Request) ([]byte, *ConnectError) {
	buf := replyBuffers.Get().(*[maxReplyHead]byte)
	defer replyBuffers.Put(buf)
	var n negotiation
	for {
		// The request is written before the answer is read: they share the buffer.
		if _, err := conn.Write(n.appendRequest(buf[:0], g, route, r)); err != nil {
			return nil, &ConnectError{Phase: PhaseConnect, Cause: netCause(ctx, err, CauseClosed), Err: err}
		}
		early, more, failure := n.hear(ctx, g, conn, buf[:])
		if failure != nil || !more {
			return early, failure
		}
	}
}

// hear reads the answer to what was written last.
func (n *negotiation) hear(ctx context.Context, g *gateway, conn net.Conn, buf []byte) (early []byte, more bool, failure *ConnectError) {
	for end := 0; ; {
		count, err := conn.Read(buf[end:])
		if end += count; err != nil && count == 0 {
			if errors.Is(err, io.EOF) && end > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, false, &ConnectError{Phase: PhaseConnect, Cause: netCause(ctx, err, CauseClosed), Err: err}
		}
		size, more, failure := n.look(g, buf[:end])
		switch {
		case failure != nil, more:
			return nil, more, failure
		case size > 0:
			return bytes.Clone(buf[size:end]), false, nil
		}
	}
}
