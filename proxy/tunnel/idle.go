package tunnel

import "time"

// checkIdle ends the tunnel if its time is up. Bytes that only the kernel moves, out
// of a full send buffer, count as bytes.
func (t *pump) checkIdle(now time.Duration) bool {
	if !t.open.Load() {
		return false // Open and the greeting have deadlines of their own
	}
	if t.onlyDeaf(now) {
		if t.queuesMoved(now) {
			t.last.Store(int64(now))
			return false
		}
		return t.abort(Closed)
	}
	o := t.engine.options
	idle := now - time.Duration(t.last.Load())
	ending := Ending("")
	switch {
	case o.IdleTimeout > 0 && idle > o.IdleTimeout:
		ending = IdleTimeout
	case o.HalfOpenTimeout > 0 && t.halves.Load() > 0 && idle > o.HalfOpenTimeout:
		ending = HalfOpen
	default:
		return false
	}
	if t.queuesMoved(now) {
		t.last.Store(int64(now))
		return false
	}
	return t.abort(ending)
}

// onlyDeaf reports whether one direction has ended and the other has dropped what
// it read for the time to linger.
func (t *pump) onlyDeaf(now time.Duration) bool {
	for d := range t.directions {
		half, other := &t.directions[d], &t.directions[1-d]
		if half.deaf() && !half.ended.Load() && other.ended.Load() &&
			now-time.Duration(half.deafSince.Load()) > lingerTimeout {
			return true
		}
	}
	return false
}

// queuesMoved reports whether the kernel sends bytes of either side's: whether a send
// queue has changed since it was looked at last, if nothing else has happened since.
// A first look at bytes that wait gives them the same time again. Only the sweep asks.
func (t *pump) queuesMoved(now time.Duration) bool {
	queued := [2]int{t.client.unsent(), t.peer.unsent()}
	again := t.looked != 0 && t.looked == t.last.Load()
	same := queued == t.queued
	t.queued, t.looked = queued, int64(now)
	return queued[0]+queued[1] > 0 && !(again && same)
}
