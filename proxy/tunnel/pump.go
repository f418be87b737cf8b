package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refusalTimeout = 5 * time.Second  // to write a refusal
	lingerTimeout  = 2 * time.Second  // to wait for the customer to read it
	lingerBytes    = 64 << 10         // read and dropped meanwhile
	greetTimeout   = 30 * time.Second // to write the greeting and the first bytes
)

// pump is one exchange between a customer and an upstream. Its goroutine is run
// until the tunnel is open. Then each direction has a goroutine while there is
// something to carry; in between it is parked. The last direction to end finishes
// the tunnel.
type pump struct {
	engine *Engine
	job    Job
	id     uint64
	start  time.Duration // engine clock

	mu     sync.Mutex         // guards what follows, up to open
	ctx    context.Context    // of Open, until the peer arrives
	cancel context.CancelFunc // likewise; never nil
	ending Ending             // first one wins
	over   bool               // sockets are being closed
	client side
	peer   side
	err    error
	shared *Shared

	directions [2]direction
	queued     [2]int // the sides' unsent bytes when the sweep looked last
	looked     int64  // when it did, and set last
	finishing  atomic.Bool

	answered bool         // run has begun to say something to the customer
	open     atomic.Bool  // both directions carry
	halves   atomic.Int32 // directions that have ended
	last     atomic.Int64 // engine clock of the last byte, ns
	sent     atomic.Int64
	received atomic.Int64
}

// run opens the upstream side and starts the directions.
func (t *pump) run() {
	defer t.recovered()
	peer, err := t.openPeer()
	if err != nil {
		t.refuse(err)
		return
	}
	if !t.arrive(peer) {
		t.finish()
		return
	}
	terms := t.job.Exchange.Opened()
	t.shared = terms.Shared
	t.answered = true
	if !t.greet(terms.Greeting, peer.Early) {
		t.finish()
		return
	}
	t.job.Early, t.job.Peer = nil, nil
	t.directions[upward].reader.init(&t.client)
	t.directions[downward].reader.init(&t.peer)
	t.last.Store(int64(t.engine.now()))
	t.open.Store(true)
	go t.carry(upward, false)
	t.carry(downward, false)
}

// openPeer runs Open while watching the customer: if he leaves, Open is told.
func (t *pump) openPeer() (Peer, error) {
	ctx, cancel := t.ctx, t.cancel
	defer cancel()
	if t.job.Peer != nil {
		return *t.job.Peer, nil
	}
	watch := t.client.watch(len(t.job.Early) > 0, cancel)
	peer, err := openGuarded(ctx, t.job.Exchange)
	if gone := watch.stop(); gone {
		t.setEnding(ClientGone)
		if err == nil {
			_ = peer.Conn.Close()
			err = context.Canceled
		}
	}
	return peer, err
}

// panicked is the error of an Open that panicked.
type panicked struct{ error }

func openGuarded(ctx context.Context, x Exchange) (p Peer, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked{panicError(v)}
		}
	}()
	return x.Open(ctx)
}

// arrive takes the upstream side; false if the tunnel was ended meanwhile.
func (t *pump) arrive(p Peer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peer.init(p.Conn)
	t.ctx, t.cancel = nil, func() {} // Open is over; its context is not kept for the tunnel's life
	if t.over {
		t.peer.close()
		return false
	}
	return true
}

// greet writes what was read early to both sides. The upstream's first bytes ride
// in the greeting's packet.
func (t *pump) greet(first, upstreamEarly []byte) bool {
	if len(upstreamEarly) > 0 {
		first = append(bytes.Clone(first), upstreamEarly...)
	}
	if len(first) > 0 {
		if !t.client.writeWithin(first, greetTimeout) {
			t.breakOff(ClientReset, &t.peer)
			return false
		}
		t.received.Add(int64(len(upstreamEarly)))
		t.moved(false, len(upstreamEarly))
		t.owe(downward, len(upstreamEarly))
	}
	if len(t.job.Early) > 0 {
		if !t.peer.writeWithin(t.job.Early, greetTimeout) {
			t.breakOff(UpstreamReset, &t.client)
			return false
		}
		t.sent.Add(int64(len(t.job.Early)))
		t.moved(true, len(t.job.Early))
		t.owe(upward, len(t.job.Early))
	}
	return true
}

