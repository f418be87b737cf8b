// Package limittest is the conformance suite of [limit.Limiter]. An
// implementation calls [Run] from a test of its own:
//
//	func TestConformance(t *testing.T) {
//		limittest.Run(t, func(t *testing.T) limit.Limiter { return limit.NewMemory() })
//	}
package limittest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"maskrelay/proxy/limit"
)

// Advancer is a Limiter with a clock of its own. The suite moves the clock of a
// Limiter that implements it; any other is run in a testing/synctest bubble,
// where it must take its time from package time.
type Advancer interface {
	// Advance moves the Limiter's clock by d.
	Advance(d time.Duration)
}

// fixture is what one test of the suite works on.
type fixture struct {
	limit.Limiter
	advance func(time.Duration)
}

// Run tests the Limiters that newLimiter returns, each of which must be empty
// and independent of the others. newLimiter is called several times, with the
// test that is to own the Limiter and its clean-up.
func Run(t *testing.T, newLimiter func(t *testing.T) limit.Limiter) {
	tests := []struct {
		name string
		test func(t *testing.T, l fixture)
	}{
		{"NoCaps", testNoCaps},
		{"MaxConns", testMaxConns},
		{"ExactUnderContention", testContention},
		{"ExactUnderChurn", testChurn},
		{"DoubleRelease", testDoubleRelease},
		{"ReleaseFromManyGoroutines", testReleaseFromMany},
		{"CapChanges", testCapChanges},
		{"KeysAreIndependent", testIndependent},
		{"ManyKeys", testManyKeys},
		{"Range", testRange},
		{"ContextEnded", testContextEnded},
		{"AcquireNow", testAcquireNow},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, fixture{Limiter: newLimiter(t)}) })
	}
	timed := []struct {
		name string
		test func(t *testing.T, l fixture)
	}{
		{"Burst", testBurst},
		{"DefaultBurst", testDefaultBurst},
		{"Rate", testRate},
		{"RetryAfter", testRetryAfter},
		{"RefusalsConsumeNoToken", testRefusalsConsumeNoToken},
		{"RateChanges", testRateChanges},
		{"RateOutlivesConnections", testRateOutlivesConnections},
	}
	for _, tt := range timed {
		t.Run(tt.name, func(t *testing.T) { runTimed(t, newLimiter, tt.test) })
	}
}

func runTimed(t *testing.T, newLimiter func(t *testing.T) limit.Limiter, test func(*testing.T, fixture)) {
	l := newLimiter(t)
	if a, ok := l.(Advancer); ok {
		test(t, fixture{l, a.Advance})
		return
	}
	synctest.Test(t, func(t *testing.T) {
		test(t, fixture{newLimiter(t), time.Sleep})
	})
}

// mustAcquire acquires a lease that ends with the test.
func (l fixture) mustAcquire(t *testing.T, key string, caps limit.Caps) *limit.Lease {
	t.Helper()
	lease, err := l.Acquire(t.Context(), key, caps)
	if err != nil {
		t.Fatalf("Acquire(%q, %+v): %v", key, caps, err)
	}
	if lease == nil {
		t.Fatalf("Acquire(%q, %+v) returned neither lease nor error", key, caps)
	}
	return lease
}

// mustRefuse checks that a connection is refused for the named cap, and returns
// when to try again.
func (l fixture) mustRefuse(t *testing.T, key string, caps limit.Caps, name string) time.Duration {
	t.Helper()
	lease, err := l.Acquire(t.Context(), key, caps)
	var over *limit.ExceededError
	if !errors.As(err, &over) {
		t.Fatalf("Acquire(%q, %+v) returned error %v, want an *ExceededError", key, caps, err)
	}
	if lease != nil {
		t.Errorf("a refusal of %q came with a lease", key)
	}
	want := float64(caps.MaxConns)
	if name == limit.CapConnRate {
		want = caps.ConnRate
	}
	if over.Cap != name || over.Limit != want {
		t.Errorf("refused for %s of %g, want %s of %g", over.Cap, over.Limit, name, want)
	}
	if over.RetryAfter <= 0 {
		t.Errorf("RetryAfter is %v, want more than 0", over.RetryAfter)
	}
	return over.RetryAfter
}

