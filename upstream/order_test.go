package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// network says what becomes of a connection to an address: the time it takes, and an error.
type network func(a netip.Addr) (time.Duration, error)

const never = time.Hour

// connect sets one connection up in w, in synctest's time. It returns the addresses
// tried and the times taken; the last one is that of the connection if there is one.
func (w network) connect(t *testing.T, p *Pool) (tried []netip.Addr, took []time.Duration, held Held, err error) {
	t.Helper()
	var s Setup
	s.Start(p, nil)
	for {
		d, err := s.Next()
		if err != nil {
			return tried, took, Held{}, err
		}
		pause, trouble := w(d.Addr.Addr())
		if pause > d.Timeout {
			pause, trouble = d.Timeout, os.ErrDeadlineExceeded
		}
		time.Sleep(pause)
		tried, took = append(tried, d.Addr.Addr()), append(took, pause)
		if trouble != nil {
			s.Failed(true, trouble)
			continue
		}
		s.Connected()
		_, err = s.Reply([]byte(established))
		must(t, err)
		return tried, took, s.Opened(), nil
	}
}

// blackHole is a network in which one family answers at once and the other one never.
func blackHole(works4 bool) network {
	return func(a netip.Addr) (time.Duration, error) {
		if a.Is4() == works4 {
			return time.Millisecond, nil
		}
		return never, nil
	}
}

var bothFamilies = []string{"2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"}

// A family that is a black hole costs a moment, once in a while, one customer.
func TestBlackHoleCostsLittle(t *testing.T) {
	for _, works4 := range []bool{true, false} {
		t.Run(fmt.Sprintf("IPv4 works=%t", works4), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := resolvedPool(t, Options{}, bothFamilies...)
				time.Sleep(familyTrial)
				slow, last := 0, time.Now().Add(-addressCooldown)
				for range 600 {
					tried, took, held, err := blackHole(works4).connect(t, p)
					must(t, err)
					held.Release()
					if len(tried) > 2 || tried[len(tried)-1].Is4() != works4 {
						t.Fatalf("tried %v", tried)
					}
					if len(tried) == 2 {
						if now := time.Now(); slow > 0 && now.Sub(last) < addressCooldown {
							t.Errorf("slow again after %s", now.Sub(last))
						}
						last = time.Now()
						if slow++; took[0] > hurryFor {
							t.Errorf("%s lost", took[0])
						}
					}
					time.Sleep(time.Second)
				}
				if slow < 15 || slow > 22 { // in ten minutes
					t.Errorf("%d of 600 were slow", slow)
				}
			})
		})
	}
}

// At a start, when nothing is known yet, most begin with IPv4, and one tries IPv6.
func TestOneTriesTheOtherFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resolvedPool(t, Options{}, bothFamilies...)
		time.Sleep(familyTrial)
		six := 0
		setups := make([]Setup, 50)
		for i := range setups {
			setups[i].Start(p, nil)
			d := next(t, &setups[i])
			if d.Addr.Addr().Is6() {
				six++
			}
			if d.Timeout != hurryFor {
				t.Errorf("%s for %s", d.Timeout, d.Addr)
			}
		}
		if six != 1 {
			t.Errorf("%d of 50 begin with IPv6", six)
		}
		time.Sleep(time.Millisecond)
		for i := range setups {
			setups[i].Connected()
		}
		after := startSetup(p)
		if d := next(t, after); d.Timeout <= hurryFor {
			t.Errorf("%s for %s, though it works", d.Timeout, d.Addr)
		}
		after.Reset()
		for i := range setups {
			setups[i].Reset()
		}
		wantNothingHeld(t, p)
	})
}

// After a while one tries the family that failed, and the others do not.
func TestOneTriesAFamilyAgain(t *testing.T) {
	for _, works4 := range []bool{true, false} {
		t.Run(fmt.Sprintf("IPv4 works=%t", works4), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := resolvedPool(t, Options{}, bothFamilies...)
				time.Sleep(familyTrial)
				for range 3 {
					_, _, held, err := blackHole(works4).connect(t, p)
					must(t, err)
					held.Release()
				}
				time.Sleep(addressCooldown)
				setups, other := make([]Setup, 50), 0
				for i := range setups {
					setups[i].Start(p, nil)
					if next(t, &setups[i]).Addr.Addr().Is4() != works4 {
						other++
					}
				}
				for i := range setups {
					setups[i].Reset()
				}
				if other != 1 {
					t.Errorf("%d of 50 begin with what did not work", other)
				}
			})
		})
	}
}

