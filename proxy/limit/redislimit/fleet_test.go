package redislimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

// crowd runs f from n goroutines and waits.
func crowd(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// acquire tries once more as often as Redis was too slow for the attempt, which a busy machine may cause, and reports whether
// the connection was admitted.
func acquire(t testing.TB, l *Limiter, key string, caps limit.Caps) *limit.Lease {
	for range 1000 {
		lease, err := l.Acquire(context.Background(), key, caps)
		var over *limit.ExceededError
		switch {
		case err == nil:
			return lease
		case errors.As(err, &over):
			return nil
		case !errors.Is(err, limit.ErrUnavailable):
			t.Errorf("Acquire: %v", err)
			return nil
		}
		time.Sleep(5 * time.Millisecond) // between two questions to a Redis that is down
	}
	t.Error("Redis did not answer for five seconds")
	return nil
}

func TestBurstTakesTheCapAndNoMore(t *testing.T) {
	const nodes, slots, attempts, goroutines = 10, 2000, 10_000, 50
	server := lab.StartRedis(t)
	look := admin(t, server)
	relays := startFleet(t, server, nodes, Config{Down: Closed})
	caps := limit.Caps{MaxConns: slots}
	var out gauge
	var held leases
	before := trips(t, look)
	crowd(goroutines, func(i int) {
		for n := range attempts / goroutines {
			if lease := acquire(t, relays[(i+n)%nodes].Limiter, "alice", caps); lease != nil {
				out.add(1)
				held.add(lease)
			}
		}
	})
	if worst := out.worst.Load(); worst > slots || held.len() < 1950 {
		t.Errorf("%d of %d slots were given out, want 1950 to 2000", worst, slots)
	}
	perAttempt := float64(trips(t, look)-before) / attempts
	t.Logf("%d of %d slots; %.3f round trips per attempt", held.len(), slots, perAttempt)
	if perAttempt > 0.3 {
		t.Errorf("%.3f round trips per attempt, want at most 0.3", perAttempt)
	}
	held.release(slots)
}

func TestChurnStaysInMemory(t *testing.T) {
	const nodes, slots, cycles, goroutines = 10, 2000, 50_000, 20
	server := lab.StartRedis(t)
	look := admin(t, server)
	relays := startFleet(t, server, nodes, Config{Down: Closed})
	caps := limit.Caps{MaxConns: slots}
	var out gauge
	crowd(goroutines, func(i int) {
		for range 2 { // without, then with counting: the fleet takes its leases first
			mine := make([]*limit.Lease, 0, slots)
			for range slots * 7 / 10 / goroutines {
				if lease := acquire(t, relays[i%nodes].Limiter, "alice", caps); lease != nil {
					mine = append(mine, lease)
				}
			}
			for _, lease := range mine {
				lease.Release()
			}
		}
	})
	before := trips(t, look)
	crowd(goroutines, func(i int) {
		l := relays[i%nodes].Limiter
		var mine []*limit.Lease
		for range cycles / goroutines {
			if len(mine) > 0 && rand.IntN(2*slots*7/10/goroutines) < len(mine) {
				mine[len(mine)-1].Release()
				mine = mine[:len(mine)-1]
				out.add(-1)
				continue
			}
			if lease := acquire(t, l, "alice", caps); lease != nil {
				out.add(1)
				mine = append(mine, lease)
			}
		}
		for _, lease := range mine {
			lease.Release()
		}
	})
	perCycle := float64(trips(t, look)-before) / (cycles / 2)
	t.Logf("worst %d of %d; %.4f round trips per connection", out.worst.Load(), slots, perCycle)
	if perCycle > 0.01 {
		t.Errorf("%.4f round trips per connection, want at most 0.01", perCycle)
	}
	if out.worst.Load() > slots {
		t.Errorf("%d of %d slots were out at once", out.worst.Load(), slots)
	}
}

func TestSlotsOfADeadRelayComeBack(t *testing.T) {
	t.Parallel()
	const slots, ttl = 100, 2 * time.Second
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed, TTL: ttl})
	caps := limit.Caps{MaxConns: slots}
	var lost, held leases
	if n := lost.fill(t, relays[0].Limiter, "alice", caps); n != slots {
		t.Fatalf("one relay alone got %d of %d slots", n, slots)
	}
	if n := held.fill(t, relays[1].Limiter, "alice", caps); n != 0 {
		t.Fatalf("the other got %d although none was free", n)
	}
	relays[0].kill()
	died := time.Now()
	lab.Wait(t, ttl+5*time.Second, "the slots to come back", func() bool {
		held.fill(t, relays[1].Limiter, "alice", caps)
		return held.len() == slots
	})
	t.Logf("all back %v after the death, with a TTL of %v", time.Since(died).Round(time.Millisecond), ttl)
	held.release(slots)
}

