//go:build amd64 || arm64

package tunnel

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spliceAfter full reads in a row a direction is spliced: below that the two calls
	// and the pipe cost more than the copy that they save.
	spliceAfter = 4
	// spliceWorth is the least that a splice should move.
	spliceWorth = 16 << 10
	// spliceTries is how many splices in a row may move less than they should before a
	// direction is copied again.
	spliceTries = 60
	// fastAfter so many bytes a direction is known to be fast, since no receive buffer
	// that has not been read from holds as much. Until then its source's receive buffer
	// is kept at slowBuffer, and its destination's send queue short: a reader that stalls
	// must not cost what the kernel would grant a fast one. After it the kernel's tuning
	// has its way, pipes are filled and turns are long: whoever wakes a reader up for
	// little pays more for the waking than for the bytes.
	fastAfter  = 2 << 20
	slowBuffer = 256 << 10
	fastQueue  = 4 << 20 // TCP_NOTSENT_LOWAT; no more than a send buffer holds
	fastTurn   = 4 << 20 // instead of turnBytes
)

// carry moves what can be moved, both ways.
func (r *reactor) carry(t *tunnel) {
	for d := range t.sides {
		if !t.sides[d].is(turning) {
			r.turn(t, d)
		}
		if t.phase != carrying {
			return
		}
	}
}

// takeTurns goes on with the directions, and visitors, that had used up their turn.
func (r *reactor) takeTurns() {
	n := len(r.ready)
	for i := range n {
		token := r.ready[i]
		if t := r.slab.find(token); t != nil {
			r.takeTurn(t, int(token&1))
		}
	}
	r.ready = append(r.ready[:0], r.ready[n:]...)
}

func (r *reactor) takeTurn(t *tunnel, d int) {
	defer r.rescue(t, t.generation)
	t.sides[d].clear(turning)
	if !t.sides[d].is(throttled) {
		t.uncount(d)
	}
	switch t.phase {
	case carrying:
		r.turn(t, d)
	case visiting:
		r.visit(t)
	}
}

// turn moves bytes of direction d, and lines it up again if it could move more.
func (r *reactor) turn(t *tunnel, d int) {
	if r.move(t, d) {
		r.lineUp(t, d)
	}
}

// lineUp has side d of t served again after the others, once.
func (r *reactor) lineUp(t *tunnel, d int) {
	if !t.sides[d].is(turning) {
		t.sides[d].set(turning)
		t.count(d)
		r.ready = append(r.ready, t.token(d))
	}
}

// move moves bytes of direction d until the source is dry, the destination full, or the
// turn is over, which it reports.
func (r *reactor) move(t *tunnel, d int) bool {
	src := &t.sides[d]
	budget := turnBytes
	if src.is(fast) {
		budget = fastTurn
	}
	for budget > 0 && t.phase == carrying {
		if src.is(ended) || src.pending != nil && !r.flush(t, d) {
			return false
		}
		if t.phase != carrying {
			return false
		}
		if src.is(finished) {
			r.endOfStream(t, d)
			return false
		}
		if !src.is(readable) || src.is(throttled) || !t.sides[1-d].is(writable) && src.deaf == 0 {
			return false
		}
		limit := budget
		if t.shared != nil {
			limit = min(limit, t.shared.quantum(d))
		}
		n := 0
		if src.full >= spliceAfter && src.deaf == 0 && !src.is(urgent) {
			n = r.splice(t, d, limit)
		}
		if n == 0 {
			n = r.copy(t, d, limit)
		}
		if n <= 0 {
			if t.phase != carrying || !src.is(finished) {
				return false
			}
			continue
		}
		budget -= n
		if t.phase == carrying && t.shared != nil && r.owe(t, d, n) {
			return !src.is(throttled)
		}
	}
	return t.phase == carrying
}

