//go:build amd64 || arm64

package tunnel

import (
	"context"
	"time"
)

// closing is how the sockets of a tunnel are closed.
type closing int

const (
	quietly   closing = iota // all was said
	cutting                  // in the middle of things: with a reset where bytes were not sent yet, since an orderly end would make them look complete
	resetting                // with a reset
)

// userTimeout is the least that sent bytes wait to be acknowledged (TCP_USER_TIMEOUT). A
// peer that has closed its window may be as silent as a tunnel may be idle: the kernel
// counts that time too.
const userTimeout = 120 * time.Second

// settlePoll is how often a send queue is looked at that must empty before a reset.
const settlePoll = 2 * time.Millisecond

// end notes why the tunnel ends; the first reason stays.
func (t *tunnel) end(e Ending) {
	if t.ending == 0 {
		t.ending = codeOf(e)
	}
}

// endOfStream passes the end of direction d on.
func (r *reactor) endOfStream(t *tunnel, d int) {
	src, dst := &t.sides[d], &t.sides[1-d]
	src.set(ended)
	t.halves++
	switch {
	case dst.deaf != 0:
		// The source broke: the write towards it has seen the error, not this read.
		r.breakOff(t, brokenEnding(d == 0), 1-d)
		return
	case t.halves == 2:
		t.end(Closed)
		r.finish(t, quietly, nil)
		return
	case src.deaf != 0:
		return // nobody to tell
	}
	if sysShutdown(dst.fd) != 0 {
		r.deafen(t, d)
	}
}

// breakOff ends the tunnel because a side broke: the other one gets a reset too, but
// not before it has taken what was sent to it, within the time to linger.
func (r *reactor) breakOff(t *tunnel, e Ending, other int) {
	t.end(e)
	if sysUnsent(t.sides[other].fd) == 0 {
		r.finish(t, resetting, nil)
		return
	}
	t.phase = breaking
	t.deadline = r.now + int64(lingerTimeout)
	r.breaking = append(r.breaking, t.token(other))
}

// settleAt is when the queues of breaking tunnels are looked at next; 0 = never.
func (r *reactor) settleAt() int64 {
	if len(r.breaking) == 0 {
		return 0
	}
	return r.now + int64(settlePoll)
}

// settle ends the breaking tunnels whose queues have emptied.
func (r *reactor) settle() {
	kept := r.breaking[:0]
	for _, token := range r.breaking {
		t := r.slab.find(token)
		if t == nil || t.phase != breaking {
			continue
		}
		if sysUnsent(t.sides[token&1].fd) > 0 && r.now < t.deadline {
			kept = append(kept, token)
			continue
		}
		r.conclude(t, resetting, nil)
	}
	r.breaking = kept
}

// conclude finishes a tunnel outside of an event.
func (r *reactor) conclude(t *tunnel, how closing, err error) {
	defer r.rescue(t, t.generation)
	r.finish(t, how, err)
}

// finish closes a tunnel's sockets, reports, and forgets it.
func (r *reactor) finish(t *tunnel, how closing, err error) {
	for i := range t.sides {
		r.closeSide(t, i, how)
	}
	for d := range t.sides {
		if p := t.sides[d].pending; p != nil {
			r.pipes.drop(p)
		}
		r.unthrottle(t, d)
	}
	x := t.exchange
	result := Result{
		Ending: endingsByCode[t.ending], Err: err,
		Sent: t.sides[0].moved, Received: t.sides[1].moved, Duration: time.Duration(r.now - t.start),
	}
	r.dropSetup(t)
	r.vacate(t)
	defer r.engine.left()
	x.Done(result)
}

func (r *reactor) closeSide(t *tunnel, i int, how closing) {
	fd := t.sides[i].fd
	if fd < 0 {
		return
	}
	waits := t.sides[1-i].pending != nil // bytes for this side
	if how == resetting || how == cutting && (waits || sysUnsent(fd) > 0) {
		sysReset(fd)
		return
	}
	sysClose(fd)
}

// abort ends a connection from outside; it reports whether it was not ending already.
func (r *reactor) abort(t *tunnel, e Ending) bool {
	switch t.phase {
	case visiting:
		r.leave(t)
		return true
	case blocked:
		first := t.ending == 0
		t.end(e)
		if t.setup.cancel != nil {
			t.setup.cancel() // its Open will come back
			return first
		}
	case connecting, asking, replying:
		t.exchange.Failed(t.phase == connecting, context.Canceled)
	case lingering:
		r.over(t)
		return false
	case breaking:
		r.finish(t, resetting, nil)
		return false
	case carrying:
		t.end(e)
		r.finish(t, cutting, nil)
		return true
	}
	t.end(e)
	r.finish(t, cutting, context.Canceled)
	return true
}

// fail ends a connection after a bug or an error of the reactor's own. A customer who has
// not been answered yet is.
func (r *reactor) fail(t *tunnel, err error) {
	if t.exchange == nil {
		r.engine.trouble(err)
		r.leave(t)
		return
	}
	again := t.ending == codeOf(Failed)
	t.ending = codeOf(Failed)
	switch t.phase {
	case blocked, connecting, asking, replying:
		if t.phase == blocked && t.setup != nil && t.setup.cancel != nil {
			t.setup.cancel()
			return
		}
		if !again { // else the refusal is what panics
			r.apologize(t, err)
			return
		}
	}
	r.finish(t, cutting, err)
}

// apologize answers a customer whose tunnel failed before it was open.
func (r *reactor) apologize(t *tunnel, err error) {
	if t.sides[1].fd >= 0 {
		r.closePeer(t)
	}
	r.equip(t)
	t.phase = blocked
	t.setup.err = err
	r.setDeadline(t, 0)
	r.lastWord(t, t.exchange.Refusal(err))
}
