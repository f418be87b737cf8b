package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	maxBody = 64 << 10 // bytes of a message
	// A subscription that is silent for so long is asked for a sign of life; one that
	// gives none for as long again is made anew.
	silenceLimit = 3 * time.Second
	subscribing  = time.Second // for Redis to confirm the channels
	busPause     = 250 * time.Millisecond
)

// bus is the messages' side of a Client.
type bus struct {
	handlers map[string][]func(body string) // by channel
	trouble  atomic.Pointer[error]          // why there is no subscription although Redis is up
	joined   bool                           // a subscription was there once; listen's
}

var kindForm = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

func (c *Client) channel(kind string) string { return c.config.Prefix + "bus:" + kind }

// Subscribe has f called with each message of a kind that any relay publishes, this one
// included, while Run runs. It belongs before Run, and panics if kind is not a short
// lower-case word. All functions run in one goroutine of Run, one at a time and in order,
// so f must not wait for long. Messages can be missed while Redis is away or the
// connection breaks: what must not be missed is read again in a function of OnReturn.
func (c *Client) Subscribe(kind string, f func(body string)) {
	if !kindForm.MatchString(kind) {
		panic("fleet: not a kind of message: " + kind)
	}
	if c.bus.handlers == nil {
		c.bus.handlers = map[string][]func(string){}
	}
	channel := c.channel(kind)
	c.bus.handlers[channel] = append(c.bus.handlers[channel], f)
}

// Publish sends body, at most 64 KiB, to every relay of the fleet that listens now. nil
// means that Redis took it, not that anyone acted on it.
func (c *Client) Publish(ctx context.Context, kind, body string) error {
	if !kindForm.MatchString(kind) || len(body) > maxBody {
		return fmt.Errorf("fleet: publish: no kind %q, or more than %d bytes", kind, maxBody)
	}
	if err := c.redis.Publish(ctx, c.channel(kind), body).Err(); err != nil {
		return fmt.Errorf("fleet: publish: %w", Explain(err))
	}
	return nil
}

// listen keeps one subscription until ctx ends.
func (c *Client) listen(ctx context.Context) {
	if len(c.bus.handlers) == 0 {
		return
	}
	pause := time.NewTicker(busPause)
	defer pause.Stop()
	for ctx.Err() == nil {
		if c.Up() {
			if err := c.receive(ctx); ctx.Err() == nil {
				c.bus.trouble.Store(&err)
			}
		}
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

// receive subscribes and delivers until something breaks, and returns what.
func (c *Client) receive(ctx context.Context) error {
	// The handshake of its connection is no call of anyone's.
	ctx = context.WithValue(ctx, seen{}, true)
	dialing, cancel := context.WithTimeout(ctx, subscribing)
	defer cancel()
	sub := c.redis.Subscribe(dialing, slices.Sorted(maps.Keys(c.bus.handlers))...)
	// A read does not end with ctx: closing ends it. Closing twice is an error of no meaning.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() {
		if stop() {
			_ = sub.Close()
		}
	}()
	for range c.bus.handlers {
		if _, err := sub.ReceiveTimeout(dialing, subscribing); err != nil {
			return err
		}
	}
	c.bus.trouble.Store(nil)
	if c.bus.joined {
		c.mayBeStale() // nobody knows what was said meanwhile
	}
	c.bus.joined = true
	return c.deliver(ctx, sub)
}

func (c *Client) deliver(ctx context.Context, sub *redis.PubSub) error {
	asked := false
	for {
		message, err := sub.ReceiveTimeout(ctx, silenceLimit)
		var network net.Error
		switch {
		case err == nil:
			asked = false
		case !asked && errors.As(err, &network) && network.Timeout():
			asked = true
			if err := sub.Ping(ctx); err != nil {
				return err
			}
		default:
			return err
		}
		m, ok := message.(*redis.Message)
		if !ok || len(m.Payload) > maxBody {
			continue
		}
		for _, f := range c.bus.handlers[m.Channel] {
			f(strings.Clone(m.Payload))
		}
	}
}
