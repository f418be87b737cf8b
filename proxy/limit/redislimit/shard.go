package redislimit

import (
	"strings"
	"sync"
	"time"
)

const (
	shardCount = 64
	// idleKept, idleMax, sweepStep and shrinkFrom are as in package limit: idle keys that a shard keeps without need and at
	// most, how many a change looks at, and from which size a map is made anew when it has become empty.
	idleKept   = 64
	idleMax    = 2048
	sweepStep  = 2
	shrinkFrom = 1024
)

// shard holds the keys of one hash class.
type shard struct {
	limiter *Limiter
	mu      sync.Mutex // guards what follows and every entry of the shard
	entries map[string]*entry
	peak    int   // the most entries since the map was made
	idle    entry // ring of entries without a connection, longest idle first
	idleLen int
	_       [64]byte // keeps neighbours' mutexes off one cache line
}

// entryLocked returns the entry of key, which is made if there is none.
func (s *shard) entryLocked(key string, now time.Duration) *entry {
	if e := s.entries[key]; e != nil {
		return e
	}
	e := &entry{shard: s, key: strings.Clone(key), block: minBlock, tokenBlock: minBlock, lastUse: now}
	e.release = e.drop
	s.entries[e.key] = e
	s.peak = max(s.peak, len(s.entries))
	s.pushIdleLocked(e)
	s.sweepLocked(now)
	return e
}

// removeLocked forgets an entry without connections.
func (s *shard) removeLocked(e *entry) {
	s.popIdleLocked(e)
	delete(s.entries, e.key)
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

// sweepLocked looks at the longest idle entries, forgets those that nothing depends on and sends the others to the end
// of the line. Beyond idleMax it forgets leases too, which run out in Redis by themselves: memory stays bounded
// however many names a flood invents.
func (s *shard) sweepLocked(now time.Duration) {
	if s.idleLen <= idleKept {
		return
	}
	for range sweepStep {
		e := s.idle.next
		if e.spareLocked(now) || s.idleLen > idleMax && e.flight == nil && e.waiting == 0 {
			s.removeLocked(e)
			continue
		}
		s.popIdleLocked(e)
		s.pushIdleLocked(e)
	}
}
