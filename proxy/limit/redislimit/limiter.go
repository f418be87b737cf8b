package redislimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

const (
	defaultTTL    = 30 * time.Second
	defaultWindow = 10 * time.Minute
	// settleTime is how long after the return of an emptied Redis the policy still decides, so that every relay
	// can tell what it carries before anybody leases what seems free: a relay asks each second whether Redis is back.
	settleTime = 1500 * time.Millisecond
	// queueLen is the number of keys that may wait for a flight at a time.
	queueLen = 8192
)

// Config says how a fleet's connections are counted.
type Config struct {
	// Client is the way to Redis; its Run must go on as long as the Limiter is used. Required.
	Client *fleet.Client
	// Down decides while Redis does not answer; empty is LocalShare.
	Down DownPolicy
	// TTL is how long a lease lives that is not renewed; 0 is 30 seconds.
	TTL time.Duration
	// Renew is how often a lease is renewed, within an eighth more or less; 0 is a third of TTL.
	Renew time.Duration
	// Window is for how long a client address counts towards max_ips; 0 is 10 minutes.
	Window time.Duration
}

// Limiter is a [limit.Limiter] and a [limit.Addresses] of a fleet, for one relay of it. Keys are spread over shards, each behind
// its own mutex, none of which is held over a call. Memory is bounded as that of [limit.Memory], and by 131,072 pairs of a key
// and a client address. Safe for concurrent use.
type Limiter struct {
	config   Config
	seed     maphash.Seed
	shards   [shardCount]shard
	now      func() time.Duration // since base
	base     time.Time
	sequence atomic.Uint64

	lease    *redis.Script
	address  *redis.Script
	asks     chan job
	again    chan struct{} // everything is to be registered again
	settling atomic.Bool   // the policy decides, until everything is registered again
	settled  chan struct{} // closed when that was so for the first time
	first    sync.Once     // closes settled
	marked   atomic.Bool   // Redis has a mark of this relay, if it has not lost it
	peers    atomic.Int64  // relays, as they were when Redis was last asked
	stopped  atomic.Bool

	places addressBook
	counts counts
}

// New returns a Limiter without connections, and has the Client tell it of Redis's returns: it must come before the Client's Run.
func New(c Config) *Limiter {
	c.Down = cmp.Or(c.Down, LocalShare)
	c.TTL = cmp.Or(c.TTL, defaultTTL)
	c.Renew = cmp.Or(c.Renew, c.TTL/3)
	c.Window = cmp.Or(c.Window, defaultWindow)
	l := &Limiter{
		config: c, seed: maphash.MakeSeed(), base: time.Now(),
		lease: redis.NewScript(leaseSource), address: redis.NewScript(addressSource),
		asks: make(chan job, queueLen), again: make(chan struct{}, 1), settled: make(chan struct{}),
	}
	l.now = l.sinceStart
	for i := range l.shards {
		s := &l.shards[i]
		s.limiter = l
		s.entries = make(map[string]*entry)
		s.idle.prev, s.idle.next = &s.idle, &s.idle
	}
	l.settling.Store(true) // until Run has seen Redis
	l.peers.Store(1)
	l.places.init()
	c.Client.OnReturn(l.returned)
	return l
}

func (l *Limiter) sinceStart() time.Duration { return time.Since(l.base) }

// wall is the time that the Limiter's clock shows as now.
func (l *Limiter) wall(now time.Duration) time.Time { return l.base.Add(now) }

// online reports whether Redis is asked; otherwise the policy decides.
func (l *Limiter) online() bool {
	if !l.config.Client.Up() {
		if !l.settling.Load() {
			l.settling.Store(true)
		}
		return false
	}
	return !l.settling.Load() && !l.stopped.Load()
}

// Settled is closed once Redis has been seen by Run for the first time. Until then the policy decides as if Redis did not
// answer, so that whoever wants no more than the caps lets nobody in before, or before it is known that there is no Redis.
func (l *Limiter) Settled() <-chan struct{} { return l.settled }

// settle has Redis asked from now on.
func (l *Limiter) settle() {
	l.settling.Store(false)
	l.first.Do(func() { close(l.settled) })
}

// returned has everything registered again, at once and before anything new is asked for.
func (l *Limiter) returned() {
	l.settling.Store(true)
	select {
	case l.again <- struct{}{}:
	default: // it is about to be
	}
}

// Acquire implements [limit.Limiter]. It waits for Redis if the answer is not here, for no longer than [fleet.CallTimeout] in all.
// With the policy [Closed] the error may wrap [limit.ErrUnavailable].
func (l *Limiter) Acquire(ctx context.Context, key string, caps limit.Caps) (*limit.Lease, error) {
	lease := &limit.Lease{}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redislimit: acquire: %w", err)
	}
	c, err := l.admit(lease, key, attempt{bounds: boundsOf(caps), joins: true})
	if c != nil {
		err = l.wait(ctx, c, lease, boundsOf(caps))
	}
	if err != nil {
		return nil, err
	}
	return lease, nil
}

