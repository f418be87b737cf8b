package redislimit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

func waitDown(t testing.TB, relays ...*relay) {
	t.Helper()
	lab.Wait(t, 10*time.Second, "the loss of Redis", func() bool {
		for _, r := range relays {
			if r.client.Up() {
				return false
			}
		}
		return true
	})
}

func waitOnline(t testing.TB, relays ...*relay) {
	t.Helper()
	lab.Wait(t, 20*time.Second, "Redis to be asked again", func() bool {
		for _, r := range relays {
			if !r.online() {
				return false
			}
		}
		return true
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	const slots = 100
	tests := []struct {
		down      DownPolicy
		unknown   int // admitted of a key that the relay has nothing of, of two relays
		rated     int // of a key with a burst of 10
		knows     int // more of a key of which it carries 70
		wantError error
	}{
		{LocalShare, 50, 5, 0, nil},
		{"", 50, 5, 0, nil},
		{Closed, 0, 0, 0, limit.ErrUnavailable},
		{Open, 300, 300, 300, nil},
	}
	for _, tt := range tests {
		t.Run(string(tt.down), func(t *testing.T) {
			t.Parallel()
			server := lab.StartRedis(t)
			relays := startFleet(t, server, 2, Config{Down: tt.down, Renew: time.Second})
			caps := limit.Caps{MaxConns: slots}
			var other, held leases
			held.mustFill(t, relays[0].Limiter, "alice", caps, 70)
			other.mustFill(t, relays[1].Limiter, "alice", caps, 30)
			lab.Wait(t, 10*time.Second, "no idle slot to be left", func() bool { return relays[0].leased("alice") <= 70 })
			server.Freeze(t)
			waitDown(t, relays...)
			check := func(key string, caps limit.Caps, want int) {
				t.Helper()
				var more leases
				n, err := more.fillTo(relays[0].Limiter, key, caps, 300)
				var over *limit.ExceededError
				if n != want || tt.wantError != nil && !errors.Is(err, tt.wantError) || tt.wantError == nil && n < 300 && !errors.As(err, &over) {
					t.Errorf("%q: %d were admitted and then: %v; want %d and %v", key, n, err, want, tt.wantError)
				}
				more.release(300)
			}
			check("alice", caps, tt.knows)
			check("bob", caps, tt.unknown)
			check("carol", limit.Caps{ConnRate: 0.01, ConnBurst: 10}, tt.rated)
			server.Thaw(t)
			waitOnline(t, relays...)
			held.release(1)
			lab.Wait(t, 10*time.Second, "the cap to be the fleet's again", func() bool {
				n, err := other.fillTo(relays[1].Limiter, "alice", caps, 32)
				if n == 1 && err != nil {
					return true
				}
				other.release(n) // an answer that came late had the policy decide once more
				return false
			})
			held.release(slots)
			other.release(slots)
		})
	}
}

// A frozen Redis keeps nobody waiting: the first ones for the timeout, those after them not at all.
func TestFrozenRedisDelaysNobody(t *testing.T) {
	const goroutines = 32
	server := lab.StartRedis(t)
	r := startFleet(t, server, 1, Config{})[0]
	caps := limit.Caps{MaxConns: 1 << 20, ConnRate: 1e9}
	if lease := acquire(t, r.Limiter, "alice", caps); lease == nil {
		t.Fatal("the first connection was refused")
	}
	server.Freeze(t)
	defer server.Thaw(t)
	// knock has new names come for d and returns the longest time that one took.
	var names atomic.Int64
	knock := func(d time.Duration) time.Duration {
		until := time.Now().Add(d)
		waits := make([]time.Duration, goroutines)
		crowd(goroutines, func(i int) {
			for time.Now().Before(until) {
				began := time.Now()
				lease, err := r.Acquire(t.Context(), fmt.Sprint("name-", names.Add(1)), caps)
				waits[i] = max(waits[i], time.Since(began))
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				lease.Release()
				time.Sleep(time.Millisecond)
			}
		})
		return slices.Max(waits)
	}
	worst := knock(time.Second)
	asked := r.counts.asks[forConnection].Load()
	worst = max(worst, knock(2*time.Second))
	if n := r.counts.asks[forConnection].Load() - asked; n > 0 {
		t.Errorf("Redis was asked %d times after the first second, although it was known to be away", n)
	}
	t.Logf("of %d attempts the slowest took %v", names.Load(), worst)
	if worst > 500*time.Millisecond {
		t.Errorf("an attempt took %v, want little more than %v", worst, fleet.CallTimeout)
	}
}

// A relay that was cut off for longer than its lease holds what it carries, and has no claim to what was free of its lease.
func TestCutOffRelayReturns(t *testing.T) {
	const slots, carried, ttl = 100, 20, time.Second
	server := lab.StartRedis(t)
	g := startGate(t, server.Addr)
	cut := startRelay(t, fleet.Config{URL: g.url(), Node: "cut"}, Config{Down: Closed, TTL: ttl}, nil)
	other := startRelay(t, fleet.Config{URL: server.URL(), Node: "other"}, Config{Down: Closed, TTL: ttl}, nil)
	caps := limit.Caps{MaxConns: slots}
	var there, here leases
	there.fill(t, cut.Limiter, "alice", caps)
	there.release(slots - carried) // most of it is idle now
	g.close(true)
	waitDown(t, cut)
	lab.Wait(t, ttl+5*time.Second, "the lease to run out", func() bool {
		here.fill(t, other.Limiter, "alice", caps)
		return here.len() == slots
	})
	g.open()
	waitOnline(t, cut)
	if n := there.fill(t, cut.Limiter, "alice", caps); n != 0 {
		t.Errorf("the relay admitted %d more after its return, although the cap was used up by others", n)
	}
	lab.Wait(t, ttl, "the other relay to learn of it in a renewal", func() bool {
		return other.leased("alice") < slots
	})
	here.release(carried + 10)
	here.fill(t, other.Limiter, "alice", caps)
	if n := here.len() + there.len(); n > slots {
		t.Errorf("%d of %d slots are out", n, slots)
	}
	lab.Wait(t, 10*time.Second, "the fleet to be at its cap together", func() bool {
		here.fill(t, other.Limiter, "alice", caps)
		there.fill(t, cut.Limiter, "alice", caps)
		return here.len()+there.len() == slots
	})
	here.release(slots)
	there.release(slots)
}

// An emptied Redis learns at once what every relay carries, and nothing is given out twice meanwhile.
func TestEmptiedRedisLearnsTheTruth(t *testing.T) {
	t.Parallel()
	const nodes, slots, ttl = 5, 500, 30 * time.Second
	tests := []struct {
		name  string
		empty func(t *testing.T, server *lab.Redis, relays []*relay)
	}{
		{"restarted", func(t *testing.T, server *lab.Redis, relays []*relay) {
			server.Kill(t)
			waitDown(t, relays...)
			server.Restart(t)
		}},
		{"flushed", func(t *testing.T, server *lab.Redis, _ []*relay) {
			if err := admin(t, server).FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := lab.StartRedis(t)
			relays := startFleet(t, server, nodes, Config{Down: LocalShare, TTL: ttl, Renew: time.Second})
			caps := limit.Caps{MaxConns: slots}
			held := make([]leases, nodes)
			for i, r := range relays {
				held[i].mustFill(t, r.Limiter, "alice", caps, slots/nodes)
			}
			tt.empty(t, server, relays)
			began := time.Now()
			lab.Wait(t, 15*time.Second, "the truth to be known everywhere", func() bool {
				for _, r := range relays {
					if n, err := r.InUseEverywhere(t.Context(), "alice"); err != nil || n != slots {
						return false
					}
				}
				return true
			})
			t.Logf("after %v", time.Since(began).Round(time.Millisecond))
			waitOnline(t, relays...)
			total := 0
			for i, r := range relays {
				held[i].fill(t, r.Limiter, "alice", caps)
				total += held[i].len()
			}
			if total != slots {
				t.Errorf("%d of %d slots are out", total, slots)
			}
			for i := range held {
				held[i].release(slots)
			}
		})
	}
}

// While a restarted Redis learns the truth, customers who knock all the time get nothing twice.
func TestNoExcessWhileRedisIsFilledAgain(t *testing.T) {
	t.Parallel()
	const nodes, slots = 5, 500
	server := lab.StartRedis(t)
	relays := startFleet(t, server, nodes, Config{Down: LocalShare, Renew: time.Second})
	caps := limit.Caps{MaxConns: slots}
	held := make([]leases, nodes)
	for i, r := range relays { // exactly the share, so that the policy admits nobody beyond
		held[i].mustFill(t, r.Limiter, "alice", caps, slots/nodes)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		extra := 0
		defer func() { done <- extra }()
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := relays[i%nodes].Acquire(ctx, "alice", caps); err == nil {
				extra++
			}
		}
	}()
	server.Kill(t)
	waitDown(t, relays...)
	server.Restart(t)
	waitOnline(t, relays...)
	cancel()
	if extra := <-done; extra > 0 {
		t.Errorf("%d connections beyond the cap were admitted", extra)
	}
}

func TestStartsWithoutRedis(t *testing.T) {
	server := lab.StartRedis(t)
	server.Kill(t)
	client, err := fleet.Open(fleet.Config{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{client: client, Limiter: New(Config{Client: client})}
	r.run(t)
	var held leases
	if n := held.fill(t, r.Limiter, "alice", limit.Caps{MaxConns: 10}); n != 10 {
		t.Errorf("%d of 10 were admitted", n)
	}
	server.Restart(t)
	lab.Wait(t, 10*time.Second, "the connections to be registered", func() bool {
		look := admin(t, server)
		fields := look.HGetAll(t.Context(), client.Key("cap", "alice")).Val()
		return inUseOf(fields[client.Node()], 0) == 10
	})
	held.release(10)
}
