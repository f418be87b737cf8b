package limit

import (
	"context"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

const (
	shardCount = 64
	// idleKept is the number of keys without a connection that a shard keeps
	// although nothing obliges it to, so that a key which comes and goes is not
	// made anew each time.
	idleKept = 64
	// idleMax is the number of keys without a connection that a shard keeps
	// because their buckets are not full again. Beyond it the one that waited
	// longest is forgotten, and with it the tokens it had spent: memory stays
	// bounded however many names a flood invents.
	idleMax = 2048
	// sweepStep is how many idle keys a release looks at. As a release makes at
	// most one key idle, two keep ahead of any inflow.
	sweepStep = 2
	// shrinkFrom is the size of a shard's map from which it is made anew when
	// three quarters of it are gone; Go's maps do not shrink by themselves.
	shrinkFrom = 1024

	maxConnsRetryAfter = time.Second
	maxRetryAfter      = 24 * time.Hour
)

// Memory is the [Limiter] of one process. Keys are spread over shards, each
// behind its own mutex held for a constant time; there is no goroutine and no
// global lock.
//
// Memory is bounded by the connections held plus, for keys without one, 4,096
// keys, or 131,072 while their buckets refill. Safe for concurrent use.
type Memory struct {
	seed   maphash.Seed
	shards [shardCount]shard
}

// NewMemory returns a Memory without connections.
func NewMemory() *Memory {
	began := time.Now()
	return newMemory(func() time.Duration { return time.Since(began) })
}

// newMemory returns a Memory whose clock is now, from any beginning.
func newMemory(now func() time.Duration) *Memory {
	m := &Memory{seed: maphash.MakeSeed()}
	for i := range m.shards {
		s := &m.shards[i]
		s.now = now
		s.entries = make(map[string]*entry)
		s.idle.prev, s.idle.next = &s.idle, &s.idle
	}
	return m
}

// Acquire implements [Limiter]. It does not block: the error for an ended ctx
// comes from a look at ctx on entry.
func (m *Memory) Acquire(ctx context.Context, key string, caps Caps) (*Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("limit: acquire: %w", err)
	}
	l := &Lease{}
	if err := m.AcquireNow(l, key, caps); err != nil {
		return nil, err
	}
	return l, nil
}

// AcquireNow implements [Immediate].
func (m *Memory) AcquireNow(l *Lease, key string, caps Caps) error {
	s := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.admitLocked(key, caps)
	if err != nil {
		return err
	}
	l.grant(e)
	return nil
}

// InUse implements [Limiter].
func (m *Memory) InUse(key string) int {
	s := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		return e.inUse
	}
	return 0
}

// Range implements [Limiter]. It locks one shard at a time and none while f runs.
func (m *Memory) Range(f func(key string, inUse int) bool) {
	type use struct {
		key   string
		inUse int
	}
	var uses []use
	for i := range m.shards {
		s := &m.shards[i]
		uses = uses[:0]
		s.mu.Lock()
		for key, e := range s.entries {
			if e.inUse > 0 {
				uses = append(uses, use{key, e.inUse})
			}
		}
		s.mu.Unlock()
		for _, u := range uses {
			if !f(u.key, u.inUse) {
				return
			}
		}
	}
}

func (m *Memory) shardOf(key string) *shard {
	return &m.shards[maphash.String(m.seed, key)%shardCount]
}

// entry is one key. Its fields are guarded by its shard's mutex. While leases
// are out, its shard's map holds it; leases point to it.
type entry struct {
	shard *shard
	key   string
	inUse int
	bucket
	// prev and next link the idle entries; nil while the entry is in use.
	prev, next *entry
}

// drop gives one slot of e back.
func (e *entry) drop() {
	s := e.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	e.inUse--
	if e.inUse == 0 {
		s.pushIdleLocked(e)
		s.sweepLocked()
	}
}

