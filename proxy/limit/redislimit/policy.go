package redislimit

import (
	"time"

	"golang.org/x/time/rate"

	"maskrelay/proxy/limit"
)

// DownPolicy says what is done with new connections while Redis does not answer. Open ones go on under all of them,
// and so do keys without caps.
type DownPolicy string

const (
	// LocalShare admits what this relay has leased, or its share of the cap among the relays last seen if that is more.
	LocalShare DownPolicy = "local_share"
	// Open admits everybody.
	Open DownPolicy = "open"
	// Closed admits nobody: the error wraps [limit.ErrUnavailable].
	Closed DownPolicy = "closed"
)

// policyLocked decides on one more connection without Redis, and takes its token.
func (e *entry) policyLocked(now time.Duration) error {
	l := e.shard.limiter
	switch l.config.Down {
	case Open:
		l.counts.policyAdmitted.Add(1)
		return nil
	case Closed:
		l.counts.policyRefused.Add(1)
		return limit.ErrUnavailable
	}
	err := e.shareLocked(now)
	if err != nil {
		l.counts.policyRefused.Add(1)
	} else {
		l.counts.policyAdmitted.Add(1)
	}
	return err
}

// shareLocked applies this relay's share of the caps.
func (e *entry) shareLocked(now time.Duration) error {
	relays := max(int(e.shard.limiter.peers.Load()), 1)
	b := e.bounds
	if b.max > 0 {
		allowed := min(max(e.usableLocked(now), shareOf(float64(b.max), relays)), b.max)
		if e.inUse >= allowed {
			return e.exceeded(limit.CapMaxConns, retryAfter)
		}
	}
	if b.rate == 0 {
		return nil
	}
	at := e.shard.limiter.wall(now)
	if e.share == nil || e.shareOf != b || e.shareAmong != relays {
		e.newShareLocked(now, relays)
	}
	if e.share.AllowN(at, 1) {
		return nil
	}
	missing := (1 - e.share.TokensAt(at)) / float64(e.share.Limit())
	return e.exceeded(limit.CapConnRate, seconds(missing))
}

// newShareLocked makes the bucket of this relay's share. It holds no more than the share of what was left in the
// fleet's when that was last heard of.
func (e *entry) newShareLocked(now time.Duration, relays int) {
	b := e.bounds
	burst := shareOf(float64(b.burst), relays)
	share := rate.NewLimiter(rate.Limit(b.rate/float64(relays)), burst)
	at := e.shard.limiter.wall(now)
	full := float64(burst)
	switch {
	case e.share != nil:
		full = e.share.TokensAt(at)
	case e.tokenRate == b.rate && e.tokenBurst == b.burst:
		left := float64(e.tokensLeft) + (now-e.leftAt).Seconds()*b.rate
		full = left/float64(relays) + float64(e.tokensLocked(now))
	}
	share.AllowN(at, burst-max(0, min(int(full), burst)))
	e.tokens = 0
	e.share, e.shareOf, e.shareAmong = share, b, relays
}

// seconds returns s seconds, at most maxRetryAfter.
func seconds(s float64) time.Duration {
	if !(s < maxRetryAfter.Seconds()) {
		return maxRetryAfter
	}
	return time.Duration(s * float64(time.Second))
}
