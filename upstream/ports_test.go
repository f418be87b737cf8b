package upstream

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// use counts so many more connections on every lane.
func use(p *Pool, n int64) {
	p.ports.mu.Lock()
	defer p.ports.mu.Unlock()
	for _, l := range p.ports.lanes {
		l.inUse.Add(n)
	}
}

func startSetup(p *Pool) *Setup {
	s := new(Setup)
	s.Start(p, nil)
	return s
}

func TestWindows(t *testing.T) {
	if !portWindows {
		t.Skip("this system has no windows of local ports")
	}
	tests := map[string]struct {
		o     Options
		inUse int64
		want  bool
	}{
		"few in use":     {Options{Ports: [2]int{10000, 19999}}, 2499, false},
		"a quarter":      {Options{Ports: [2]int{10000, 19999}}, 2501, true},
		"reserved count": {Options{Ports: [2]int{10000, 19999}, PortsReserved: 5000}, 1251, true},
		"small range":    {Options{Ports: [2]int{10000, 10510}}, 500, false},
		"least range":    {Options{Ports: [2]int{10000, 10511}}, 500, true},
		"highest ports":  {Options{Ports: [2]int{65024, 65535}}, 500, true},
		"not known":      {Options{}, 60000, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := literalPool(t, 1, test.o)
			use(p, test.inUse)
			seen := map[[2]uint16]bool{}
			for range 50 {
				s := startSetup(p)
				d := next(t, s)
				s.Reset()
				seen[d.Ports] = true
				if windowed := d.Ports != [2]uint16{}; windowed != test.want {
					t.Fatalf("ports %d", d.Ports)
				}
				if test.want && (int(d.Ports[0]) < test.o.Ports[0] || int(d.Ports[1]) > test.o.Ports[1] || d.Ports[1]-d.Ports[0] != windowPorts-1) {
					t.Fatalf("window %d of %d", d.Ports, test.o.Ports)
				}
			}
			if test.want && len(seen) < 20 {
				t.Errorf("only %d windows of 50 differ", len(seen))
			}
			use(p, -test.inUse)
			wantNothingHeld(t, p)
		})
	}
}

// A window without a free port: the same address with others, then the whole range,
// then another source, then another address, and then the gateway is full.
func TestNoPortLeft(t *testing.T) {
	if !portWindows {
		t.Skip("this system has no windows of local ports")
	}
	for _, errno := range []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EADDRINUSE} {
		t.Run(errno.Error(), func(t *testing.T) {
			p := resolvedPool(t, Options{Ports: [2]int{10000, 10999}, Sources: addrs("198.51.100.1", "198.51.100.2")}, "192.0.2.1", "192.0.2.2")
			use(p, 500)
			s := startSetup(p)
			type end struct {
				addr   netip.AddrPort
				source netip.Addr
			}
			var ends []end
			for range 4 {
				var first Dial
				for try := range 4 {
					d := next(t, s)
					if try == 0 {
						first = d
					}
					if d.Addr != first.Addr || d.Source != first.Source || (d.Ports == [2]uint16{}) != (try == 3) {
						t.Fatalf("try %d: %+v after %+v", try, d, first)
					}
					s.Failed(true, errno)
				}
				ends = append(ends, end{first.Addr, first.Source})
			}
			if ends[0].addr != ends[1].addr || ends[2].addr != ends[3].addr || ends[0].addr == ends[2].addr ||
				ends[0].source == ends[1].source || ends[2].source == ends[3].source {
				t.Errorf("order %v", ends)
			}
			wantEnd(t, s, "gw", PhasePick, CauseNone)
			if !p.gateways[0].health.usable(time.Now()) || failedCount(t, p, "gw", CauseNone) != 0 {
				t.Error("a gateway is blamed for our ports")
			}
			wantEnd(t, startSetup(p), "gw", PhasePick, CauseNone) // without a look: the kernel's search is dear
			use(p, -500)
			wantNothingHeld(t, p)
		})
	}
}

