package limit

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sizes returns the number of keys and of idle keys that m remembers.
func (m *Memory) sizes() (keys, idle int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		keys += len(s.entries)
		idle += s.idleLen
		s.mu.Unlock()
	}
	return keys, idle
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func pass(t *testing.T, m *Memory, key string, caps Caps) {
	t.Helper()
	lease, err := m.Acquire(t.Context(), key, caps)
	if err != nil {
		t.Fatalf("Acquire(%q): %v", key, err)
	}
	lease.Release()
}

func TestMillionKeysAreForgotten(t *testing.T) {
	const tick = 50 // keys between two steps of the clock
	tests := []struct {
		name string
		caps Caps
		keys int
		gap  time.Duration // of one tick
		want int           // the most keys remembered at any time
	}{
		{"no rate", Caps{MaxConns: 10}, 1_000_000, 0, shardCount * (idleKept + 1)},
		{"bucket full again at once", Caps{ConnRate: 1e9, ConnBurst: 1}, 300_000, time.Microsecond, shardCount*idleKept + tick + 1},
		// 1,000 keys per second whose buckets take a second each: 1,000 are
		// refilling, spread unevenly.
		{"refilling", Caps{ConnRate: 1}, 300_000, tick * time.Millisecond, shardCount*idleKept + 2000},
		{"never full again", Caps{ConnRate: 1e-9}, 300_000, 0, shardCount * (idleMax + 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMemory()
				before := heapInUse()
				for i := range tt.keys {
					pass(t, m, fmt.Sprint("customer-", i), tt.caps)
					if i%tick == 0 {
						time.Sleep(tt.gap)
					}
					if i%10_000 == 0 {
						if n, _ := m.sizes(); n > tt.want {
							t.Fatalf("%d keys remembered after %d, want at most %d", n, i, tt.want)
						}
					}
				}
				n, idle := m.sizes()
				if n > tt.want || n != idle {
					t.Errorf("%d keys (%d idle) remembered at the end, want at most %d, all idle", n, idle, tt.want)
				}
				after := heapInUse()
				if grown := int64(after) - int64(before); grown > int64(tt.want)*600+1<<20 {
					t.Errorf("the heap has grown by %d bytes for %d keys", grown, n)
				}
				runtime.KeepAlive(m)
			})
		})
	}
}

func TestMapsShrinkAfterAPeak(t *testing.T) {
	const keys = 500_000
	m := NewMemory()
	before := heapInUse()
	leases := make([]*Lease, keys)
	for i := range leases {
		var err error
		if leases[i], err = m.Acquire(t.Context(), fmt.Sprint("customer-", i), Caps{}); err != nil {
			t.Fatal(err)
		}
	}
	if n, idle := m.sizes(); n != keys || idle != 0 {
		t.Fatalf("%d keys, %d idle, want %d and 0", n, idle, keys)
	}
	for i, lease := range leases {
		lease.Release()
		leases[i] = nil
	}
	if n, _ := m.sizes(); n > shardCount*(idleKept+1) {
		t.Errorf("%d keys remembered after all connections ended", n)
	}
	leases = nil
	after := heapInUse()
	if grown := int64(after) - int64(before); grown > 8<<20 {
		t.Errorf("%d bytes stay after a peak of %d keys", grown, keys)
	}
	runtime.KeepAlive(m)
}

// A key whose bucket is not full must survive the coming and going of others,
// up to the bound on idle keys.
func TestRefillingKeyIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		caps := Caps{ConnRate: 0.01, ConnBurst: 1}
		pass(t, m, "key", caps)
		for i := range 200_000 {
			pass(t, m, fmt.Sprint("other-", i), Caps{})
		}
		var over *ExceededError
		if _, err := m.Acquire(t.Context(), "key", caps); !errors.As(err, &over) {
			t.Errorf("the spent bucket was forgotten: error %v", err)
		}
		time.Sleep(100 * time.Second)
		pass(t, m, "key", caps)
	})
}

