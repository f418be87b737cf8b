package redislimit

import (
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"

	"maskrelay/proxy/limit"
)

const (
	// minBlock and maxBlock bound how many slots a relay leases ahead where there are plenty; near the cap it is fewer. Tokens
	// come in no smaller blocks.
	minBlock = 4
	maxBlock = 64
	// burstGap is the time between two blocks under which the next one is twice as large.
	burstGap = 250 * time.Millisecond
	// tokenLife is how long tokens may lie here before they go back, if the bucket is not at least half full.
	tokenLife = time.Second
	// atRest is how long a key has neither a new connection nor an end before its idle slots go back.
	atRest = time.Second
	// linger is how long the lease of a key without connections is kept, for a customer who comes back at once.
	linger = 2 * time.Second
	// retryAfter is what a refusal for the number of connections says; nobody can foresee their ends.
	retryAfter    = time.Second
	maxRetryAfter = 24 * time.Hour
)

// bounds are a key's caps in the form that is compared.
type bounds struct {
	max   int     // 0 is none
	rate  float64 // 0 is none
	burst int
}

func boundsOf(caps limit.Caps) bounds {
	b := bounds{max: max(caps.MaxConns, 0)}
	b.rate, b.burst = caps.Bucket()
	return b
}

// denial is an answer of Redis that is remembered for a moment, so that a customer over his cap costs no trip for each attempt.
type denial struct {
	bounds bounds // it holds for these alone
	until  time.Duration
	retry  time.Duration // when there is a token
}

// entry is one key. Its fields are guarded by its shard's mutex. Times are of the Limiter's clock.
type entry struct {
	shard   *shard
	key     string
	release func() // drop, made once

	inUse   int
	waiting int // in Acquire, for the flight or for the next
	flight  *call
	bounds  bounds // of the latest attempt
	lastUse time.Duration

	// The lease: held slots, given under a cap of heldUnder (0 is none), count until leaseEnd. What Redis said of the others is in free and relays.
	held, heldUnder int
	leaseEnd        time.Duration
	renewAt         time.Duration
	free, relays    int
	block           int
	refilled        time.Duration
	registered      bool // as far as is known there is a field of ours in Redis

	// Tokens of the rate, taken from the bucket of tokenRate and tokenBurst, count until tokenEnd. The bucket had tokensLeft at leftAt.
	tokens, tokenBlock int
	tokenRate          float64
	tokenBurst         int
	tokenEnd           time.Duration
	tokensLeft         int
	leftAt             time.Duration
	tokenRefilled      time.Duration

	fullSlots, fullRate denial
	brokenUntil         time.Duration // a call failed; the policy decides until then
	share               *rate.Limiter // this relay's share of the rate while the policy decides
	shareOf             bounds
	shareAmong          int

	// prev and next link the idle entries; nil while the entry is in use.
	prev, next *entry
}

// judgeLocked decides on one more connection under b and takes its token. With ask the answer is in Redis and nothing was taken.
func (e *entry) judgeLocked(b bounds, now time.Duration) (ask bool, err error) {
	e.bounds = b
	if b.max == 0 && b.rate == 0 {
		return false, nil
	}
	l := e.shard.limiter
	if !l.online() || now < e.brokenUntil {
		return false, e.policyLocked(now)
	}
	e.share = nil
	if b.max > 0 && e.inUse >= b.max {
		return false, e.exceeded(limit.CapMaxConns, retryAfter)
	}
	slot := b.max == 0 || e.inUse < e.usableLocked(now)
	token := b.rate == 0 || e.tokensLocked(now) > 0
	switch {
	case slot && token:
		if b.rate > 0 {
			e.tokens--
		}
		return false, nil
	case !slot && now < e.fullSlots.until && e.fullSlots.bounds == b:
		return false, e.exceeded(limit.CapMaxConns, retryAfter)
	case !token && now < e.fullRate.until && e.fullRate.bounds == b:
		return false, e.exceeded(limit.CapConnRate, e.fullRate.retry-now)
	}
	return true, nil
}

// usableLocked returns the number of connections that the lease covers. One given under a higher cap than today's, or under none,
// covers none more.
func (e *entry) usableLocked(now time.Duration) int {
	if now >= e.leaseEnd || e.bounds.max > 0 && (e.heldUnder == 0 || e.bounds.max < e.heldUnder) {
		return e.inUse
	}
	return e.held
}

// tokensLocked returns the tokens that lie here and still count.
func (e *entry) tokensLocked(now time.Duration) int {
	if now >= e.tokenEnd || e.tokenRate != e.bounds.rate || e.tokenBurst != e.bounds.burst {
		return 0
	}
	return e.tokens
}

// exceeded is the refusal for one of the caps.
func (e *entry) exceeded(what string, after time.Duration) error {
	over := &limit.ExceededError{Cap: what, Limit: float64(e.bounds.max), RetryAfter: min(max(after, 1), maxRetryAfter)}
	if what == limit.CapConnRate {
		over.Limit = e.bounds.rate
	}
	return over
}

// admitLocked counts a connection that judgeLocked let pass, and asks for more if the block runs low.
func (e *entry) admitLocked(now time.Duration) {
	e.shard.popIdleLocked(e)
	e.inUse++
	e.lastUse = now
	if e.flight == nil && e.lowLocked(now) && e.shard.limiter.online() {
		e.shard.limiter.askLocked(e, forBlock)
	}
}

// lowLocked reports whether a further block is worth while: less than a quarter is left of what one would be, and there is
// more than the relays near the cap would take from each other.
func (e *entry) lowLocked(now time.Duration) bool {
	if now < e.brokenUntil || e.relays == 0 {
		return false
	}
	b := e.bounds
	ahead := min(e.block, e.free/(4*e.relays), b.max-e.inUse)
	if b.max > 0 && ahead > 0 && e.usableLocked(now)-e.inUse <= ahead/4 {
		return true
	}
	ahead = min(e.tokenBlock, e.tokensLeft/(4*e.relays))
	return b.rate > 0 && ahead > 0 && e.tokensLocked(now) <= ahead/4
}

