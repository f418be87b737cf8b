package limit

import (
	"math"
	"testing"
	"time"
)

func TestBucketWithoutRate(t *testing.T) {
	var b bucket
	if b.limits() {
		t.Error("the zero bucket limits")
	}
}

// TestBucket: what a bucket gives at given times, as its rate and burst change.
func TestBucket(t *testing.T) {
	type step struct {
		at    time.Duration
		rate  float64
		burst int
		want  int // tokens that can be taken then, one after the other; -1 = none is tried
	}
	const ms = time.Millisecond
	tests := []struct {
		name  string
		steps []step
	}{
		{"full at first", []step{{0, 10, 5, 5}, {0, 10, 5, 0}}},
		{"fills to its burst", []step{{0, 10, 5, 5}, {200 * ms, 10, 5, 2}, {time.Hour, 10, 5, 5}}},
		{"time runs backwards", []step{{time.Second, 10, 5, 5}, {0, 10, 5, 0}, {1100 * ms, 10, 5, 1}}},
		{"higher rate gives nothing for the past", []step{{0, 1, 5, 5}, {time.Second, 100, 5, 1}, {1010 * ms, 100, 5, 1}}},
		{"larger burst is not full", []step{{0, 10, 2, 2}, {100 * ms, 10, 20, 1}, {time.Hour, 10, 20, 20}}},
		{"smaller burst has room for less", []step{{0, 10, 20, -1}, {0, 10, 5, 5}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bucket
			for i, s := range tt.steps {
				b.set(s.rate, s.burst, s.at)
				if s.want < 0 {
					continue
				}
				got := 0
				for b.take(s.at) {
					got++
				}
				if got != s.want {
					t.Fatalf("step %d: %d tokens, want %d", i, got, s.want)
				}
				if b.fullAt(s.at) {
					t.Errorf("step %d: full without a token", i)
				}
			}
		})
	}
}

// TestBucketIsExact: whoever asks far more often than the rate still gets the rate, with
// nothing lost to rounding.
func TestBucketIsExact(t *testing.T) {
	for _, rate := range []float64{0.1, 3, 10, 1000} {
		var b bucket
		taken := 0
		for at := time.Duration(0); at <= time.Hour; at += 137 * time.Millisecond / 10 {
			b.set(rate, 1+int(rate), at)
			if b.take(at) {
				taken++
			}
		}
		// Either the rate binds, or the attempts do.
		most := math.Min(rate*3600+1+rate, float64(time.Hour/(137*time.Millisecond/10))+1)
		if diff := most - float64(taken); diff < 0 || diff > most/100+1 {
			t.Errorf("%g per second: %d taken in an hour, want %g", rate, taken, most)
		}
	}
}

func TestBucketWait(t *testing.T) {
	var b bucket
	b.set(4, 1, 0)
	b.take(0)
	if got := b.wait(0); got != time.Second/4 {
		t.Errorf("wait of %v, want 250ms", got)
	}
	if got := b.wait(200 * time.Millisecond); got < 49*time.Millisecond || got > 51*time.Millisecond {
		t.Errorf("wait of %v after 200ms, want 50ms", got)
	}
}
