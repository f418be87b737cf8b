package tunnel

import (
	"context"
	"net"
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
	// Files lends the pairs of descriptors of pipes; nil = there are always enough.
	Files Files
	// Trouble is told of bugs and failures that belong to no tunnel. May be nil.
	Trouble func(error)

	pumpsOnly bool // no reactors, for tests
}

// Files lends pairs of file descriptors to what can do without them. Safe for
// concurrent use.
type Files interface {
	// TryTake borrows one and reports whether there was one.
	TryTake() bool
	// Put gives one back.
	Put()
	// Short reports that what lies idle should be given back.
	Short() bool
}

// shards spread the set of tunnels: opening and ending meet few locks.
const shards = 64

// Engine owns tunnels from Submit, or a visitor's admission, to Done. All methods are
// safe for concurrent use; none but Submit may be called by a Visitor or an Exchange.
type Engine struct {
	options  Options
	epoch    time.Time
	tick     time.Duration // of the sweeps
	reactors *reactors
	sets     [shards]set
	lots     *lots
	nextID   atomic.Uint64
	count    atomic.Int64
	away     atomic.Int64   // connections being turned away
	running  sync.WaitGroup // reactors, Opens, pumps and the sweep
	stop     chan struct{}
	closing  sync.Once
	empty    chan struct{} // poked when the last tunnel ends
}

// set is a part of the pumps.
type set struct {
	mu     sync.Mutex // guards what follows
	pumps  map[uint64]*pump
	closed bool
}

// NewEngine starts an Engine; Close ends it.
func NewEngine(o Options) *Engine {
	e := &Engine{options: o, epoch: time.Now(), stop: make(chan struct{}), empty: make(chan struct{}, 1)}
	shortest := o.IdleTimeout
	if h := o.HalfOpenTimeout; h > 0 && (h < shortest || shortest == 0) {
		shortest = h
	}
	e.tick = time.Second
	if shortest > 0 {
		e.tick = min(max(shortest/8, 5*time.Millisecond), e.tick)
	}
	for i := range e.sets {
		e.sets[i].pumps = make(map[uint64]*pump)
	}
	e.lots = newLots(e.wake)
	e.reactors = &reactors{}
	if !o.pumpsOnly {
		e.reactors = startReactors(e)
	}
	e.running.Go(e.sweep)
	return e
}

// wake is called by the lots: a parked direction's source is readable.
func (e *Engine) wake(id uint64, d int) {
	s := &e.sets[id%shards]
	s.mu.Lock()
	t := s.pumps[id]
	s.mu.Unlock()
	if t != nil {
		t.wake(d)
	}
}

// Submit takes over j and returns at once. After Close the customer's connection is
// closed and Done called with Drained.
func (e *Engine) Submit(j Job) {
	e.entered()
	if !e.reactors.submit(e, j) {
		e.pump(j, e.now())
	}
}

// pump carries a job in goroutines. It has been counted.
func (e *Engine) pump(j Job, start time.Duration) {
	t := &pump{engine: e, job: j, id: e.nextID.Add(1), start: start}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.client.init(j.Client)
	if !e.add(t) {
		if j.Peer != nil {
			_ = j.Peer.Conn.Close()
		}
		t.abort(Drained)
		t.finish()
		return
	}
	go t.run()
}

// entered and left count tunnels.
func (e *Engine) entered() { e.count.Add(1) }

func (e *Engine) left() {
	if e.count.Add(-1) > 0 {
		return
	}
	select {
	case e.empty <- struct{}{}:
	default:
	}
}

// trouble tells of what belongs to no tunnel any more.
func (e *Engine) trouble(err error) {
	if e.options.Trouble != nil {
		e.options.Trouble(err)
	}
}

// add registers a pump; false after Close.
func (e *Engine) add(t *pump) bool {
	s := &e.sets[t.id%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	e.running.Add(1)
	s.pumps[t.id] = t
	return true
}

// remove forgets a pump that has ended.
func (e *Engine) remove(t *pump) {
	s := &e.sets[t.id%shards]
	s.mu.Lock()
	_, known := s.pumps[t.id]
	delete(s.pumps, t.id)
	s.mu.Unlock()
	e.left()
	if known {
		e.running.Done()
	}
}

// Count is the number of tunnels, those being opened included.
func (e *Engine) Count() int { return int(e.count.Load()) }

// CloseKey cuts the tunnels of key and returns how many there were.
func (e *Engine) CloseKey(key string) int {
	return e.CloseWhere(func(x Exchange) bool { return x.Key() == key })
}

// CloseWhere cuts the tunnels for whose exchanges is reports true, and returns how many
// there were. is runs beside all else that happens to an exchange: it may look only at
// what of it does not change.
func (e *Engine) CloseWhere(is func(Exchange) bool) int {
	return e.reactors.cut(Killed, is) + e.each(func(t *pump) bool {
		if !is(t.job.Exchange) {
			return false
		}
		t.abort(Killed)
		return true
	})
}

// each calls f with every pump and counts those for which it is true.
func (e *Engine) each(f func(*pump) bool) int {
	n := 0
	for i := range e.sets {
		s := &e.sets[i]
		s.mu.Lock()
		for _, t := range s.pumps {
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
	tick := time.NewTicker(100 * time.Millisecond) // a new tunnel between two looks could take the poke
	defer tick.Stop()
	cut := 0
	for e.count.Load() > 0 {
		select {
		case <-e.empty:
		case <-tick.C:
		case <-ctx.Done():
			cut += e.reactors.cut(Drained, func(Exchange) bool { return true })
			cut += e.each(func(t *pump) bool { return t.abort(Drained) })
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
	e.closing.Do(func() {
		close(e.stop)
		e.reactors.stop()
	})
	for i := range e.sets {
		s := &e.sets[i]
		s.mu.Lock()
		s.closed = true
		for _, t := range s.pumps {
			t.abort(Drained)
		}
		s.mu.Unlock()
	}
	e.running.Wait()
	e.lots.close()
}

// Receives reports whether the engine can Serve: where it has reactors.
func (e *Engine) Receives() bool { return e.reactors.any() }

// Serve takes over l and receives its connections until StopServing or Close. It
// returns at once; on an error l is closed.
func (e *Engine) Serve(l *net.TCPListener, r Reception) error { return e.reactors.serve(e, l, r) }

// StopServing closes the listeners, and the connections of visitors of whom no byte of
// a head has come. When it returns nobody accepts any more.
func (e *Engine) StopServing() { e.reactors.stopServing() }

// Visitors is the number of connections whose heads are awaited.
func (e *Engine) Visitors() int { return e.reactors.visitors() }

// now is a coarse monotonic clock.
func (e *Engine) now() time.Duration { return time.Since(e.epoch) }

// sweep ends pumps that are idle too long. One goroutine for all: no timer a tunnel.
func (e *Engine) sweep() {
	tick := time.NewTicker(e.tick)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
			now := e.now()
			e.each(func(t *pump) bool { return t.checkIdle(now) })
		}
	}
}
