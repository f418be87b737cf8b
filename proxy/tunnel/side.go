package tunnel

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// bufferSize is that of the buffers a direction borrows while bytes move.
const bufferSize = 64 << 10

const (
	recordTime = 5 * time.Millisecond // for the rest of a TLS record, with a buffer held
	flushPoll  = time.Millisecond
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// side is one end of a tunnel.
type side struct {
	conn   net.Conn
	raw    *net.TCPConn // under conn; nil = unknown kind
	plain  bool         // conn is raw: bytes may be read from the descriptor
	ended  atomic.Bool  // closed by us because its kind has no half-close
	closed bool         // guarded by tunnel.mu
}

func (s *side) init(c net.Conn) {
	s.conn, s.raw = c, rawOf(c)
	s.plain = s.raw != nil && net.Conn(s.raw) == c
}

// close closes once and at once. A TLS side says no goodbye here: an orderly end
// has said it in closeWrite, and a cut must not wait for a peer that does not read.
func (s *side) close() {
	if s.conn == nil || s.closed {
		return
	}
	s.closed = true
	if s.raw != nil {
		_ = s.raw.Close()
		return
	}
	_ = s.conn.Close()
}

// reset closes with a TCP reset.
func (s *side) reset() {
	if s.conn == nil || s.closed {
		return
	}
	s.closed = true
	if s.raw == nil {
		_ = s.conn.Close()
		return
	}
	_ = s.raw.SetLinger(0)
	_ = s.raw.Close()
}

// cut closes a connection in the middle of things: if it holds bytes that were not
// sent yet, with a reset, because an orderly end would make them look complete.
func (s *side) cut() {
	if s.unsent() > 0 {
		s.reset()
		return
	}
	s.close()
}

// flush waits until all that was written has been sent and acknowledged, or d is over.
func (s *side) flush(d time.Duration) {
	for end := time.Now().Add(d); s.unsent() > 0 && time.Now().Before(end); {
		time.Sleep(flushPoll)
	}
}

// unsent is how many written bytes the peer has not acknowledged, 0 if nobody knows.
func (s *side) unsent() int {
	if s.raw == nil {
		return 0
	}
	rc, err := s.raw.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	_ = rc.Control(func(fd uintptr) { n = outQueue(fd) })
	return n
}

// gone reports whether there is no connection any more, false if nobody knows.
func (s *side) gone() bool {
	if s.raw == nil {
		return false
	}
	rc, err := s.raw.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	_ = rc.Control(func(fd uintptr) { gone = disconnected(fd) })
	return gone
}

// closeWrite passes an end of stream on. TLS sends close_notify and then the FIN
// too: peers that look at one or the other both see it.
func (s *side) closeWrite() error {
	if s.raw == nil {
		if h, ok := s.conn.(interface{ CloseWrite() error }); ok {
			return h.CloseWrite()
		}
		s.ended.Store(true) // nothing better: no half-close on this kind
		return s.conn.Close()
	}
	if t, ok := s.conn.(*tls.Conn); ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	return s.raw.CloseWrite()
}

// writeWithin writes b; a peer that takes longer than d is given up.
func (s *side) writeWithin(b []byte, d time.Duration) bool {
	_ = s.conn.SetWriteDeadline(time.Now().Add(d))
	_, err := s.conn.Write(b)
	_ = s.conn.SetWriteDeadline(time.Time{})
	return err == nil
}

// linger writes a last reply so that it arrives: closing at once with bytes unread
// would reset the connection and may destroy the reply (RFC 9112 §9.6).
func (s *side) linger(reply []byte) {
	if !s.writeWithin(reply, refusalTimeout) || s.closeWrite() != nil {
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, s.conn, lingerBytes)
}

// isEOF reports whether err is the orderly end of a stream.
func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// reader yields a source's bytes without holding a buffer, or a goroutine, while it
// waits. It belongs to one goroutine at a time; next's bytes are valid until done.
type reader struct {
	s      *side
	rc     syscall.RawConn // nil = the connection's kind is unknown: next blocks
	try    func(fd uintptr) bool
	buffer *[bufferSize]byte
	limit  int // of the next read, bytes
	n      int
	err    error
	dry    bool // TLS: nothing decrypted is left, the socket must be waited for
	known  bool // registered with the lot
}

func (r *reader) init(s *side) {
	// Whoever read the heads may have left records in crypto/tls.
	r.s, r.dry = s, s.plain
	if s.raw == nil {
		return
	}
	if rc, err := s.raw.SyscallConn(); err == nil {
		r.rc = rc
		r.try = r.tryRead // a method value is an allocation: once
	}
}

func (r *reader) borrow() {
	if r.buffer == nil {
		r.buffer = buffers.Get().(*[bufferSize]byte)
	}
}

// done gives the buffer back.
func (r *reader) done() {
	if r.buffer != nil {
		buffers.Put(r.buffer)
		r.buffer = nil
	}
}

// errWait says that there is nothing to read until the socket is readable.
var errWait = errors.New("tunnel: nothing to read yet")

// next returns bytes, or errWait, or another error: io.EOF at the end. woken says
// that the socket was found readable since errWait; limit bounds the bytes, 1 to bufferSize.
func (r *reader) next(woken bool, limit int) ([]byte, error) {
	r.limit = limit
	switch {
	case r.rc == nil:
		r.borrow()
		n, err := r.s.conn.Read(r.buffer[:limit])
		return r.buffer[:n], err
	case r.s.plain:
		return r.nextPlain()
	default:
		return r.nextTLS(woken)
	}
}

func (r *reader) nextPlain() ([]byte, error) {
	if err := r.rc.Read(r.try); err != nil {
		return nil, err
	}
	switch {
	case r.err != nil:
		return nil, r.err
	case r.n == 0:
		return nil, io.EOF
	}
	return r.buffer[:r.n], nil
}

// tryRead reads what is there and never waits.
func (r *reader) tryRead(fd uintptr) bool {
	r.borrow()
	for {
		n, err := syscall.Read(int(fd), r.buffer[:r.limit])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			n, err = 0, errWait
		case err != nil:
			n = 0
		}
		r.n, r.err = n, err
		return true
	}
}

// nextTLS reads decrypted bytes. crypto/tls may hold further records in its own
// buffer, of which the socket knows nothing: after each read it is asked again with
// a deadline that has passed, which yields what it holds and touches no socket
// (such a timeout leaves the connection usable). Only when that is dry is the
// socket waited for.
func (r *reader) nextTLS(woken bool) ([]byte, error) {
	if r.dry && !woken {
		return nil, errWait
	}
	deadline := aLongTimeAgo
	if r.dry {
		// The socket is readable, but it may be half a record, or one without payload.
		deadline = time.Now().Add(recordTime)
	}
	r.borrow()
	_ = r.s.conn.SetReadDeadline(deadline)
	n, err := r.s.conn.Read(r.buffer[:r.limit])
	_ = r.s.conn.SetReadDeadline(time.Time{})
	if n > 0 {
		r.dry = false
		return r.buffer[:n], nil
	}
	var timeout net.Error
	if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
		return nil, err
	}
	r.dry = true
	return nil, errWait
}

// wait blocks until the socket is readable, or broken, or closed.
func (r *reader) wait() { _ = r.rc.Read(pollReadable) }
