package tunnel

import (
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
	version atomic.Uint32   // changes with the rate; 0 = never limited
	rate    atomic.Int64    // bytes per second each way; 0 = no limit
	waiting [2]atomic.Int64 // tunnels that wait for their share or their turn, each way
	crowd   [2]atomic.Int64 // crowdMoves times how many did at the last moves; approximate
	ways    [2]*rate.Limiter
	setting sync.Mutex // one Set at a time
}

// NewShared returns a bandwidth of bytesPerSecond each way; 0 or less is no limit.
func NewShared(bytesPerSecond int64) *Shared {
	s := &Shared{}
	for d := range s.ways {
		s.ways[d] = rate.NewLimiter(rate.Inf, maxQuantum)
	}
	s.Set(bytesPerSecond)
	return s
}

// Set changes the bandwidth; tunnels that are open feel it with their next move.
func (s *Shared) Set(bytesPerSecond int64) {
	bytesPerSecond = max(bytesPerSecond, 0)
	s.setting.Lock()
	defer s.setting.Unlock()
	if s.rate.Swap(bytesPerSecond) == bytesPerSecond {
		return
	}
	limit, burst := rate.Inf, maxQuantum
	if bytesPerSecond > 0 {
		limit = rate.Limit(bytesPerSecond)
		burst = int(max(quantumOf(bytesPerSecond), bytesPerSecond/int64(time.Second/burstTime))) // a move must fit in
	}
	for _, l := range s.ways {
		l.SetBurst(burst)
		l.SetLimit(limit)
	}
	s.version.Add(1)
}

// Rate is the bandwidth in bytes per second, 0 = no limit.
func (s *Shared) Rate() int64 { return s.rate.Load() }

func quantumOf(bytesPerSecond int64) int64 {
	return min(max(bytesPerSecond/int64(time.Second/quantumTime), minQuantum), maxQuantum)
}

// quantum is the most that a tunnel may move at once in direction d. The more wait
// for their turn, the shorter the turns: also when the others are about to wait again.
func (s *Shared) quantum(d int) int {
	perSecond := s.rate.Load()
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
	return max(s.waiting[d].Load(), s.crowd[d].Load()/crowdMoves)
}

// Owe books n bytes that something else than a tunnel has moved, and returns how long
// it has to wait before its next move.
func (s *Shared) Owe(sent bool, n int) time.Duration {
	d := downward
	if sent {
		d = upward
	}
	return s.take(d, n, time.Now())
}

// take books n bytes that were moved and returns how long the tunnel has to wait
// before its next move; 0 = it need not.
func (s *Shared) take(d, n int, now time.Time) time.Duration {
	if s.rate.Load() == 0 {
		return 0
	}
	crowd := s.crowd[d].Load()
	s.crowd[d].Store(crowd + s.waiting[d].Load() - crowd/crowdMoves) // a lost update does not matter
	l := s.ways[d]
	owed := time.Duration(0)
	for n > 0 {
		part := min(n, max(l.Burst(), 1)) // a bandwidth lowered meanwhile has a smaller burst
		r := l.ReserveN(now, part)
		if !r.OK() { // and lowered again since
			continue
		}
		owed = r.DelayFrom(now)
		n -= part
	}
	if owed < worthWaiting {
		return 0
	}
	return owed
}
