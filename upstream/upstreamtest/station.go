package upstreamtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// acceptPause is the wait after an accept that failed for want of resources.
	acceptPause = 10 * time.Millisecond
	// handshakeTimeout bounds a TLS handshake.
	handshakeTimeout = 10 * time.Second
)

// recorded is a connection whose received bytes go to a ledger.
type recorded struct {
	net.Conn // the TLS connection, or tcp itself
	tcp      *net.TCPConn
	rec      *ConnRecord
	st       *station
	tail     *headWindow // of judges alone: the last bytes, to find request heads in

	closeOnce sync.Once
	closeErr  error
}

// Read records what it reads.
func (c *recorded) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.st.led.add(c.rec, p[:n])
		if c.tail != nil {
			c.tail.add(p[:n])
		}
	}
	if err != nil {
		c.rec.ended(err)
	}
	return n, err
}

// Write notes when the peer turns out to be gone.
func (c *recorded) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		c.rec.ended(err)
	}
	return n, err
}

// CloseWrite sends a FIN, inside TLS after a close_notify.
func (c *recorded) CloseWrite() error {
	if t, ok := c.Conn.(*tls.Conn); ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	return c.tcp.CloseWrite()
}

// Close closes the connection, once, and marks its record.
func (c *recorded) Close() error {
	return c.end(c.Conn.Close)
}

// Reset closes the connection with an RST.
func (c *recorded) Reset() error {
	return c.end(func() error {
		return errors.Join(c.tcp.SetLinger(0), c.tcp.Close())
	})
}

// end closes by f unless the connection is closed already.
func (c *recorded) end(f func() error) error {
	c.closeOnce.Do(func() {
		if _, ok := c.Conn.(*tls.Conn); !ok {
			c.st.led.add(c.rec, unread(c.tcp)) // it came, though no behaviour has read it
		}
		c.closeErr = f()
		c.st.forget(c)
		c.st.led.closed(c.rec)
	})
	return c.closeErr
}

// station is what every server here shares: a listener whose connections are
// recorded, tracked until they are closed, and waited for.
type station struct {
	ln  *net.TCPListener
	tls *tls.Config
	led *ledger

	windows bool // connections keep a headWindow; set before the first accept

	conns sync.WaitGroup // of open connections
	loops sync.WaitGroup // of the accept loop and the handlers
	stop  context.CancelFunc

	mu   sync.Mutex // guards what follows
	live map[*recorded]struct{}
	done bool
}

// newStation listens on addr, by default on a free loopback port.
func newStation(addr string, config *tls.Config, limit int64) (*station, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("upstreamtest: listen: %w", err)
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("upstreamtest: listen: unexpected listener %T", ln), ln.Close())
	}
	return &station{ln: tcp, tls: config, led: newLedger(limit), live: map[*recorded]struct{}{}, stop: func() {}}, nil
}

// Accept makes a station a net.Listener for http.Server.
func (s *station) Accept() (net.Conn, error) { return s.accept() }

// Addr returns the listener's address.
func (s *station) Addr() net.Addr { return s.ln.Addr() }

// Close stops listening. Connections live on until close.
func (s *station) Close() error {
	err := s.ln.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// accept waits for a connection and tracks it.
func (s *station) accept() (*recorded, error) {
	for {
		tcp, err := s.ln.AcceptTCP()
		if err != nil {
			return nil, err
		}
		c := &recorded{Conn: tcp, tcp: tcp, st: s}
		if s.tls != nil {
			c.Conn = tls.Server(tcp, s.tls)
		}
		if s.windows {
			c.tail = &headWindow{}
		}
		if s.track(c) {
			return c, nil
		}
		// The station closed meanwhile: the next accept will say so.
		if err := tcp.Close(); err != nil {
			return nil, err
		}
	}
}

// track reports whether c may live; a closed station takes no more connections.
func (s *station) track(c *recorded) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	c.rec = s.led.opened(c.tcp.RemoteAddr().String())
	s.live[c] = struct{}{}
	s.conns.Add(1)
	return true
}

// enter reports whether a handler may begin; it then counts in loops until it says Done.
func (s *station) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.loops.Add(1)
	}
	return !s.done
}

// forget ends the tracking of c.
func (s *station) forget(c *recorded) {
	s.mu.Lock()
	delete(s.live, c)
	s.mu.Unlock()
	s.conns.Done()
}

// serve starts the accept loop, with one goroutine of handle a connection.
// The connection is closed when handle returns.
func (s *station) serve(handle func(context.Context, *recorded)) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.loops.Add(1)
	go s.acceptLoop(ctx, handle)
}

// acceptLoop runs until the listener is closed.
func (s *station) acceptLoop(ctx context.Context, handle func(context.Context, *recorded)) {
	defer s.loops.Done()
	for {
		c, err := s.accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !pause(ctx, acceptPause) {
				return
			}
			continue
		}
		s.loops.Add(1)
		go s.run(ctx, c, handle)
	}
}

// run is one connection's goroutine.
func (s *station) run(ctx context.Context, c *recorded, handle func(context.Context, *recorded)) {
	defer s.loops.Done()
	defer func() { _ = c.Close() }() // how it ended is in its record
	if c.handshake(ctx) == nil {
		handle(ctx, c)
	}
}

// handshake does the TLS handshake, if there is one to do.
func (c *recorded) handshake(ctx context.Context) error {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.rec.ended(err)
		return err
	}
	c.rec.setServerName(t.ConnectionState().ServerName)
	return nil
}

// close stops listening, closes every connection and waits for all goroutines.
func (s *station) close() error {
	err := s.Close()
	s.stop()
	s.mu.Lock()
	s.done = true
	live := make([]*recorded, 0, len(s.live))
	for c := range s.live {
		live = append(live, c)
	}
	s.mu.Unlock()
	for _, c := range live {
		_ = c.Reset() // the TCP connection itself: a TLS close could wait for its peer
	}
	s.conns.Wait()
	s.loops.Wait()
	return err
}

// pause waits for d and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
