package redislimit

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
)

// BenchmarkLimiter is package limit's BenchmarkMemory, and with it the cost of a fleet on the way of a connection.
func BenchmarkLimiter(b *testing.B) {
	server := lab.StartRedis(b)
	for _, keys := range []int{1, 1_000, 100_000} {
		names := make([]string, keys)
		for i := range names {
			names[i] = fmt.Sprint("customer-", i)
		}
		for _, bench := range []struct {
			name string
			caps limit.Caps
		}{
			{"none", limit.Caps{}},
			{"max", limit.Caps{MaxConns: 1 << 30}},
			{"max and rate", limit.Caps{MaxConns: 1 << 30, ConnRate: 1e9}},
		} {
			b.Run(fmt.Sprintf("keys=%d/%s", keys, bench.name), func(b *testing.B) {
				r := startRelay(b, fleet.Config{URL: server.URL()}, Config{}, nil)
				for _, name := range names { // a connection of each, as customers have who come and go
					if _, err := r.Acquire(b.Context(), name, bench.caps); err != nil {
						b.Fatal(err)
					}
				}
				var start atomic.Uint64
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					ctx := context.Background()
					for i := start.Add(7919); pb.Next(); i++ {
						lease, err := r.Acquire(ctx, names[i%uint64(keys)], bench.caps)
						if err != nil {
							b.Error(err)
							return
						}
						lease.Release()
					}
				})
				b.StopTimer()
				r.stop()
			})
		}
	}
}

func BenchmarkAddresses(b *testing.B) {
	r := startRelay(b, fleet.Config{URL: lab.StartRedis(b).URL()}, Config{}, nil)
	a := netip.MustParseAddr("203.0.113.1")
	if err := r.Admit(b.Context(), "alice", a, 1); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := r.AdmitNow("alice", a, 1); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkRenewal has one relay hold connections of 10,000 accounts and says how much of one core Redis needs for their renewal.
func BenchmarkRenewal(b *testing.B) {
	const accounts = 10_000
	for _, relays := range []int{1, 4} {
		b.Run(fmt.Sprint("relays=", relays), func(b *testing.B) {
			server := lab.StartRedis(b)
			for _, r := range startFleet(b, server, relays, Config{}) {
				for i := range accounts {
					if _, err := r.Acquire(b.Context(), fmt.Sprint("customer-", i), limit.Caps{MaxConns: 2000}); err != nil {
						b.Fatal(err)
					}
				}
			}
			const span = 20 * time.Second // two renewals of each
			time.Sleep(3 * time.Second)   // what was leased ahead has gone back
			look := admin(b, server)
			for b.Loop() {
				before, calls := cpu(b, server.PID()), trips(b, look)
				time.Sleep(span)
				spent := cpu(b, server.PID()) - before
				renewed := float64(trips(b, look) - calls)
				b.ReportMetric(100*spent.Seconds()/span.Seconds(), "%core")
				b.ReportMetric(renewed/span.Seconds(), "renewals/s")
				b.ReportMetric(float64(spent.Microseconds())/renewed, "us/renewal")
			}
		})
	}
}

// cpu is the processor time that a process has used.
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}
