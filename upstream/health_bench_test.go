package upstream

import (
	"fmt"
	"testing"
	"time"
)

// healthPool is a pool of three gateways that do well.
func healthPool(b *testing.B) *Pool {
	b.Helper()
	o := Options{DialTimeout: time.Second, ConnectTimeout: time.Second}
	for i := range 3 {
		g, err := ParseGateway(GatewayConfig{Name: fmt.Sprint(i), URL: fmt.Sprintf("http://192.0.2.%d:1", i+1)})
		if err != nil {
			b.Fatal(err)
		}
		o.Gateways = append(o.Gateways, g)
	}
	p, err := NewPool(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

// BenchmarkHealth is what the books of one attempt cost, beside the clock. It runs
// alone and with all processors on one gateway.
func BenchmarkHealth(b *testing.B) {
	forbidden := &ConnectError{Phase: PhaseConnect, Cause: CauseForbidden}
	failed := &ConnectError{Phase: PhaseConnect, Cause: CauseServer}
	for name, f := range map[string]func(h *health, now time.Time){
		"report=served":    func(h *health, now time.Time) { h.report(nil, time.Millisecond, now) },
		"report=forbidden": func(h *health, now time.Time) { h.report(forbidden, time.Millisecond, now) },
		"report=spared": func(h *health, now time.Time) { // failures of a gateway that cannot be ejected
			h.report(failed, time.Millisecond, now)
		},
		"report=judged": func(h *health, now time.Time) { // the same at its dearest
			h.quiet.Store(noMoment)
			h.report(failed, time.Millisecond, now)
		},
		"usable": func(h *health, now time.Time) { h.usable(now) },
		"chosen": func(h *health, now time.Time) { h.chosen(now) },
	} {
		pools := func(b *testing.B) *health {
			g := healthPool(b).gateways[0]
			g.siblings = func() []*gateway { return []*gateway{g} } // nothing better
			return &g.health
		}
		b.Run(name+"/alone", func(b *testing.B) {
			h, now := pools(b), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				f(h, now)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			h, now := pools(b), time.Now()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					f(h, now)
				}
			})
		})
	}
}
