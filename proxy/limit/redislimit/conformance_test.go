package redislimit

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/limit/limittest"
)

// clockKey is where the tests' clock lies in Redis, in the form of the answer to TIME.
const clockKey = "test:clock"

// clocked is a Limiter whose clock and Redis's move together, when told.
type clocked struct {
	*Limiter
	t     testing.TB
	clock *atomic.Int64 // ns
	admin *redis.Client
}

// Advance implements [limittest.Advancer].
func (c clocked) Advance(d time.Duration) {
	c.setClock(time.Duration(c.clock.Add(int64(d))))
}

// setClock sets Redis's clock.
func (c clocked) setClock(now time.Duration) {
	us := now.Microseconds()
	_, err := c.admin.TxPipelined(context.Background(), func(p redis.Pipeliner) error {
		p.Del(context.Background(), clockKey)
		p.RPush(context.Background(), clockKey, 1_700_000_000+us/1_000_000, us%1_000_000)
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
}

func onTestClock(source string) *redis.Script {
	const call = "redis.call('TIME')"
	if strings.Count(source, call) != 1 {
		panic("the script does not read the clock once")
	}
	return redis.NewScript(strings.Replace(source, call, "redis.call('LRANGE', '"+clockKey+"', 0, 1)", 1))
}

// newClocked returns a Limiter of a fleet of its own. Redis answers as long as the test goes on.
func newClocked(t testing.TB, server *lab.Redis, prefix string) clocked {
	c := clocked{t: t, clock: new(atomic.Int64), admin: admin(t, server)}
	c.Advance(time.Hour)
	r := startRelay(t, fleet.Config{URL: server.URL(), Prefix: prefix}, Config{}, func(l *Limiter) {
		l.lease, l.address = onTestClock(leaseSource), onTestClock(addressSource)
		l.now = func() time.Duration { return time.Duration(c.clock.Load()) }
	})
	c.Limiter = r.Limiter
	return c
}

func TestConformance(t *testing.T) {
	server := lab.StartRedis(t)
	n := 0
	limittest.Run(t, func(t *testing.T) limit.Limiter {
		n++
		return newClocked(t, server, fmt.Sprintf("suite%d:", n))
	})
}

var _ limittest.Advancer = clocked{}