// A family that works again is found and used as much as the other one.
func TestFamilyComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resolvedPool(t, Options{}, bothFamilies...)
		for range 3 {
			_, _, held, err := blackHole(true).connect(t, p)
			must(t, err)
			held.Release()
			time.Sleep(time.Second)
		}
		time.Sleep(addressCooldown)
		fine := network(func(netip.Addr) (time.Duration, error) { return time.Millisecond, nil })
		used := map[netip.Addr]int{}
		for range 400 {
			tried, _, held, err := fine.connect(t, p)
			must(t, err)
			defer held.Release()
			used[tried[0]]++
		}
		for a, n := range used {
			if n < 90 || n > 110 {
				t.Errorf("%s used %d times of 400", a, n)
			}
		}
		if len(used) != 4 {
			t.Errorf("used: %v", used)
		}
	})
}

// The first family gets the rest of the time if the other one does not work either.
func TestSlowFamilyIsWaitedForAfterAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slowSix := network(func(a netip.Addr) (time.Duration, error) {
			if a.Is4() {
				return time.Millisecond, syscall.ECONNREFUSED
			}
			return 900 * time.Millisecond, nil
		})
		p := resolvedPool(t, Options{DialTimeout: 2 * time.Second}, "2001:db8::1", "192.0.2.1")
		time.Sleep(familyTrial)
		p.gateways[0].endpoints.rotator = 1 // IPv6 is next
		began := time.Now()
		tried, took, held, err := slowSix.connect(t, p)
		must(t, err)
		held.Release()
		if len(tried) != 3 || !tried[0].Is6() || took[0] != hurryFor || !tried[1].Is4() || tried[2] != tried[0] {
			t.Errorf("tried %v in %v", tried, took)
		}
		if time.Since(began) > 2*time.Second {
			t.Errorf("took %s", time.Since(began))
		}
		if tried, _, held, err = slowSix.connect(t, p); err != nil || len(tried) != 1 || !tried[0].Is6() {
			t.Errorf("then %v, %v", tried, err)
		}
		held.Release()
		wantNothingHeld(t, p)
	})
}

// Whatever the addresses do, a set-up ends when its time is over.
func TestFamiliesKeepToTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nothing := network(func(netip.Addr) (time.Duration, error) { return never, nil })
		for range 20 {
			p := resolvedPool(t, Options{DialTimeout: 3 * time.Second}, bothFamilies...)
			time.Sleep(time.Duration(rand.IntN(3)) * familyTrial)
			began := time.Now()
			tried, took, _, err := nothing.connect(t, p)
			if passed := time.Since(began); passed != 3*time.Second {
				t.Errorf("took %s: %v, %v", passed, tried, took)
			}
			var failure *ConnectError
			if !errors.As(err, &failure) || failure.Phase != PhaseDial || failure.Cause != CauseTimeout {
				t.Errorf("error %v", err)
			}
			four, six := 0, 0
			for _, a := range tried {
				if a.Is4() {
					four++
				} else {
					six++
				}
			}
			if four == 0 || six == 0 {
				t.Errorf("tried %v", tried)
			}
			wantNothingHeld(t, p)
		}
	})
}

func TestOneFamilyIsNotHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resolvedPool(t, Options{DialTimeout: 2 * time.Second}, "2001:db8::1", "2001:db8::2")
		s := startSetup(p)
		if d := next(t, s); d.Timeout != time.Second {
			t.Errorf("%s", d.Timeout)
		}
		s.Reset()
	})
}

