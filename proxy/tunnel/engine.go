package tunnel

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Options of an Engine.
type Options struct {
	// IdleTimeout ends a tunnel without a byte either way. 0 = never.
	IdleTimeout time.Duration
	// HalfOpenTimeout ends a tunnel of which one side has closed and the other
	// sends nothing. 0 = never; it is never longer than IdleTimeout in effect.
	HalfOpenTimeout time.Duration
}

// shards spread the set of tunnels: opening and ending meet few locks.
const shards = 64

// Engine owns tunnels from Submit to Done. All methods are safe for concurrent use.
type Engine struct {
	options Options
	epoch   time.Time
	sets    [shards]set
	lots    *lots
	nextID  atomic.Uint64
	count   atomic.Int64
	running sync.WaitGroup // tunnels and the sweep
	stop    chan struct{}
	closing sync.Once
	empty   chan struct{} // poked when the last tunnel ends
}

type set struct {
	mu      sync.Mutex // guards tunnels and closed
	tunnels map[uint64]*tunnel
	closed  bool
}

// NewEngine starts an Engine; Close ends it.
func NewEngine(o Options) *Engine {
	e := &Engine{options: o, epoch: time.Now(), stop: make(chan struct{}), empty: make(chan struct{}, 1)}
	for i := range e.sets {
		e.sets[i].tunnels = make(map[uint64]*tunnel)
	}
	e.lots = newLots(e.wake)
	e.running.Go(e.sweep)
	return e
}

// wake is called by the lots: a parked direction's source is readable.
func (e *Engine) wake(id uint64, d int) {
	s := &e.sets[id%shards]
	s.mu.Lock()
	t := s.tunnels[id]
	s.mu.Unlock()
	if t != nil {
		t.wake(d)
	}
}

// Submit takes over j and returns at once. After Close the customer's connection is
// closed and Done called with Drained.
func (e *Engine) Submit(j Job) {
	t := &tunnel{engine: e, job: j, id: e.nextID.Add(1), start: e.now()}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.client.init(j.Client)
	if !e.add(t) {
		t.abort(Drained)
		t.finish()
		return
	}
	go t.run()
}

// add registers t; false after Close.
func (e *Engine) add(t *tunnel) bool {
	s := &e.sets[t.id%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	e.running.Add(1)
	e.count.Add(1)
	s.tunnels[t.id] = t
	return true
}

func (e *Engine) remove(t *tunnel) {
	s := &e.sets[t.id%shards]
	s.mu.Lock()
	_, known := s.tunnels[t.id]
	delete(s.tunnels, t.id)
	s.mu.Unlock()
	if !known {
		return
	}
	if e.count.Add(-1) == 0 {
		select {
		case e.empty <- struct{}{}:
		default:
		}
	}
	e.running.Done()
}

// Count is the number of tunnels, those being opened included.
func (e *Engine) Count() int { return int(e.count.Load()) }

// CloseKey cuts the tunnels of key and returns how many there were.
func (e *Engine) CloseKey(key string) int {
	return e.each(func(t *tunnel) bool {
		if t.job.Key != key {
			return false
		}
		t.abort(Killed)
		return true
	})
}

// each calls f with every tunnel and counts those for which it is true.
func (e *Engine) each(f func(*tunnel) bool) int {
	n := 0
	for i := range e.sets {
		s := &e.sets[i]
		s.mu.Lock()
		for _, t := range s.tunnels {
			if f(t) {
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}

// Drain waits until no tunnel is left. When ctx ends first it cuts the rest, waits
// for their end and returns how many it cut.
func (e *Engine) Drain(ctx context.Context) int {
	tick := time.NewTicker(100 * time.Millisecond) // an Add between two looks could take the poke
	defer tick.Stop()
	cut := 0
	for e.count.Load() > 0 {
		select {
		case <-e.empty:
		case <-tick.C:
		case <-ctx.Done():
			cut += e.each(func(t *tunnel) bool { return t.abort(Drained) })
			select {
			case <-e.empty:
			case <-tick.C:
			}
		}
	}
	return cut
}

// Close cuts all tunnels, refuses new ones, and returns when nothing of the engine runs.
func (e *Engine) Close() {
	e.closing.Do(func() { close(e.stop) })
	for i := range e.sets {
		s := &e.sets[i]
		s.mu.Lock()
		s.closed = true
		for _, t := range s.tunnels {
			t.abort(Drained)
		}
		s.mu.Unlock()
	}
	e.running.Wait()
	e.lots.close()
}

// now is a coarse monotonic clock.
func (e *Engine) now() time.Duration { return time.Since(e.epoch) }

// sweep ends tunnels that are idle too long. One goroutine for all: no timer a tunnel.
func (e *Engine) sweep() {
	shortest := e.options.IdleTimeout
	if h := e.options.HalfOpenTimeout; h > 0 && (h < shortest || shortest == 0) {
		shortest = h
	}
	if shortest == 0 {
		return
	}
	tick := time.NewTicker(min(max(shortest/8, 5*time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
			now := e.now()
			e.each(func(t *tunnel) bool { return t.checkIdle(now) })
		}
	}
}
