package tunnel

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	quantumTime = 20 * time.Millisecond // of the bandwidth is one tunnel's move at most
	minQuantum  = 4 << 10               // bytes; below it wake-ups would cost more than bytes
	maxQuantum  = 1 << 20               // bytes
	// fairQuantum bounds moves while others wait, in bytes: what any source can have ready
	// within its turn, so that equal turns are equal bytes.
	fairQuantum = bufferSize
	// worthWaiting is the debt from which a tunnel waits: shorter waits are not kept
	// to the point by any timer, and cost a wake-up each.
	worthWaiting = 5 * time.Millisecond
	// lookAgain is when a tunnel that waits longer asks how much it still owes: the
	// bandwidth may have changed.
	lookAgain = 250 * time.Millisecond
	// burstTime of the bandwidth may be caught up on after a wake-up that came late, or a pause.
	burstTime = 100 * time.Millisecond
	// crowdMoves are the moves over which the number of tunnels that wait is averaged.
	crowdMoves = 16
)

// Shared is a bandwidth that the tunnels of one account share, each way by itself.
// A tunnel moves its bytes first and then waits for its debt to be paid off: the
// bytes stay in the kernel, and what is owed is shared in equal turns.
// Safe for concurrent use.
type Shared struct {
	version atomic.Uint32 // changes when sockets must be paced anew; 0 = never limited
	ways    [2]way
	setting sync.Mutex // one Set at a time
}

// way is one direction of a Shared.
type way struct {
	rate    atomic.Int64 // bytes per second; 0 = no limit
	paced   atomic.Int64 // rate, as the sockets are paced
	waiting atomic.Int64 // tunnels that wait for their share or their turn
	crowd   atomic.Int64 // crowdMoves times how many did at the last moves; approximate
	booked  atomic.Int64 // bytes moved under a limit, ever
	told    atomic.Int64 // booked, when Demand was asked last
	starved atomic.Bool  // somebody had to wait since then
	limiter *rate.Limiter
}

// Demand is what one direction of a Shared has moved and wanted in a time.
type Demand struct {
	Moved   int64         // bytes
	Starved bool          // somebody had to wait for the bandwidth
	Owed    time.Duration // all that was moved will be paid off by then
}

// NewShared returns a bandwidth of bytesPerSecond each way; 0 or less is no limit.
func NewShared(bytesPerSecond int64) *Shared {
	s := &Shared{}
	for d := range s.ways {
		s.ways[d].limiter = rate.NewLimiter(rate.Inf, maxQuantum)
	}
	s.Set(bytesPerSecond, bytesPerSecond)
	return s
}

// Set changes the bandwidth of either direction, in bytes per second; 0 or less is no
// limit. Tunnels that are open feel it with their next move, those that wait within a
// quarter of a second; what they owe, in bytes, stays.
func (s *Shared) Set(sent, received int64) {
	s.setting.Lock()
	defer s.setting.Unlock()
	up, down := s.ways[upward].set(max(sent, 0)), s.ways[downward].set(max(received, 0))
	if up || down {
		s.version.Add(1)
	}
}

// set reports whether the sockets must be paced anew. Pacing leaves a quarter of room:
// small steps up fit into that, and sockets that are paced too loosely break nothing.
func (w *way) set(bytesPerSecond int64) bool {
	if w.rate.Swap(bytesPerSecond) == bytesPerSecond {
		return false
	}
	limit, burst := rate.Inf, maxQuantum
	if bytesPerSecond > 0 {
		limit = rate.Limit(bytesPerSecond)
		burst = int(max(quantumOf(bytesPerSecond), bytesPerSecond/int64(time.Second/burstTime))) // a move must fit in
	}
	w.limiter.SetBurst(burst)
	w.limiter.SetLimit(limit)
	paced := w.paced.Load()
	if paced > 0 && bytesPerSecond > paced/2 && bytesPerSecond <= paced+paced/8 {
		return false
	}
	w.paced.Store(bytesPerSecond)
	return true
}

// Rates are the bandwidths in bytes per second, 0 = no limit.
func (s *Shared) Rates() (sent, received int64) {
	return s.ways[upward].rate.Load(), s.ways[downward].rate.Load()
}

// Demand tells of both directions, sent and received, what happened under their limits
// since it was asked last. One asks at a time.
func (s *Shared) Demand() (sent, received Demand) {
	now := time.Now()
	return s.ways[upward].demand(now), s.ways[downward].demand(now)
}

func (w *way) demand(now time.Time) Demand {
	booked := w.booked.Load()
	moved := booked - w.told.Swap(booked)
	starved := w.starved.Swap(false) // first, so that no wait is missed
	owed := w.left(booked, now)
	return Demand{Moved: moved, Starved: starved || owed >= worthWaiting, Owed: owed}
}

func quantumOf(bytesPerSecond int64) int64 {
	return min(max(bytesPerSecond/int64(time.Second/quantumTime), minQuantum), maxQuantum)
}

// quantum is the most that a tunnel may move at once in direction d. The more wait
// for their turn, the shorter the turns: also when the others are about to wait again.
func (s *Shared) quantum(d int) int {
	perSecond := s.ways[d].rate.Load()
	if perSecond == 0 {
		return maxQuantum
	}
	others := s.others(d)
	if others == 0 {
		return int(quantumOf(perSecond))
	}
	share := perSecond / int64(time.Second/quantumTime) / (1 + others)
	return int(min(max(share, minQuantum), fairQuantum))
}

// others is how many tunnels want to move bytes in direction d beside one that does.
func (s *Shared) others(d int) int64 {
	w := &s.ways[d]
	return max(w.waiting.Load(), w.crowd.Load()/crowdMoves)
}

// Owe books n bytes that something else than a tunnel has moved, and returns how long
// it has to wait before its next move.
func (s *Shared) Owe(sent bool, n int) time.Duration {
	d := downward
	if sent {
		d = upward
	}
	wait, _ := s.take(d, n, time.Now())
	return wait
}

// take books n bytes that were moved and returns how long the tunnel has to wait
// before its next move; 0 = it need not. If the bandwidth changes meanwhile, left tells
// it anew from the place that the debt has in the account.
func (s *Shared) take(d, n int, now time.Time) (wait time.Duration, place int64) {
	w := &s.ways[d]
	if w.rate.Load() == 0 {
		return 0, 0
	}
	crowd := w.crowd.Load()
	w.crowd.Store(crowd + w.waiting.Load() - crowd/crowdMoves) // a lost update does not matter
	place = w.booked.Add(int64(n))
	for n > 0 {
		part := min(n, max(w.limiter.Burst(), 1)) // a bandwidth lowered meanwhile has a smaller burst
		r := w.limiter.ReserveN(now, part)
		if !r.OK() { // and lowered again since
			continue
		}
		wait = r.DelayFrom(now)
		n -= part
	}
	if wait < worthWaiting {
		return 0, 0
	}
	if !w.starved.Load() {
		w.starved.Store(true)
	}
	return wait, place
}

// left is how long it takes to pay off the debt at a place of direction d's account.
func (s *Shared) left(d int, place int64, now time.Time) time.Duration {
	return s.ways[d].left(place, now)
}

// left counts back from the account's end: what is owed in all, less what was booked after the place.
func (w *way) left(place int64, now time.Time) time.Duration {
	perSecond := w.rate.Load()
	if perSecond == 0 {
		return 0
	}
	owed := float64(place-w.booked.Load()) - w.limiter.TokensAt(now)
	return time.Duration(min(max(owed, 0)/float64(perSecond), math.MaxInt32) * float64(time.Second))
}
