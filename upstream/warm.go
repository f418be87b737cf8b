package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// warmAge is how old a connection that is kept ready can get; gateways give up on
	// silent ones after about a minute. Some go earlier, so that they do not all go at once.
	warmAge = 30 * time.Second
	// warmDials bounds the handshakes that are under way at once for a gateway's warm
	// connections.
	warmDials = 4
	// warmRest is how long none are made after one could not be, or after they were given
	// back for want of connections or ports.
	warmRest = 2 * time.Second
	// warmTick is how often it is looked whether the gateway is still up.
	warmTick = time.Second
)

// warm are the connections to one https gateway that stand ready, with TLS done and
// nothing said. They are counted among the gateway's connections and ports. Each is
// watched by a goroutine, which reads the session tickets that come after a handshake,
// and puts away a connection that says anything else, ends, or gets too old. nil is a
// gateway that has none. Safe for concurrent use.
type warm struct {
	g    *gateway
	age  time.Duration // that a connection can get
	wake chan struct{} // poked when there may be some to make
	idle atomic.Int64  // len(conns)

	mu        sync.Mutex // guards what follows
	conns     []*warmConn
	restUntil time.Time
	running   bool           // run runs
	watchers  sync.WaitGroup // the connections' goroutines
}

// warmConn is one of them. Whoever takes it out of warm.conns owns it.
type warmConn struct {
	*tls.Conn
	lane  *lane
	until time.Time
	ended chan struct{} // closed when its goroutine is done with it
	err   error         // why; valid then
}

// errWarmSpoke is a gateway that talks before it is asked.
var errWarmSpoke = errors.New("the gateway spoke out of turn")

// newWarm is what keeps n connections to g ready, nil for none.
func newWarm(g *gateway) *warm {
	if g.tls == nil || g.Warm <= 0 {
		return nil
	}
	return &warm{g: g, age: warmAge, wake: make(chan struct{}, 1)}
}

// keepWarm keeps the gateways' connections ready until ctx ends.
func (p *Pool) keepWarm(ctx context.Context) {
	var running sync.WaitGroup
	for _, g := range p.gateways {
		if g.warm != nil {
			running.Go(func() { g.warm.run(ctx) })
		}
	}
	running.Wait()
}

// run makes connections where some are missing, until ctx ends; then none is left.
func (w *warm) run(ctx context.Context) {
	w.mu.Lock()
	w.running = true
	w.mu.Unlock()
	tick := time.NewTicker(warmTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		w.fill(ctx)
		select {
		case <-ctx.Done():
		case <-w.wake:
		case <-tick.C:
		}
	}
	w.mu.Lock()
	w.running = false
	w.mu.Unlock()
	w.drain()
	w.watchers.Wait()
}

// fill makes what is missing, a few at a time. A gateway that is down gets none.
func (w *warm) fill(ctx context.Context) {
	for ctx.Err() == nil {
		now := time.Now()
		if !w.g.health.usable(now) {
			w.drain()
			return
		}
		w.mu.Lock()
		missing := w.g.Warm - len(w.conns)
		resting := now.Before(w.restUntil)
		w.mu.Unlock()
		if missing <= 0 || resting {
			return
		}
		var dials sync.WaitGroup
		for range min(missing, warmDials) {
			dials.Go(func() { w.dial(ctx) })
		}
		dials.Wait()
	}
}

// dial makes one connection, if the gateway has one left: nobody has to make room.
func (w *warm) dial(ctx context.Context) {
	if !w.g.acquire() {
		w.rest()
		return
	}
	held := Held{g: w.g}
	conn, failure := w.g.dialHeld(ctx, &held, 0)
	if failure == nil {
		w.add(conn, held)
		return
	}
	held.Release()
	w.rest()
	if ctx.Err() == nil && failure.Phase != PhasePick {
		w.g.health.report(failure, 0, time.Now())
	}
}

// add keeps a connection.
func (w *warm) add(conn net.Conn, held Held) {
	secured, ok := conn.(*tls.Conn)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ok || !w.running {
		_ = conn.Close()
		held.Release()
		return
	}
	c := &warmConn{Conn: secured, lane: held.lane, ended: make(chan struct{})}
	c.until = time.Now().Add(w.age - rand.N(w.age/4))
	_ = c.SetReadDeadline(c.until)
	w.conns = append(w.conns, c)
	w.idle.Store(int64(len(w.conns)))
	w.watchers.Go(func() { w.watch(c) })
}

// watch reads from a connection until something happens to it.
func (w *warm) watch(c *warmConn) {
	var b [1]byte
	_, c.err = c.Read(b[:])
	if c.err == nil {
		c.err = errWarmSpoke
	}
	close(c.ended)
	w.mu.Lock()
	i := slices.Index(w.conns, c)
	if i >= 0 {
		w.conns = slices.Delete(w.conns, i, i+1)
		w.idle.Store(int64(len(w.conns)))
	}
	w.mu.Unlock()
	if i >= 0 {
		w.drop(c)
		w.poke()
	}
}

// take hands out the connection that has waited longest and is still good. ok is false
// if there is none.
func (w *warm) take() (l link, ok bool) {
	if !w.any() {
		return link{}, false
	}
	for {
		w.mu.Lock()
		if len(w.conns) == 0 {
			w.mu.Unlock()
			return link{}, false
		}
		c := w.conns[0]
		w.conns = slices.Delete(w.conns, 0, 1)
		w.idle.Store(int64(len(w.conns)))
		w.mu.Unlock()
		w.poke()
		if c.halt() {
			return link{Conn: c.Conn, held: Held{g: w.g, lane: c.lane}, warm: true}, true
		}
		w.drop(c)
	}
}

// halt ends the watch over c, and reports whether the connection is as it was: no byte
// and no end has come.
func (c *warmConn) halt() bool {
	_ = c.SetReadDeadline(time.Unix(1, 0))
	<-c.ended
	if !errors.Is(c.err, os.ErrDeadlineExceeded) || time.Now().After(c.until) {
		return false
	}
	raw, ok := c.NetConn().(*net.TCPConn)
	if !ok {
		return false
	}
	socket, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	if socket.Control(func(fd uintptr) { quiet = isQuiet(fd) }) != nil || !quiet {
		return false
	}
	return c.SetReadDeadline(time.Time{}) == nil
}

// drop closes a connection that was taken out.
func (w *warm) drop(c *warmConn) {
	_ = c.NetConn().Close() // without a goodbye, which would have to be waited for
	Held{g: w.g, lane: c.lane}.Release()
}

// drain drops all, and reports whether there was any.
func (w *warm) drain() bool {
	w.mu.Lock()
	conns := w.conns
	w.conns = nil
	w.idle.Store(0)
	w.mu.Unlock()
	for _, c := range conns {
		w.drop(c)
	}
	return len(conns) > 0
}

// any reports whether a connection stands ready.
func (w *warm) any() bool { return w != nil && w.idle.Load() > 0 }

// giveBack drops all because others need their ports, and reports whether there was any.
func (w *warm) giveBack() bool {
	if !w.any() {
		return false
	}
	w.rest()
	return w.drain()
}

// ready is how many stand ready, in nobody's use.
func (w *warm) ready() int64 {
	if w == nil {
		return 0
	}
	return w.idle.Load()
}

// rest keeps fill from making any for a while.
func (w *warm) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restUntil = time.Now().Add(warmRest)
}

func (w *warm) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