// drop ends one connection, and gives slots back if far more lie idle than a customer's coming and going explains.
func (e *entry) drop() {
	s := e.shard
	now := s.limiter.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.inUse--
	e.lastUse = now
	if e.registered && e.flight == nil && e.held-e.inUse > 2*e.block+e.inUse/4+minBlock && s.limiter.online() {
		if s.limiter.askLocked(e, forOthers) {
			e.held = e.inUse + e.block
		}
	}
	if e.inUse == 0 {
		s.pushIdleLocked(e)
		s.sweepLocked(now)
	}
}

// tendLocked looks at the entry once in a while and returns why Redis must be told of it, if it must.
func (e *entry) tendLocked(now time.Duration) (p purpose, due bool) {
	if e.flight != nil {
		return 0, false
	}
	if now-e.refilled > tokenLife {
		e.block = max(e.block/2, minBlock)
	}
	if now-e.tokenRefilled > tokenLife {
		e.tokenBlock = max(e.tokenBlock/2, minBlock)
	}
	quiet := now-e.lastUse > atRest
	switch {
	case e.inUse == 0 && e.registered && now-e.lastUse > linger:
		e.held = 0
		return forOthers, true
	case now >= e.renewAt && (e.inUse > 0 || e.registered):
		e.held = min(e.held, e.inUse+max(e.block, e.inUse/8))
		return forRenewal, true
	case e.tokens > 0 && now >= e.tokenEnd:
		return forOthers, true
	}
	// Idle slots that another relay could want: near the cap all of them, or all but one while customers come and go.
	spare := minBlock
	if e.bounds.max > 0 && e.free < max(e.bounds.max/16, 4*e.relays) {
		spare = 0
		if !quiet {
			quiet, spare = true, 1
		}
	}
	if e.registered && quiet && e.held-e.inUse > spare {
		e.held = e.inUse + spare
		return forOthers, true
	}
	return 0, false
}

// spareLocked reports whether nothing is lost if e is forgotten.
func (e *entry) spareLocked(now time.Duration) bool {
	if e.inUse > 0 || e.waiting > 0 || e.flight != nil || e.registered || e.tokens > 0 || now < e.brokenUntil {
		return false
	}
	if now < e.fullSlots.until || now < e.fullRate.until {
		return false
	}
	return e.share == nil || e.share.TokensAt(e.shard.limiter.wall(now)) >= float64(e.share.Burst())
}

// takeLocked makes the answer to c the truth here.
func (e *entry) takeLocked(c *call, r reply, now time.Duration) {
	e.held, e.heldUnder, e.leaseEnd = r.granted, c.bounds.max, c.leaseEnd
	e.registered = r.granted > 0
	e.renewAt = now + c.renew*7/8 + jitter(c.renew/4)
	if r.relays == 0 {
		e.free = max(e.free, c.bounds.max/8) // nobody was refused for a while
		return
	}
	e.free, e.relays = r.free, max(r.relays, c.peers)
	if ahead := r.granted - c.inUse - c.waiting; ahead > 0 && c.block > 0 {
		if now-e.refilled < burstGap {
			e.block = min(2*e.block, maxBlock)
		}
		e.refilled = now
	}
	if r.free < 0 {
		// The relays together have more than the cap: what lies idle here goes before anybody uses it, and a connection
		// that ends makes room for no other until Redis has been asked.
		idle := e.held > e.inUse
		e.held = max(e.held+r.free, 0)
		if idle {
			e.shard.limiter.askLocked(e, forOthers)
		}
	}
	e.fullSlots.until = 0
	if c.bounds.max > 0 && r.granted < c.inUse+c.waiting {
		e.fullSlots = denial{bounds: c.bounds, until: now + denialTime()}
	}
	if c.bounds.rate > 0 {
		e.takeTokensLocked(c, r, now)
	}
}

func (e *entry) takeTokensLocked(c *call, r reply, now time.Duration) {
	if e.tokenRate != c.bounds.rate || e.tokenBurst != c.bounds.burst {
		e.tokens = 0
		e.tokenRate, e.tokenBurst = c.bounds.rate, c.bounds.burst
	}
	e.tokensLeft, e.leftAt = r.left, now
	if r.tokens > 0 {
		e.tokens += r.tokens
		e.tokenEnd = c.start + tokenLife
		if r.left >= c.bounds.burst/2 { // nobody could want them so soon
			e.tokenEnd = c.start + max(c.renew, tokenLife)
		}
		if now-e.tokenRefilled < burstGap {
			most := max(minBlock, min(c.bounds.rate/4, float64(c.bounds.burst)))
			e.tokenBlock = int(min(2*float64(e.tokenBlock), most))
		}
		e.tokenRefilled = now
	}
	e.fullRate.until = 0
	if r.tokens < c.tokens {
		// Redis's clock was read in microseconds.
		e.fullRate = denial{bounds: c.bounds, until: now + min(r.wait-time.Microsecond, denialTime()), retry: now + r.wait}
	}
}

// jitter returns a time below d, never the same.
func jitter(d time.Duration) time.Duration { return time.Duration(rand.Int64N(max(int64(d), 1))) }

// denialTime is how long a denial is believed.
func denialTime() time.Duration { return 50*time.Millisecond + jitter(50*time.Millisecond) }

// shareOf returns n divided among relays, rounded up.
func shareOf(n float64, relays int) int {
	return int(min(math.Ceil(n/float64(relays)), math.MaxInt32))
}