// Time runs out between two windows: the lane is given back all the same.
func TestNoPortLeftInTime(t *testing.T) {
	if !portWindows {
		t.Skip("this system has no windows of local ports")
	}
	p := literalPool(t, 1, Options{Ports: [2]int{10000, 10999}})
	use(p, 500)
	now := time.Now()
	var w way
	addrs, _, err := p.gateways[0].addresses(w.buf[:0], 0, now)
	must(t, err)
	w.start(addrs, 0, momentOf(now.Add(time.Second)))
	if _, ok := w.next(now); !ok {
		t.Fatal("nothing to try")
	}
	w.missed(syscall.EADDRNOTAVAIL, true, now)
	if d, ok := w.next(now.Add(time.Second)); ok {
		t.Errorf("after the end of its time: %+v", d)
	}
	if failure := w.failure(false); failure.Cause != CauseTimeout {
		t.Errorf("failure %v", failure)
	}
	use(p, -500)
	wantNothingHeld(t, p)
}

func TestLanesRestForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := literalPool(t, 2, Options{})
		for range 2 { // each gateway's only lane
			s := startSetup(p)
			d := next(t, s)
			s.Failed(true, syscall.EADDRNOTAVAIL)
			if again := next(t, s); again.Addr == d.Addr {
				t.Errorf("%s again, though the whole range had no port", d.Addr)
			}
			s.Reset()
			time.Sleep(laneRest) // synctest's clock
		}
		s := startSetup(p)
		next(t, s)
		s.Failed(true, syscall.EADDRNOTAVAIL)
		next(t, s)
		s.Failed(true, syscall.EADDRNOTAVAIL)
		wantEnd(t, s, "", PhasePick, CauseNone)
		time.Sleep(laneRest)
		s = startSetup(p)
		next(t, s)
		s.Reset()
		wantNothingHeld(t, p)
	})
}

// A port is wanting at one address, another is refused: that is no full gateway.
func TestNoPortAndRefused(t *testing.T) {
	p := resolvedPool(t, Options{}, "192.0.2.1", "192.0.2.2")
	s := startSetup(p)
	next(t, s)
	s.Failed(true, syscall.EADDRNOTAVAIL)
	next(t, s)
	s.Failed(true, syscall.ECONNREFUSED)
	wantEnd(t, s, "gw", PhaseDial, CauseRefused)
	wantNothingHeld(t, p)
}

func TestGatewayIsFullBeforeItsPortsRunOut(t *testing.T) {
	p := resolvedPool(t, Options{Ports: [2]int{10000, 10009}, PortsReserved: 2, Sources: addrs("198.51.100.1", "198.51.100.2")}, "192.0.2.1", "192.0.2.2", "192.0.2.3")
	var held []Held
	used := map[laneKey]int{}
	for range 3 * 2 * 8 {
		s := startSetup(p)
		d := next(t, s)
		used[laneKey{d.Source, d.Addr}]++
		_, err := s.Reply([]byte(established))
		must(t, err)
		held = append(held, s.Opened())
	}
	for key, n := range used {
		if n != 8 {
			t.Errorf("%d connections from %s to %s", n, key.source, key.to)
		}
	}
	wantEnd(t, startSetup(p), "gw", PhasePick, CauseNone)
	held[17].Release()
	s := startSetup(p)
	next(t, s)
	s.Reset()
	for i, h := range held {
		if i != 17 {
			h.Release()
		}
	}
	wantNothingHeld(t, p)
}

// Gateways with one address in common share its ports, whatever their logins.
func TestGatewaysShareTheirAddressesPorts(t *testing.T) {
	p := newPool(t, Options{
		Gateways: []Gateway{gatewayOf(t, "a", "http://a:x@192.0.2.1:1"), gatewayOf(t, "b", "http://b:x@192.0.2.1:1")},
		Ports:    [2]int{10000, 10001},
	})
	var held []Held
	for range 2 {
		s := startSetup(p)
		next(t, s)
		_, err := s.Reply([]byte(established))
		must(t, err)
		held = append(held, s.Opened())
	}
	if held[0].Gateway() == held[1].Gateway() {
		t.Error("both through one")
	}
	_, err := startSetup(p).Next()
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseNone {
		t.Errorf("error %v", err)
	}
	for _, h := range held {
		h.Release()
	}
	wantNothingHeld(t, p)
}

