package upstream

import (
	"fmt"
	"testing"
	"time"
)

// balancedPool is a pool of n gateways; weights of 1, or all different.
func balancedPool(b *testing.B, balance string, n int, different bool) *Pool {
	b.Helper()
	weights := equal(n)
	if different {
		weights = upTo(n)
	}
	p, err := NewPool(Options{Gateways: weighted(b, weights...), Balance: balance, DialTimeout: 1, ConnectTimeout: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

// BenchmarkPick is a pick without the way to its route: round_robin/down has a gateway of
// those that are down, and session a route that is bound.
func BenchmarkPick(b *testing.B) {
	for _, balance := range []string{RoundRobin, RoundRobin + "/down", LeastConn, IPHash, "session"} {
		for _, n := range []int{1, 3, 16, 64} {
			for _, different := range []bool{false, true} {
				name := fmt.Sprintf("%s/%d", balance, n)
				if different {
					name += "w"
				}
				b.Run(name, func(b *testing.B) { benchPick(b, balance, n, different, false) })
				b.Run(name+"/parallel", func(b *testing.B) { benchPick(b, balance, n, different, true) })
			}
		}
	}
}

func benchPick(b *testing.B, balance string, n int, different, parallel bool) {
	kind := balance
	if balance == "session" || balance == RoundRobin+"/down" {
		kind = RoundRobin
	}
	p := balancedPool(b, kind, n, different)
	now := time.Now()
	if balance == RoundRobin+"/down" {
		takeDown(p.gateways[n/2], now)
	}
	routes := make([]*Route, 256)
	for i := range routes {
		switch balance {
		case "session":
			routes[i] = sessionOf(p, "alice", fmt.Sprint(i))
		default:
			routes[i] = route(b, p, Choice{Client: clientAddr(i)})
		}
	}
	b.ReportAllocs()
	if !parallel {
		var a attempts
		for i := 0; b.Loop(); i++ {
			routes[i%len(routes)].pick(&a, now)
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		var a attempts
		for i := 0; pb.Next(); i++ {
			routes[i%len(routes)].pick(&a, now)
		}
	})
}

func BenchmarkBudget(b *testing.B) {
	b.Run("serial", func(b *testing.B) {
		var budget budget
		budget.init()
		for b.Loop() {
			budget.begin()
			budget.end(true)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		var budget budget
		budget.init()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				budget.begin()
				budget.end(true)
			}
		})
	})
}

// BenchmarkExchange is all that an exchange costs here that is served at once: its time,
// its place in the budget, and its pick.
func BenchmarkExchange(b *testing.B) {
	for _, balance := range []string{RoundRobin, LeastConn, IPHash} {
		p := balancedPool(b, balance, 16, false)
		r := route(b, p, Choice{Client: clientAddr(1)})
		exchange := func(a *attempts) {
			a.start(r, time.Now())
			a.next(time.Now())
			a.end(true)
		}
		b.Run(balance, func(b *testing.B) {
			b.ReportAllocs()
			var a attempts
			for b.Loop() {
				exchange(&a)
			}
		})
		b.Run(balance+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				var a attempts
				for pb.Next() {
					exchange(&a)
				}
			})
		})
	}
}

func BenchmarkRoute(b *testing.B) {
	for _, balance := range []string{RoundRobin, IPHash} {
		p := balancedPool(b, balance, 3, false)
		b.Run(balance, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Route(Choice{Account: "alice", Client: clientAddr(1)}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAllFull is a set-up that finds every gateway full.
func BenchmarkAllFull(b *testing.B) {
	for _, n := range []int{3, 64, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			gateways := weighted(b, equal(n)...)
			for i := range gateways {
				gateways[i].Host, gateways[i].MaxConns = "192.0.2.1", 1
			}
			p, err := NewPool(Options{Gateways: gateways, DialTimeout: time.Second, ConnectTimeout: time.Second})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(p.Close)
			for _, g := range p.gateways {
				g.conns.Store(1)
			}
			b.ReportAllocs()
			var s Setup
			for b.Loop() {
				s.Start(p, nil)
				if _, err := s.Next(); err == nil {
					b.Fatal("there was one")
				}
			}
		})
	}
}
