package redislimit

import (
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/limit"
)

// A key that gets its first cap has leases everywhere that were given under none: they cover nothing under the cap.
func TestFirstCapCountsOnce(t *testing.T) {
	t.Parallel()
	const before, slots = 10, 5
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed, TTL: time.Hour})
	held := make([]leases, len(relays))
	for i, r := range relays {
		held[i].mustFill(t, r.Limiter, "alice", limit.Caps{}, before)
	}
	lab.Wait(t, 5*time.Second, "the connections to be registered", func() bool {
		return relays[0].leased("alice") == before && relays[1].leased("alice") == before
	})
	caps := limit.Caps{MaxConns: slots}
	for i := range relays {
		held[i].release(before)
	}
	for i, r := range relays {
		held[i].fill(t, r.Limiter, "alice", caps)
	}
	if n := held[0].len() + held[1].len(); n > slots {
		t.Errorf("a first cap of %d admitted %d", slots, n)
	}
	lab.Wait(t, 5*time.Second, "the cap to be used", func() bool {
		for i, r := range relays {
			held[i].fill(t, r.Limiter, "alice", caps)
		}
		return held[0].len()+held[1].len() == slots
	})
	for i := range held {
		held[i].release(before)
	}
}

// What else lies in a key's hash is no relay.
func TestInUseEverywhereCountsConnectionsOnly(t *testing.T) {
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed, Renew: time.Second})
	caps := limit.Caps{MaxConns: 1, ConnRate: 200, ConnBurst: 400}
	var held leases
	held.mustFill(t, relays[0].Limiter, "alice", caps, 1)
	held.fill(t, relays[1].Limiter, "alice", caps) // which leaves a note of the refusal
	lab.Wait(t, 5*time.Second, "the other relay to know", func() bool {
		n, err := relays[1].InUseEverywhere(t.Context(), "alice")
		return err == nil && n == 1
	})
	if n, err := relays[0].InUseEverywhere(t.Context(), "alice"); err != nil || n != 1 {
		t.Errorf("%d connections, %v; want 1", n, err)
	}
	held.release(1)
}
