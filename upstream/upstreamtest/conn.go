package upstreamtest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// smallBuffer is what a copy holds while little or nothing flows, in bytes.
	smallBuffer = 4 << 10
	// largeBuffer is what it holds while bulk flows.
	largeBuffer = 64 << 10
)

// Conn is a connection that a vendor accepted. Reads and writes go to the peer;
// what is read is recorded. One reader and one writer may use it at once.
type Conn struct {
	*recorded
	br     *bufio.Reader
	vendor *Vendor
}

// Read reads what follows the last request head, early bytes first.
func (c *Conn) Read(p []byte) (int, error) { return c.br.Read(p) }

// ReadRequest reads and records the next request head. Any error means that
// nothing more can be served on the connection.
func (c *Conn) ReadRequest() (*RecordedRequest, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.vendor.config.HeadTimeout)); err != nil {
		return nil, err
	}
	raw, err := readHead(c.br)
	if err != nil {
		return nil, err
	}
	req, err := parseRequest(raw)
	if err != nil {
		return nil, err
	}
	c.st.led.request(c.rec, req)
	return req, c.SetReadDeadline(time.Time{})
}

// Vendor returns the vendor that accepted the connection.
func (c *Conn) Vendor() *Vendor { return c.vendor }

// Record returns the connection's record.
func (c *Conn) Record() *ConnRecord { return c.rec }

// duplex is one end of a tunnel.
type duplex interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset() error
}

// peer makes a dialled connection a duplex, as far as its type allows.
type peer struct {
	net.Conn
	br *bufio.Reader // what a head reader left over, or nil
}

// Read reads what a head reader left over first.
func (p *peer) Read(b []byte) (int, error) {
	if p.br != nil {
		return p.br.Read(b)
	}
	return p.Conn.Read(b)
}

// CloseWrite half-closes, or closes what cannot be half-closed.
func (p *peer) CloseWrite() error {
	if h, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return p.Close()
}

// Reset closes with an RST where there is such a thing.
func (p *peer) Reset() error {
	var err error
	if l, ok := p.Conn.(interface{ SetLinger(int) error }); ok {
		err = l.SetLinger(0)
	}
	return errors.Join(err, p.Close())
}

// tunnel copies both ways until both directions have ended. A FIN is passed on
// as a half-close, an error as a reset. The end of ctx cuts it.
func tunnel(ctx context.Context, a, b duplex) {
	cut := context.AfterFunc(ctx, func() {
		_ = a.Reset()
		_ = b.Reset()
	})
	defer cut()
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		pump(a, b)
	}()
	pump(b, a)
	wg.Wait()
}

// pump is one direction of a tunnel.
func pump(dst, src duplex) {
	if err := copyAsItComes(dst, src); err != nil {
		// Both are to feel it: a broken half leaves nothing worth keeping.
		_ = dst.Reset()
		_ = src.Reset()
		return
	}
	_ = dst.CloseWrite() // the other direction meets what is wrong, if anything is
}

// copyAsItComes copies until EOF, each read with its own write. Its buffer is
// small until bulk flows, so that thousands of idle tunnels are cheap.
func copyAsItComes(dst io.Writer, src io.Reader) error {
	small := make([]byte, smallBuffer)
	var large []byte
	buf := small
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case n < smallBuffer:
			buf, large = small, nil
		case large == nil:
			large = make([]byte, largeBuffer)
			buf = large
		}
	}
}

// drain reads until the peer ends or the connection is closed.
func drain(r io.Reader) {
	buf := make([]byte, smallBuffer)
	for {
		if _, err := r.Read(buf); err != nil {
			return
		}
	}
}
