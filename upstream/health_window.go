package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// windowSlots of windowSlot each are what success rates and times are taken over: so
	// short that a gateway which falls ill is known at once, so long that a few
	// exchanges a second make a rate.
	windowSlots = 10
	windowSlot  = time.Second
)

// slotClosed marks a slot that is being cleared.
const slotClosed = math.MaxInt64

// window counts the attempts of the last seconds. Any number of goroutines add to it
// without a lock; an attempt that meets a slot just being cleared is not counted.
type window struct{ slots [windowSlots]slot }

// slot counts the attempts of one second.
type slot struct {
	number atomic.Int64 // which second it is
	served atomic.Int64
	blamed atomic.Int64 // on the gateway
	missed atomic.Int64 // of these, the gateway was not reached
	doubts atomic.Int64 // refused logins that carried wishes
	took   atomic.Int64 // nanoseconds, of those served
	causes [len(causes)]atomic.Int64

	customers [customers]struct{ served, blamed atomic.Int32 }
}

// sample is one attempt for a window.
type sample struct {
	blame   blame
	took    time.Duration
	failure *ConnectError

	customer customer
}

// tally is a window's sum.
type tally struct {
	served, blamed, missed, doubts int64
	took                           time.Duration
}

// attempts are those that say something of the gateway.
func (t tally) attempts() int64 { return t.served + t.blamed }

// rate is the share of the attempts that served; there must be some.
func (t tally) rate() float64 { return float64(t.served) / float64(t.attempts()) }

// mean is the mean set-up time of those served; 0 without any.
func (t tally) mean() time.Duration {
	if t.served == 0 {
		return 0
	}
	return t.took / time.Duration(t.served)
}

// well reports whether the gateway does well as far as is known: one without samples does.
func (t tally) well() bool {
	if t.served == 0 && t.doubts > 0 {
		return false
	}
	return 100*(t.served+1) >= goodSuccess*(t.attempts()+1)
}

// start makes the window ready for use.
func (w *window) start() { w.clear() }

// clear forgets everything.
func (w *window) clear() {
	for i := range w.slots {
		w.slots[i].number.Store(noMoment)
	}
}

// add counts a sample.
func (w *window) add(m moment, s sample) {
	at := w.at(m)
	if at == nil {
		return
	}
	switch s.blame {
	case blameNone:
		at.served.Add(1)
		at.customers[s.customer].served.Add(1)
		at.took.Add(int64(s.took))
		return
	case blameReach:
		at.missed.Add(1)
		at.blamed.Add(1)
	case blameGateway:
		at.blamed.Add(1)
		at.customers[s.customer].blamed.Add(1)
	case blameDoubt:
		at.doubts.Add(1)
	}
	at.causes[causeIndex(s.failure.Cause)].Add(1)
}

// at is the slot of m, cleared if it was an earlier second's; nil while another clears it.
func (w *window) at(m moment) *slot {
	number := slotNumber(m)
	s := &w.slots[uint64(number)%windowSlots]
	had := s.number.Load()
	if had == number {
		return s
	}
	if had > number || !s.number.CompareAndSwap(had, slotClosed) {
		return nil
	}
	s.served.Store(0)
	s.blamed.Store(0)
	s.missed.Store(0)
	s.doubts.Store(0)
	s.took.Store(0)
	for i := range s.causes {
		s.causes[i].Store(0)
	}
	for i := range s.customers {
		s.customers[i].served.Store(0)
		s.customers[i].blamed.Store(0)
	}
	s.number.Store(number)
	return s
}

func slotNumber(m moment) int64 { return int64(m) / int64(windowSlot) }

// each calls f with the slots of the last seconds.
func (w *window) each(m moment, f func(*slot)) {
	last := slotNumber(m)
	for i := range w.slots {
		if n := w.slots[i].number.Load(); n <= last && n > last-windowSlots {
			f(&w.slots[i])
		}
	}
}

// sum adds the slots up.
func (w *window) sum(m moment) (t tally) {
	w.each(m, func(s *slot) {
		t.served += s.served.Load()
		t.blamed += s.blamed.Load()
		t.missed += s.missed.Load()
		t.doubts += s.doubts.Load()
		t.took += time.Duration(s.took.Load())
	})
	return t
}

// failures are the counts by cause, in the order of causes.
func (w *window) failures(m moment) (n [len(causes)]int64) {
	w.each(m, func(s *slot) {
		for i := range s.causes {
			n[i] += s.causes[i].Load()
		}
	})
	return n
}

// worst is the most frequent cause that can be blamed on the gateway; last breaks ties.
func (w *window) worst(m moment, last Cause) Cause {
	counts := w.failures(m)
	most := last
	for i, c := range causes {
		if counts[i] > counts[causeIndex(most)] && blameOf(&ConnectError{Phase: PhaseConnect, Cause: c}) == blameGateway {
			most = c
		}
	}
	return most
}