func (l fixture) wantInUse(t *testing.T, key string, want int) {
	t.Helper()
	if got := l.InUse(key); got != want {
		t.Errorf("InUse(%q) is %d, want %d", key, got, want)
	}
}

// admit tries n times and returns how many were admitted.
func (l fixture) admit(t *testing.T, n int, caps limit.Caps) int {
	t.Helper()
	admitted := 0
	for range n {
		lease, err := l.Acquire(t.Context(), "key", caps)
		var over *limit.ExceededError
		switch {
		case err == nil:
			admitted++
			lease.Release()
		case !errors.As(err, &over):
			t.Fatalf("Acquire: %v", err)
		}
	}
	return admitted
}

func testNoCaps(t *testing.T, l fixture) {
	leases := make([]*limit.Lease, 1000)
	for i := range leases {
		leases[i] = l.mustAcquire(t, "key", limit.Caps{})
	}
	l.wantInUse(t, "key", len(leases))
	for _, lease := range leases {
		lease.Release()
	}
	l.wantInUse(t, "key", 0)
}

func testMaxConns(t *testing.T, l fixture) {
	caps := limit.Caps{MaxConns: 2}
	first := l.mustAcquire(t, "key", caps)
	second := l.mustAcquire(t, "key", caps)
	for range 100 {
		l.mustRefuse(t, "key", caps, limit.CapMaxConns)
	}
	l.wantInUse(t, "key", 2)
	first.Release()
	third := l.mustAcquire(t, "key", caps)
	l.mustRefuse(t, "key", caps, limit.CapMaxConns)
	second.Release()
	third.Release()
	l.wantInUse(t, "key", 0)
}

func testDoubleRelease(t *testing.T, l fixture) {
	caps := limit.Caps{MaxConns: 2}
	first := l.mustAcquire(t, "key", caps)
	second := l.mustAcquire(t, "key", caps)
	for range 3 {
		first.Release()
	}
	l.wantInUse(t, "key", 1)
	third := l.mustAcquire(t, "key", caps)
	first.Release() // of a slot that is another's by now
	l.mustRefuse(t, "key", caps, limit.CapMaxConns)
	second.Release()
	third.Release()
	l.wantInUse(t, "key", 0)
}

func testCapChanges(t *testing.T, l fixture) {
	var leases []*limit.Lease
	for range 4 {
		leases = append(leases, l.mustAcquire(t, "key", limit.Caps{MaxConns: 4}))
	}
	l.mustRefuse(t, "key", limit.Caps{MaxConns: 4}, limit.CapMaxConns)
	leases = append(leases, l.mustAcquire(t, "key", limit.Caps{MaxConns: 5}))
	l.mustRefuse(t, "key", limit.Caps{MaxConns: 2}, limit.CapMaxConns)
	l.wantInUse(t, "key", 5) // a lowered cap keeps what is held
	for _, lease := range leases[:4] {
		lease.Release()
	}
	leases[0] = l.mustAcquire(t, "key", limit.Caps{MaxConns: 2})
	l.mustRefuse(t, "key", limit.Caps{MaxConns: 2}, limit.CapMaxConns)
	leases[1] = l.mustAcquire(t, "key", limit.Caps{}) // a cap taken away
	l.wantInUse(t, "key", 3)
	for _, lease := range leases {
		lease.Release()
	}
	l.wantInUse(t, "key", 0)
}

func testIndependent(t *testing.T, l fixture) {
	caps := limit.Caps{MaxConns: 1}
	keys := []string{"alice", "alice2", "Alice", "", "al\x00ice", "ali:ce"}
	leases := make([]*limit.Lease, len(keys))
	for i, key := range keys {
		leases[i] = l.mustAcquire(t, key, caps)
	}
	for i, key := range keys {
		l.mustRefuse(t, key, caps, limit.CapMaxConns)
		leases[i].Release()
		l.wantInUse(t, key, 0)
	}
}

