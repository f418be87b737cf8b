package proxy

import (
	"net"
	"sync"
)

// passedConns is the listener by which connections come to net/http that somebody else
// has accepted. There are never more of them than Server.maxOpen allows. Use
// newPassedConns.
type passedConns struct {
	server *Server
	more   chan struct{} // poked when there is one more
	over   chan struct{} // closed by Close

	mu     sync.Mutex // guards what follows
	waits  []*frontConn
	closed bool
}

func newPassedConns(s *Server) *passedConns {
	return &passedConns{server: s, more: make(chan struct{}, 1), over: make(chan struct{})}
}

// put hands c on; false after Close, and c stays the caller's. It does not block.
func (p *passedConns) put(c *frontConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.waits = append(p.waits, c)
	p.poke()
	return true
}

func (p *passedConns) poke() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// take returns the one that has waited longest, nil if there is none.
func (p *passedConns) take() *frontConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waits) == 0 {
		p.waits = nil // what it grew to in a rush is not kept
		return nil
	}
	c := p.waits[0]
	p.waits[0] = nil
	p.waits = p.waits[1:]
	return c
}

// empty reports whether nobody waits to be accepted.
func (p *passedConns) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waits) == 0
}

// Accept implements net.Listener.
func (p *passedConns) Accept() (net.Conn, error) {
	for {
		if c := p.take(); c != nil {
			p.server.serving.Add(1)
			return c, nil
		}
		select {
		case <-p.more:
		case <-p.over:
			return nil, net.ErrClosed
		}
	}
}

// Close implements net.Listener. It closes the connections that nobody has accepted.
func (p *passedConns) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	left := p.waits
	p.waits = nil
	close(p.over)
	p.mu.Unlock()
	for _, c := range left {
		_ = c.Close()
	}
	return nil
}

// Addr implements net.Listener; there is none.
func (p *passedConns) Addr() net.Addr { return &net.TCPAddr{} }
