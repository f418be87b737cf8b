package upstream

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// answeringVendor is a vendor that opens every tunnel and then says nothing.
func answeringVendor(t *testing.T, addr string) *upstreamtest.Vendor {
	t.Helper()
	return startVendor(t, upstreamtest.VendorConfig{
		Addr: addr, RecordLimit: -1, HeadTimeout: time.Minute,
		Behaviour: upstreamtest.Raw{Bytes: []byte(established)},
	})
}

// ways are the two to open a tunnel.
var ways = map[string]func(context.Context, *Pool, Request) (*Conn, error){"blocking": blocking, "steps": stepwise}

// search is a way to one of the gateway's addresses on a port.
func search(t *testing.T, p *Pool, port uint16) *way {
	t.Helper()
	w, now := new(way), time.Now()
	addrs, _, err := p.gateways[0].addresses(w.buf[:0], port, now)
	must(t, err)
	w.start(addrs, port, momentOf(now.Add(time.Second)))
	return w
}

// Each port of a gateway's address has all local ports to itself.
func TestOtherPortsAreNotRefused(t *testing.T) {
	p := literalPool(t, 1, Options{Ports: [2]int{10000, 10009}, Sources: addrs("198.51.100.1", "198.51.100.2")})
	e := p.gateways[0].endpoints
	use(p, 10)
	wantEnd(t, startSetup(p), "", PhasePick, CauseNone)
	from := map[netip.Addr]int{}
	var held []Held
	for range 40 {
		w := search(t, p, 10001)
		d, ok := w.next(time.Now())
		if !ok || d.Addr != netip.MustParseAddrPort("192.0.2.1:10001") || d.Ports != [2]uint16{} || w.addr() != d.Addr {
			t.Fatalf("%+v, %t", d, ok)
		}
		from[d.Source]++
		p.gateways[0].conns.Add(1)
		held = append(held, Held{g: p.gateways[0], lane: w.lane})
	}
	for source, n := range from {
		if n != 20 {
			t.Errorf("from %s: %d of 40", source, n)
		}
	}
	statuses, _ := e.status()
	if s := statuses[0]; s.Connections != 40 || *s.PortsFree != 0 {
		t.Errorf("status %+v", s)
	}
	use(p, -10)
	if free, _ := p.gateways[0].portsFree(); free != 20 {
		t.Errorf("%d ports free of 20", free)
	}
	for _, h := range held {
		h.Release()
	}
	if statuses, _ := e.status(); statuses[0].Connections != 0 {
		t.Errorf("%d connections left", statuses[0].Connections)
	}
	wantNothingHeld(t, p)
}

// The gateway's own port counts as such, however it is asked for.
func TestOwnPortAsSessionPort(t *testing.T) {
	p := literalPool(t, 1, Options{Ports: [2]int{10000, 10009}})
	w := search(t, p, 7000)
	d, _ := w.next(time.Now())
	if free, _ := p.gateways[0].portsFree(); free != 9 || d.Addr.Port() != 7000 {
		t.Errorf("%d free, to %s", free, d.Addr)
	}
	w.drop()
	wantNothingHeld(t, p)
}

// One session's port without a local port left says nothing of another session's.
func TestPortlessSessionsHarmNoOthers(t *testing.T) {
	p := literalPool(t, 1, Options{Ports: [2]int{10000, 10009}, Sources: addrs("198.51.100.1", "198.51.100.2")})
	w := search(t, p, 10001)
	sources := map[netip.Addr]bool{}
	for {
		d, ok := w.next(time.Now())
		if !ok {
			break
		}
		sources[d.Source] = true
		w.missed(syscall.EADDRNOTAVAIL, true, time.Now())
	}
	if failure := w.failure(false); len(sources) != 2 || failure.Phase != PhasePick {
		t.Errorf("sources %v, failure %v", sources, failure)
	}
	other := search(t, p, 10002)
	if d, ok := other.next(time.Now()); !ok || d.Addr.Port() != 10002 {
		t.Errorf("%+v, %t", d, ok)
	}
	other.drop()
	s := startSetup(p)
	next(t, s)
	s.Reset()
	wantNothingHeld(t, p)
}

// A dial goes to the port that was asked for, at the gateway's address.
func TestDialPort(t *testing.T) {
	own, session := answeringVendor(t, "127.0.0.1:0"), answeringVendor(t, "127.0.0.1:0")
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", own.URL())}, Ports: [2]int{32768, 60999}})
	g := p.gateways[0]
	want := netip.MustParseAddrPort(session.Addr())
	for name, dial := range map[string]func() (netip.AddrPort, func()){
		"plain": func() (netip.AddrPort, func()) {
			c, failure := g.connect(t.Context(), "", want.Port(), false)
			if failure != nil {
				t.Fatal(failure)
			}
			return netip.MustParseAddrPort(c.RemoteAddr().String()), func() { _ = c.Close(); c.held.Release() }
		},
		"tunnel": func() (netip.AddrPort, func()) {
			held := Held{g: g}
			g.conns.Add(1)
			c, failure := g.dialHeld(context.Background(), &held, want.Port())
			if failure != nil {
				t.Fatal(failure)
			}
			return netip.MustParseAddrPort(c.RemoteAddr().String()), func() { _ = c.Close(); held.Release() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			to, end := dial()
			if to != want {
				t.Errorf("to %s, want %s", to, want)
			}
			if free, _ := g.portsFree(); free != g.endpoints.ports.capacity {
				t.Errorf("%d of %d ports free", free, g.endpoints.ports.capacity)
			}
			end()
			if statuses, _ := g.endpoints.status(); statuses[0].Connections != 0 || statuses[0].State != EndpointUp {
				t.Errorf("status %+v", statuses[0])
			}
		})
	}
	wantNothingHeld(t, p)
}
