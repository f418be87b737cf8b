package limit_test

import (
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/proxy/limit"
	"maskrelay/proxy/limit/limittest"
)

func TestMemoryConformance(t *testing.T) {
	limittest.Run(t, func(*testing.T) limit.Limiter { return limit.NewMemory() })
}

// clocked is a Limiter with a clock of its own, which the suite must move.
type clocked struct {
	*limit.Memory
	clock *atomic.Int64
}

func (c clocked) Advance(d time.Duration) { c.clock.Add(int64(d)) }

func TestMemoryConformanceByInjectedClock(t *testing.T) {
	limittest.Run(t, func(*testing.T) limit.Limiter {
		clock := new(atomic.Int64)
		now := func() time.Time { return time.Unix(0, clock.Load()) }
		return clocked{limit.NewMemoryAt(now), clock}
	})
}

var _ limittest.Advancer = clocked{}