func TestGoodbyeGivesEverythingBack(t *testing.T) {
	const slots = 100
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed, TTL: time.Hour})
	caps := limit.Caps{MaxConns: slots}
	var gone, held leases
	gone.fill(t, relays[0].Limiter, "alice", caps)
	relays[0].stop()
	lab.Wait(t, 5*time.Second, "the slots to be free", func() bool {
		held.fill(t, relays[1].Limiter, "alice", caps)
		return held.len() == slots
	})
}

// Idle slots go back although connections of the key live on, and another relay can have them.
func TestIdleSlotsGoBack(t *testing.T) {
	t.Parallel()
	const slots = 400
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed, Renew: time.Second})
	caps := limit.Caps{MaxConns: slots}
	var first, second leases
	first.fill(t, relays[0].Limiter, "alice", caps)
	first.release(slots - 1)
	lab.Wait(t, 10*time.Second, "all but a few slots to be had on the other relay", func() bool {
		second.fill(t, relays[1].Limiter, "alice", caps)
		return second.len() >= slots-2 // the one in use, and one more
	})
	if n := first.len() + second.len(); n > slots {
		t.Errorf("%d of %d slots are out", n, slots)
	}
	first.release(slots)
	lab.Wait(t, 10*time.Second, "the last slot to be had on the other relay", func() bool {
		second.fill(t, relays[1].Limiter, "alice", caps)
		return second.len() == slots
	})
	second.release(slots)
	look := admin(t, server)
	lab.Wait(t, 10*time.Second, "nothing to be left in Redis", func() bool {
		return look.Exists(t.Context(), relays[0].client.Key("cap", "alice")).Val() == 0
	})
}

func TestCapChangesAreFeltEverywhere(t *testing.T) {
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed, TTL: time.Hour})
	var a, b leases
	a.fill(t, relays[0].Limiter, "alice", limit.Caps{MaxConns: 20})
	if n := b.fill(t, relays[1].Limiter, "alice", limit.Caps{MaxConns: 30}); n != 10 {
		t.Errorf("a cap raised from 20 to 30 admitted %d more", n)
	}
	a.release(18) // 2 and 10 are in use, far more is leased
	if n := a.fill(t, relays[0].Limiter, "alice", limit.Caps{MaxConns: 5}); n != 0 {
		t.Errorf("a cap lowered to 5 admitted %d more beside 12", n)
	}
	b.release(9)
	caps := limit.Caps{MaxConns: 5}
	b.fill(t, relays[1].Limiter, "alice", caps)
	lab.Wait(t, 5*time.Second, "the lowered cap to be used", func() bool {
		a.fill(t, relays[0].Limiter, "alice", caps)
		b.fill(t, relays[1].Limiter, "alice", caps)
		return a.len()+b.len() == 5
	})
	a.release(5)
	b.release(5)
}