// AcquireNow implements [limit.Immediate].
func (l *Limiter) AcquireNow(lease *limit.Lease, key string, caps limit.Caps) error {
	_, err := l.admit(lease, key, attempt{bounds: boundsOf(caps)})
	return err
}

// attempt is one try to admit a connection.
type attempt struct {
	bounds bounds
	joins  bool   // the flight, if the answer is in Redis: the caller waits for it
	joined *entry // whose flight was waited for
	last   bool   // the time to wait is over: the policy decides
}

// admit decides, or returns a flight whose end the caller must wait for, and then call again with the flight's entry as joined.
func (l *Limiter) admit(lease *limit.Lease, key string, a attempt) (*call, error) {
	s := l.shardOf(key)
	now := l.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.joined != nil {
		a.joined.waiting--
	}
	e := s.entryLocked(key, now)
	ask, err := e.judgeLocked(a.bounds, now)
	if ask {
		switch {
		case a.last:
			err = e.policyLocked(now)
		case !a.joins:
			err = limit.ErrWouldBlock
		case e.flight != nil || l.askLocked(e, forConnection):
			e.waiting++
			return e.flight, nil
		default: // too many keys wait
			err = e.policyLocked(now)
		}
	}
	if err != nil {
		return nil, err
	}
	e.admitLocked(now)
	limit.NewLease(e.release).MoveTo(lease)
	return nil, nil
}

// wait waits for the flight c and those after it until there is an answer.
func (l *Limiter) wait(ctx context.Context, c *call, lease *limit.Lease, b bounds) error {
	timer := time.NewTimer(fleet.CallTimeout)
	defer timer.Stop()
	key := c.e.key
	last := false
	for {
		select {
		case <-c.done:
		case <-timer.C:
			last = true
		case <-ctx.Done():
			c.e.leave()
			return fmt.Errorf("redislimit: acquire: %w", ctx.Err())
		}
		next, err := l.admit(lease, key, attempt{bounds: b, joins: true, joined: c.e, last: last})
		if next == nil {
			return err
		}
		c = next
	}
}

// leave ends a wait without an attempt.
func (e *entry) leave() {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	e.waiting--
}

// InUse implements [limit.Limiter]: the connections on this relay.
func (l *Limiter) InUse(key string) int {
	s := l.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		return e.inUse
	}
	return 0
}

// InUseEverywhere returns the number of connections that key holds on all relays: on this one exactly, on the others as they told last,
// at most one renewal ago. It waits no longer than [fleet.CallTimeout]; on an error the number is this relay's alone.
func (l *Limiter) InUseEverywhere(ctx context.Context, key string) (int, error) {
	here := l.InUse(key)
	if !l.config.Client.Up() {
		return here, fmt.Errorf("redislimit: connections of the fleet: %w", limit.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, fleet.CallTimeout)
	defer cancel()
	pipe := l.config.Client.Redis().Pipeline()
	name := l.config.Client.Key("cap", key)
	fields := pipe.HGetAll(ctx, name)
	clock := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return here, fmt.Errorf("redislimit: connections of the fleet: %w", err)
	}
	now := clock.Val().UnixMilli()
	total := here
	for node, value := range fields.Val() {
		if node != l.config.Client.Node() && node != rateField && node != tightField {
			total += inUseOf(value, now)
		}
	}
	return total, nil
}

// inUseOf reads the number of connections from a relay's field, 0 if it has run out or is of another kind.
func inUseOf(value string, nowMillis int64) int {
	parts := strings.Split(value, ":")
	if len(parts) != 4 {
		return 0
	}
	expiry, err := strconv.ParseInt(parts[1], 10, 64)
	inUse, err2 := strconv.Atoi(parts[2])
	if errors.Join(err, err2) != nil || expiry <= nowMillis {
		return 0
	}
	return inUse
}

// Range implements [limit.Limiter]. It locks one shard at a time and none while f runs.
func (l *Limiter) Range(f func(key string, inUse int) bool) {
	type use struct {
		key   string
		inUse int
	}
	var uses []use
	for i := range l.shards {
		s := &l.shards[i]
		uses = uses[:0]
		s.mu.Lock()
		for key, e := range s.entries {
			if e.inUse > 0 {
				uses = append(uses, use{key, e.inUse})
			}
		}
		s.mu.Unlock()
		for _, u := range uses {
			if !f(u.key, u.inUse) {
				return
			}
		}
	}
}

func (l *Limiter) shardOf(key string) *shard {
	return &l.shards[maphash.String(l.seed, key)%shardCount]
}