// fullLocked reports whether forgetting e would forgive nothing. It reads the
// clock into *now if it needs one and *now is negative.
func (e *entry) fullLocked(now *time.Duration) bool {
	if !e.limits() {
		return true
	}
	if *now < 0 {
		*now = e.shard.now()
	}
	return e.fullAt(*now)
}

// shard holds the keys of one hash class.
type shard struct {
	now     func() time.Duration
	mu      sync.Mutex // guards what follows and every entry of the shard
	entries map[string]*entry
	peak    int   // the most entries since the map was made
	idle    entry // ring of entries without a connection, longest idle first
	idleLen int
	spare   *entry   // the last one forgotten, for the next new key
	_       [64]byte // keeps neighbours' mutexes off one cache line
}

// admitLocked counts one connection of key, or says which cap forbids it.
func (s *shard) admitLocked(key string, caps Caps) (*entry, error) {
	var now time.Duration
	if caps.rated() {
		// Under the lock, so that time never runs backwards for a bucket; and first, as
		// reading the clock waits for all reads of memory before it.
		now = s.now()
	}
	e := s.entries[key]
	if e != nil {
		if err := e.checkLocked(caps, now); err != nil {
			return nil, err
		}
		s.popIdleLocked(e)
	} else {
		// A new key has no connection and a full bucket: nothing can refuse it.
		e = s.addLocked(key)
		if caps.rated() {
			e.set(caps.ConnRate, caps.burst(), now)
			e.take(now)
		}
	}
	e.inUse++
	return e, nil
}

// checkLocked applies caps to e and takes the token of one connection; if it
// returns an error, it took none.
func (e *entry) checkLocked(caps Caps, now time.Duration) error {
	if caps.rated() {
		e.set(caps.ConnRate, caps.burst(), now)
	} else {
		e.bucket = bucket{}
	}
	if caps.MaxConns > 0 && e.inUse >= caps.MaxConns {
		return &ExceededError{Cap: CapMaxConns, Limit: float64(caps.MaxConns), RetryAfter: maxConnsRetryAfter}
	}
	if e.limits() && !e.take(now) {
		return &ExceededError{Cap: CapConnRate, Limit: caps.ConnRate, RetryAfter: e.wait(now)}
	}
	return nil
}

// addLocked makes the entry of key, which may be part of a larger string.
func (s *shard) addLocked(key string) *entry {
	own := strings.Clone(key)
	e := s.spare
	if e == nil {
		e = &entry{shard: s}
	}
	s.spare = nil
	e.key = own
	s.entries[own] = e
	s.peak = max(s.peak, len(s.entries))
	return e
}

// removeLocked forgets an entry without connections.
func (s *shard) removeLocked(e *entry) {
	s.popIdleLocked(e)
	delete(s.entries, e.key)
	// No live lease points to e, and a released one never looks at it again.
	e.key, e.bucket = "", bucket{}
	s.spare = e
	if s.peak < shrinkFrom || len(s.entries) > s.peak/4 {
		return
	}
	// The copy costs a third of the removals that led here: constant for each.
	entries := make(map[string]*entry, len(s.entries))
	for key, e := range s.entries {
		entries[key] = e
	}
	s.entries, s.peak = entries, len(entries)
}

// pushIdleLocked puts e last among the idle.
func (s *shard) pushIdleLocked(e *entry) {
	e.prev, e.next = s.idle.prev, &s.idle
	e.prev.next, e.next.prev = e, e
	s.idleLen++
}

// popIdleLocked takes e from among the idle, if it is there.
func (s *shard) popIdleLocked(e *entry) {
	if e.next == nil {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	s.idleLen--
}

// sweepLocked looks at the longest idle entries, forgets those whose buckets are
// full and sends the others to the end of the line.
func (s *shard) sweepLocked() {
	if s.idleLen <= idleKept {
		return
	}
	now := time.Duration(-1)
	for range sweepStep {
		e := s.idle.next
		if e.fullLocked(&now) || s.idleLen > idleMax {
			s.removeLocked(e)
			continue
		}
		s.popIdleLocked(e)
		s.pushIdleLocked(e)
	}
}
