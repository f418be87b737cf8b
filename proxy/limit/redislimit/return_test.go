package redislimit

import (
	"errors"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

// While the others may have yet to tell an emptied Redis what they carry, no further return makes a relay lease.
func TestSettlingOutlastsFurtherReturns(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	r := startFleet(t, server, 1, Config{})[0]
	lab.Wait(t, 5*time.Second, "the relay's mark", r.marked.Load)
	if err := admin(t, server).FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.returned()
	lab.Wait(t, 5*time.Second, "Redis to be asked again", func() bool {
		if time.Since(began) < settleTime/2 {
			r.returned() // as when the subscription is back
		}
		return r.online()
	})
	if took := time.Since(began); took < settleTime {
		t.Errorf("the relay leases again after %v, although Redis had forgotten everything; want %v", took, settleTime)
	}
}

// Redis was away for longer than leases live: it remembers none, although it was not emptied.
func TestLongLossForgetsLeases(t *testing.T) {
	t.Parallel()
	const slots, ttl = 10, time.Second
	server := lab.StartRedis(t)
	gates := []*gate{startGate(t, server.Addr), startGate(t, server.Addr)}
	caps := limit.Caps{MaxConns: slots}
	relays := make([]*relay, 2)
	held := make([]leases, 2)
	for i, g := range gates {
		relays[i] = startRelay(t, fleet.Config{URL: g.url()}, Config{Down: Closed, TTL: ttl}, nil)
		held[i].mustFill(t, relays[i].Limiter, "alice", caps, (i+1)*slots/2-held[0].len())
	}
	for _, g := range gates {
		g.close(true)
	}
	waitDown(t, relays...)
	look := admin(t, server)
	lab.Wait(t, 5*time.Second, "the leases to run out", func() bool {
		return look.Exists(t.Context(), relays[0].client.Key("cap", "alice")).Val() == 0
	})
	gates[0].open()
	lab.Wait(t, 5*time.Second, "the first to return", relays[0].client.Up)
	for until := time.Now().Add(settleTime / 2); time.Now().Before(until); time.Sleep(time.Millisecond) {
		held[0].fill(t, relays[0].Limiter, "alice", caps)
	}
	if n := held[0].len() + held[1].len(); n != slots {
		t.Errorf("%d of %d slots are out: those of the other relay were given out again before it could tell", n, slots)
	}
	gates[1].open()
	waitOnline(t, relays...)
	for i := range held {
		held[i].release(2 * slots)
	}
}

// A question whose answer came too late may have leased slots: they are not lost until the lease ends.
func TestUnheardLeaseGoesBack(t *testing.T) {
	t.Parallel()
	const slots = 8
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed, TTL: time.Hour})
	caps := limit.Caps{MaxConns: slots}
	var other leases
	other.mustFill(t, relays[0].Limiter, "bob", caps, 1) // and Redis knows the script
	server.Freeze(t)
	_, err := relays[0].Acquire(t.Context(), "alice", caps)
	if !errors.Is(err, limit.ErrUnavailable) {
		t.Errorf("Acquire without an answer: %v", err)
	}
	server.Thaw(t)
	waitOnline(t, relays...)
	var held leases
	lab.Wait(t, 10*time.Second, "all slots to be had on the other relay", func() bool {
		held.fill(t, relays[1].Limiter, "alice", caps)
		return held.len() == slots
	})
	held.release(slots)
	other.release(1)
}
