package redislimit

import (
	_ "embed" // the scripts
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lease.lua
var leaseSource string

// Fields of a key's hash that are no relay's.
const (
	rateField  = "rate"
	tightField = "tight"
)

// purpose is why Redis is asked about a key.
type purpose int

const (
	forConnection purpose = iota // somebody waits
	forBlock                     // the block runs low
	forOthers                    // to give back
	forRenewal                   // to keep, or to register again
	purposes
)

func (p purpose) String() string {
	return [purposes]string{"connection", "block", "giving_back", "renewal"}[p]
}

// call is one flight of a key to Redis; there is never a second one beside it.
type call struct {
	e       *entry
	purpose purpose
	done    chan struct{} // closed when the answer is in the entry

	// What is asked; set when it is sent, so that those who join before are counted.
	sequence       uint64
	start          time.Duration
	leaseEnd       time.Duration
	renew          time.Duration
	bounds         bounds
	hold, inUse    int
	waiting, block int
	tokens         int // waited for
	tokenBlock     int
	tokensBack     int
	peers          int
	expectKept     bool // the lease should still be registered
	lost           bool // but was not
}

// reply is what the script returns.
type reply struct {
	granted, free, relays int
	tokens                int
	wait                  time.Duration
	kept                  int
	left                  int
}

// askLocked puts a flight for e in line, and reports whether there was room. e has none.
func (l *Limiter) askLocked(e *entry, p purpose) bool {
	c := &call{e: e, purpose: p, done: make(chan struct{})}
	select {
	case l.asks <- c:
		e.flight = c
		return true
	default:
		return false
	}
}

func (c *call) script() *redis.Script { return c.e.shard.limiter.lease }

// request fixes what is asked.
func (c *call) request() (key string, args []any) {
	e, l := c.e, c.e.shard.limiter
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	now := l.now()
	c.start, c.renew, c.sequence = now, l.config.Renew, l.sequence.Add(1)
	c.leaseEnd = now + l.config.TTL - l.config.TTL/100 // clocks may run at slightly different speeds
	c.bounds, c.inUse, c.waiting = e.bounds, e.inUse, e.waiting
	c.expectKept = e.registered && now < e.leaseEnd
	c.hold = max(e.usableLocked(now), e.inUse)
	if c.bounds.max > 0 {
		c.hold = min(c.hold, max(e.inUse, c.bounds.max))
	}
	e.held = c.hold // and no more until the answer is here
	if c.waiting > 0 || c.purpose == forBlock {
		c.block = e.block
	}
	c.peers = max(int(l.peers.Load()), 1)
	c.askTokensLocked(now)
	l.counts.asks[c.purpose].Add(1)
	args = []any{
		l.config.Client.Node(), l.config.TTL.Milliseconds(), c.sequence, c.bounds.max, c.hold, c.inUse, c.peers,
		min(c.bounds.rate, maxRate), c.bounds.burst, c.waiting, c.block, c.tokens, c.tokenBlock, c.tokensBack,
	}
	if c.waiting+c.block+c.tokens+c.tokenBlock+c.tokensBack == 0 {
		args = args[:9] // a mere renewal
	}
	return l.config.Client.Key("cap", e.key), args
}

// maxRate is the highest rate that is told to Redis, far above any that it could serve.
const maxRate = 1e12

func (c *call) askTokensLocked(now time.Duration) {
	e := c.e
	usable := e.tokensLocked(now)
	if usable == 0 {
		c.tokensBack, e.tokens = e.tokens, 0
	}
	if c.bounds.rate == 0 {
		return
	}
	c.tokens = max(c.waiting-usable, 0)
	if c.tokens > 0 || c.purpose == forBlock && usable < e.tokenBlock {
		c.tokenBlock = e.tokenBlock
	}
}

// settle puts the answer into the entry and wakes those who wait.
func (c *call) settle(answer any, err error) {
	r, bad := parseReply(answer)
	if err == nil {
		err = bad
	}
	e, l := c.e, c.e.shard.limiter
	e.shard.mu.Lock()
	now := l.now()
	e.flight = nil
	if err != nil {
		e.brokenUntil = now + denialTime()
		c.unheardLocked(err, now)
	} else {
		e.brokenUntil = 0
		e.takeLocked(c, r, now)
		c.lost = c.expectKept && r.kept < 0
	}
	e.shard.mu.Unlock()
	close(c.done)
	if c.lost && !l.settling.Load() {
		l.returned()
	}
}

// unheardLocked is what follows if there was no answer: Redis may have carried the call out, or may yet, so that there may be a
// lease which nobody uses and which is to be given back.
func (c *call) unheardLocked(err error, now time.Duration) {
	var answered redis.Error
	if c.e.registered || errors.As(err, &answered) || errors.Is(err, errStopped) {
		return
	}
	c.e.registered, c.e.leaseEnd = true, now
}

var errBadReply = errors.New("redislimit: the script's answer has not its form")

func parseReply(answer any) (reply, error) {
	values, ok := answer.([]any)
	if !ok || len(values) != 7 {
		return reply{}, errBadReply
	}
	var n [7]int
	for i, v := range values {
		x, ok := v.(int64)
		if !ok || x > math.MaxInt {
			return reply{}, errBadReply
		}
		n[i] = int(x)
	}
	if n[5] < -1 {
		return reply{}, fmt.Errorf("redislimit: a newer call was before this one")
	}
	return reply{granted: n[0], free: n[1], relays: n[2], tokens: n[3], wait: time.Duration(n[4]) * time.Microsecond, kept: n[5], left: n[6]}, nil
}
