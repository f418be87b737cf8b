package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"maskrelay/proxy/tunnel"
)

const (
	replyTimeout = 2 * time.Second // to write a reply outside a handler
	lingerTime   = 2 * time.Second // to wait for its arrival, as the engine does
	// What comes meanwhile is dropped, lingerBytes and a pause at a time: of a body that an upstream may have read in
	// part or not at all.
	lingerBytes   = 1 << 20
	lingerPause   = 200 * time.Millisecond
	lingerTimeout = time.Second // to wait for what is left of a body
	troubleEvery  = 10 * time.Second
	// defaultSpareConns are connections beyond MaxConns: being accepted, being refused. A third as many again are
	// refused at accept, at once.
	defaultSpareConns = 384
	crowdPause        = time.Millisecond // for those who were told to go to be gone
	crowdPauses       = 20               // in a row, at most
)

// listener accepts customers for net/http, or lends its name to those that the engine
// accepts. It never reads from a connection.
type listener struct {
	net.Listener
	server   *Server
	name     string // for the log
	pool     string // of gateways; "" = the default
	secured  bool
	received bool // the engine accepts
}

// Keep-alive probes of customers' connections.
const (
	keepAliveIdle     = time.Minute
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 4
)

// listen binds one address. Options that every connection needs are set on the
// listening socket, which hands them down; MPTCP is off. idle is how long a connection
// may stand still.
func listen(ctx context.Context, address string, idle time.Duration) (net.Listener, error) {
	lc := listenConfig(idle)
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp", address)
}

// receive has the engine accept the listener's customers, where it can.
func (l *listener) receive() error {
	tcp, ok := l.Listener.(*net.TCPListener)
	if !ok {
		return errors.ErrUnsupported
	}
	s := l.server
	return s.engine.Serve(tcp, tunnel.Reception{
		Arrive: l.arrive, HeadTimeout: s.config.HeaderTimeout, KeepAlive: min(keepAliveFor, s.config.IdleTimeout),
		Crowded: s.crowded, Trouble: s.acceptTrouble,
	})
}

// acceptTrouble logs errors of accept, which come in swarms.
func (s *Server) acceptTrouble(err error) {
	now := s.now()
	if last := s.troubled.Load(); (last == 0 || now-time.Duration(last) > troubleEvery) && s.troubled.CompareAndSwap(last, int64(now)) {
		s.log.Warn().Err(err).Msg("accept failed, and is tried again")
	}
}

// Accept implements net.Listener. When the relay holds all the connections that it
// may, the oldest one that has no customer's business on it makes room; if there is
// none, the new one is refused at once.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		raw := conn.(*net.TCPConn)
		s := l.server
		c := &frontConn{raw: raw, stream: raw, server: s, listener: l, client: peerAddr(raw)}
		for n := 0; n < crowdPauses && s.crowded(); n++ {
			time.Sleep(crowdPause)
		}
		if !s.enter(c.client.Addr()) {
			s.refuseAccept(l, raw)
			continue
		}
		s.list(c)
		s.serving.Add(1)
		return c, nil
	}
}

func peerAddr(c net.Conn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return plainAddr(ap)
}

// enter counts a connection in. When the relay holds all that it may, a stranger makes
// room; false if there is none, or if too many of those who made room are not gone yet:
// they still hold their descriptors.
func (s *Server) enter(peer netip.Addr) bool {
	n := s.open.Add(1)
	full := n > int64(s.maxOpen)
	made := (full || s.strained()) && s.makeRoom(s.originOf(peer))
	if !full || made && n <= int64(s.maxOpen+s.leavers) {
		return true
	}
	s.open.Add(-1)
	s.refusedAccepts.Inc()
	return false
}

// crowded reports whether so many are on their way out that nobody else comes in.
func (s *Server) crowded() bool { return s.open.Load() >= int64(s.maxOpen+s.leavers) }

// trusts reports whether a peer is a balancer, from which a PROXY header is required.
func (s *Server) trusts(peer netip.Addr) bool {
	return within(s.config.ProxyFrom, peer)
}

// refuseAccept says 503 to a connection that is not taken, a few at once; the rest
// are closed without a word. Over TLS there is nothing that could be said in time.
func (s *Server) refuseAccept(l *listener, raw *net.TCPConn) {
	select {
	case s.refusers <- struct{}{}:
	default:
		_ = raw.Close()
		return
	}
	s.running.Go(func() {
		defer func() { <-s.refusers }()
		defer func() { _ = raw.Close() }()
		if l.secured {
			return
		}
		c := &frontConn{raw: raw, stream: raw, server: s, listener: l}
		_ = raw.SetWriteDeadline(time.Now().Add(replyTimeout))
		if _, err := raw.Write(s.replies.of(RelayFull).Bytes(true)); err == nil {
			c.lingerClose()
		}
	})
}

// list registers a connection; as yet it is a stranger's.
func (s *Server) list(c *frontConn) {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	s.conns[c] = struct{}{}
	c.stranger.raw = c.raw
	s.strangerWaits(&c.stranger, c.client.Addr())
}

// setHolder notes whose connection c is, if anybody's. One that holds nothing is a
// stranger's.
func (s *Server) setHolder(c *frontConn, key string, holds bool) {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	c.key = key
	if _, known := s.conns[c]; !known || c.held == holds {
		return
	}
	c.held = holds
	if holds {
		s.strangers.take(&c.stranger)
		return
	}
	s.strangerWaits(&c.stranger, c.client.Addr())
}

// unlist forgets c without closing it; false if it was not known.
func (s *Server) unlist(c *frontConn) bool {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	_, known := s.conns[c]
	s.strangers.take(&c.stranger)
	delete(s.conns, c)
	return known
}

// forget takes a closed connection off the books.
func (s *Server) forget(c *frontConn) {
	if s.unlist(c) {
		s.open.Add(-1)
	}
}

// cutConns closes the sockets of all connections; their goroutines do the rest.
func (s *Server) cutConns() {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	for c := range s.conns {
		_ = c.raw.Close()
	}
}

// closeKey cuts the plain HTTP connections of key.
func (s *Server) closeKey(key string) int {
	return s.closeConns(func(c *frontConn) bool { return c.key == key })
}

// closeConns cuts the connections for which is reports true; it may look at key, and at
// the client of those that have one.
func (s *Server) closeConns(is func(*frontConn) bool) int {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	n := 0
	for c := range s.conns {
		if is(c) {
			_ = c.raw.Close()
			n++
		}
	}
	return n
}

// heldConns counts the connections that hold a lease for plain HTTP.
func (s *Server) heldConns() int {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	n := 0
	for c := range s.conns {
		if c.key != "" && c.holding() {
			n++
		}
	}
	return n
}
