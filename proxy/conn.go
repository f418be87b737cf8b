package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"maskrelay/masking"
	"maskrelay/proxy/limit"
)

// phase is where a connection is between two requests, for those moments in which
// net/http speaks for itself.
type phase int32

const (
	phaseWaiting  phase = iota // for the first byte of a head
	phaseHead                  // some bytes of a head have come
	phaseJudged                // net/http has read a head or given up on it; no handler runs yet
	phaseHandling              // a handler runs; what is written is ours
	phaseOver                  // handed over, or answered for the last time
)

// frontConn is a customer's connection as net/http sees it. It reads the PROXY
// header and does the TLS handshake at the first Read, in the connection's own
// goroutine and under the head's deadline; it replaces the error texts that
// net/http writes by itself; and it holds what the connection has taken of the
// relay, until Close or until a tunnel takes over.
type frontConn struct {
	raw      *net.TCPConn
	server   *Server
	listener *listener

	hijacked bool                          // its handler is the last that net/http calls, and says so itself
	lingers  bool                          // a closing reply was written, let it arrive
	aborted  bool                          // an answer broke off: the end must not look orderly
	leaving  atomic.Bool                   // a request's body is left unread
	unnamed  atomic.Bool                   // the next write begins with a status that net/http has no phrase for
	ordered  atomic.Pointer[answerOrder]   // of the head that is written next; nil = as net/http has it
	saying   atomic.Pointer[masking.Reply] // what net/http is about to write, in its own way; nil = nothing of ours
	current  *exchange                     // that a handler runs for
	prepared bool
	shut     time.Time // when our direction was ended; zero = it was not
	stream   net.Conn  // what HTTP is spoken on: raw, a *rest, or a *tls.Conn
	client   netip.AddrPort
	in       incoming
	order    []string // see fieldOrder
	names    fieldNames
	headBy   time.Time // the first head's end, if it began before net/http had the connection
	idled    bool      // an exchange has ended, and no head has begun to come in parts since
	phase    atomic.Int32
	close    sync.Once

	watch     atomic.Pointer[customerWatch] // of the exchange under way; nil = none
	wholeRead atomic.Bool                   // the request under way, and its end is for the watch to see
	uncounted atomic.Bool                   // the customer's usage does not have this connection yet

	// guarded by server.connsMu
	held bool   // by a customer
	key  string // whose leases it holds; empty = nobody's

	stranger stranger

	mu     sync.Mutex // guards what follows
	closed bool
	slot   bool // holds one of the relay's
	lease  *limit.Lease
}

// rest is a stream whose first bytes were read with the PROXY header.
type rest struct {
	net.Conn
	head *bytes.Reader
}

func (r *rest) Read(b []byte) (int, error) {
	if r.head.Len() == 0 {
		return r.Conn.Read(b)
	}
	n, err := r.head.Read(b)
	if r.head.Len() == 0 {
		r.head.Reset(nil) // the connection may live long, and need not keep what was read
	}
	return n, err
}

// Unwrap returns the connection underneath.
func (r *rest) Unwrap() net.Conn { return r.Conn }

func (c *frontConn) at() phase        { return phase(c.phase.Load()) }
func (c *frontConn) setPhase(p phase) { c.phase.Store(int32(p)) }

// Read implements net.Conn. Errors of the preparation read as an end of stream,
// to which net/http answers nothing.
func (c *frontConn) Read(b []byte) (int, error) {
	if !c.prepared {
		if err := c.prepare(); err != nil {
			c.server.log.Debug().Err(err).Str("listener", c.listener.name).
				Str("peer", c.raw.RemoteAddr().String()).Msg("connection dropped before its first request")
			return 0, io.EOF
		}
	}
	if c.at() == phaseOver {
		return 0, net.ErrClosed
	}
	n, err := c.readMessage(b)
	if n == 0 && err != nil && c.at() == phaseHead && errors.Is(err, os.ErrDeadlineExceeded) {
		c.answer(HeadTimeout)
	}
	return n, err
}

// prepare reads the PROXY header where one is due and does the TLS handshake. The
// read deadline is net/http's for the head; writing gets the same time.
func (c *frontConn) prepare() error {
	c.prepared = true
	c.stream = c.raw
	deadline := time.Now().Add(c.server.config.HeaderTimeout)
	if c.server.trusts(c.client.Addr()) {
		if err := c.readProxyHeader(); err != nil {
			return err
		}
	}
	if !c.listener.secured {
		return nil
	}
	secured, err := c.shakeHands(deadline)
	if err != nil {
		return err
	}
	c.stream = secured
	return nil
}

