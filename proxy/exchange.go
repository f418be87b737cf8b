package proxy

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"github.com/rs/zerolog"
)

// exchange is one customer request from its head to its log line. It belongs to
// one goroutine at a time: the handler's, then the tunnel's.
type exchange struct {
	server   *Server
	conn     *frontConn // nil once a tunnel has taken over
	client   netip.Addr
	listener string
	start    time.Time
	id       uint64
	method   string
	target   string // host:port, empty until known
	who      identity
	upstream string
	cause    string
	err      error // for the log at debug level
	sent     int64
	received int64
	connect  time.Duration
	plain    *plainWriter // nil unless it is a plain request
	begun    bool         // an answer, or the hand-over to a tunnel
	over     bool
	outcome  Outcome // of a plain request, decided before its reply is written
}

func (s *Server) newExchange(c *frontConn) *exchange {
	return &exchange{
		server: s, conn: c, client: c.clientAddr(), listener: c.listener.name,
		start: time.Now(), id: s.nextID.Add(1),
	}
}

// exchangeOf finds the exchange whose handler runs; nil if none has passed the gate.
func exchangeOf(ctx context.Context) *exchange {
	if c := frontOf(ctx); c != nil {
		return c.current
	}
	return nil
}

// finish counts and logs the exchange. Only the first call does.
func (x *exchange) finish(o Outcome, status int) {
	if x.over {
		return
	}
	x.over = true
	s := x.server
	s.metrics.exchanges.WithLabelValues(string(o)).Inc()
	e := s.log.Info()
	if o == Internal {
		e = s.log.Error()
	}
	e.Str("id", s.idPrefix+strconv.FormatUint(x.id, 36)).
		Str("account", x.who.name).
		Str("client", x.client.String()).
		Str("listener", x.listener).
		Str("method", x.method).
		Func(x.logTarget).
		Str("upstream", x.upstream).
		Str("outcome", string(o)).
		Int("status", status).
		Int64("sent", x.sent).
		Int64("received", x.received).
		Float64("connect_ms", milliseconds(x.connect)).
		Float64("duration_ms", milliseconds(time.Since(x.start)))
	if x.cause != "" {
		e.Str("cause", x.cause)
	}
	e.Msg("exchange")
	if x.err != nil {
		s.log.Debug().Str("id", s.idPrefix+strconv.FormatUint(x.id, 36)).Err(x.err).Msg("cause of an exchange's end")
	}
}

func (x *exchange) logTarget(e *zerolog.Event) {
	if x.server.config.LogTargets {
		e.Str("target", x.target)
	}
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