func TestUncappedKeysNeedNoRedisAndAreKnown(t *testing.T) {
	server := lab.StartRedis(t)
	look := admin(t, server)
	relays := startFleet(t, server, 2, Config{Down: Closed})
	before := trips(t, look)
	var held leases
	for range 50 {
		lease := &limit.Lease{}
		if err := relays[0].AcquireNow(lease, "alice", limit.Caps{}); err != nil {
			t.Fatal(err)
		}
		held.add(lease)
	}
	if n := trips(t, look) - before; n > 1 { // one if a renewal came between
		t.Errorf("%d trips for a key without caps", n)
	}
	lab.Wait(t, 5*time.Second, "the other relay to know", func() bool {
		n, err := relays[1].InUseEverywhere(t.Context(), "alice")
		return err == nil && n == 50
	})
	server.Freeze(t)
	lab.Wait(t, 5*time.Second, "the loss", func() bool { return !relays[0].client.Up() })
	lease := &limit.Lease{}
	if err := relays[0].AcquireNow(lease, "alice", limit.Caps{}); err != nil {
		t.Errorf("a key without caps was refused while Redis was away: %v", err)
	}
	lease.Release()
	if n, err := relays[0].InUseEverywhere(t.Context(), "alice"); n != 50 || !errors.Is(err, limit.ErrUnavailable) {
		t.Errorf("InUseEverywhere without Redis: %d, %v; want this relay's 50 and an error", n, err)
	}
	server.Thaw(t)
	held.release(50)
}

// AcquireNow never waits, and answers by itself nearly always.
func TestAcquireNowRunsOnPrefetchedBlocks(t *testing.T) {
	const n = 3000
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed})
	caps := limit.Caps{MaxConns: 100_000, ConnRate: 50_000, ConnBurst: 100_000}
	blocked := 0
	var held leases
	for range n {
		lease := &limit.Lease{}
		err := relays[0].AcquireNow(lease, "alice", caps)
		if errors.Is(err, limit.ErrWouldBlock) {
			blocked++
			lease = acquire(t, relays[0].Limiter, "alice", caps)
		} else if err != nil {
			t.Fatal(err)
		}
		held.add(lease)
		time.Sleep(20 * time.Microsecond) // some ten thousand connections a second
	}
	t.Logf("%d of %d attempts had to wait", blocked, n)
	if blocked > n/20 {
		t.Errorf("%d of %d attempts had to wait, want at most a twentieth", blocked, n)
	}
	held.release(n)
}

