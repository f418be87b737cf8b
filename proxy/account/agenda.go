package account

import (
	"container/heap"
	"sync"
	"time"
)

// appointment is the time at which something is to be looked at. It belongs to one
// agenda, whose lock guards it.
type appointment[T any] struct {
	of *T
	at time.Time
	// place is where it stands in the agenda, from 1; 0 = it does not.
	place int
}

// agenda holds appointments, the first one first, each at most once. Safe for
// concurrent use; it takes no other lock.
type agenda[T any] struct {
	mu    sync.Mutex // guards what follows
	queue appointments[T]
}

// set makes the appointment, or moves it.
func (a *agenda[T]) set(p *appointment[T], at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.at = at
	if p.place == 0 {
		heap.Push(&a.queue, p)
		return
	}
	heap.Fix(&a.queue, p.place-1)
}

// cancel takes the appointment out, if it is in.
func (a *agenda[T]) cancel(p *appointment[T]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.place > 0 {
		heap.Remove(&a.queue, p.place-1)
	}
}

// due takes the first appointment out if its time has come, and returns whose it is;
// nil = none.
func (a *agenda[T]) due(now time.Time) *T {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 || a.queue[0].at.After(now) {
		return nil
	}
	return heap.Pop(&a.queue).(*appointment[T]).of
}

// appointments implements [heap.Interface].
type appointments[T any] []*appointment[T]

func (q appointments[T]) Len() int           { return len(q) }
func (q appointments[T]) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

func (q appointments[T]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

// Push is called by package heap.
func (q *appointments[T]) Push(x any) {
	p := x.(*appointment[T])
	*q = append(*q, p)
	p.place = len(*q)
}

// Pop is called by package heap.
func (q *appointments[T]) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	p.place = 0
	return p
}
