package limittest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"maskrelay/proxy/limit"
)

// contenders is how many goroutines compete for one key.
const contenders = 64

// inParallel runs f in contenders goroutines that start together, and waits.
func inParallel(f func()) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range contenders {
		wg.Go(func() {
			<-start
			f()
		})
	}
	close(start)
	wg.Wait()
}

// testContention has every goroutine take what it can get and keep it: all
// slots go, and not one more.
func testContention(t *testing.T, l fixture) {
	const slots, attempts = 1000, 50
	caps := limit.Caps{MaxConns: slots}
	var mu sync.Mutex
	var leases []*limit.Lease
	inParallel(func() {
		for range attempts {
			lease, err := l.Acquire(t.Context(), "key", caps)
			var over *limit.ExceededError
			switch {
			case err == nil:
				mu.Lock()
				leases = append(leases, lease)
				mu.Unlock()
			case !errors.As(err, &over):
				t.Errorf("Acquire: %v", err)
			}
		}
	})
	if len(leases) != slots {
		t.Errorf("%d attempts took %d slots of %d", contenders*attempts, len(leases), slots)
	}
	l.wantInUse(t, "key", slots)
	for _, lease := range leases {
		lease.Release()
	}
	l.wantInUse(t, "key", 0)
}

// testChurn has every goroutine take and give back all the time: never more
// slots are out than there are, and none is lost.
func testChurn(t *testing.T, l fixture) {
	const slots, attempts = 8, 200
	caps := limit.Caps{MaxConns: slots}
	var out, worst, admitted atomic.Int64
	inParallel(func() {
		for range attempts {
			lease, err := l.Acquire(t.Context(), "key", caps)
			if err != nil {
				continue
			}
			admitted.Add(1)
			now := out.Add(1)
			for {
				seen := worst.Load()
				if now <= seen || worst.CompareAndSwap(seen, now) {
					break
				}
			}
			out.Add(-1)
			lease.Release()
		}
	})
	if worst.Load() > slots {
		t.Errorf("%d slots of %d were out at once", worst.Load(), slots)
	}
	if admitted.Load() < attempts {
		t.Errorf("only %d of %d attempts were admitted", admitted.Load(), contenders*attempts)
	}
	l.wantInUse(t, "key", 0)
	var leases []*limit.Lease
	for range slots {
		leases = append(leases, l.mustAcquire(t, "key", caps))
	}
	l.mustRefuse(t, "key", caps, limit.CapMaxConns)
	for _, lease := range leases {
		lease.Release()
	}
}

// testReleaseFromMany releases each lease from many goroutines at once.
func testReleaseFromMany(t *testing.T, l fixture) {
	const slots = 20
	caps := limit.Caps{MaxConns: slots}
	var leases []*limit.Lease
	for range slots {
		leases = append(leases, l.mustAcquire(t, "key", caps))
	}
	inParallel(func() {
		for _, lease := range leases[:slots/2] {
			lease.Release()
		}
	})
	l.wantInUse(t, "key", slots/2)
	for range slots / 2 {
		leases = append(leases, l.mustAcquire(t, "key", caps))
	}
	l.mustRefuse(t, "key", caps, limit.CapMaxConns)
	for _, lease := range leases {
		lease.Release()
	}
	l.wantInUse(t, "key", 0)
}
