package account

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
)

const (
	// maxWaiting is how many questions wait for a worker.
	maxWaiting = 256
	// maxOfClient is how many questions are one client's, waiting or at work, so that
	// whoever guesses leaves places, and a short queue, to the others.
	maxOfClient = maxWaiting / 4
)

// flightKey identifies a question. A Store's reload makes a new question of it; a hook's
// have no snapshot.
type flightKey struct {
	snap *snapshot
	d    digest
}

// flight is a question under way. Its askers wait for one of two things: its end, or
// their turn to do the work for all of them.
type flight[T any] struct {
	key    flightKey
	client netip.Prefix // who asked first; invalid = nobody's
	turn   chan struct{}
	done   chan struct{}
	// answer and err are read once done is closed.
	answer T
	err    error

	// Guarded by flights.mu:
	askers int
	aloft  bool // a worker is its own
	over   bool // done is closed
}

// flights asks each question once at a time, a bounded number of them together,
// with a bounded number waiting. The work is done in the callers' goroutines.
//
// In a flood of guesses the queue is always full, and a queue that turned newcomers away
// would let nobody in. So a newcomer takes the place of a question that has one asker, and
// questions with many go first every other time: a customer's programs start many
// connections at once and ask the same, while a guess that is to count as much must be
// sent as often. Nothing here knows whose question is a good one, so a name that exists
// waits like one that does not.
type flights[T any] struct {
	mu      sync.Mutex // guards what follows
	free    int        // workers
	open    map[flightKey]*flight[T]
	waiting []*flight[T]         // those of open without a worker, the oldest first
	clients map[netip.Prefix]int // flights of each; no zeros
	byAge   bool                 // the next worker takes the oldest
}

func newFlights[T any](workers int) *flights[T] {
	return &flights[T]{free: workers, open: make(map[flightKey]*flight[T]), clients: make(map[netip.Prefix]int)}
}

// do returns the answer of work, or that of another call with the same key which
// is under way. work reports whether it has one: what it was kept from, because ctx
// ended, another call takes up. Errors wrap ErrBusy.
func (fs *flights[T]) do(ctx context.Context, key flightKey, work func() (T, bool)) (answer T, err error) {
	if ctx.Err() != nil {
		return answer, busy(ctx)
	}
	f := fs.join(key, networkOf(clientOf(ctx)))
	if f == nil {
		return answer, ErrBusy
	}
	select {
	case <-f.done:
		return f.answer, f.err
	case <-f.turn:
		return fs.fly(ctx, f, work)
	case <-ctx.Done():
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.leaveLocked(f, false)
		return answer, busy(ctx)
	}
}

// fly works for all who ask f, and lands or passes the turn on, whatever happens.
func (fs *flights[T]) fly(ctx context.Context, f *flight[T], work func() (T, bool)) (answer T, err error) {
	answered := false
	defer func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if !answered {
			fs.leaveLocked(f, true)
			return
		}
		f.answer = answer
		fs.endLocked(f)
	}()
	if ctx.Err() == nil {
		answer, answered = work()
	}
	if !answered {
		return answer, busy(ctx)
	}
	return answer, nil
}

// join makes the caller an asker of the flight of key, which it begins if there is none.
// It returns nil if there is no place for it.
func (fs *flights[T]) join(key flightKey, client netip.Prefix) *flight[T] {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.open[key]; f != nil {
		f.askers++
		return f
	}
	if !fs.makeRoomLocked(client) {
		return nil
	}
	f := &flight[T]{key: key, client: client, askers: 1, turn: make(chan struct{}, 1), done: make(chan struct{})}
	fs.open[key] = f
	if client.IsValid() {
		fs.clients[client]++
	}
	if fs.free > 0 { // then nobody waits
		fs.free--
		fs.startLocked(f)
	} else {
		fs.waiting = append(fs.waiting, f)
	}
	return f
}

// makeRoomLocked reports whether there is a place for one more flight of a client; if
// there was none, another flight has lost its own.
func (fs *flights[T]) makeRoomLocked(client netip.Prefix) bool {
	fullClient := fs.clients[client] >= maxOfClient
	if !fullClient && len(fs.waiting) < maxWaiting {
		return true
	}
	loser := fs.loserLocked(func(f *flight[T]) bool { return f.askers == 1 && (!fullClient || f.client == client) })
	if loser == nil {
		return false
	}
	loser.err = ErrBusy
	fs.endLocked(loser)
	return true
}

// loserLocked returns one of those waiting that may lose their place, nil if none may.
// Which one is left to chance: a rule would tell guessers how to stay.
func (fs *flights[T]) loserLocked(mayLose func(*flight[T]) bool) *flight[T] {
	several := 0
	for _, f := range fs.waiting {
		if mayLose(f) {
			several++
		}
	}
	if several == 0 {
		return nil
	}
	skip := rand.IntN(several)
	for _, f := range fs.waiting {
		if !mayLose(f) {
			continue
		}
		if skip == 0 {
			return f
		}
		skip--
	}
	return nil
}

// leaveLocked takes away an asker of f. With the turn, it passes that on; the last one
// takes the flight with him.
func (fs *flights[T]) leaveLocked(f *flight[T], hadTurn bool) {
	f.askers--
	switch {
	case f.over:
	case f.askers == 0:
		fs.endLocked(f)
	case hadTurn:
		f.turn <- struct{}{} // has room: there is one turn, and this was it
	}
}

// endLocked ends f, and gives its worker to the next.
func (fs *flights[T]) endLocked(f *flight[T]) {
	f.over = true
	close(f.done)
	delete(fs.open, f.key)
	if f.client.IsValid() {
		if fs.clients[f.client]--; fs.clients[f.client] == 0 {
			delete(fs.clients, f.client)
		}
	}
	if !f.aloft {
		i := slices.Index(fs.waiting, f)
		fs.waiting = slices.Delete(fs.waiting, i, i+1)
		return
	}
	if len(fs.waiting) == 0 {
		fs.free++
		return
	}
	i := fs.nextLocked()
	next := fs.waiting[i]
	fs.waiting = slices.Delete(fs.waiting, i, i+1)
	fs.startLocked(next)
}

// nextLocked returns which of those waiting is next: in turns the one with the most askers,
// the oldest of several, and the oldest of all, so that neither kind waits for ever.
func (fs *flights[T]) nextLocked() (next int) {
	fs.byAge = !fs.byAge
	if !fs.byAge {
		return 0
	}
	for i, f := range fs.waiting {
		if f.askers > fs.waiting[next].askers {
			next = i
		}
	}
	return next
}

// startLocked gives one of those who ask f the turn to work. Should they all be gone
// before one takes it, the last of them ends the flight.
func (fs *flights[T]) startLocked(f *flight[T]) {
	f.aloft = true
	f.turn <- struct{}{}
}

func busy(ctx context.Context) error { return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx)) }