// readProxyHeader reads a PROXY header, version 1 or 2; without one the connection
// is not served. LOCAL and UNKNOWN (a balancer's own checks) keep the peer's address.
func (c *frontConn) readProxyHeader() error {
	reader := bufio.NewReaderSize(c.raw, proxyHeaderBuffer)
	source, err := readProxyHeader(reader)
	if err != nil {
		return err
	}
	if source.IsValid() {
		c.client = source
		c.server.strangerIsFrom(&c.stranger, source.Addr())
	}
	if n := reader.Buffered(); n > 0 {
		b, err := reader.Peek(n)
		if err != nil {
			return err
		}
		c.stream = &rest{Conn: c.raw, head: bytes.NewReader(bytes.Clone(b))}
	}
	return nil
}

// Write implements net.Conn. A write while no handler runs is one of net/http's own
// error replies: the customer gets ours instead.
func (c *frontConn) Write(b []byte) (int, error) {
	switch c.at() {
	case phaseHandling:
		if reply := c.saying.Load(); reply != nil {
			return c.writeReply(reply, b)
		}
		if a := c.ordered.Load(); a != nil {
			return c.writeOrdered(a, b)
		}
		return c.writeHandled(b)
	case phaseOver:
		return 0, net.ErrClosed
	}
	outcome := BadRequest
	if bytes.HasPrefix(b, []byte("HTTP/1.1 431")) {
		outcome = HeadTooLarge
	}
	c.answer(outcome)
	return len(b), nil
}

// writeHandled writes what a handler has said.
func (c *frontConn) writeHandled(b []byte) (int, error) {
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 1")) && c.unnamed.Swap(false) { // and no 100 that is on its way
		return c.writeUnnamed(b)
	}
	return c.stream.Write(b)
}

// reply answers the request under way with a reply of ours, through net/http, which
// decides with it whether the connection goes on. It learns of a drain too late for that.
func (c *frontConn) reply(w http.ResponseWriter, r *http.Request, reply *masking.Reply, closing bool) {
	c.saying.Store(reply)
	reply.Serve(w, r, closing || c.server.leaving.Load())
}

// writeReply writes a reply in the place of what net/http makes of it: that is of the
// same meaning, but tells by its version, and by where Connection stands, what wrote it.
// RFC 9110 §6.2 has a server send the highest version of its own.
func (c *frontConn) writeReply(reply *masking.Reply, b []byte) (int, error) {
	const at = len("HTTP/1.1 ")
	if len(b) < at || !bytes.HasPrefix(b[at:], strconv.AppendInt(nil, int64(reply.Status()), 10)) {
		return c.stream.Write(b) // a 100 that a reader of the body has caused
	}
	c.saying.Store(nil)
	head, body, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	closing := bytes.Contains(head, []byte("\r\nConnection: close"))
	c.lingers = closing
	ours := reply.Bytes(closing)
	if len(body) == 0 {
		ours = reply.Head(closing)
	}
	if n, err := c.stream.Write(ours); err != nil {
		return min(n, len(b)), err
	}
	return len(b), nil
}

// writeUnnamed takes net/http's own phrase, "status code 520", out of a status line.
func (c *frontConn) writeUnnamed(b []byte) (int, error) {
	const at = len("HTTP/1.1 520 ")
	end := bytes.IndexByte(b, '\r')
	if end < at || !bytes.HasPrefix(b[at:end], []byte("status code ")) {
		return c.stream.Write(b)
	}
	n, err := c.stream.Write(slices.Concat(b[:at], b[end:]))
	if err != nil {
		return min(n, len(b)), err
	}
	return len(b), nil
}

// answer writes a last reply where no handler runs, lets it arrive, and logs.
func (c *frontConn) answer(o Outcome) {
	c.setPhase(phaseOver)
	reply := c.server.replies.of(o)
	_ = c.raw.SetWriteDeadline(time.Now().Add(replyTimeout))
	_, err := c.stream.Write(reply.Bytes(true))
	c.server.newExchange(c).finish(o, reply.Status())
	if err == nil {
		c.lingerClose()
	}
}

// lingerClose shuts the writing side and drops what still comes, for a while and not too
// fast: closing with bytes unread would reset the connection and may destroy the reply
// (RFC 9112 §9.6). An upload may be as long as it likes; its sender sees the reply meanwhile.
func (c *frontConn) lingerClose() {
	if c.CloseWrite() != nil {
		return
	}
	over := c.shut.Add(lingerTime)
	_ = c.raw.SetReadDeadline(over)
	for {
		n, err := io.CopyN(io.Discard, c.stream, lingerBytes)
		if err != nil || n < lingerBytes || time.Until(over) <= lingerPause {
			return
		}
		time.Sleep(lingerPause)
	}
}

// CloseWrite ends our direction; net/http does so after a 431, and where a body was left.
func (c *frontConn) CloseWrite() error {
	if c.shut.IsZero() { // the customer's time runs from the first end that he has seen
		c.shut = time.Now()
	}
	if t, ok := c.stream.(*tls.Conn); ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	return c.raw.CloseWrite()
}

