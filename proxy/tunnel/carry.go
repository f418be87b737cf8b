package tunnel

import (
	"errors"
	"sync/atomic"
	"time"
)

// The directions of a tunnel.
const (
	upward   = 0 // the customer's bytes
	downward = 1 // the upstream's bytes
)

// The states of a direction.
const (
	running int32 = iota // a goroutine carries it
	parked               // nobody does: the lot, or abort, wakes it
)

// direction is one half of a tunnel.
type direction struct {
	reader    reader
	state     atomic.Int32
	deafSince atomic.Int64 // engine clock, ns, from when the destination takes nothing any more; 0 = it does
	ended     atomic.Bool
	shut      atomic.Bool // the destination has been, or is being, half-closed
}

// deaf reports whether the destination takes nothing any more.
func (h *direction) deaf() bool { return h.deafSince.Load() != 0 }

// carry moves bytes of one direction until there are none for the moment, and then
// parks it, or until the source ends or either side breaks.
func (t *pump) carry(d int, woken bool) {
	defer t.recovered()
	half := &t.directions[d]
	for {
		data, err := half.reader.next(woken, t.quantum(d))
		woken = false
		switch {
		case len(data) > 0:
			t.deliver(d, data)
			half.reader.done()
			t.pay(d, len(data))
			continue
		case errors.Is(err, errWait):
			half.reader.done()
			if t.park(d) {
				return
			}
			woken = true
			continue
		default:
			half.reader.done()
			t.endOfStream(d, err)
		}
		break
	}
	half.ended.Store(true)
	if t.halves.Add(1) == 2 {
		t.setEnding(Closed)
		t.finish()
	}
}

// ends are the source and the destination of a direction.
func (t *pump) ends(d int) (src, dst *side) {
	if d == upward {
		return &t.client, &t.peer
	}
	return &t.peer, &t.client
}

// deliver writes a direction's bytes. If the destination does not take them any
// more, they and all that follow are dropped: the other direction may still have
// something to say (an early answer to an upload), and closing a socket with bytes
// unread would destroy what was sent on it.
func (t *pump) deliver(d int, data []byte) {
	half := &t.directions[d]
	if half.deaf() {
		return // bytes that nobody takes keep no tunnel
	}
	t.last.Store(int64(t.engine.now()))
	_, dst := t.ends(d)
	n, err := dst.conn.Write(data)
	t.last.Store(int64(t.engine.now()))
	if d == upward {
		t.sent.Add(int64(n))
	} else {
		t.received.Add(int64(n))
	}
	t.moved(d == upward, n)
	if err != nil {
		t.setEnding(brokenEnding(d != upward))
		half.deafSince.Store(max(1, int64(t.engine.now())))
		if d == downward && t.directions[upward].shut.Load() {
			t.breakOff(ClientReset, &t.peer) // nobody downloads for a customer who has said all and is gone
		}
	}
}

// endOfStream passes the end of a direction's source on: an orderly one as such, a
// broken one as a reset, as it would be without a relay between them.
func (t *pump) endOfStream(d int, err error) {
	src, dst := t.ends(d)
	other := &t.directions[1-d]
	switch {
	case !isEOF(err) && !src.ended.Load():
		t.breakOff(brokenEnding(d == upward), dst)
	case src.gone() && !other.shut.Load():
		// A socket whose FIN was not sent is gone by a reset only. The write of the other
		// direction has seen it, or will: a socket tells it once, and ends from then on.
		t.breakOff(brokenEnding(d == upward), dst)
	case other.deaf():
		// The source broke: the write towards it has seen the error, not this read.
		t.breakOff(brokenEnding(d == upward), dst)
	case t.directions[d].deaf():
		// Nobody to tell.
	case t.shut(d, dst) != nil:
		t.directions[d].deafSince.Store(max(1, int64(t.engine.now())))
	}
}

// shut half-closes the destination of direction d.
func (t *pump) shut(d int, dst *side) error {
	t.directions[d].shut.Store(true) // before: the other direction looks at the socket first
	return dst.closeWrite()
}

// park leaves a direction to the lot until its source is readable; its goroutine
// ends. False if it must go on: it could not be parked and has waited itself, or
// the tunnel is ending.
func (t *pump) park(d int) bool {
	half := &t.directions[d]
	half.state.Store(parked)
	armed := t.engine.lots.arm(t, d)
	if armed && !t.isOver() {
		return true
	}
	if !half.state.CompareAndSwap(parked, running) {
		return true // woken already, by another goroutine
	}
	if !armed {
		half.reader.wait()
	}
	return false
}

// wake makes a parked direction go on in a goroutine of its own.
func (t *pump) wake(d int) {
	if t.open.Load() && t.directions[d].state.CompareAndSwap(parked, running) {
		go t.carry(d, true)
	}
}

func (t *pump) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// quantum is the most that a direction may read at once.
func (t *pump) quantum(d int) int {
	if t.shared == nil {
		return bufferSize
	}
	return min(t.shared.quantum(d), bufferSize)
}

// pay waits until the direction's debt to the shared bandwidth is paid off, or the
// tunnel is ending.
func (t *pump) pay(d, n int) {
	if t.shared == nil || n == 0 {
		return
	}
	owed, place := t.shared.take(d, n, time.Now())
	if owed == 0 {
		return
	}
	t.shared.ways[d].waiting.Add(1)
	defer t.shared.ways[d].waiting.Add(-1)
	const look = 100 * time.Millisecond // a cut must not wait for a debt
	for ; owed >= worthWaiting && !t.isOver(); owed = t.shared.left(d, place, time.Now()) {
		time.Sleep(min(owed, look))
		if !t.directions[d].deaf() {
			t.last.Store(int64(t.engine.now())) // held up by us, not idle
		}
	}
}

// owe books bytes on the shared bandwidth for which later moves wait.
func (t *pump) owe(d, n int) {
	if t.shared != nil && n > 0 {
		t.shared.take(d, n, time.Now())
	}
}

func (t *pump) moved(sent bool, n int) {
	if n > 0 {
		t.job.Exchange.Moved(sent, n)
	}
}
