package webhook

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	spoolSize  = 1024
	firstPause = time.Second
	longPause  = 5 * time.Minute
	giveUp     = 24 * time.Hour
)

// event is one that is to be delivered. Whoever took it from the spool has it alone.
type event struct {
	kind  string
	body  []byte
	born  time.Time
	due   time.Time // the next try
	tries int
	last  bool // tried for the last time
}

// pause is how long to wait after so many tries: twice as long each time, less up to half of it
// by chance, so that many relays do not come back together.
func pause(tries int) time.Duration {
	p := longPause
	if tries < 16 {
		p = min(firstPause<<tries, longPause)
	}
	return p - rand.N(p/2)
}

// spool holds the events that wait, oldest first.
type spool struct {
	more chan struct{} // holds a token after an event came

	mu      sync.Mutex // guards what follows
	waiting []*event
	taken   int // under way
}

func newSpool() *spool {
	return &spool{more: make(chan struct{}, 1), waiting: make([]*event, 0, spoolSize)}
}

// put adds a new event and reports whether an older one was dropped for it.
func (s *spool) put(e *event) (dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addLocked(e)
}

// back returns an event that was taken, and reports whether one was dropped.
func (s *spool) back(e *event) (dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	return s.addLocked(e)
}

func (s *spool) addLocked(e *event) (dropped bool) {
	if dropped = len(s.waiting)+s.taken >= spoolSize && len(s.waiting) > 0; dropped {
		s.waiting = slices.Delete(s.waiting, 0, 1)
	}
	at := len(s.waiting)
	for at > 0 && s.waiting[at-1].born.After(e.born) {
		at--
	}
	s.waiting = slices.Insert(s.waiting, at, e)
	select {
	case s.more <- struct{}{}:
	default:
	}
	return dropped
}

// done says that an event which was taken does not come back.
func (s *spool) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
}

// take returns the oldest event that is due, or nil and how long until one is.
func (s *spool) take(now time.Time) (e *event, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = longPause
	for i, e := range s.waiting {
		if wait := e.due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.taken++
		if len(s.waiting) > 0 { // another worker may go on
			select {
			case s.more <- struct{}{}:
			default:
			}
		}
		return e, 0
	}
	return nil, next
}

// takeLast returns the oldest event that it has not returned before, or nil.
func (s *spool) takeLast() *event {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.waiting {
		if !e.last {
			e.last = true
			s.waiting = slices.Delete(s.waiting, i, i+1)
			s.taken++
			return e
		}
	}
	return nil
}

// size is how many events wait or are under way.
func (s *spool) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) + s.taken
}

// clear drops all that wait and returns how many.
func (s *spool) clear() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.waiting)
	s.waiting = s.waiting[:0]
	return n
}
