package upstream

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Set-ups go on while records change and scrapes read; nothing is lost of the counts.
func TestEndpointsChangeUnderLoad(t *testing.T) {
	p := newPool(t, Options{
		Gateways: []Gateway{gatewayOf(t, "a", "http://gw.example:1"), gatewayOf(t, "b", "http://gw.example:1")},
		Ports:    [2]int{10000, 20000}, Sources: addrs("198.51.100.1", "198.51.100.2", "2001:db8:1::1"),
	})
	set := func(e *endpoints) {
		var all []netip.Addr
		for range 1 + rand.IntN(6) {
			all = append(all, addrs(fmt.Sprintf("192.0.2.%d", 1+rand.IntN(4)), fmt.Sprintf("2001:db8::%d", 1+rand.IntN(4)))[rand.IntN(2)])
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.setLocked(all)
	}
	for _, g := range p.gateways {
		set(g.endpoints)
	}
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			var held []Held
			for range 500 {
				if s := startSetup(p); rand.IntN(10) == 0 {
					_, _ = s.Next()
					s.Failed(true, syscall.ECONNREFUSED)
					s.Reset()
				} else if _, err := s.Next(); err == nil {
					if n, err := s.Reply([]byte(established)); n > 0 && err == nil {
						held = append(held, s.Opened())
					}
				}
				if len(held) > 20 {
					held[0].Release()
					held = held[1:]
				}
			}
			for _, h := range held {
				h.Release()
			}
		})
	}
	for range 200 {
		set(p.gateways[rand.IntN(2)].endpoints)
		collected(t, p, connsName)
	}
	running.Wait()
	for _, g := range p.gateways {
		for range 2 { // what has no connection is forgotten
			set(g.endpoints)
		}
		for _, ep := range g.endpoints.addrs {
			if n := ep.conns.Load(); n != 0 {
				t.Errorf("%s: %d connections to %s are still counted", g.Name, n, ep.addr)
			}
		}
		if len(g.endpoints.gone) != 0 {
			t.Errorf("%s: %d addresses are kept", g.Name, len(g.endpoints.gone))
		}
	}
	wantNothingHeld(t, p)
	lanes := map[laneKey]int{}
	for _, g := range p.gateways {
		for _, ep := range g.endpoints.addrs {
			for _, l := range ep.lanes {
				lanes[laneKey{l.source, ep.addr}]++
			}
		}
	}
	if len(p.ports.lanes) != len(lanes) {
		t.Errorf("ports of %d lanes are kept, %d are needed", len(p.ports.lanes), len(lanes))
	}
	for key, n := range lanes {
		if got := p.ports.lanes[key]; got == nil || got.users != n {
			t.Errorf("%v has not %d users: %+v", key, n, got)
		}
	}
}

func TestFamilyProof(t *testing.T) {
	now := time.Unix(1000, 0)
	after := func(d time.Duration) time.Time { return now.Add(d) }
	tests := map[string]struct {
		happened        func(f *family)
		proven, failing bool
	}{
		"nothing":             {func(*family) {}, false, false},
		"reached":             {func(f *family) { f.report(true, after(-time.Minute)) }, true, false},
		"long ago":            {func(f *family) { f.report(true, after(-familyProven)) }, false, false},
		"failed":              {func(f *family) { f.report(false, after(-time.Second)) }, false, true},
		"failed long ago":     {func(f *family) { f.report(false, after(-addressCooldown)) }, false, false},
		"failed after":        {func(f *family) { f.report(true, after(-2*time.Second)); f.report(false, after(-time.Second)) }, false, true},
		"failed before":       {func(f *family) { f.report(false, after(-2*time.Second)); f.report(true, after(-time.Second)) }, true, false},
		"at the same time":    {func(f *family) { f.report(false, after(0)); f.report(true, after(0)) }, true, false},
		"again, within 100ms": {func(f *family) { f.report(true, after(-3)); f.report(false, after(-2)); f.report(true, after(-1)) }, true, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var f family
			test.happened(&f)
			if f.proven(now) != test.proven || f.failing(now) != test.failing {
				t.Errorf("proven %t, failing %t", f.proven(now), f.failing(now))
			}
		})
	}
}
