package bench

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

func TestMain(m *testing.M) {
	if lab.RunRole() {
		return
	}
	code := m.Run()
	if err := lab.CleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

const (
	credentials = "bench:password"
	targetName  = "shop.target.example:443"
	tunnels     = 20000
	workers     = 64
	rounds      = 3
	fewHeld     = 1000
	manyHeld    = 5000
	wantRate    = 5000 // with generator and vendor on the same 4 cores
)

func startRelay(b *testing.B) *lab.Relay {
	b.Helper()
	vendor := lab.StartLoadVendor(b)
	return lab.StartRelay(b, lab.Plain, lab.Env{"UPSTREAM": "http://vendor:password@" + vendor.Addr, "ACCOUNTS": credentials})
}

// BenchmarkNewTunnels opens and closes tunnels, each used for one byte both ways, and prints rate and CPU time of the relay.
func BenchmarkNewTunnels(b *testing.B) {
	relay := startRelay(b)
	g := lab.StartGenerator(b, relay.Addr, targetName, credentials)
	if _, failed := g.Churn(b, 2000, workers); failed > 0 {
		b.Fatalf("%d of the first 2000 tunnels failed", failed)
	}
	fmt.Printf("\n| round | new tunnels/s | relay CPU µs/tunnel |\n|---|---|---|\n")
	var bestRate, bestCPU float64
	for b.Loop() {
		for round := range rounds {
			before := lab.ProcessUsage(b, relay.PID())
			took, failed := g.Churn(b, tunnels, workers)
			if failed > 0 {
				b.Fatalf("%d of %d tunnels failed", failed, tunnels)
			}
			rate := tunnels / took.Seconds()
			cpu := float64(lab.ProcessUsage(b, relay.PID()).CPU-before.CPU) / float64(time.Microsecond) / tunnels
			fmt.Printf("| %d | %.0f | %.0f |\n", round+1, rate, cpu)
			bestRate = max(bestRate, rate)
			if bestCPU == 0 || cpu < bestCPU {
				bestCPU = cpu
			}
		}
	}
	fmt.Printf("\n%d workers, %d tunnels a round, %d cores for relay, generator and vendor together, %s\n\n", workers, tunnels, runtime.NumCPU(), runtime.Version())
	if runtime.NumCPU() >= 4 && bestRate < wantRate {
		b.Errorf("%.0f new tunnels/s in the best round, want at least %d on 4 cores", bestRate, wantRate)
	}
	b.ReportMetric(bestRate, "tunnels/s")
	b.ReportMetric(bestCPU, "cpu-µs/tunnel")
}

// BenchmarkIdleTunnels holds tunnels and prints what one more of them costs.
func BenchmarkIdleTunnels(b *testing.B) {
	relay := startRelay(b)
	g := lab.StartGenerator(b, relay.Addr, targetName, credentials)
	for b.Loop() {
		few := hold(b, g, relay, fewHeld)
		many := hold(b, g, relay, manyHeld-fewHeld)
		const more = manyHeld - fewHeld
		perTunnel := float64(many.RSS-few.RSS) / more
		fmt.Printf("\n| per idle tunnel | |\n|---|---|\n| RSS | %.1f KiB |\n| file descriptors | %.2f |\n| goroutines | %.2f |\n\n", perTunnel/1024,
			float64(many.FDs-few.FDs)/more, float64(many.Goroutines-few.Goroutines)/more)
		g.Release(b)
		b.ReportMetric(perTunnel, "B/idle-tunnel")
	}
}

func hold(b *testing.B, g *lab.Generator, relay *lab.Relay, n int) lab.Usage {
	b.Helper()
	if failed := g.Hold(b, n); failed > 0 {
		b.Fatalf("%d of %d tunnels failed", failed, n)
	}
	return relay.Usage(b)
}
