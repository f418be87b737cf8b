package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"

	"maskrelay/proxy/tunnel"
)

// mostFrom is how many strangers one origin may have.
func (s *Server) mostFrom() int { return max(s.maxOpen/strangersShare, minStrangersShare) }

// strained reports whether the host is short of memory while there are more strangers
// than SpareConns: then they get no more with those who come.
func (s *Server) strained() bool {
	return s.strangers.count.Load() > int64(s.spareConns) && s.memoryFull()
}

// makeRoom tells a stranger to go for another one's sake; false if there is none.
func (s *Server) makeRoom(from origin) bool {
	if !s.strangers.evictFor(from, s.mostFrom()/2) {
		return false
	}
	s.evicted.Inc()
	if n, due := s.crowdedOut.add(s.now()); due {
		s.log.Warn().Int64("closed", n).Int64("waiting", s.strangers.count.Load()).Int("addresses", s.strangers.origins()).
			Msg("no room: connections that have not logged in are closed, those that have waited longest first")
	}
	return true
}

// strangerWaits puts a connection that net/http has at the end of the strangers' line.
func (s *Server) strangerWaits(x *stranger, client netip.Addr) {
	from := s.originOf(client)
	s.boundOrigin(from, s.strangers.wait(x, from))
}

// visitorWaits does so with one that the engine has.
func (s *Server) visitorWaits(v *visitor, seat tunnel.Seat) {
	from := s.originOf(v.client.Addr())
	s.boundOrigin(from, s.strangers.sit(&v.stranger, from, seat))
}

// strangerIsFrom notes whose a stranger is, once his PROXY header was read.
func (s *Server) strangerIsFrom(x *stranger, client netip.Addr) {
	from := s.originOf(client)
	s.boundOrigin(from, s.strangers.isFrom(x, from))
}

// boundOrigin keeps an origin that has n strangers to its share: the one who has waited
// longest goes.
func (s *Server) boundOrigin(from origin, n int) {
	most := s.mostFrom()
	if n <= most || !s.strangers.evictFrom(from) {
		return
	}
	s.overShare.Inc()
	if closed, due := s.crowding.add(s.now()); due {
		s.log.Warn().Stringer("client", from).Int("limit", most).Int64("closed", closed).
			Msg("too many connections of one address that have not logged in: those that have waited longest are closed")
	}
}

// noTurn counts a TLS handshake that was not done.
func (s *Server) noTurn(c *frontConn) {
	s.unturned.Inc()
	if closed, due := s.turnless.add(s.now()); due {
		s.log.Warn().Stringer("client", c.clientAddr()).Int64("closed", closed).Int("waiting", s.handshakes.inLine()).
			Msg("more TLS handshakes than processors can do: some got no turn in time")
	}
}

// complaints are counted, and logged now and then. The zero value is ready.
type complaints struct {
	count atomic.Int64
	last  atomic.Int64 // when one was logged, on the server's clock; 0 = never
}

// add counts one; due says that it is time to log the n that came since the last time.
func (c *complaints) add(now time.Duration) (n int64, due bool) {
	c.count.Add(1)
	last := c.last.Load()
	if last != 0 && now-time.Duration(last) <= troubleEvery || !c.last.CompareAndSwap(last, int64(max(now, 1))) {
		return 0, false
	}
	return c.count.Swap(0), true
}
