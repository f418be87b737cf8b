package soak

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// tunnelLimit bounds every tunnel and plain request, at both ends. It must be above all pauses together.
const tunnelLimit = 40 * time.Second

// halfCloser is a TCP connection, or a TLS one.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// carrier is one end of an open tunnel.
type carrier struct {
	conn halfCloser
	raw  *net.TCPConn // conn, or what is under its TLS
	in   io.Reader    // conn, and before it what was read from it too early
	out  stream
	want stream // what must come

	rng      *rand.Rand // of the goroutine that sends
	sent     int64
	bad      string
	cut      bool          // sending broke off
	finished bool          // half-closed already
	pause    time.Duration // in the middle of sending
	stall    time.Duration // before reading
}

// send writes n more bytes, in pieces of random sizes.
func (c *carrier) send(n int64) error {
	middle := n / 2
	for left := n; left > 0; {
		size := min(left, 1+c.rng.Int64N(pieceSize))
		wrote, err := c.conn.Write(c.out.next(int(size)))
		c.sent += int64(wrote)
		left -= int64(wrote)
		if err != nil {
			c.cut = true
			return err
		}
		if c.pause > 0 && left <= middle {
			time.Sleep(c.pause) // an idle tunnel is what is wanted
			c.pause = 0
		}
	}
	return nil
}

// sendAll is send, and half-closes.
func (c *carrier) sendAll(n int64) {
	if c.send(n) == nil {
		c.closeWrite()
	}
}

// closeWrite half-closes, once.
func (c *carrier) closeWrite() {
	if !c.finished && c.conn.CloseWrite() != nil {
		c.cut = true
	}
	c.finished = true
}

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// drain reads and compares to the end, at most limit bytes; it returns how that came.
func (c *carrier) drain(limit int64) string {
	time.Sleep(c.stall) // a reader who stands still is what is wanted
	buffer := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buffer)
	for c.want.at < limit {
		n, err := c.in.Read(buffer[:min(pieceSize, limit-c.want.at)])
		if _, wrong := c.want.Write(buffer[:n]); wrong != nil {
			c.bad = wrong.Error()
			return endOf(io.EOF)
		}
		if err != nil {
			return endOf(err)
		}
	}
	return endOrderly
}

// reset closes with a TCP reset.
func (c *carrier) reset() {
	_ = c.raw.SetLinger(0) // fails only on a connection that is closed already
	_ = c.raw.Close()
}

// forever is no limit for drain.
const forever = int64(1) << 62

// exchange sends n bytes and reads to the end, at the same time.
func (c *carrier) exchange(n int64) (end string) {
	var sending sync.WaitGroup
	sending.Go(func() { c.sendAll(n) })
	end = c.drain(forever)
	sending.Wait()
	return end
}

// fill completes a report.
func (c *carrier) fill(r *report, end string) {
	if c.cut && end == endOrderly {
		end = endBroken // a socket tells of its reset once: the write has seen it, and the read an end
	}
	r.Sent, r.Got, r.End = c.sent, c.want.at, end
	if r.Bad == "" {
		r.Bad = c.bad
	}
}
