package proxy

import (
	"context"
	"net/netip"
	"time"

	"maskrelay/upstream"
	"maskrelay/upstream/vendor"
)

// exchange is one customer request that net/http serves, from its head to its log
// line or to its hand-over to a tunnel. It belongs to its handler's goroutine.
type exchange struct {
	server   *Server
	conn     *frontConn // nil once a tunnel has taken over
	client   netip.Addr
	listener string
	start    time.Time
	id       uint64
	method   string
	target   string // host:port, empty until known
	who      *identity
	route    *upstream.Route // once admitted
	fault    *vendor.Fault   // of a BadParams
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
		start: time.Now(), id: s.nextID.Add(1), who: nobody,
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
	x.server.book(&record{
		id: x.id, account: x.who.name, client: x.client, listener: x.listener, method: x.method,
		target: x.target, upstream: x.upstream, outcome: o, status: status, sent: x.sent, received: x.received,
		connect: x.connect, duration: time.Since(x.start), cause: x.cause, err: x.err,
	})
}
