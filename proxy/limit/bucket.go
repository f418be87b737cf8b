package limit

import (
	"math"
	"time"
)

// bucket is a token bucket. The zero bucket has no rate and limits nothing. Its times
// count from one beginning and may be any; one before an earlier one adds no tokens.
// It is not safe for concurrent use.
type bucket struct {
	rate   float64 // tokens per second; 0 = no limit
	burst  float64
	tokens float64 // at last
	last   time.Duration
}

// limits reports whether b has a rate.
func (b *bucket) limits() bool { return b.rate != 0 }

// set gives b a rate above 0 and a burst of at least 1. A bucket without a rate is full
// then; another keeps its tokens, as far as the new burst has room for them.
func (b *bucket) set(rate float64, burst int, now time.Duration) {
	size := float64(burst)
	switch {
	case b.rate == rate && b.burst == size:
		return
	case !b.limits():
		b.tokens, b.last = size, now
	default:
		b.tokens = min(b.at(now), size)
		b.last = max(b.last, now)
	}
	b.rate, b.burst = rate, size
}

// at returns the tokens that b holds at now.
func (b *bucket) at(now time.Duration) float64 {
	if now <= b.last {
		return b.tokens
	}
	return min(b.burst, b.tokens+(now-b.last).Seconds()*b.rate)
}

// take takes a token and reports whether there was one.
func (b *bucket) take(now time.Duration) bool {
	tokens := b.at(now)
	if tokens < 1 {
		return false // and no sum of small fractions is kept, whose rounding would add up
	}
	b.tokens, b.last = tokens-1, max(b.last, now)
	return true
}

// wait returns how long after now b, which has no token, holds one: more than 0 and at
// most maxRetryAfter.
func (b *bucket) wait(now time.Duration) time.Duration {
	wait := math.Ceil((1 - b.at(now)) / b.rate * float64(time.Second))
	if !(wait < float64(maxRetryAfter)) {
		return maxRetryAfter
	}
	return max(time.Duration(wait), 1)
}

// fullAt reports whether b holds all the tokens that it can.
func (b *bucket) fullAt(now time.Duration) bool { return b.at(now) >= b.burst }
