package admin

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// crowd keeps the number of connections at [MaxConns]. A new one is never kept
// waiting, since it may be a health probe: of the connections for which no
// handler runs, the one that has been so for longest gives way to it. A peer that dribbles
// its request counts as one of these. When handlers run on all, the new one goes.
type crowd struct {
	mu      sync.Mutex // guards what follows
	all     map[net.Conn]*list.Element
	waiting *list.List // of net.Conn, the longest waiting first
}

func newCrowd() *crowd {
	return &crowd{all: map[net.Conn]*list.Element{}, waiting: list.New()}
}

// crowdKey is the context key of a request's connection.
type crowdKey struct{}

// connContext is http.Server's ConnContext hook.
func (c *crowd) connContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, crowdKey{}, conn)
}

// state is http.Server's ConnState hook.
func (c *crowd) state(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if victim := c.admit(conn); victim != nil {
			_ = victim.Close() // net/http notices and ends its goroutine
		}
	case http.StateClosed, http.StateHijacked:
		c.forget(conn)
	case http.StateActive, http.StateIdle:
	}
}

// admit adds conn and returns the connection to close, if any; that may be conn.
func (c *crowd) admit(conn net.Conn) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	var victim net.Conn
	if len(c.all) >= MaxConns {
		front := c.waiting.Front()
		if front == nil {
			return conn
		}
		victim, _ = c.waiting.Remove(front).(net.Conn) // nothing else is ever put in
		delete(c.all, victim)
	}
	c.all[conn] = c.waiting.PushBack(conn)
	return victim
}

// forget drops a closed connection.
func (c *crowd) forget(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.all[conn]; e != nil {
		c.waiting.Remove(e)
	}
	delete(c.all, conn)
}

// wrap marks connections as busy while next runs on them.
func (c *crowd) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, ok := r.Context().Value(crowdKey{}).(net.Conn)
		if ok {
			c.setBusy(conn, true)
			defer c.setBusy(conn, false)
		}
		next.ServeHTTP(w, r)
	})
}

// setBusy moves a connection out of the waiting ones or back, unless it has been forgotten.
func (c *crowd) setBusy(conn net.Conn, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.all[conn]
	if !ok {
		return
	}
	switch {
	case busy && e != nil:
		c.waiting.Remove(e)
		c.all[conn] = nil
	case !busy && e == nil:
		c.all[conn] = c.waiting.PushBack(conn)
	}
}
