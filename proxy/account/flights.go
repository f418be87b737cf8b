package account

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
)

const (
	// maxWaiting is how many questions wait for a worker.
	maxWaiting = 256
	// maxOfClient is how many of them are one client's, so that whoever guesses
	// leaves places, and a short queue, to the others.
	maxOfClient = maxWaiting / 4
)

// flightKey identifies a question. A Store's reload makes a new question of it; a hook's
// have no snapshot.
type flightKey struct {
	snap *snapshot
	d    digest
}

// flight is the answer to a question, once done is closed.
type flight[T any] struct {
	client netip.Prefix // whose it is; invalid = nobody's
	done   chan struct{}
	answer T
	// abandoned reports that whoever asked gave up before it was answered.
	abandoned bool
}

// flights asks each question once at a time, a bounded number of them together,
// with a bounded number waiting. The work is done in the callers' goroutines.
type flights[T any] struct {
	workers chan struct{} // holds one element for each busy worker

	mu      sync.Mutex // guards what follows
	open    map[flightKey]*flight[T]
	clients map[netip.Prefix]int // flights of each; no zeros
}

func newFlights[T any](workers int) *flights[T] {
	return &flights[T]{
		workers: make(chan struct{}, workers), open: make(map[flightKey]*flight[T]), clients: make(map[netip.Prefix]int),
	}
}

// do returns the answer of work, or that of another call with the same key which
// is under way. work reports whether it has one: what it was kept from, because ctx
// ended, another call takes up. Errors wrap ErrBusy.
func (fs *flights[T]) do(ctx context.Context, key flightKey, work func() (T, bool)) (answer T, err error) {
	for {
		if ctx.Err() != nil {
			return answer, busy(ctx)
		}
		f, mine, err := fs.join(ctx, key)
		switch {
		case err != nil:
			return answer, err
		case mine:
			return fs.fly(ctx, key, f, work)
		}
		select {
		case <-f.done:
			if !f.abandoned {
				return f.answer, nil
			}
		case <-ctx.Done():
			return answer, busy(ctx)
		}
	}
}

// join returns the open flight of key, or a new one, which is the caller's to fly.
func (fs *flights[T]) join(ctx context.Context, key flightKey) (f *flight[T], mine bool, err error) {
	client := networkOf(clientOf(ctx))
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.open[key]; f != nil {
		return f, false, nil
	}
	if len(fs.open) >= cap(fs.workers)+maxWaiting || fs.clients[client] >= maxOfClient {
		return nil, false, ErrBusy
	}
	f = &flight[T]{client: client, done: make(chan struct{}), abandoned: true}
	fs.open[key] = f
	if client.IsValid() {
		fs.clients[client]++
	}
	return f, true, nil
}

// fly waits for a worker, works and lands, whatever happens.
func (fs *flights[T]) fly(ctx context.Context, key flightKey, f *flight[T], work func() (T, bool)) (answer T, err error) {
	defer fs.land(key, f)
	select {
	case fs.workers <- struct{}{}:
	case <-ctx.Done():
		return answer, busy(ctx)
	}
	defer func() { <-fs.workers }()
	answer, answered := work()
	if !answered {
		return answer, busy(ctx)
	}
	f.answer = answer
	f.abandoned = false
	return answer, nil
}

func (fs *flights[T]) land(key flightKey, f *flight[T]) {
	fs.mu.Lock()
	delete(fs.open, key)
	if f.client.IsValid() {
		if fs.clients[f.client]--; fs.clients[f.client] == 0 {
			delete(fs.clients, f.client)
		}
	}
	fs.mu.Unlock()
	close(f.done)
}

func busy(ctx context.Context) error { return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx)) }
