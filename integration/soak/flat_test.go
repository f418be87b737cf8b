package soak

import (
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const (
	flatTunnels = 100_000 // opened and closed, in two halves
	flatBatches = 20
	flatWorkers = 64
	// flatRSS is what the second half may add to the relay's memory.
	flatRSS = 2 << 20
)

// TestFlat opens and closes 100,000 tunnels through the binary without race detector, in batches: the second half must leave nothing that the first
// had not left already. Descriptors and goroutines are the same to the last one; memory is within flatRSS, once the runtime has given back what it
// means to.
func TestFlat(t *testing.T) {
	const user, password = "flat", "flat-password"
	vendor := lab.StartLoadVendor(t)
	relay := lab.StartRelay(t, lab.Plain, lab.Env{"UPSTREAM": "http://vendor:x@" + vendor.Addr, "ACCOUNTS": user + ":" + password, "LOG_LEVEL": "warn"})
	g := lab.StartGenerator(t, relay.Addr, "shop.target.example:443", user+":"+password)
	begun := time.Now()
	churn(t, relay, g, flatBatches/2)
	middle := rest(t, relay, nil)
	churn(t, relay, g, flatBatches/2)
	end := rest(t, relay, &middle)
	t.Logf("%d tunnels in %v; after half of them %+v, after all %+v", flatTunnels, time.Since(begun).Round(time.Second), middle, end)
	if end.FDs > middle.FDs || end.Goroutines > middle.Goroutines {
		t.Errorf("the second half leaves %d file descriptors and %d goroutines", end.FDs-middle.FDs, end.Goroutines-middle.Goroutines)
	}
	if grown := end.RSS - middle.RSS; grown > flatRSS {
		t.Errorf("the second half leaves %d bytes of memory, more than %d", grown, flatRSS)
	}
	if n, _ := relay.Metric(t, `maskrelay_exchanges_total{outcome="ok"}`); n != flatTunnels {
		t.Errorf("%v exchanges are counted, want %d", n, flatTunnels)
	}
	if n, _ := relay.Metric(t, `maskrelay_account_connections{account="`+user+`"}`); n != 0 {
		t.Errorf("%v leases are left", n)
	}
}

// churn opens and closes the tunnels of some batches.
func churn(t *testing.T, relay *lab.Relay, g *lab.Generator, batches int) {
	t.Helper()
	for range batches {
		if _, failed := g.Churn(t, flatTunnels/flatBatches, flatWorkers); failed > 0 {
			t.Fatalf("%d of %d tunnels failed", failed, flatTunnels/flatBatches)
		}
		lab.Wait(t, 30*time.Second, "the relay to have no tunnel", func() bool { return relay.Tunnels(t) == 0 })
	}
}

// rest returns what the relay holds once it has given back what it means to: the least of some seconds, or as soon as that is no more than before.
func rest(t *testing.T, relay *lab.Relay, before *lab.Usage) lab.Usage {
	t.Helper()
	least := relay.Usage(t)
	lab.Poll(4*time.Second, func() bool {
		now := relay.Usage(t)
		least = lab.Usage{FDs: min(least.FDs, now.FDs), Goroutines: min(least.Goroutines, now.Goroutines), RSS: min(least.RSS, now.RSS), CPU: now.CPU}
		return before != nil && least.FDs <= before.FDs && least.Goroutines <= before.Goroutines && least.RSS <= before.RSS
	})
	return least
}