// Close implements net.Conn and gives back what the connection held.
func (c *frontConn) Close() error {
	c.close.Do(func() {
		c.drop()
		if !c.server.closing.Load() {
			c.farewell()
		}
		c.server.forget(c)
		_ = c.raw.Close()
	})
	return nil
}

// farewell ends the connection as its last answer wants: an orderly one arrives and,
// over TLS, says so; one that broke off is seen to have.
func (c *frontConn) farewell() {
	secured, _ := c.stream.(*tls.Conn)
	switch {
	case c.aborted:
		_ = c.raw.SetLinger(0)
	case c.lingers, c.at() == phaseHandling && hasUnread(c.raw): // what follows a last request
		c.lingerClose()
	case secured != nil:
		_ = secured.CloseWrite()
	}
}

// drop gives back what the connection holds; nothing can be taken after.
func (c *frontConn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.dropLocked()
}

func (c *frontConn) dropLocked() {
	c.lease.Release()
	if c.slot {
		c.server.fair.Release()
	}
	c.lease, c.slot = nil, false
}

// hold makes the connection own a lease and one of the relay's slots, until Close or
// handOver. What it held before goes back.
func (c *frontConn) hold(lease *limit.Lease) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked()
	c.lease, c.slot = lease, true
	if c.closed {
		c.dropLocked()
	}
}

// letGo gives back what the connection holds though it lives on: its login was not
// good, which in passthrough only the vendor could say.
func (c *frontConn) letGo() {
	c.mu.Lock()
	c.dropLocked()
	c.mu.Unlock()
	c.server.setHolder(c, "", false)
}

// holding reports whether the connection owns a lease.
func (c *frontConn) holding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lease != nil
}

// handOver gives the connection, and what it holds, to a tunnel: the stream without
// this wrapper, and the bytes that were read too far. net/http has let go of it already.
func (c *frontConn) handOver(buffered []byte, t *tunnelExchange) (stream net.Conn, early []byte) {
	c.setPhase(phaseOver)
	early = append(buffered, c.in.unread...)
	c.in.unread = nil
	stream = c.stream
	if r, ok := stream.(*rest); ok {
		more, _ := io.ReadAll(r.head) // from memory
		early = append(early, more...)
		stream = c.raw
	}
	c.mu.Lock()
	if c.lease != nil {
		c.lease.MoveTo(&t.lease)
	}
	t.slot = c.slot
	c.lease, c.slot = nil, false
	c.mu.Unlock()
	t.counted = c.server.unlist(c) // else Close has counted it already
	return stream, early
}

// handled ends the goroutine's part in the connection, if net/http does not go on with it.
func (c *frontConn) handled() {
	c.current, c.order = nil, nil
	c.in.dropHead()
	if c.hijacked {
		c.server.serving.Done()
	}
}

// LocalAddr implements net.Conn.
func (c *frontConn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr implements net.Conn: the peer's address, never read from a header,
// so that it does not block. The customer's is clientAddr.
func (c *frontConn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// clientAddr is the customer's address. Valid once a request was read.
func (c *frontConn) clientAddr() netip.Addr { return c.client.Addr() }

// SetDeadline implements net.Conn.
func (c *frontConn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// SetReadDeadline implements net.Conn. While a body that nobody wants is being left,
// there is always one: net/http takes it away when it interrupts the transport's read,
// and then reads what is left of the body itself.
func (c *frontConn) SetReadDeadline(t time.Time) error {
	switch {
	case t.IsZero() && c.leaving.Load():
		t = time.Now().Add(lingerTimeout)
	case t.After(c.headBy) && !c.headBy.IsZero():
		t = c.headBy
	}
	return c.raw.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *frontConn) SetWriteDeadline(t time.Time) error { return c.raw.SetWriteDeadline(t) }

// frontKey is the context key of the connection.
type frontKey struct{}

func frontOf(ctx context.Context) *frontConn {
	c, _ := ctx.Value(frontKey{}).(*frontConn)
	return c
}

// stateChanged follows net/http through a connection's life.
func (s *Server) stateChanged(conn net.Conn, state http.ConnState) {
	c, ok := conn.(*frontConn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		if c.at() != phaseOver { // or a head was refused before net/http had all of it
			c.setPhase(phaseJudged)
		}
		c.headBy = time.Time{}
	case http.StateHijacked:
		c.hijacked = true
	case http.StateClosed:
		c.in.dropHead() // nobody reads any more
		s.serving.Done()
	case http.StateIdle:
		c.idled = true
		s.strangers.again(&c.stranger)
		c.wholeRead.Store(false)
		c.setPhase(phaseWaiting)
	}
}
