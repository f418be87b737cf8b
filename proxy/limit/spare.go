package limit

import "sync"

// Spare lends pairs of file descriptors that no connection needs at the moment to what can do without them: pooled
// pipes, idle connections to gateways. The pairs are fixed in number; a slot of a relay is one (a descriptor for
// either side), and so is whatever takes one here. What is lent lowers the maximum of the Slots, so that all together
// use no more pairs than there are, but for slots that are taken at the very moment of a TryTake. Connections are
// refused by TryAcquire then, as when the relay is full. Borrowers give back what lies idle when Short says so. Safe for concurrent use.
type Spare struct {
	slots *Slots
	pairs int // 0 = as many as anybody likes

	mu  sync.Mutex // guards lent and the maximum of slots
	max int        // of slots as configured, 0 = pairs
	out int        // lent
}

// NewSpare returns the Spare of slots, whose maximum it owns from now on: at once it becomes no more than pairs. With pairs 0 or less there is
// always one to spare.
func NewSpare(slots *Slots, pairs int) *Spare {
	s := &Spare{slots: slots, pairs: max(pairs, 0), max: slots.Max()}
	s.setMaxLocked()
	return s
}

// TryTake borrows a pair and reports whether there was one. The borrower must call Put once when he has closed its descriptors.
func (s *Spare) TryTake() bool {
	if s.pairs == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// One slot always stays: a maximum of 0 would mean that there is none.
	if s.out+1 >= s.pairs || s.slots.InUse()+s.out >= s.pairs {
		return false
	}
	s.out++
	s.setMaxLocked()
	if s.slots.InUse()+s.out > s.pairs { // a connection took the last pair meanwhile
		s.out--
		s.setMaxLocked()
		return false
	}
	return true
}

// Put gives a pair back.
func (s *Spare) Put() {
	if s.pairs == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out--
	s.setMaxLocked()
}

// Short reports whether fewer than one pair in sixteen is free: time to give back what is not in use.
func (s *Spare) Short() bool {
	if s.pairs == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots.InUse()+s.out > s.pairs-s.pairs/16
}

func (s *Spare) setMaxLocked() {
	if s.pairs == 0 {
		return
	}
	n := s.pairs - s.out
	if s.max > 0 {
		n = min(n, s.max)
	}
	s.slots.SetMax(n)
}
