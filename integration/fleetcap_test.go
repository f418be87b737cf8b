package integration

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// The burst: so many relays, so large a cap, so many attempts.
const (
	burstRelays   = 10
	burstCap      = 2000
	burstAttempts = 10_000
	burstGiven    = 1950 // of the cap, at least
)

// TestFleetBurst is not parallel: it is the heaviest test, and counts what a busy machine would change.
func TestFleetBurst(t *testing.T) {
	f := startFleet(t, fleetConfig{
		relays: burstRelays, build: lab.Plain, env: lab.Env{"LOG_LEVEL": "warn"},
		customers: map[string]string{"bulk": fmt.Sprint("max_conns: ", burstCap)},
	})
	var generators []*lab.Generator
	for _, r := range f.relays {
		generators = append(generators, lab.StartGenerator(t, r.Addr, fleetTarget, "bulk:"+fleetPassword))
	}
	before := f.sum(t, "maskrelay_redis_calls_total")
	start := time.Now()
	given := burstAttempts - lab.HoldEach(t, generators, burstAttempts/burstRelays)
	took := time.Since(start)
	perAttempt := (f.sum(t, "maskrelay_redis_calls_total") - before) / burstAttempts
	late := f.sum(t, "maskrelay_fleet_policy_total")
	t.Logf("burst: %d of %d attempts were given a tunnel in %v, %.3f round trips an attempt; %v decisions without Redis",
		given, burstAttempts, took, perAttempt, late)
	if late > 0 { // Redis did not answer in time: what was kept from customers then must be there for them now
		lab.Poll(20*time.Second, func() bool {
			if given < burstGiven {
				given += burstRelays - lab.HoldEach(t, generators, 1)
			}
			return given >= burstGiven
		})
	}
	open, most := f.vendor.Tunnels(t)
	if most > burstCap || open != given {
		t.Errorf("%d tunnels at a time, %d open, %d given, with a cap of %d", most, open, given, burstCap)
	}
	if given < burstGiven {
		t.Errorf("%d given, want %d", given, burstGiven)
	}
	if perAttempt > 0.3 {
		t.Errorf("%.3f round trips an attempt", perAttempt)
	}
	for _, g := range generators {
		g.Release(t)
	}
	for _, r := range f.relays {
		waitTunnels(t, r, 0)
	}
	checkChurn(t, f, generators)
}

// checkChurn has seven tenths of the cap in use, of which a part comes and goes.
func checkChurn(t *testing.T, f *relayFleet, generators []*lab.Generator) {
	t.Helper()
	const workers, each, most = 40, 1500, 0.01
	late := func() float64 { return f.sum(t, "maskrelay_fleet_policy_total") }
	if failed := lab.HoldEach(t, generators, burstCap*7/10/burstRelays-workers); failed > int(late()) {
		t.Errorf("%d refused far below the cap", failed)
	}
	lab.ChurnEach(t, generators, 20*workers, workers) // blocks have their size
	for range 3 {
		lateBefore, before, trips := late(), f.leaseCalls(t), f.sum(t, "maskrelay_redis_calls_total")
		took, failed := lab.ChurnEach(t, generators, each, workers)
		const acquires = each * burstRelays
		asked := (f.leaseCalls(t) - before) / acquires
		withoutRedis := late() - lateBefore
		t.Logf("churn: %d tunnels in %v, %.4f questions each, %.4f round trips with renewals and bookings; %v decisions without Redis",
			acquires, took, asked, (f.sum(t, "maskrelay_redis_calls_total")-trips)/acquires, withoutRedis)
		if failed > int(withoutRedis) {
			t.Errorf("%d refused at seven tenths of the cap", failed)
		}
		if asked <= most {
			return
		}
		if withoutRedis == 0 {
			t.Errorf("%.4f questions to Redis for a tunnel", asked)
			return
		}
	}
	t.Errorf("more than %v questions to Redis for a tunnel each time", most)
}

// leaseCalls counts questions for slots, as Redis sees them. Renewals are left out: they come every ten seconds for every account that
// is in use, however many tunnels come and go.
func (f *relayFleet) leaseCalls(t *testing.T) (sum float64) {
	t.Helper()
	for _, r := range f.relays {
		for _, reason := range []string{"connection", "block", "giving_back"} {
			n, ok := r.Metric(t, `maskrelay_fleet_lease_calls_total{for="`+reason+`"}`)
			if !ok {
				t.Fatalf("no count of questions for %s", reason)
			}
			sum += n
		}
	}
	return sum
}

// leaseTTL is how long a lease lives that is not renewed.
const leaseTTL = 30 * time.Second

// TestFleetLosesRelays kills one relay and stops another for longer than a lease lives.
func TestFleetLosesRelays(t *testing.T) {
	t.Parallel()
	const most, kept = 60, 20
	f := startFleet(t, fleetConfig{relays: 3, build: lab.Plain, customers: map[string]string{"capped": fmt.Sprint("max_conns: ", most)}})
	dies, sleeps, lives := f.relays[0], f.relays[1], f.relays[2]
	stays := f.fill(t, sleeps, "capped", kept)
	f.fill(t, dies, "capped", most-kept)
	f.mustRefuse(t, lives, "capped")
	dies.Signal(t, syscall.SIGKILL)
	sleeps.Signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { sleeps.Signal(t, syscall.SIGCONT) })
	killed := time.Now()
	given := 0
	lab.Wait(t, time.Minute, "the slots of the dead relay to come back", func() bool {
		c, _ := f.open(t, lives, "capped", fleetPassword)
		if c != nil {
			given++
		}
		return given >= most
	})
	took, late := time.Since(killed), lives.Sum(t, "maskrelay_fleet_policy_total")
	t.Logf("%d slots were back %v after their relays were gone; %v decisions without Redis", given, took.Round(time.Millisecond), late)
	if took > leaseTTL+5*time.Second && late == 0 {
		t.Errorf("the slots were back only after %v", took)
	}
	f.relays = []*lab.Relay{sleeps, lives}
	sleeps.Signal(t, syscall.SIGCONT)
	f.meet(t)
	// The fleet has most+kept now, of which the relay that was away carries what it held and takes no more.
	for i := range 3 {
		f.mustRefuse(t, sleeps, "capped")
		if n := sleeps.Tunnels(t); n > kept-i {
			t.Errorf("the relay that was away has %d tunnels", n)
		}
		mustLive(t, stays[i])
		closeAll(t, stays[i:i+1]) // makes no room: the fleet is far above its cap
	}
}
