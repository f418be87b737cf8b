package redislimit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed" // the script
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

//go:embed address.lua
var addressSource string

// addressDenialTime is how long a refusal of an address is believed.
const addressDenialTime = time.Second

// Admit implements [limit.Addresses]. Redis is asked about an address that this relay has not seen within half the window;
// an IPv6 address counts with all others of its /64, which belong to one customer. It waits no longer than
// [fleet.CallTimeout] in all. While Redis does not answer, addresses that this relay knows are admitted, and of others
// [Config.Down] decides: up to max that this relay knows, all, or none ([limit.ErrUnavailable]).
func (l *Limiter) Admit(ctx context.Context, key string, addr netip.Addr, max int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("redislimit: admit address: %w", err)
	}
	c, err := l.visit(key, addr, visiting{max: max, joins: true})
	if c == nil {
		return err
	}
	timer := time.NewTimer(fleet.CallTimeout)
	defer timer.Stop()
	last := false
	for c != nil {
		select {
		case <-c.done:
		case <-timer.C:
			last = true
		case <-ctx.Done():
			return fmt.Errorf("redislimit: admit address: %w", ctx.Err())
		}
		c, err = l.visit(key, addr, visiting{max: max, joins: true, last: last})
	}
	return err
}

// AdmitNow implements [limit.Addresses].
func (l *Limiter) AdmitNow(key string, addr netip.Addr, max int) error {
	_, err := l.visit(key, addr, visiting{max: max})
	return err
}

// visiting is one question about an address.
type visiting struct {
	max   int
	joins bool // the flight, if the answer is in Redis
	last  bool // the time to wait is over
}

// visit decides about an address, or returns a flight to wait for.
func (l *Limiter) visit(key string, addr netip.Addr, q visiting) (*addressCall, error) {
	q.max = max(q.max, 1)
	addr = place(addr)
	s := &l.places.shards[maphash.String(l.places.seed, key)%shardCount]
	now := l.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.visitLocked(key, addr)
	switch {
	case v.admitted && now-v.seen < l.config.Window/2:
		return nil, nil
	case !l.online() || now < v.brokenUntil || q.last:
		return nil, l.visitAloneLocked(v, q.max, now)
	case now < v.deniedUntil && v.max == q.max:
		return nil, tooManyAddresses(q.max, v.retry-now)
	case !q.joins:
		return nil, limit.ErrWouldBlock
	case v.flight != nil:
		return v.flight, nil
	}
	c := &addressCall{limiter: l, shard: s, v: v, max: q.max, done: make(chan struct{})}
	select {
	case l.asks <- c:
		v.flight = c
		return c, nil
	default: // too many wait
		return nil, l.visitAloneLocked(v, q.max, now)
	}
}

// visitAloneLocked is the policy's decision. What it admits is not marked as seen, so that Redis is asked when it is back.
func (l *Limiter) visitAloneLocked(v *visit, most int, now time.Duration) error {
	known := v.admitted && now-v.seen < l.config.Window
	switch {
	case known || l.config.Down == Open:
	case l.config.Down == Closed:
		l.counts.policyRefused.Add(1)
		return limit.ErrUnavailable
	case v.of.knownLocked(now, l.config.Window) >= most:
		l.counts.policyRefused.Add(1)
		return tooManyAddresses(most, addressDenialTime)
	default:
		v.admitted, v.seen = true, now-l.config.Window/2
	}
	l.counts.policyAdmitted.Add(1)
	return nil
}

func tooManyAddresses(most int, after time.Duration) error {
	return &limit.ExceededError{Cap: limit.CapMaxIPs, Limit: float64(most), RetryAfter: min(max(after, time.Millisecond), maxRetryAfter)}
}

// place is what counts as one address.
func place(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	return netip.PrefixFrom(addr, 64).Masked().Addr()
}

// addressCall is one flight about an address.
type addressCall struct {
	limiter *Limiter
	shard   *addressShard
	v       *visit
	max     int
	start   time.Duration
	done    chan struct{}
}

func (c *addressCall) script() *redis.Script { return c.limiter.address }

func (c *addressCall) request() (key string, args []any) {
	l := c.limiter
	l.counts.addressAsks.Add(1)
	c.start = l.now()
	return l.config.Client.Key("ips", c.v.of.key), []any{hashAddress(c.v.of.key, c.v.addr), l.config.Window.Milliseconds(), c.max}
}

func (c *addressCall) settle(answer any, err error) {
	wait, ok := answer.(int64)
	c.shard.mu.Lock()
	now := c.limiter.now()
	v := c.v
	v.flight = nil
	switch {
	case err != nil || !ok:
		v.brokenUntil = now + denialTime()
	case wait == 0:
		v.admitted, v.seen, v.deniedUntil = true, c.start, 0
	default:
		v.admitted, v.max = false, c.max
		v.retry = now + time.Duration(wait)*time.Millisecond
		v.deniedUntil = min(v.retry, now+addressDenialTime)
	}
	c.shard.mu.Unlock()
	close(c.done)
}

// hashAddress is an address as it lies in Redis: who reads it there sees which customers share one only by trying them all.
func hashAddress(key string, addr netip.Addr) string {
	mac := hmac.New(sha256.New, []byte("maskrelay max_ips "+key))
	mac.Write(addr.AsSlice())
	return hex.EncodeToString(mac.Sum(nil)[:12])
}