// Redis answers, but not this question: the policy decides, and nobody asks again and again.
func TestWrongTypeIsLeftToThePolicy(t *testing.T) {
	server := lab.StartRedis(t)
	look := admin(t, server)
	r := startFleet(t, server, 1, Config{})[0]
	if err := look.Set(t.Context(), r.client.Key("cap", "alice"), "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	before := trips(t, look)
	var held leases
	if n := held.fill(t, r.Limiter, "alice", limit.Caps{MaxConns: 10}); n != 10 {
		t.Errorf("%d of 10 were admitted", n)
	}
	if n := trips(t, look) - before; n > 2 {
		t.Errorf("%d trips for 11 attempts", n)
	}
	if !r.client.Up() {
		t.Error("an error of a script counts as a loss of Redis")
	}
	held.release(10)
}

func TestCallersContext(t *testing.T) {
	server := lab.StartRedis(t)
	r := startFleet(t, server, 1, Config{Down: Closed})[0]
	server.Freeze(t)
	defer server.Thaw(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	lease, err := r.Acquire(ctx, "alice", limit.Caps{MaxConns: 1})
	if lease != nil || !(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, limit.ErrUnavailable)) {
		t.Errorf("Acquire with a short context returned %v, %v", lease, err)
	}
	if r.InUse("alice") != 0 {
		t.Error("a slot was lost")
	}
}

// A call that was given up may reach Redis after a newer one; it must not undo that.
func TestLateCallsChangeNothing(t *testing.T) {
	server := lab.StartRedis(t)
	look := admin(t, server)
	ask := func(sequence, inUse int) {
		t.Helper()
		err := redis.NewScript(leaseSource).Run(t.Context(), look, []string{"k"}, "me", 30_000, sequence, 100, inUse, inUse, 1).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
	ask(1, 10)
	ask(3, 50)
	ask(2, 20)
	if got := inUseOf(look.HGet(t.Context(), "k", "me").Val(), 0); got != 50 {
		t.Errorf("%d in use after a late call, want 50", got)
	}
}

func TestRatesAreSharedByDemand(t *testing.T) {
	const nodes, rate, burst = 5, 200, 100
	server := lab.StartRedis(t)
	relays := startFleet(t, server, nodes, Config{Down: Closed})
	caps := limit.Caps{ConnRate: rate, ConnBurst: burst}
	// knock has the relays try for d, more often than the rate allows, and returns how many were admitted in the time.
	knock := func(relays []*relay, d time.Duration) float64 {
		var admitted atomic.Int64
		until := time.Now().Add(d)
		crowd(len(relays), func(i int) {
			for time.Now().Before(until) {
				if lease := acquire(t, relays[i].Limiter, "alice", caps); lease != nil {
					admitted.Add(1)
					lease.Release()
				}
				time.Sleep(time.Millisecond) // a thousand attempts a second
			}
		})
		return float64(admitted.Load())
	}
	began := time.Now()
	total := knock(relays, time.Second) // the burst is gone
	for _, tt := range []struct {
		name   string
		relays []*relay
	}{{"all", relays}, {"one", relays[:1]}, {"others", relays[1:3]}} {
		// Within some seconds of the load's move it is given out in full there; a busy machine may spoil some of them.
		for round := 1; ; round++ {
			start := time.Now()
			admitted := knock(tt.relays, time.Second)
			total += admitted
			want := rate * time.Since(start).Seconds()
			t.Logf("%s: %.0f admitted of %.0f in second %d", tt.name, admitted, want, round)
			if admitted > want*0.9 && admitted < want*1.1 {
				break
			}
			if round == 5 {
				t.Errorf("%s: %.0f were admitted in the fifth second, want %.0f within a tenth", tt.name, admitted, want)
				break
			}
		}
	}
	if most := burst + rate*time.Since(began).Seconds(); total > most*1.01+1 {
		t.Errorf("%.0f were admitted in all, want at most %.0f", total, most)
	}
}

// The burst is the fleet's, not each relay's.
func TestBurstCountsOnce(t *testing.T) {
	const nodes, burst = 5, 100
	server := lab.StartRedis(t)
	relays := startFleet(t, server, nodes, Config{Down: Closed, Renew: time.Second})
	caps := limit.Caps{ConnRate: 0.001, ConnBurst: burst}
	var held leases
	lab.Wait(t, 10*time.Second, "the burst to be given out", func() bool {
		for _, r := range relays { // tokens that one did not need go back
			held.fill(t, r.Limiter, "alice", caps)
		}
		return held.len() >= burst
	})
	if held.len() != burst {
		t.Errorf("a burst of %d admitted %d", burst, held.len())
	}
	held.release(burst)
}

func TestFloodOfNamesIsForgotten(t *testing.T) {
	server := lab.StartRedis(t)
	r := startRelay(t, fleet.Config{URL: server.URL(), Prefix: "flood:"}, Config{Down: Closed}, nil)
	const names = 300_000
	caps := limit.Caps{MaxConns: 1}
	worst := 0
	for i := range names {
		lease := &limit.Lease{}
		if err := r.AcquireNow(lease, "name-"+string(rune('a'+i%26))+time.Duration(i).String(), caps); !errors.Is(err, limit.ErrWouldBlock) {
			t.Fatalf("a name never seen was answered from memory: %v", err)
		}
		if i%10_000 == 0 {
			worst = max(worst, r.size())
		}
	}
	if worst > shardCount*(idleKept+1) {
		t.Errorf("%d names are remembered", worst)
	}
}

// size is the number of keys remembered.
func (l *Limiter) size() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}
