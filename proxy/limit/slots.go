package limit

import (
	"math"
	"sync/atomic"
)

// Slots is a fixed number of slots that all connections of a relay share. It is
// lock-free and exact: never more than Max are held at once (unless Max was
// lowered below what is held), and an attempt fails only while Max are held.
// Whoever holds a slot remembers it himself, which costs him a bit and no object.
// Safe for concurrent use.
type Slots struct {
	inUse atomic.Int64
	max   atomic.Int64
	// raised, if there is one, is told that the maximum may be higher than before.
	raised atomic.Pointer[func()]
}

// NewSlots returns Slots for max connections; 0 or less is no limit.
func NewSlots(max int) *Slots {
	s := &Slots{}
	s.SetMax(max)
	return s
}

// TryAcquire takes a slot, and reports whether there was one. It must be given
// back with Release, once.
func (s *Slots) TryAcquire() bool {
	for {
		held := s.inUse.Load()
		if limit := s.max.Load(); limit > 0 && held >= limit {
			return false
		}
		if s.inUse.CompareAndSwap(held, held+1) {
			return true
		}
	}
}

// Release gives back a slot that TryAcquire took.
func (s *Slots) Release() { s.inUse.Add(-1) }

// InUse returns the number of slots held.
func (s *Slots) InUse() int { return int(s.inUse.Load()) }

// Max returns the number of slots, 0 for no limit.
func (s *Slots) Max() int { return int(s.max.Load()) }

// SetMax changes the number of slots; 0 or less is no limit. Slots held beyond a
// lowered maximum stay held, and none is given out until enough came back.
func (s *Slots) SetMax(n int) {
	s.max.Store(int64(max(n, 0)))
	if raised := s.raised.Load(); raised != nil {
		(*raised)()
	}
}

// free returns how many slots could be taken now; below 0 if more are held than there are.
func (s *Slots) free() int {
	limit := s.max.Load()
	if limit == 0 {
		return math.MaxInt
	}
	return int(limit - s.inUse.Load())
}
