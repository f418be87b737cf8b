package fleet

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	probeInterval = time.Second
	probeTimeout  = 500 * time.Millisecond
	// A Redis that answers the probe and fails the callers' calls is asked again after
	// 1, 2 and then always 4 seconds, so that few customers wait for it.
	calm    = 10 * time.Second // since the last return: a loss after that stands alone
	maxHold = 4 * time.Second
	// farewell bounds the deregistration at Run's end.
	farewell = 250 * time.Millisecond
)

// Up reports whether Redis answered when it was last asked, and no call has failed since.
// It is false until Run has asked.
func (c *Client) Up() bool { return c.up.Load() }

// Lost tells of a call that failed: no answer in time or a broken connection takes the
// Client down at once, and Run asks Redis. An error that Redis itself answered, a canceled
// context and nil do nothing. Calls by Redis have told it already; telling it twice is no
// harm.
func (c *Client) Lost(err error) {
	if result := judge(err); result == callTimeout || result == callFailed {
		c.fell(err)
	}
}

func (c *Client) fell(err error) {
	if !c.up.CompareAndSwap(true, false) {
		return
	}
	c.losses.Add(1)
	select {
	case c.lost <- err:
	default: // Run has yet to take an earlier one
	}
}

// OnReturn registers f before Run, for whoever keeps something in Redis or reads from it
// what others change. Run calls it, in a goroutine of its own and never twice at a time,
// when Redis answers again after a loss, when it was emptied or restarted in between, and
// when messages may have been missed. f must end by itself within seconds: Run's end waits.
func (c *Client) OnReturn(f func()) { c.returned = append(c.returned, f) }

// Run keeps this relay registered, asks Redis every second, and carries messages until ctx
// ends; then it takes the registration back and waits for its goroutines. It is called once.
func (c *Client) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { c.tellReturns(ctx) })
	all.Go(func() { c.listen(ctx) })
	c.guard(ctx)
	all.Wait()
	c.deregister(ctx)
}

// tellReturns calls the functions of OnReturn.
func (c *Client) tellReturns(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.again:
		}
		for _, f := range c.returned {
			f()
		}
	}
}

// mayBeStale has the functions of OnReturn called. Calls that meet one under way become one.
func (c *Client) mayBeStale() {
	select {
	case c.again <- struct{}{}:
	default:
	}
}

// health is what guard knows.
type health struct {
	told       bool      // anything at all
	up         bool      // what was told
	registered bool      // Redis has had this relay's registration
	back       time.Time // when it returned last
	flaps      int       // losses, each soon after a return
}

// guard is the only one that sets up to true, and the only caller of Changed.
func (c *Client) guard(ctx context.Context) {
	var h health
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-c.lost:
			c.up.Store(false)
			c.tell(&h, false, err)
			wait.Reset(h.hold(time.Now()))
		case <-wait.C:
			if !c.ask(ctx, &h) {
				return
			}
			wait.Reset(probeInterval)
		}
	}
}

// hold is how long to wait after a loss that a caller told before Redis is asked.
func (h *health) hold(now time.Time) time.Duration {
	if now.Sub(h.back) > calm {
		h.flaps = 0
		return 0
	}
	h.flaps++
	return min(probeInterval<<(h.flaps-1), maxHold)
}

// ask probes once and acts on the answer. It reports whether ctx goes on.
func (c *Client) ask(ctx context.Context, h *health) bool {
	losses := c.losses.Load()
	was, err := c.heartbeat(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		c.up.Store(false)
		c.tell(h, false, err)
		return true
	}
	gone := h.registered && !was
	h.registered = true
	if h.up {
		if gone {
			c.mayBeStale()
		}
		return true // a loss meanwhile waits in c.lost
	}
	c.up.Store(true)
	if c.losses.Load() != losses {
		return true
	}
	if h.told {
		h.back = time.Now()
		c.mayBeStale()
	}
	c.tell(h, true, nil)
	return true
}

// tell passes on what is new.
func (c *Client) tell(h *health, up bool, err error) {
	if h.told && h.up == up {
		return
	}
	h.told, h.up = true, up
	if c.config.Changed != nil {
		c.config.Changed(up, Explain(err))
	}
}

// eachMaster calls f for the one server, or for every master of a cluster and several at a time.
func eachMaster(ctx context.Context, client redis.UniversalClient, f func(context.Context, *redis.Client) error) error {
	switch client := client.(type) {
	case *redis.ClusterClient:
		return client.ForEachMaster(ctx, f)
	case *redis.Client:
		return f(ctx, client)
	default:
		return nil
	}
}
