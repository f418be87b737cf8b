package proxy

import (
	"context"
	"sync"
	"time"
)

// watchAfter is how long an exchange lasts before anybody looks whether its customer
// is still there.
const watchAfter = 20 * time.Millisecond

// customerWatch looks whether the customer leaves while his request is being served. It
// stands in for net/http, which reads ahead of the next request for that: a goroutine,
// a read, two deadlines and two switches for each request, most of which are answered
// in a millisecond. Over TLS net/http still does.
type customerWatch struct {
	conn *frontConn
	gone func() // called at most once, before stop returns

	mu    sync.Mutex // guards what follows
	over  bool
	timer *time.Timer   // nil until the request has been read
	ended chan struct{} // closed when look has ended; nil if it has not begun
}

// watched returns the request's context, which also ends when the customer leaves, for
// one exchange on c. stop must be called at its end, and before anybody else reads from c.
func (c *frontConn) watched(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	w := &customerWatch{conn: c, gone: cancel}
	c.watch.Store(w)
	if c.wholeRead.Load() {
		w.arm()
	}
	return ctx, func() {
		w.stop()
		cancel()
	}
}

// aheadOfRequest reports whether a read is net/http's ahead of the next request: one of a
// single byte, between the request's end and its answer's.
func (c *frontConn) aheadOfRequest(b []byte) bool {
	p := c.at()
	return len(b) == 1 && c.in.state == atStart && (p == phaseJudged || p == phaseHandling)
}

// requestRead notes that all of the request has been read: what comes now is an end, or
// the next one.
func (c *frontConn) requestRead() {
	c.wholeRead.Store(true)
	if w := c.watch.Load(); w != nil {
		w.arm()
	}
}

// arm lets the watch begin in a while.
func (w *customerWatch) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over && w.timer == nil {
		w.timer = time.AfterFunc(watchAfter, w.look)
	}
}

// look waits until something comes from the customer.
func (w *customerWatch) look() {
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return
	}
	w.ended = make(chan struct{})
	w.mu.Unlock()
	defer close(w.ended)
	if hasLeft(w.conn.raw) {
		w.gone()
	}
}

// stop ends the watch; nobody reads from the connection any more when it returns.
func (w *customerWatch) stop() {
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return
	}
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
	ended := w.ended
	w.mu.Unlock()
	w.conn.watch.Store(nil)
	if ended == nil {
		return
	}
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		// A request's body that has just ended may take the deadline away once.
		_ = w.conn.raw.SetReadDeadline(time.Unix(1, 0))
		select {
		case <-ended:
			_ = w.conn.raw.SetReadDeadline(time.Time{})
			return
		case <-again.C:
		}
	}
}
