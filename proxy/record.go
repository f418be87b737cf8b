package proxy

import (
	"net/netip"
	"strconv"
	"time"
)

// record is all that is told of an exchange when it has ended.
type record struct {
	id                       uint64
	account                  string
	client                   netip.Addr
	listener, method, target string
	upstream                 string
	outcome                  Outcome
	status                   int
	sent, received           int64 // payload bytes
	connect, duration        time.Duration
	cause                    string
	err                      error // for the log at debug level
}

// book counts and logs an exchange. It writes its fields with as little garbage as can
// be: there is one for each tunnel.
func (s *Server) book(r *record) {
	s.metrics.ended(r.outcome)
	e := s.log.Info()
	if r.outcome == Internal {
		e = s.log.Error()
	}
	var buf [64]byte
	e.Bytes("id", s.appendID(buf[:0], r.id)).
		Str("account", r.account).
		Bytes("client", r.client.AppendTo(buf[:0])).
		Str("listener", r.listener).
		Str("method", r.method)
	if s.config.LogTargets {
		e.Str("target", r.target)
	}
	e.Str("upstream", r.upstream).
		Str("outcome", string(r.outcome)).
		Int("status", r.status).
		Int64("sent", r.sent).
		Int64("received", r.received).
		RawJSON("connect_ms", appendMilliseconds(buf[:0], r.connect)).
		RawJSON("duration_ms", appendMilliseconds(buf[:0], r.duration))
	if r.cause != "" {
		e.Str("cause", r.cause)
	}
	e.Msg("exchange")
	if r.err != nil {
		s.log.Debug().Bytes("id", s.appendID(buf[:0], r.id)).Err(r.err).Msg("cause of an exchange's end")
	}
}

// appendID appends the exchange's id: the start of the process and a number, base 36.
func (s *Server) appendID(b []byte, id uint64) []byte {
	return strconv.AppendUint(append(b, s.idPrefix...), id, 36)
}

// appendMilliseconds appends d as a JSON number of milliseconds, three digits after the
// point at the most. A duration is never negative.
func appendMilliseconds(b []byte, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	b = strconv.AppendInt(b, us/1000, 10)
	us %= 1000
	if us == 0 {
		return b
	}
	b = append(b, '.', byte('0'+us/100))
	if us %= 100; us == 0 {
		return b
	}
	b = append(b, byte('0'+us/10))
	if us %= 10; us == 0 {
		return b
	}
	return append(b, byte('0'+us))
}