// copy reads once and writes it; -1 if there was nothing, or no more.
func (r *reactor) copy(t *tunnel, d, limit int) int {
	src, dst := &t.sides[d], &t.sides[1-d]
	size := min(limit, bufferSize)
	n, errno := sysRead(src.fd, r.buffer[:size])
	switch {
	case errno == errAgain:
		src.clear(readable)
		return -1
	case errno != 0:
		r.breakOff(t, brokenEnding(d == 0), 1-d)
		return -1
	case n == 0:
		src.set(finished)
		return -1
	}
	if src.deaf == 0 { // bytes that nobody takes keep no tunnel
		t.last = r.now
	}
	if n < size {
		src.full = 0
		if !src.is(unsure) {
			src.clear(readable)
		}
	} else if n == bufferSize && src.full < spliceAfter {
		if src.full++; src.is(fast) {
			src.full = spliceAfter // it was spliced before, or is held up by others
		}
		r.hold(src)
	}
	if src.deaf != 0 {
		return n // nobody takes it: dropped
	}
	sent, errno := sysSend(dst.fd, r.buffer[:n])
	if errno != 0 && errno != errAgain {
		r.deafen(t, d)
		return n
	}
	if sent < n {
		dst.clear(writable)
		src.pending = pend(r.buffer[sent:n])
	}
	r.book(t, d, sent)
	r.quicken(src, dst)
	return n
}

// hold keeps a source's receive buffer from growing until its direction has shown that
// it is fast. Those who send little are never asked for the call.
func (r *reactor) hold(src *socket) {
	if !src.is(held|fast) && r.engine.reactors.unlocks {
		src.set(held)
		_ = sysSetInt(src.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, slowBuffer/2) // the kernel doubles it
	}
}

// quicken gives a direction that has shown to be fast what that deserves, also where it
// is not spliced: over a long way a held buffer never has the full reads for that, and
// its window would bound the speed for ever.
func (r *reactor) quicken(src, dst *socket) {
	if src.is(fast) || src.moved < fastAfter {
		return
	}
	src.set(fast)
	if src.is(held) {
		src.clear(held)
		_ = sysSetInt(src.fd, unix.SOL_SOCKET, soBufLock, 0)
	}
	_ = sysSetInt(dst.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, fastQueue)
}

// splice moves bytes without copying them; 0 if that is not possible now, -1 if there
// was nothing, or no more.
func (r *reactor) splice(t *tunnel, d, limit int) int {
	p := r.pipes.get()
	if p == nil {
		return 0
	}
	src, dst := &t.sides[d], &t.sides[1-d]
	limit = min(limit, p.size)
	if !src.is(fast) {
		limit = min(limit, bufferSize)
	}
	n, errno := sysSplice(src.fd, p.write, limit)
	if errno != 0 || n == 0 {
		r.pipes.put(p)
		return r.unspliced(t, d, errno)
	}
	t.last = r.now
	if n < spliceWorth {
		src.full--
	} else {
		src.full = spliceAfter + spliceTries
	}
	r.quicken(src, dst)
	sent, errno := drain(p, dst.fd, n)
	broken := sent < n && errno != errAgain
	switch {
	case sent == n:
		r.pipes.put(p)
	case broken:
		r.pipes.destroy(p)
	default:
		dst.clear(writable)
		w := pendings.Get().(*pending)
		w.pipe, w.left = p, n-sent
		src.pending = w
	}
	r.book(t, d, sent)
	if broken {
		r.deafen(t, d)
	}
	return n
}

// unspliced acts on a splice that moved nothing; its result is splice's.
func (r *reactor) unspliced(t *tunnel, d int, errno syscall.Errno) int {
	src := &t.sides[d]
	switch errno {
	case errAgain:
		src.clear(readable)
		return -1
	case 0, unix.EINVAL, unix.ENOMEM, unix.ENOSYS, unix.EOPNOTSUPP:
		// The end, or the mark of urgent data; or no splicing here. The copy sees what it is.
		src.full = 0
		return 0
	default: // the socket's own, which it tells only once
		r.breakOff(t, brokenEnding(d == 0), 1-d)
		return -1
	}
}

