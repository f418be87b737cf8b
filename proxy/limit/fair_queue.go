package limit

import (
	"container/heap"
	"context"
	"strings"
	"time"
)

// looksAtOnce is of how many waiting keys the slots are counted anew before a slot is
// handed over. With more keys than that they have their turns: a key's connections may
// end without the queue being told.
const looksAtOnce = 16

// waiter is one who waits. Its fields but done are guarded by the Fair's mutex.
type waiter struct {
	line       *line // nil once he does not wait any more
	prev, next *waiter
	arrival    uint64
	done       chan struct{} // closed when he got a slot or lost his place
	got        bool          // a slot, which is his to give back
}

// line is the waiters of one key, in order.
type line struct {
	key         string
	load        load
	first, last *waiter
	waiting     int
	place       int // in the heap
}

// queue is all lines, and a heap of them: the one to be served next on top.
type queue struct {
	byKey    map[string]*line
	heap     []*line
	waiting  int
	arrivals uint64
	looked   int // where in the heap to count next
}

func newQueue() queue { return queue{byKey: make(map[string]*line)} }

// Len implements heap.Interface.
func (q *queue) Len() int { return len(q.heap) }

// Less implements heap.Interface: the lightest first, and of two that weigh the same the
// one whose first has waited longer.
func (q *queue) Less(i, j int) bool {
	a, b := q.heap[i], q.heap[j]
	if a.load.lighter(b.load) || b.load.lighter(a.load) {
		return a.load.lighter(b.load)
	}
	return a.first.arrival < b.first.arrival
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) {
	q.heap[i], q.heap[j] = q.heap[j], q.heap[i]
	q.heap[i].place, q.heap[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	l := x.(*line)
	l.place = len(q.heap)
	q.heap = append(q.heap, l)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(q.heap) - 1
	l := q.heap[last]
	q.heap[last] = nil
	q.heap = q.heap[:last]
	return l
}

// reload gives a line another load.
func (q *queue) reload(ln *line, l load) {
	if l != ln.load {
		ln.load = l
		heap.Fix(q, ln.place)
	}
}

// add makes a waiter of key, whose load is l, which its line has if there is one.
func (q *queue) add(key string, l load) *waiter {
	q.arrivals++
	w := &waiter{arrival: q.arrivals, done: make(chan struct{})}
	ln := q.byKey[key]
	if ln == nil {
		ln = &line{key: strings.Clone(key), load: l, first: w, last: w}
		q.byKey[ln.key] = ln
		heap.Push(q, ln)
	} else {
		w.prev, ln.last.next = ln.last, w
		ln.last = w
	}
	w.line = ln
	ln.waiting++
	q.waiting++
	return w
}

// remove ends the wait of w, wherever in his line he stands.
func (q *queue) remove(w *waiter) {
	ln := w.line
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		ln.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		ln.last = w.prev
	}
	w.line, w.prev, w.next = nil, nil, nil
	ln.waiting--
	q.waiting--
	if ln.waiting > 0 {
		heap.Fix(q, ln.place)
		return
	}
	heap.Remove(q, ln.place)
	delete(q.byKey, ln.key)
}

// look counts the slots of some lines anew.
func (q *queue) look(loadOf func(key string, weight, without int) load) {
	var some [looksAtOnce]*line
	n := min(len(q.heap), looksAtOnce)
	for i := range n {
		q.looked = (q.looked + 1) % len(q.heap)
		some[i] = q.heap[q.looked]
	}
	for _, ln := range some[:n] {
		q.reload(ln, loadOf(ln.key, ln.load.weight, ln.waiting))
	}
}

// longest returns the line with the most waiters for its weight.
func (q *queue) longest() *line {
	var longest *line
	for _, ln := range q.heap {
		if longest == nil || longest.places().lighter(ln.places()) {
			longest = ln
		}
	}
	return longest
}

// places is what the line has of the queue.
func (ln *line) places() load { return load{ln.waiting, ln.load.weight} }

// enqueue makes a waiter of key, who may have his slot already; nil if the queue has no
// place for him.
func (f *Fair) enqueue(key string, weight int) *waiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	before := 0
	ln := f.queue.byKey[key]
	if ln != nil {
		before = ln.waiting
	}
	l := f.loadOf(key, weight, before+1)
	if ln != nil {
		f.queue.reload(ln, l)
	}
	if f.queue.waiting >= f.config.Queue && !f.displaceLocked(load{before + 1, weight}, now) {
		f.claims.refused(key, l, now)
		f.noteLocked()
		return nil
	}
	w := f.queue.add(key, l)
	f.noteLocked() // before the look for a slot: see Release
	f.serveLocked(now)
	f.noteLocked()
	return w
}

// displaceLocked takes the place in the queue from the last of the longest line, if that
// is longer than the newcomer's would be.
func (f *Fair) displaceLocked(newcomer load, now time.Time) bool {
	ln := f.queue.longest()
	if !newcomer.lighter(ln.places()) {
		return false
	}
	w := ln.last
	f.claims.refused(ln.key, ln.load, now)
	f.queue.remove(w)
	close(w.done)
	return true
}

// serveLocked hands free slots over, one after the other.
func (f *Fair) serveLocked(now time.Time) {
	for f.queue.waiting > 0 {
		free := f.slots.free()
		if free <= 0 {
			return
		}
		f.queue.look(f.loadOf)
		ln := f.queue.heap[0]
		if f.claims.kept(ln.key, ln.load, free, now) >= free {
			f.recheckLocked(f.claims.earliest.Sub(now))
			return
		}
		if !f.slots.TryAcquire() {
			return
		}
		w := ln.first
		ln.load.slots++
		f.queue.remove(w)
		f.claims.served(ln.key, ln.load, now)
		w.got = true
		close(w.done)
	}
}

// recheckLocked makes handOver run after d, when a claim has run out. It runs in a
// goroutine of the timer's, for a moment, and only while somebody waits.
func (f *Fair) recheckLocked(d time.Duration) {
	if f.recheck == nil {
		f.recheck = time.AfterFunc(d, f.handOver)
		return
	}
	f.recheck.Reset(d)
}

// leave ends the wait of w and reports whether he goes with a slot.
func (f *Fair) leave(ctx context.Context, w *waiter) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	ended := ctx.Err() != nil
	switch {
	case w.line != nil:
		ln := w.line
		if !ended {
			f.claims.refused(ln.key, ln.load, now)
		}
		f.queue.remove(w)
	case w.got && ended: // he has given up: the next one's
		w.got = false
		f.slots.Release()
		f.serveLocked(now)
	}
	f.noteLocked()
	return w.got
}
