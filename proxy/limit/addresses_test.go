package limit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var _ Addresses = (*MemoryAddresses)(nil)

// TestAddresses: scripts of "address outcome", with the window of ten minutes and the
// seconds that pass between.
func TestAddresses(t *testing.T) {
	tests := []struct {
		name   string
		max    int
		script string
	}{
		{"one more than allowed", 2, "1.1.1.1 ok, 1.1.1.2 ok, 1.1.1.3 no 600, 1.1.1.1 ok, 1.1.1.2 ok"},
		{"a place in the window's end", 1, "1.1.1.1 ok, 599s, 1.1.1.2 no 1, 1s, 1.1.1.2 ok, 1.1.1.1 no 600"},
		{"seen again stays", 2, "1.1.1.1 ok, 1.1.1.2 ok, 300s, 1.1.1.1 ok, 300s, 1.1.1.3 ok, 1.1.1.2 no 300, 1.1.1.1 ok"},
		{"who returns after the window comes last", 1, "1.1.1.1 ok, 600s, 1.1.1.2 ok, 1.1.1.1 no 600"},
		{"who returns after the window is new", 2, "1.1.1.1 ok, 600s, 1.1.1.1 ok, 1.1.1.2 ok, 1.1.1.1 ok, 1.1.1.3 no 600"},
		{"who returns after the window counts once", 5, "1.1.1.7 ok, 1.1.1.8 ok, 1.1.1.9 ok, 1s, 1.1.1.1 ok, 600s, " +
			"1.1.1.1 ok, 1.1.1.2 ok, 1.1.1.1 ok, 1.1.1.3 ok, 1.1.1.4 ok, 1.1.1.5 ok, 1.1.1.6 no 600"},
		{"refused is not counted", 1, "1.1.1.1 ok, 1.1.1.2 no 600, 600s, 1.1.1.3 ok"},
		{"IPv6 by network", 1, "2001:db8::1 ok, 2001:db8::ffff:1:2 ok, 2001:db8:0:1::1 no 600"},
		{"IPv4 in IPv6", 1, "::ffff:1.1.1.1 ok, 1.1.1.1 ok, ::ffff:1.1.1.2 no 600"},
		{"zones", 1, "fe80::1%eth0 ok, fe80::2%eth1 ok"},
		{"no limit", 0, "1.1.1.1 ok, 1.1.1.2 ok, 1.1.1.3 ok"},
		{"no address", 1, "- ok, - ok, 1.1.1.1 no 600"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewAddresses(10 * time.Minute)
				for i, step := range strings.Split(tt.script, ", ") {
					if pause, err := time.ParseDuration(step); err == nil {
						time.Sleep(pause)
						continue
					}
					f := strings.Fields(step)
					addr, _ := netip.ParseAddr(f[0])
					got := "ok"
					if err := m.Admit(t.Context(), "key", addr, tt.max); err != nil {
						var over *ExceededError
						if !errors.As(err, &over) || over.Cap != CapMaxIPs || over.Limit != float64(tt.max) {
							t.Fatalf("step %d, %q: error %v", i, step, err)
						}
						got = fmt.Sprint("no ", over.RetryAfter.Seconds())
					}
					if want := strings.Join(f[1:], " "); got != want {
						t.Fatalf("step %d, %q: got %s", i, step, got)
					}
				}
			})
		})
	}
}

func TestAddressesMaxChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewAddresses(time.Minute)
		for i := range 5 {
			if err := m.AdmitNow("key", addr4(i), 5); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if m.AdmitNow("key", addr4(9), 2) == nil {
			t.Error("a new address beyond a lowered maximum")
		}
		for i := range 5 { // those that are counted go on
			if err := m.AdmitNow("key", addr4(i), 2); err != nil {
				t.Error(err)
			}
		}
		if err := m.AdmitNow("key", addr4(9), 6); err != nil {
			t.Error(err)
		}
		if err := m.AdmitNow("other", addr4(9), 1); err != nil {
			t.Errorf("keys depend on each other: %v", err)
		}
		if n := m.Count("key"); n != 6 || m.Count("nobody") != 0 {
			t.Errorf("%d addresses counted, want 6", n)
		}
		time.Sleep(time.Minute)
		if n := m.Count("key"); n != 0 {
			t.Errorf("%d addresses counted after the window", n)
		}
	})
}

func TestAddressesContextEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := NewAddresses(time.Minute)
	if err := m.Admit(ctx, "key", addr4(1), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if m.Count("key") != 0 {
		t.Error("counted all the same")
	}
}

func TestAddressesExactUnderContention(t *testing.T) {
	const most = 100
	m := NewAddresses(time.Hour)
	var admitted [1000]atomic.Bool
	var users sync.WaitGroup
	for g := range 16 {
		users.Go(func() {
			for i := range admitted {
				at := (i*7 + g*61) % len(admitted)
				if m.AdmitNow("key", addr4(at), most) == nil {
					admitted[at].Store(true)
				}
			}
		})
	}
	users.Wait()
	n := 0
	for i := range admitted {
		if admitted[i].Load() {
			n++
		}
	}
	if n != most || m.Count("key") != most {
		t.Errorf("%d addresses admitted, %d counted, want %d", n, m.Count("key"), most)
	}
}

// TestAddressesAreBounded: a flood of keys and addresses is forgotten, by its number at
// once and by the window in the end.
func TestAddressesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewAddresses(time.Minute)
		m.most = 10_000
		before := heapInUse()
		busy := func() {
			if err := m.AdmitNow("busy", addr4(0), 1); err != nil {
				t.Error(err)
			}
		}
		busy()
		for i := range 200_000 {
			if err := m.AdmitNow(fmt.Sprint("key", i%70_000), addr4(i), 10); err != nil {
				t.Fatal(err)
			}
			if n := m.count.Load(); n > m.most+shardCount {
				t.Fatalf("%d addresses remembered", n)
			}
		}
		if n := m.count.Load(); n < m.most/2 {
			t.Errorf("%d addresses remembered, want about %d", n, m.most)
		}
		time.Sleep(time.Minute)
		for i := range 20_000 {
			_ = m.AdmitNow(fmt.Sprint("late", i), addr4(i), 1)
			time.Sleep(30 * time.Second)
			busy() // never out of the window, and in nobody's way
		}
		owners := 0
		for i := range m.shards {
			owners += len(m.shards[i].owners)
		}
		if n := m.count.Load(); n > 3*shardCount || owners > 3*shardCount {
			t.Errorf("%d addresses, %d keys stay", n, owners)
		}
		if grown := int64(heapInUse()) - int64(before); grown > 4<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
		runtime.KeepAlive(m)
	})
}

func addr4(i int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(i))
	return netip.AddrFrom4(b)
}

func BenchmarkAddresses(b *testing.B) {
	for _, keys := range []int{1, 1_000, 100_000} {
		m := NewAddresses(10 * time.Minute)
		names := make([]string, keys)
		for i := range names {
			names[i] = fmt.Sprint("customer-", i)
			_ = m.AdmitNow(names[i], addr4(i), 3)
		}
		b.Run(fmt.Sprintf("keys=%d/serial", keys), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i += stride {
				if err := m.AdmitNow(names[i%keys], addr4(i%keys), 3); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("keys=%d/parallel", keys), func(b *testing.B) {
			var began atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for i := int(began.Add(1)) * 104_729; pb.Next(); i += stride {
					if err := m.AdmitNow(names[i%keys], addr4(i%keys), 3); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
	b.Run("refused", func(b *testing.B) {
		m := NewAddresses(10 * time.Minute)
		_ = m.AdmitNow("key", addr4(0), 1)
		b.ReportAllocs()
		for b.Loop() {
			if m.AdmitNow("key", addr4(1), 1) == nil {
				b.Fatal("admitted")
			}
		}
	})
}