// An address that failed is tried again by one customer, not by all at once.
func TestOneTriesAnAddressAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resolvedPool(t, Options{}, "192.0.2.1", "192.0.2.2", "192.0.2.3")
		e := p.gateways[0].endpoints
		e.report(addrs("192.0.2.2")[0], false)
		first := func() (n int) {
			for range 50 {
				s := startSetup(p)
				if next(t, s).Addr.Addr() == addrs("192.0.2.2")[0] {
					n++
				}
				s.Reset()
			}
			return n
		}
		if n := first(); n != 0 {
			t.Errorf("%d begin with what failed a moment ago", n)
		}
		time.Sleep(addressCooldown)
		if n := first(); n != 1 {
			t.Errorf("%d of 50 try it again", n)
		}
		if n := first(); n != 0 {
			t.Errorf("%d more", n)
		}
		e.report(addrs("192.0.2.2")[0], true)
		if n := first(); n < 10 {
			t.Errorf("%d of 50 use it after it was reached", n)
		}
	})
}

// Connections even out, also over an address that is new.
func TestConnectionsEvenOut(t *testing.T) {
	server := &scripted{found: answer{addrs: addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")}}
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", "http://gw.example:1")}})
	e := p.gateways[0].endpoints
	e.lookup = server.lookup
	_, err := e.get(t.Context())
	must(t, err)
	var open []Held
	churn := func(n, closing int) {
		for range n {
			s := startSetup(p)
			next(t, s)
			_, err := s.Reply([]byte(established))
			must(t, err)
			open = append(open, s.Opened())
			if rand.IntN(100) < closing {
				i := rand.IntN(len(open))
				open[i].Release()
				open[i] = open[len(open)-1]
				open = open[:len(open)-1]
			}
		}
	}
	wantEven := func(tolerance float64) {
		t.Helper()
		mean := float64(len(open)) / float64(len(e.addrs))
		for _, ep := range e.addrs {
			if n := float64(ep.conns.Load()); n < mean*(1-tolerance) || n > mean*(1+tolerance) {
				t.Errorf("%s has %g connections, the mean is %g", ep.addr, n, mean)
			}
		}
	}
	churn(4000, 0)
	wantEven(.01)
	churn(8000, 100)
	wantEven(.05)
	e.mu.Lock()
	e.setLocked(append(server.found.addrs, addrs("192.0.2.5")...))
	e.mu.Unlock()
	churn(4000, 100) // one for one: with rotation alone the new one would still lack a third of its share
	wantEven(.15)
	for _, h := range open {
		h.Release()
	}
	wantNothingHeld(t, p)
}

// New connections leave an address alone while its ports run short and another's do not.
func TestSpreadBeforePortsRunOut(t *testing.T) {
	p := resolvedPool(t, Options{Ports: [2]int{10000, 10999}, PortsReserved: 600}, "192.0.2.1", "192.0.2.2")
	lanes := [2]*lane{p.gateways[0].endpoints.addrs[0].lanes[0], p.gateways[0].endpoints.addrs[1].lanes[0]}
	lanes[0].inUse.Add(301) // another gateway's, with the same address
	var held []Held
	open := func(n int) {
		for range n {
			s := startSetup(p)
			next(t, s)
			_, err := s.Reply([]byte(established))
			must(t, err)
			held = append(held, s.Opened())
		}
	}
	open(300)
	if a, b := lanes[0].inUse.Load(), lanes[1].inUse.Load(); a != 301 || b != 300 {
		t.Errorf("%d and %d ports in use", a, b)
	}
	open(100 + 99) // to the last one
	if a, b := lanes[0].inUse.Load(), lanes[1].inUse.Load(); a != 400 || b != 400 {
		t.Errorf("%d and %d ports in use", a, b)
	}
	wantEnd(t, startSetup(p), "gw", PhasePick, CauseNone)
	for _, h := range held {
		h.Release()
	}
	lanes[0].inUse.Add(-301)
	wantNothingHeld(t, p)
}

// BenchmarkOrder is what the choice among a name's addresses costs.
func BenchmarkOrder(b *testing.B) {
	for _, n := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			ports, err := newLocalPorts(Options{Ports: [2]int{32768, 60999}})
			if err != nil {
				b.Fatal(err)
			}
			e := newEndpoints(Gateway{Host: "gw.example", Port: "1"}, nil, ports)
			var all []netip.Addr
			for i := range n {
				all = append(all, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
			}
			e.setLocked(all)
			var buf [maxDialAddrs]*endpoint
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := e.ready(buf[:0], 0, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