// refuse answers the customer and ends the tunnel.
func (t *pump) refuse(err error) {
	t.mu.Lock()
	t.err = err
	if bug := (panicked{}); errors.As(err, &bug) {
		t.ending, t.err = Failed, bug.error
	} else if t.ending == "" {
		t.ending = Refused
	}
	ending := t.ending
	t.mu.Unlock()
	t.answered = true
	if ending == Refused || ending == Failed {
		if reply := t.job.Exchange.Refusal(err); len(reply) > 0 {
			t.client.linger(reply)
		}
	}
	t.finish()
}

// brokenEnding is the ending when a side broke.
func brokenEnding(client bool) Ending {
	if client {
		return ClientReset
	}
	return UpstreamReset
}

// breakOff ends the tunnel because a side broke: the other one gets a reset too, but
// not before it has taken what was sent to it, within the time to linger.
func (t *pump) breakOff(e Ending, other *side) {
	t.setEnding(e)
	other.flush(lingerTimeout)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.over = true
	t.cancel()
	t.client.reset()
	t.peer.reset()
	t.wakeBoth()
}

// wakeBoth lets parked directions see that their sockets are closed.
func (t *pump) wakeBoth() {
	t.wake(upward)
	t.wake(downward)
}

// abort ends the tunnel from outside; true if it was not ending already.
func (t *pump) abort(e Ending) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending == "" {
		t.ending = e
	}
	if t.over {
		return false
	}
	t.over = true
	t.cancel()
	t.client.cut()
	t.peer.cut()
	t.wakeBoth()
	return true
}

func (t *pump) setEnding(e Ending) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending == "" {
		t.ending = e
	}
}

// finish closes what is open, reports, and forgets the tunnel. Called once, by
// whichever goroutine is last.
func (t *pump) finish() {
	if t.finishing.Swap(true) {
		return
	}
	t.mu.Lock()
	t.over = true
	t.cancel()
	t.client.close()
	t.peer.close()
	result := Result{
		Ending: t.ending, Err: t.err,
		Sent: t.sent.Load(), Received: t.received.Load(), Duration: t.engine.now() - t.start,
	}
	t.mu.Unlock()
	defer t.engine.remove(t)
	t.job.Exchange.Done(result)
}

// recovered ends a tunnel whose goroutine failed, and only that one: a bug in what
// it calls must not take the others along.
func (t *pump) recovered() {
	v := recover()
	if v == nil {
		return
	}
	err := panicError(v)
	t.mu.Lock()
	t.ending, t.err = Failed, err
	t.mu.Unlock()
	if !t.open.Load() && !t.answered {
		t.apologize(err)
	}
	t.abort(Failed)
	if !t.open.Load() || t.halves.Add(1) == 2 {
		t.finish()
	}
}

// apologize answers a customer whose tunnel failed before it was open.
func (t *pump) apologize(err error) {
	defer func() { _ = recover() }() // the first bug is the one to tell of
	if reply := t.job.Exchange.Refusal(err); len(reply) > 0 {
		t.client.linger(reply)
	}
}

// panicError says what panicked, and where.
func panicError(v any) error { return fmt.Errorf("tunnel: panic: %v\n%s", v, debug.Stack()) }

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// rawOf finds the TCP connection under c: c itself, or what TLS and wrappers that
// offer NetConn or Unwrap carry. nil if there is none.
func rawOf(c net.Conn) *net.TCPConn {
	for range 8 {
		switch v := c.(type) {
		case *net.TCPConn:
			return v
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		case interface{ Unwrap() net.Conn }:
			c = v.Unwrap()
		default:
			return nil
		}
	}
	return nil
}
