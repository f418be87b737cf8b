//go:build amd64 || arm64

package tunnel

import "time"

// sweep looks at what has no event: deadlines of set-ups when the nearest has come, and
// all tunnels once a tick.
func (r *reactor) sweep() {
	if r.nearest != 0 && r.now >= r.nearest && r.now >= r.swept+int64(sweepPause) {
		r.sweepYoung()
	}
	if r.now >= r.nextScan {
		r.nextScan = r.now + int64(r.engine.tick)
		r.scan()
		r.pipes.trim(keptPipes)
	}
}

// sweepYoung ends the phases whose time is over.
func (r *reactor) sweepYoung() {
	r.swept = r.now
	r.nearest = 0
	for i := 0; i < len(r.young); {
		t := r.slab.at(r.young[i])
		if t.deadline <= r.now {
			r.setupLate(t)
			if i < len(r.young) && r.young[i] == t.index && t.deadline <= r.now {
				r.setDeadline(t, 0) // whatever it is waiting for, it has no bound any more
			}
			continue // another one is in its place, or it has a new deadline
		}
		if r.nearest == 0 || t.deadline < r.nearest {
			r.nearest = t.deadline
		}
		i++
	}
	if r.nearest != 0 {
		r.nearest = max(r.nearest, r.now+int64(sweepPause))
	}
}

// scan looks at every open tunnel: idle ones end, old ones get their options.
func (r *reactor) scan() {
	left := seasonAtOnce
	r.slab.each(func(t *tunnel) {
		if t.phase != carrying {
			return
		}
		if !t.seasoned && left > 0 && r.now-t.start > int64(seasonAfter) {
			t.seasoned = true
			left--
			season(t.sides[1].fd, max(userTimeout, r.engine.options.IdleTimeout))
		}
		r.pace(t)
		r.checkIdle(t)
	})
}

// checkIdle ends the tunnel if its time is up. Bytes that only the kernel moves, out
// of a full send buffer, count as bytes.
func (r *reactor) checkIdle(t *tunnel) {
	defer r.rescue(t, t.generation)
	if t.onlyDeaf(r.now) {
		if t.queuesMoved(r.now) {
			t.last = r.now
			return
		}
		t.end(Closed)
		r.finish(t, cutting, nil)
		return
	}
	o := &r.engine.options
	idle := time.Duration(r.now - t.last)
	ending := Ending("")
	switch {
	case o.IdleTimeout > 0 && idle > o.IdleTimeout:
		ending = IdleTimeout
	case o.HalfOpenTimeout > 0 && t.halves > 0 && idle > o.HalfOpenTimeout:
		ending = HalfOpen
	default:
		return
	}
	if t.sides[0].is(throttled) || t.sides[1].is(throttled) || t.queuesMoved(r.now) {
		t.last = r.now
		return
	}
	r.abort(t, ending)
}

// onlyDeaf reports whether one direction has ended and the other has dropped what it
// read for the time to linger.
func (t *tunnel) onlyDeaf(now int64) bool {
	for d := range t.sides {
		s := &t.sides[d]
		if s.deaf != 0 && !s.is(ended) && t.sides[1-d].is(ended) && s.deaf.since(now) > lingerTimeout {
			return true
		}
	}
	return false
}

// queuesMoved reports whether the kernel sends bytes of either side's: whether a send
// queue has changed since it was looked at last, if nothing else has happened since.
// A first look at bytes that wait gives them the same time again.
func (t *tunnel) queuesMoved(now int64) bool {
	client, peer := int32(sysUnsent(t.sides[0].fd)), int32(sysUnsent(t.sides[1].fd))
	again := t.deadline != 0 && t.deadline == t.last
	same := client == t.sides[0].queued && peer == t.sides[1].queued
	t.sides[0].queued, t.sides[1].queued = client, peer
	t.deadline = now
	return client+peer > 0 && !(again && same)
}
