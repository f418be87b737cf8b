package redislimit

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/limit"
)

func addr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)})
}

// wantAddress checks whether the address is admitted.
func wantAddress(t *testing.T, l limit.Addresses, key string, a netip.Addr, most int, want bool) {
	t.Helper()
	err := l.Admit(context.Background(), key, a, most)
	var over *limit.ExceededError
	switch {
	case want && err != nil:
		t.Errorf("%v was refused: %v", a, err)
	case !want && !errors.As(err, &over):
		t.Errorf("%v: error %v, want an *ExceededError", a, err)
	case !want && (over.Cap != limit.CapMaxIPs || over.Limit != float64(max(most, 1)) || over.RetryAfter <= 0):
		t.Errorf("%v was refused with %+v", a, over)
	}
}

func TestAddressesAreTheFleets(t *testing.T) {
	server := lab.StartRedis(t)
	relays := startFleet(t, server, 2, Config{Down: Closed})
	a, b := relays[0], relays[1]
	wantAddress(t, a, "alice", addr(1), 2, true)
	wantAddress(t, b, "alice", addr(2), 2, true)
	wantAddress(t, a, "alice", addr(3), 2, false)
	wantAddress(t, b, "alice", addr(3), 2, false)
	wantAddress(t, b, "alice", addr(1), 1, true) // counted already
	wantAddress(t, b, "bob", addr(3), 1, true)
	wantAddress(t, a, "alice", addr(3), 3, true) // a raised maximum is felt at once
	wantAddress(t, a, "carol", addr(1), 0, true)
	wantAddress(t, b, "carol", addr(2), 0, false)
	for _, same := range []string{"2001:db8::1", "2001:db8::ffff:1", "2001:db8::2%eth0"} {
		wantAddress(t, a, "dave", netip.MustParseAddr(same), 1, true)
	}
	wantAddress(t, b, "dave", netip.MustParseAddr("2001:db8:0:1::1"), 1, false)
	wantAddress(t, a, "erin", netip.MustParseAddr("::ffff:203.0.0.1"), 1, true)
	wantAddress(t, b, "erin", addr(1), 1, true)
}

func TestAddressesLeaveAfterTheWindow(t *testing.T) {
	l := newClocked(t, lab.StartRedis(t), "window:")
	wantAddress(t, l, "alice", addr(1), 1, true)
	wantAddress(t, l, "alice", addr(2), 1, false)
	l.Advance(defaultWindow * 2 / 3)
	wantAddress(t, l, "alice", addr(1), 1, true) // seen again: the window begins anew
	l.Advance(defaultWindow * 2 / 3)
	wantAddress(t, l, "alice", addr(2), 1, false)
	l.Advance(defaultWindow / 2)
	wantAddress(t, l, "alice", addr(2), 1, true)
	wantAddress(t, l, "alice", addr(1), 1, false)
}

func TestKnownAddressesCostNothing(t *testing.T) {
	server := lab.StartRedis(t)
	look := admin(t, server)
	r := startFleet(t, server, 1, Config{Down: Closed})[0]
	if err := r.AdmitNow("alice", addr(1), 2); !errors.Is(err, limit.ErrWouldBlock) {
		t.Errorf("an unknown address: error %v, want ErrWouldBlock", err)
	}
	before := trips(t, look)
	crowd(50, func(int) {
		if err := r.Admit(t.Context(), "alice", addr(1), 2); err != nil {
			t.Errorf("Admit: %v", err)
		}
	})
	for range 1000 {
		if err := r.AdmitNow("alice", addr(1), 2); err != nil {
			t.Fatalf("AdmitNow: %v", err)
		}
	}
	wantAddress(t, r, "alice", addr(2), 2, true)
	for range 1000 {
		wantAddress(t, r, "alice", addr(3), 2, false)
	}
	if n := trips(t, look) - before; n > 6 { // 3, a second one for a script that is new to Redis, and denials a second later
		t.Errorf("%d trips for three addresses", n)
	}
	names, err := look.ZRange(t.Context(), r.client.Key("ips", "alice"), 0, -1).Result()
	if err != nil || len(names) != 2 {
		t.Fatalf("Redis holds %q, %v", names, err)
	}
	for _, name := range names {
		if len(name) != 24 {
			t.Errorf("%q lies in Redis, want a hash", name)
		}
	}
}

func TestAddressesWithoutRedis(t *testing.T) {
	t.Parallel()
	tests := []struct {
		down        DownPolicy
		second      bool // of two that may come
		third       bool
		unavailable bool
	}{
		{LocalShare, true, false, false},
		{Open, true, true, false},
		{Closed, false, false, true},
	}
	for _, tt := range tests {
		t.Run(string(tt.down), func(t *testing.T) {
			t.Parallel()
			server := lab.StartRedis(t)
			r := startFleet(t, server, 1, Config{Down: tt.down})[0]
			wantAddress(t, r, "alice", addr(1), 2, true)
			server.Freeze(t)
			defer server.Thaw(t)
			waitDown(t, r)
			if err := r.AdmitNow("alice", addr(1), 2); err != nil {
				t.Errorf("a known address was refused: %v", err)
			}
			for n, want := range []bool{tt.second, tt.third} {
				err := r.AdmitNow("alice", addr(2+n), 2)
				if (err == nil) != want || errors.Is(err, limit.ErrUnavailable) != tt.unavailable {
					t.Errorf("address %d: error %v", 2+n, err)
				}
			}
		})
	}
}

func TestAddressMemoryIsBounded(t *testing.T) {
	server := lab.StartRedis(t)
	r := startFleet(t, server, 1, Config{Down: Open})[0]
	for i := range 20_000 { // of a few keys: the bound is a shard's
		if err := r.AdmitNow([]string{"alice", "bob"}[i%2], addr(i), 1); !errors.Is(err, limit.ErrWouldBlock) {
			t.Fatalf("AdmitNow: %v", err)
		}
	}
	total := 0
	for i := range r.places.shards {
		s := &r.places.shards[i]
		s.mu.Lock()
		n := 0
		for _, of := range s.keys {
			n += len(of.by)
		}
		if n != s.len || n > visitsMax {
			t.Errorf("a shard remembers %d pairs and counts %d", n, s.len)
		}
		total += n
		s.mu.Unlock()
	}
	if total > 2*visitsMax {
		t.Errorf("%d pairs are remembered", total)
	}
}

func TestAddressContextEnded(t *testing.T) {
	server := lab.StartRedis(t)
	r := startFleet(t, server, 1, Config{})[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Admit(ctx, "alice", addr(1), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	server.Freeze(t)
	defer server.Thaw(t)
	began := time.Now()
	if err := r.Admit(t.Context(), "alice", addr(1), 1); err != nil { // the policy: it is the first
		t.Errorf("Admit: %v", err)
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("Admit took %v while Redis was frozen", took)
	}
}
