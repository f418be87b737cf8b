package upstream

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// plainConn is a connection for plain HTTP. It counts as one of its gateway's until
// it is closed. While it is idle it holds no buffer and no goroutine.
type plainConn struct {
	net.Conn
	key    idleKey
	lane   *lane           // nil for direct
	warm   bool            // it stood ready before its first use
	echoes echoes          // of the key's login
	early  []byte          // came with the gateway's answer, and are the target's
	socket syscall.RawConn // nil = it cannot be looked at, and is not used twice
	quiet  bool            // what probe found
	probe  func(fd uintptr)
	closed atomic.Bool

	// guarded by idlePool.mu
	since        time.Time // when it became idle
	older, newer *plainConn
}

func newPlainConn(c net.Conn, key idleKey) *plainConn {
	p := &plainConn{Conn: c, key: key, echoes: echoesOf(key.login)}
	raw := c
	if secured, ok := c.(*tls.Conn); ok {
		raw = secured.NetConn()
	}
	if s, ok := raw.(syscall.Conn); ok {
		if socket, err := s.SyscallConn(); err == nil {
			p.socket = socket
		}
	}
	p.probe = func(fd uintptr) { p.quiet = isQuiet(fd) }
	return p
}

// Close implements net.Conn. It may be called more than once and while the
// connection is in use.
func (c *plainConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	err := c.Conn.Close()
	Held{g: c.key.gateway, lane: c.lane}.Release()
	return err
}

// Read implements net.Conn.
func (c *plainConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// usable reports whether an idle connection is still open and nothing has come on it:
// bytes that nobody asked for would be taken for the next request's answer. Over TLS
// they are a goodbye.
func (c *plainConn) usable() bool {
	if c.socket == nil || len(c.early) > 0 {
		return false
	}
	c.quiet = false
	return c.socket.Control(c.probe) == nil && c.quiet
}

const readBufferSize = 4 << 10

// readBuffers holds the buffers that answers are read through; grown ones are not kept.
var readBuffers = sync.Pool{New: func() any { return new([readBufferSize]byte) }}

// inbound reads a connection through a pooled buffer. The zero value with a
// connection is ready; free must be called at the end.
type inbound struct {
	conn       net.Conn
	pooled     *[readBufferSize]byte
	buf        []byte
	start, end int
	came       bool // any byte
}

func (in *inbound) buffered() []byte { return in.buf[in.start:in.end] }

// free gives the buffer back.
func (in *inbound) free() {
	if in.pooled != nil {
		readBuffers.Put(in.pooled)
	}
	in.pooled, in.buf, in.start, in.end = nil, nil, 0, 0
}

// fill reads more behind what is buffered, in a buffer of at most limit bytes.
func (in *inbound) fill(limit int) error {
	if in.buf == nil {
		in.pooled = readBuffers.Get().(*[readBufferSize]byte)
		in.buf = in.pooled[:]
	}
	if in.start > 0 {
		in.end = copy(in.buf, in.buf[in.start:in.end])
		in.start = 0
	}
	if in.end == len(in.buf) {
		if len(in.buf) >= limit {
			return errAnswerTooLong
		}
		grown := make([]byte, min(4*len(in.buf), limit))
		copy(grown, in.buf)
		if in.pooled != nil {
			readBuffers.Put(in.pooled)
		}
		in.pooled, in.buf = nil, grown
	}
	n, err := in.conn.Read(in.buf[in.end:])
	in.end += n
	in.came = in.came || n > 0
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// until reads up to the end that find sees and takes it out of the buffer. find gets
// what is buffered and how much of it had no end last time, and returns the size, 0
// while it is not complete. What is returned is valid until the next call.
func (in *inbound) until(find func(b []byte, seen int) int, limit int) ([]byte, error) {
	for seen := 0; ; {
		if n := find(in.buffered(), seen); n > 0 {
			if n > limit {
				return nil, errAnswerTooLong
			}
			b := in.buf[in.start : in.start+n]
			in.start += n
			return b, nil
		}
		if seen = in.end - in.start; seen >= limit {
			return nil, errAnswerTooLong
		}
		if err := in.fill(max(limit, readBufferSize)); err != nil {
			return nil, err
		}
	}
}

// read reads what is there, or waits for it; large reads bypass the buffer.
func (in *inbound) read(p []byte) (int, error) {
	if in.start == in.end {
		if len(p) >= readBufferSize {
			return in.conn.Read(p)
		}
		if err := in.fill(readBufferSize); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buffered())
	in.start += n
	return n, nil
}
