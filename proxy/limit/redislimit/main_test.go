package redislimit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// relay is one relay of a fleet: its client and its limiter, both running.
type relay struct {
	*Limiter
	client *fleet.Client
	stop   func() // ends both, in the order of a program's end; may be called twice
	kill   func() // ends both without a goodbye
}

// startRelay starts one and waits until it has reached Redis. An empty Node in fc is a name like any other; setup changes the
// Limiter before it runs, and may be nil.
func startRelay(t testing.TB, fc fleet.Config, c Config, setup func(*Limiter)) *relay {
	t.Helper()
	client, err := fleet.Open(fc)
	if err != nil {
		t.Fatal(err)
	}
	c.Client = client
	r := &relay{Limiter: New(c), client: client}
	if setup != nil {
		setup(r.Limiter)
	}
	r.run(t)
	lab.Wait(t, 10*time.Second, "Redis to be asked", r.online)
	return r
}

// startFleet starts n relays.
func startFleet(t testing.TB, server *lab.Redis, n int, c Config) []*relay {
	t.Helper()
	relays := make([]*relay, n)
	for i := range relays {
		relays[i] = startRelay(t, fleet.Config{URL: server.URL(), Node: fmt.Sprint("relay-", i)}, c, nil)
	}
	lab.Wait(t, 10*time.Second, "the relays to know each other", func() bool {
		for _, r := range relays {
			if r.peers.Load() != int64(n) {
				return false
			}
		}
		return true
	})
	return relays
}

// leased is the number of connections of key that the lease covers, as far as the relay knows.
func (l *Limiter) leased(key string) int {
	s := l.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil && e.registered {
		return e.held
	}
	return 0
}

func (r *relay) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	fleetCtx, cancelFleet := context.WithCancel(context.Background())
	var limiter, client sync.WaitGroup
	client.Go(func() { r.client.Run(fleetCtx) })
	limiter.Go(func() { r.Run(ctx) })
	var once sync.Once
	end := func() {
		once.Do(func() {
			cancel()
			limiter.Wait()
			cancelFleet()
			client.Wait()
			if err := r.client.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	r.stop = end
	r.kill = func() {
		if err := r.client.Redis().Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		once.Do(func() {
			cancel()
			limiter.Wait()
			cancelFleet()
			client.Wait()
			_ = r.client.Close() // half of it is closed
		})
	}
	t.Cleanup(end)
}

// admin is a client for looking into Redis and changing it behind everybody's back.
func admin(t testing.TB, server *lab.Redis) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// leases collects what was admitted.
type leases struct {
	mu   sync.Mutex
	held []*limit.Lease
}

func (s *leases) add(l *limit.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, l)
}

func (s *leases) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// release ends n of them, or all there are.
func (s *leases) release(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; n > 0 && len(s.held) > 0; n-- {
		s.held[len(s.held)-1].Release()
		s.held = s.held[:len(s.held)-1]
	}
}

// fill tries until it is refused, and returns how many were admitted.
func (s *leases) fill(t testing.TB, l *Limiter, key string, caps limit.Caps) int {
	t.Helper()
	for n := 0; ; n++ {
		lease, err := l.Acquire(context.Background(), key, caps)
		var over *limit.ExceededError
		if errors.As(err, &over) || errors.Is(err, limit.ErrUnavailable) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		s.add(lease)
	}
}

// fillTo tries until n are held or one is refused, and returns how many were admitted, and the refusal.
func (s *leases) fillTo(l *Limiter, key string, caps limit.Caps, n int) (admitted int, err error) {
	for ; s.len() < n; admitted++ {
		lease, err := l.Acquire(context.Background(), key, caps)
		if err != nil {
			return admitted, err
		}
		s.add(lease)
	}
	return admitted, nil
}

// mustFill tries until n are held, which takes others' idle slots too.
func (s *leases) mustFill(t testing.TB, l *Limiter, key string, caps limit.Caps, n int) {
	t.Helper()
	lab.Wait(t, 20*time.Second, fmt.Sprint(n, " connections"), func() bool {
		_, err := s.fillTo(l, key, caps, n)
		return err == nil
	})
}

// trips is the number of script calls that the server has seen.
func trips(t testing.TB, c *redis.Client) int {
	t.Helper()
	text, err := c.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(text) {
		var n int
		if _, err := fmt.Sscanf(line, "cmdstat_evalsha:calls=%d,", &n); err == nil {
			total += n
		}
		if _, err := fmt.Sscanf(line, "cmdstat_eval:calls=%d,", &n); err == nil {
			total += n
		}
	}
	return total
}

// gauge remembers the highest value of a counter.
type gauge struct{ now, worst atomic.Int64 }

func (g *gauge) add(n int64) {
	now := g.now.Add(n)
	for {
		seen := g.worst.Load()
		if now <= seen || g.worst.CompareAndSwap(seen, now) {
			return
		}
	}
}
