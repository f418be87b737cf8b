package limittest

import (
	"testing"
	"time"

	"maskrelay/proxy/limit"
)

func testBurst(t *testing.T, l fixture) {
	caps := limit.Caps{ConnRate: 2, ConnBurst: 5}
	if got := l.admit(t, 20, caps); got != 5 {
		t.Errorf("a burst of 5 admitted %d", got)
	}
	l.advance(time.Hour)
	if got := l.admit(t, 20, caps); got != 5 {
		t.Errorf("a burst of 5 admitted %d after an hour's rest", got)
	}
}

func testDefaultBurst(t *testing.T, l fixture) {
	tests := []struct {
		key  string
		rate float64
		want int
	}{
		{"a tenth", 0.1, 1}, {"one", 1, 1}, {"two and a half", 2.5, 3}, {"two hundred", 200, 200},
	}
	for _, tt := range tests {
		caps := limit.Caps{ConnRate: tt.rate}
		for range tt.want {
			l.mustAcquire(t, tt.key, caps).Release()
		}
		l.mustRefuse(t, tt.key, caps, limit.CapConnRate)
	}
}

// testRate knocks ten times as often as the rate allows, for a minute.
func testRate(t *testing.T, l fixture) {
	caps := limit.Caps{ConnRate: 10, ConnBurst: 1}
	admitted := l.admit(t, 1, caps)
	for range 60 * 100 {
		l.advance(10 * time.Millisecond)
		admitted += l.admit(t, 1, caps)
	}
	// One more or less is rounding of the bucket.
	if admitted < 600 || admitted > 602 {
		t.Errorf("10 per second with a burst of 1 admitted %d in a minute, want 601", admitted)
	}
}

func testRetryAfter(t *testing.T, l fixture) {
	for _, rate := range []float64{0.01, 0.3, 7, 1000} {
		caps := limit.Caps{ConnRate: rate, ConnBurst: 1}
		l.admit(t, 1, caps)
		retryAfter := l.mustRefuse(t, "key", caps, limit.CapConnRate)
		period := time.Duration(float64(time.Second) / rate)
		if d := retryAfter - period; d < -period/100 || d > period/100+time.Millisecond {
			t.Errorf("at %g per second RetryAfter is %v, want about %v", rate, retryAfter, period)
		}
		l.advance(retryAfter * 9 / 10)
		l.mustRefuse(t, "key", caps, limit.CapConnRate)
		l.advance(retryAfter - retryAfter*9/10)
		l.mustAcquire(t, "key", caps).Release()
		l.advance(time.Hour)
	}
}

func testRefusalsConsumeNoToken(t *testing.T, l fixture) {
	caps := limit.Caps{MaxConns: 1, ConnRate: 1, ConnBurst: 3}
	lease := l.mustAcquire(t, "key", caps) // 2 tokens left
	for range 100 {
		l.mustRefuse(t, "key", caps, limit.CapMaxConns)
	}
	lease.Release()
	if got := l.admit(t, 100, caps); got != 2 {
		t.Errorf("%d were admitted of the 2 that refusals for max_conns must have left", got)
	}
	for range 100 {
		l.mustRefuse(t, "key", caps, limit.CapConnRate)
	}
	l.wantInUse(t, "key", 0)
	l.advance(time.Second)
	if got := l.admit(t, 100, caps); got != 1 {
		t.Errorf("%d were admitted after a second at 1 per second", got)
	}
}

func testRateChanges(t *testing.T, l fixture) {
	slow := limit.Caps{ConnRate: 1, ConnBurst: 2}
	if got := l.admit(t, 10, slow); got != 2 {
		t.Fatalf("a burst of 2 admitted %d", got)
	}
	fast := limit.Caps{ConnRate: 100, ConnBurst: 50}
	l.mustRefuse(t, "key", fast, limit.CapConnRate) // a change is no gift of tokens
	l.advance(100 * time.Millisecond)
	if got := l.admit(t, 100, fast); got != 10 {
		t.Errorf("100 per second admitted %d in 100ms", got)
	}
	l.advance(time.Minute)
	if got := l.admit(t, 100, slow); got != 2 {
		t.Errorf("a burst lowered to 2 admitted %d", got)
	}
	if got := l.admit(t, 100, limit.Caps{}); got != 100 {
		t.Errorf("without a rate %d of 100 were admitted", got)
	}
}

// testRateOutlivesConnections closes every connection before the next: the rate
// must be remembered although nothing is held.
func testRateOutlivesConnections(t *testing.T, l fixture) {
	caps := limit.Caps{ConnRate: 0.1, ConnBurst: 1}
	l.mustAcquire(t, "key", caps).Release()
	for i := range 5000 { // other keys come and go meanwhile
		l.mustAcquire(t, "other"+string(rune('a'+i%26)), limit.Caps{}).Release()
	}
	l.advance(5 * time.Second)
	l.mustRefuse(t, "key", caps, limit.CapConnRate)
	l.advance(5 * time.Second)
	l.mustAcquire(t, "key", caps).Release()
}