func testManyKeys(t *testing.T, l fixture) {
	const keys = 10_000
	caps := limit.Caps{MaxConns: 2}
	leases := make([]*limit.Lease, 0, 2*keys)
	for range 2 {
		for i := range keys {
			leases = append(leases, l.mustAcquire(t, fmt.Sprint("key-", i), caps))
		}
	}
	for i := range keys {
		l.wantInUse(t, fmt.Sprint("key-", i), 2)
	}
	for _, lease := range leases {
		lease.Release()
	}
	l.Range(func(key string, inUse int) bool {
		t.Errorf("%q still holds %d", key, inUse)
		return false
	})
}

func testRange(t *testing.T, l fixture) {
	l.Range(func(key string, inUse int) bool {
		t.Errorf("an empty Limiter holds %d for %q", inUse, key)
		return true
	})
	want := map[string]int{"a": 1, "b": 2, "c": 3}
	for key, n := range want {
		for range n {
			defer l.mustAcquire(t, key, limit.Caps{}).Release()
		}
	}
	l.mustAcquire(t, "gone", limit.Caps{}).Release()
	got := make(map[string]int)
	l.Range(func(key string, inUse int) bool {
		got[key] = inUse
		l.wantInUse(t, key, inUse) // calls back into the Limiter
		return true
	})
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Range gave %v, want %v", got, want)
	}
	calls := 0
	l.Range(func(string, int) bool { calls++; return false })
	if calls != 1 {
		t.Errorf("Range called f %d times after it returned false the first time", calls)
	}
}

func testContextEnded(t *testing.T, l fixture) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	caps := limit.Caps{MaxConns: 1, ConnRate: 1e-6, ConnBurst: 1}
	for range 10 {
		lease, err := l.Acquire(ctx, "key", caps)
		if !errors.Is(err, context.Canceled) || lease != nil {
			t.Fatalf("Acquire with a cancelled context returned %v, %v", lease, err)
		}
	}
	l.wantInUse(t, "key", 0)
	// Neither slot nor token went.
	l.mustAcquire(t, "key", caps).Release()
}

// testAcquireNow is about Limiters that admit without blocking; others have nothing to show.
func testAcquireNow(t *testing.T, l fixture) {
	now, ok := l.Limiter.(limit.Immediate)
	if !ok {
		t.Skip("the Limiter is no limit.Immediate")
	}
	caps := limit.Caps{MaxConns: 2}
	var leases [2]limit.Lease
	for i := range leases {
		if err := now.AcquireNow(&leases[i], "key", caps); errors.Is(err, limit.ErrWouldBlock) {
			l.wantInUse(t, "key", i) // nothing was consumed
			l.mustAcquire(t, "key", caps).MoveTo(&leases[i])
		} else if err != nil {
			t.Fatalf("AcquireNow: %v", err)
		}
	}
	l.wantInUse(t, "key", 2)
	var refused limit.Lease
	err := now.AcquireNow(&refused, "key", caps)
	var over *limit.ExceededError
	if !errors.As(err, &over) || over.Cap != limit.CapMaxConns {
		t.Errorf("AcquireNow beyond the cap returned error %v, want an *ExceededError", err)
	}
	refused.Release() // holds nothing
	l.wantInUse(t, "key", 2)
	for range 1000 { // a released lease serves again
		leases[0].Release()
		leases[0].Release()
		if err := now.AcquireNow(&leases[0], "key", caps); err != nil {
			t.Fatalf("AcquireNow of a slot given back just before: %v", err)
		}
	}
	l.wantInUse(t, "key", 2)
	for i := range leases {
		leases[i].Release()
	}
	l.wantInUse(t, "key", 0)
}