// Idle plain connections make room when the ports run out.
func TestNoPortLeftEvictsIdleConnections(t *testing.T) {
	p := literalPool(t, 1, Options{Ports: [2]int{10000, 10001}})
	lane := p.gateways[0].endpoints.addrs[0].lanes[0]
	lane.inUse.Add(2)
	g := p.gateways[0]
	g.idle.Add(2)
	evict := func() {
		g.idle.Add(-2)
		lane.inUse.Add(-2)
	}
	g.evictIdle.Store(&evict)
	s := startSetup(p)
	next(t, s)
	s.Reset()
	wantNothingHeld(t, p)
}

func TestSourcesAreUsedEvenly(t *testing.T) {
	all := addrs("198.51.100.1", "198.51.100.2", "198.51.100.3", "2001:db8::1")
	p := resolvedPool(t, Options{Sources: all}, "192.0.2.1", "2001:db8::9")
	p.gateways[0].endpoints.proven(time.Now())
	used := map[netip.Addr]int{}
	held := make([]Held, 60)
	for i := range held {
		s := startSetup(p)
		d := next(t, s)
		if d.Source.Is4() != d.Addr.Addr().Is4() {
			t.Fatalf("from %s to %s", d.Source, d.Addr)
		}
		used[d.Source]++
		_, err := s.Reply([]byte(established))
		must(t, err)
		held[i] = s.Opened()
	}
	for i, want := range []int{10, 10, 10, 30} {
		if n := used[all[i]]; n != want {
			t.Errorf("%s used %d times, want %d", all[i], n, want)
		}
	}
	for _, h := range held {
		h.Release()
	}
	wantNothingHeld(t, p)
}

// Nothing leaves from an address that the operator did not name.
func TestAddressesWithoutASourceAreNotUsed(t *testing.T) {
	p := resolvedPool(t, Options{Sources: addrs("198.51.100.1")}, "2001:db8::1", "192.0.2.1", "2001:db8::2")
	for range 6 {
		s := startSetup(p)
		if d := next(t, s); d.Addr.Addr() != addrs("192.0.2.1")[0] {
			t.Errorf("to %s", d.Addr)
		}
		s.Reset()
	}
	p = resolvedPool(t, Options{Sources: addrs("198.51.100.1")}, "2001:db8::1")
	wantEnd(t, startSetup(p), "gw", PhaseDial, CauseRefused)
	if p.Usable() {
		t.Error("usable")
	}
	wantNothingHeld(t, p)
}

// Lanes are forgotten with the address and the last connection, not before.
func TestLanesFollowTheGatewaysAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &scripted{}
		p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", "http://gw.example:1")}})
		e := p.gateways[0].endpoints
		e.lookup = server.lookup
		resolve := func(addr string) {
			t.Helper()
			server.say(answer{addrs: addrs(addr, addr)}, nil)
			time.Sleep(resolveMinTTL) // synctest's clock
			synctest.Wait()
			if got, err := e.get(t.Context()); err != nil || len(got) != 1 || got[0].Addr() != addrs(addr)[0] {
				t.Fatalf("%v, %v", got, err)
			}
		}
		resolve("192.0.2.1")
		s := startSetup(p)
		next(t, s)
		_, err := s.Reply([]byte(established))
		must(t, err)
		held := s.Opened()
		first := e.addrs[0].lanes[0]
		resolve("192.0.2.2")
		if len(p.ports.lanes) != 2 {
			t.Errorf("%d lanes, one is in use and one is new", len(p.ports.lanes))
		}
		resolve("192.0.2.1")
		if e.addrs[0].lanes[0].lanePorts != first.lanePorts || first.inUse.Load() != 1 {
			t.Error("a connection was forgotten while its address was away")
		}
		held.Release()
		resolve("192.0.2.3")
		if len(p.ports.lanes) != 1 {
			t.Errorf("%d lanes for one address", len(p.ports.lanes))
		}
		wantNothingHeld(t, p)
	})
}