// flush writes what waits in direction d; false if the destination did not take all.
func (r *reactor) flush(t *tunnel, d int) bool {
	src, dst := &t.sides[d], &t.sides[1-d]
	p := src.pending
	for p.left > 0 || len(p.rest) > 0 {
		if !dst.is(writable) {
			return false
		}
		n, errno := 0, errAgain
		if p.pipe != nil {
			n, errno = drain(p.pipe, dst.fd, p.left)
			p.left -= n
		} else {
			n, errno = sysSend(dst.fd, p.rest)
			p.rest = p.rest[n:]
		}
		if n > 0 {
			t.last = r.now
			silent := min(p.silent, n)
			p.silent -= silent
			r.book(t, d, n-silent)
		}
		switch {
		case errno == errAgain:
			dst.clear(writable)
		case errno != 0:
			r.deafen(t, d)
			return true
		}
	}
	src.pending = nil
	r.pipes.drop(p)
	return true
}

// book counts bytes that the destination of direction d has taken.
func (r *reactor) book(t *tunnel, d, n int) {
	if n > 0 {
		t.sides[d].moved += int64(n)
		t.exchange.Moved(d == 0, n)
	}
}

// deafen notes that the destination of direction d takes nothing any more. What comes
// is dropped: the other direction may still have something to say (an early answer to
// an upload), and closing a socket with bytes unread would destroy what was sent on it.
func (r *reactor) deafen(t *tunnel, d int) {
	t.end(brokenEnding(d != 0))
	src := &t.sides[d]
	src.deaf = tenthsOf(r.now)
	if p := src.pending; p != nil {
		src.pending = nil
		r.pipes.drop(p)
	}
	if d == downward && t.sides[0].is(ended) {
		r.breakOff(t, ClientReset, 1) // nobody downloads for a customer who has said all and is gone
	}
}

// owe books a move on the shared bandwidth, and holds the direction up until it is
// paid off. It reports whether its turn is over: it is held up, or others want theirs.
func (r *reactor) owe(t *tunnel, d, n int) bool {
	now := r.engine.now() // the reactor's clock may be a turn old
	wait, place := t.shared.take(d, n, r.engine.epoch.Add(now))
	if wait == 0 {
		return t.shared.others(d) > 0
	}
	t.sides[d].set(throttled)
	t.count(d)
	r.debts.add(debt{at: int64(now + min(wait, lookAgain)), token: t.token(d), place: place})
	r.debts.tidy(2*r.slab.live, r.waitsForShare)
	return true
}

// payOff lets the directions go on whose debts are paid off.
func (r *reactor) payOff() {
	for {
		due, ok := r.debts.due(r.now)
		if !ok {
			return
		}
		t := r.slab.find(due.token)
		d := int(due.token & 1)
		if t == nil || !t.sides[d].is(throttled) {
			continue
		}
		r.pace(t)
		if left := t.shared.left(d, due.place, r.engine.epoch.Add(time.Duration(r.now))); left >= worthWaiting {
			due.at = r.now + int64(min(left, lookAgain))
			r.debts.add(due)
			continue
		}
		r.unthrottle(t, d)
		if t.sides[d].deaf == 0 {
			t.last = r.now // held up by us, not idle
		}
		r.takeTurn(t, d)
	}
}

// waitsForShare reports whether a token's side still waits for its share.
func (r *reactor) waitsForShare(token uint64) bool {
	t := r.slab.find(token)
	return t != nil && t.sides[token&1].is(throttled)
}

// unthrottle lets side d move again.
func (r *reactor) unthrottle(t *tunnel, d int) {
	t.sides[d].clear(throttled)
	t.uncount(d)
}

// count has the others of the account know that side d wants to move bytes.
func (t *tunnel) count(d int) {
	if t.shared != nil && !t.sides[d].is(counted) {
		t.sides[d].set(counted)
		t.shared.ways[d].waiting.Add(1)
	}
}

func (t *tunnel) uncount(d int) {
	if t.sides[d].is(counted) {
		t.sides[d].clear(counted)
		t.shared.ways[d].waiting.Add(-1)
	}
}

// pace has the kernel smooth a tunnel that may not be faster than its bandwidth.
func (r *reactor) pace(t *tunnel) {
	if t.shared == nil {
		return
	}
	version := t.shared.version.Load()
	if t.version == version {
		return
	}
	t.version = version
	for d := range t.sides {
		t.shared.pace(t.sides[d].fd, 1-d)
	}
}