// A forgotten key's bucket serves the next new key, which must find it full
// under its own caps.
func TestNewKeysHaveFullBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		for i := range 30_000 {
			caps := Caps{ConnRate: 1, ConnBurst: 1 + i%3}
			key := fmt.Sprint("key-", i)
			for range caps.ConnBurst {
				pass(t, m, key, caps)
			}
			var over *ExceededError
			if _, err := m.Acquire(t.Context(), key, caps); !errors.As(err, &over) {
				t.Fatalf("%q got more than its burst of %d: error %v", key, caps.ConnBurst, err)
			}
			if i%100 == 0 {
				time.Sleep(10 * time.Second)
			}
		}
	})
}

func TestRangeMayStopAndCallBack(t *testing.T) {
	m := NewMemory()
	for i := range 100 {
		lease, err := m.Acquire(t.Context(), fmt.Sprint(i), Caps{})
		if err != nil {
			t.Fatal(err)
		}
		defer lease.Release()
	}
	seen := 0
	m.Range(func(key string, _ int) bool {
		pass(t, m, key, Caps{}) // would deadlock under a shard's lock
		seen++
		return seen < 50
	})
	if seen != 50 {
		t.Errorf("Range went on to %d keys, want 50", seen)
	}
}

func TestCaps(t *testing.T) {
	tests := []struct {
		name  string
		caps  Caps
		rated bool
		burst int
	}{
		{"zero", Caps{}, false, 1},
		{"negative rate", Caps{ConnRate: -1}, false, 1},
		{"NaN", Caps{ConnRate: math.NaN(), ConnBurst: 1}, false, 1},
		{"infinite", Caps{ConnRate: math.Inf(1)}, false, math.MaxInt32},
		{"fraction", Caps{ConnRate: 0.2}, true, 1},
		{"rounded up", Caps{ConnRate: 10.1}, true, 11},
		{"given", Caps{ConnRate: 10, ConnBurst: 3}, true, 3},
		{"negative burst", Caps{ConnRate: 10, ConnBurst: -3}, true, 10},
		{"huge", Caps{ConnRate: math.MaxFloat64}, true, math.MaxInt32},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.caps.rated(); got != tt.rated {
				t.Errorf("rated() is %v, want %v", got, tt.rated)
			}
			if got := tt.caps.burst(); got != tt.burst {
				t.Errorf("burst() is %d, want %d", got, tt.burst)
			}
		})
	}
}

func TestUnlimitedRates(t *testing.T) {
	for _, rate := range []float64{-1, math.NaN(), math.Inf(1), math.MaxFloat64} {
		m := NewMemory()
		for range 1000 {
			pass(t, m, "key", Caps{ConnRate: rate})
		}
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	for _, rate := range []float64{math.SmallestNonzeroFloat64, 1e-9, 1e6} {
		synctest.Test(t, func(t *testing.T) {
			m := NewMemory()
			caps := Caps{ConnRate: rate, ConnBurst: 1}
			pass(t, m, "key", caps)
			var over *ExceededError
			if _, err := m.Acquire(t.Context(), "key", caps); !errors.As(err, &over) {
				t.Fatalf("rate %g: error %v, want an *ExceededError", rate, err)
			}
			if over.RetryAfter <= 0 || over.RetryAfter > maxRetryAfter {
				t.Errorf("rate %g: RetryAfter is %v", rate, over.RetryAfter)
			}
		})
	}
}

func TestExceededErrorText(t *testing.T) {
	tests := []struct {
		err  *ExceededError
		want string
	}{
		{&ExceededError{Cap: CapMaxConns, Limit: 2000}, "limit: max_conns of 2000 reached"},
		{&ExceededError{Cap: CapConnRate, Limit: 0.5}, "limit: conn_rate of 0.5 reached"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() is %q, want %q", got, tt.want)
		}
	}
}

func TestLeaseWithoutHolder(*testing.T) {
	var none *Lease
	none.Release()
	new(Lease).Release()
}

func TestNewLeaseReleasesOnce(t *testing.T) {
	calls := 0
	lease := NewLease(func() { calls++ })
	for range 3 {
		lease.Release()
	}
	if calls != 1 {
		t.Errorf("release was called %d times", calls)
	}
}
