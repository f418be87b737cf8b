package integration

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// phase is who of a fleet asks for a while. In each the customer's figure is reached, and not exceeded.
type phase struct {
	name   string
	relays []*lab.Relay // one that is in it twice is asked for twice as much
}

// phases have the load on all relays, on one, and moved to the others.
func (f *relayFleet) phases() []phase {
	return []phase{{"all", f.relays}, {"one", []*lab.Relay{f.relays[0], f.relays[0]}}, {"others", f.relays[1:]}}
}

const (
	// window is measured at a time, from the moment the load moves.
	window = 2500 * time.Millisecond
	// windows are tried: two are what a fleet may take to agree. The others are for a machine that is too busy for the load itself.
	windows = 6
	// exact is how near to the customer's figure the fleet must come.
	exact = 0.1
)

// TestFleetConnRate shares 100 connections a second. Each relay is asked for at least twice as many.
func TestFleetConnRate(t *testing.T) {
	t.Parallel()
	const rate, burst = 100, 10
	f := startFleet(t, fleetConfig{
		relays: 3, build: lab.Plain, env: lab.Env{"LOG_LEVEL": "warn"},
		customers: map[string]string{"quick": fmt.Sprintf("conn_rate: %d, conn_burst: %d", rate, burst)},
	})
	for _, p := range f.phases() {
		measured(t, p.name, func() float64 {
			start := time.Now()
			s := startSetups(p.relays, "quick")
			wait(t, window)
			given := s.end(t, p.name)[http.StatusOK]
			most := rate*time.Since(start).Seconds() + burst
			if float64(given) > most*(1+exact) {
				t.Errorf("%s: %d connections, at most %.0f", p.name, given, most)
			}
			return (float64(given) - burst/2) / (rate * time.Since(start).Seconds())
		})
	}
}

// TestFleetBandwidth shares 2 MB/s among streams that want all they can get.
func TestFleetBandwidth(t *testing.T) {
	t.Parallel()
	const bandwidth, streams = 2_000_000, 2
	f := startFleet(t, fleetConfig{
		relays: 3, build: lab.Plain, env: lab.Env{"LOG_LEVEL": "warn"},
		customers: map[string]string{"broad": "bandwidth: 2MB"},
	})
	for _, p := range f.phases() {
		var received atomic.Int64
		var open []*client
		var over sync.WaitGroup
		for range streams {
			for _, r := range p.relays {
				c := f.mustOpen(t, r, "broad")
				if err := c.SetDeadline(time.Time{}); err != nil {
					t.Fatal(err)
				}
				open = append(open, c)
				over.Go(func() { stream(c, &received) })
				over.Go(func() { fillUp(c) })
			}
		}
		measured(t, p.name, func() float64 {
			start, before := time.Now(), received.Load()
			wait(t, window)
			return float64(received.Load()-before) / (bandwidth * time.Since(start).Seconds())
		})
		closeAll(t, open)
		over.Wait()
	}
}

// measured measures until what it gets is near one of the customer's figure.
func measured(t *testing.T, name string, measure func() float64) {
	t.Helper()
	var got float64
	for i := range windows {
		got = measure()
		t.Logf("%s, window %d: %.3f of the customer's figure", name, i+1, got)
		if math.Abs(got-1) <= exact {
			return
		}
	}
	t.Errorf("%s: %.3f of the customer's figure at last", name, got)
}

// wait lets time pass over which something is counted.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// stream reads what comes back, until the end.
func stream(c *client, received *atomic.Int64) {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.r.Read(buf)
		received.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// fillUp writes without an end.
func fillUp(c *client) {
	buf := make([]byte, 16<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}
