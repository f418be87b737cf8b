package tunnel

import "time"

// checkIdle ends the tunnel if its time is up. Bytes that only the kernel moves, out
// of a full send buffer, count as bytes.
func (t *tunnel) checkIdle(now time.Duration) bool {
	if !t.open.Load() {
		return false // Open and the greeting have deadlines of their own
	}
	if t.onlyDeaf(now) {
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
	if t.queuesMoved() {
		t.last.Store(int64(now))
		return false
	}
	return t.abort(ending)
}

// onlyDeaf reports whether one direction has ended and the other has dropped what
// it read for the time to linger.
func (t *tunnel) onlyDeaf(now time.Duration) bool {
	for d := range t.directions {
		half, other := &t.directions[d], &t.directions[1-d]
		if half.deaf() && !half.ended.Load() && other.ended.Load() &&
			now-time.Duration(half.deafSince.Load()) > lingerTimeout {
			return true
		}
	}
	return false
}

// queuesMoved reports whether the kernel has sent bytes of either side's since it
// was asked last. Only the sweep asks.
func (t *tunnel) queuesMoved() bool {
	client, peer := t.client.unsent(), t.peer.unsent()
	moved := client != t.queued[0] && t.queued[0] != 0 || peer != t.queued[1] && t.queued[1] != 0
	first := t.queued == [2]int{} && client+peer > 0
	t.queued = [2]int{client, peer}
	return moved || first
}
