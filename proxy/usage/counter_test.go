package usage_test

import (
	"math"
	"sync"
	"testing"
	"time"

	"maskrelay/proxy/usage"
)

func TestCounter(t *testing.T) {
	c := usage.NewMeter().Of("alice")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				c.Moved(true, 1)
				c.Moved(false, 2)
				c.Moved(true, 0)
				c.Moved(false, -5)
				c.Opened()
			}
		})
	}
	all.Wait()
	if sent, received, connections := c.Totals(); sent != 8000 || received != 16000 || connections != 8000 {
		t.Errorf("%d %d %d", sent, received, connections)
	}
}

func TestMeterHasOneCounterForAName(t *testing.T) {
	m := usage.NewMeter()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { m.Of("alice").Opened() })
	}
	all.Wait()
	if _, _, connections := m.Of("alice").Totals(); connections != 8 {
		t.Errorf("%d of 8 connections", connections)
	}
	if m.Of("alice") == m.Of("bob") {
		t.Error("two names share a counter")
	}
}

func TestMark(t *testing.T) {
	for _, c := range []struct{ quota, percent, want int64 }{
		{100, 80, 80}, {1, 80, 1}, {3, 80, 3}, {1000, 100, 1000}, {101, 80, 81},
		{math.MaxInt64, 100, math.MaxInt64}, {math.MaxInt64, 80, 7378697629483820646},
	} {
		if got := (usage.Quota{Bytes: c.quota}).Mark(c.percent); got != c.want {
			t.Errorf("%d%% of %d: %d, want %d", c.percent, c.quota, got, c.want)
		}
	}
}

func TestGrain(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 30, 0, 0, time.FixedZone("east", 9*3600)) // the day before in UTC
	for g, want := range map[usage.Grain]string{
		usage.Hours: "2026-11-20T23", usage.Days: "2026-11-20", usage.Months: "2026-11", usage.AllTime: "lifetime",
	} {
		index := g.Index(at)
		if got := g.Name(index); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if g != usage.AllTime && (g.Start(index).After(at) || !g.Start(index+1).After(at)) {
			t.Errorf("%s is from %v to %v", want, g.Start(index), g.Start(index+1))
		}
	}
}

func TestEventIDs(t *testing.T) {
	e := usage.Event{Kind: "quota.80", Account: "alice", Quota: 100, Used: 81, Period: "2026-11", At: time.Unix(1, 0)}
	again, other := e, e
	other.Kind = "quota.100"
	if e.ID() != again.ID() || e.ID() == other.ID() || len(e.ID()) != 32 {
		t.Errorf("%s, %s", e.ID(), other.ID())
	}
}
