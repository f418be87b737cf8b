package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func local(c net.Conn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

// hold opens n tunnels one after the other and closes them at the test's end.
func hold(t *testing.T, p *Pool, n int, connect func(context.Context, *Pool, Request) (*Conn, error)) []*Conn {
	t.Helper()
	held := make([]*Conn, 0, n)
	for range n {
		c, err := connect(t.Context(), p, Request{Target: "target.example:443"})
		must(t, err)
		t.Cleanup(func() {
			_ = c.Close()
			c.Release()
		})
		held = append(held, c)
	}
	return held
}

func TestConnectionsLeaveFromTheSources(t *testing.T) {
	for name, connect := range ways {
		t.Run(name, func(t *testing.T) {
			v := answeringVendor(t, "127.0.0.1:0")
			p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL())}, Sources: addrs("127.0.0.2", "127.0.0.3")})
			from := map[string]int{}
			for _, c := range hold(t, p, 10, connect) {
				from[local(c).Addr().String()]++
			}
			if from["127.0.0.2"] != 5 || from["127.0.0.3"] != 5 {
				t.Errorf("connections from %v", from)
			}
		})
	}
}

// Without IP_BIND_ADDRESS_NO_PORT a bound socket would hold its port for every peer.
func TestSourcesShareTheirPortsBetweenGateways(t *testing.T) {
	a, b := answeringVendor(t, "127.0.0.1:0"), answeringVendor(t, "127.0.0.1:0")
	source := addrs("127.0.0.2")[0]
	var g gateway
	port, conn := occupied(t, source, netip.MustParseAddrPort(a.Addr()))
	again, err := g.dialOne(t.Context(), Dial{
		Addr: netip.MustParseAddrPort(b.Addr()), Source: source, Ports: [2]uint16{port, port}, Timeout: time.Second,
	})
	must(t, err)
	if local(again).Port() != port || local(conn).Port() != port {
		t.Errorf("from ports %d and %d, want %d", local(again).Port(), local(conn).Port(), port)
	}
	must(t, again.Close())
}

// occupied makes a connection to addr from some port of the kernel's range through a
// window of this one port.
func occupied(t *testing.T, source netip.Addr, addr netip.AddrPort) (uint16, net.Conn) {
	t.Helper()
	low, high := kernelPorts(t)
	var g gateway
	for range 50 { // others use ports, too
		port := uint16(low + rand.IntN(high-low))
		conn, err := g.dialOne(t.Context(), Dial{Addr: addr, Source: source, Ports: [2]uint16{port, port}, Timeout: time.Second})
		if lacksPort(err) {
			continue
		}
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		if got := local(conn).Port(); got != port {
			t.Skipf("this kernel gave port %d for a window of %d: it has no IP_LOCAL_PORT_RANGE", got, port)
		}
		return port, conn
	}
	t.Fatal("no free port")
	return 0, nil
}

func kernelPorts(t *testing.T) (low, high int) {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	must(t, err)
	fields := strings.Fields(string(b))
	if len(fields) != 2 {
		t.Fatalf("range %q", b)
	}
	for i, to := range []*int{&low, &high} {
		p, err := netip.ParseAddrPort("127.0.0.1:" + fields[i])
		must(t, err)
		*to = int(p.Port())
	}
	return low, high
}

func TestWindowsBoundTheKernelsChoice(t *testing.T) {
	tests := map[string]struct{ listen, source string }{
		"IPv4":             {"127.0.0.1:0", ""},
		"IPv4 with source": {"127.0.0.1:0", "127.0.0.2"},
		"IPv6":             {"[::1]:0", ""},
		"IPv6 with source": {"[::1]:0", "::1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", test.listen)
			if err != nil && strings.Contains(name, "IPv6") {
				t.Skipf("no IPv6 here: %v", err)
			}
			must(t, err)
			defer func() { _ = l.Close() }()
			var source netip.Addr
			if test.source != "" {
				source = netip.MustParseAddr(test.source)
			}
			to := netip.MustParseAddrPort(l.Addr().String())
			port, _ := occupied(t, source, to)
			// The same pair once more in the same window: the error that means "other ports".
			var g gateway
			c, err := g.dialOne(t.Context(), Dial{Addr: to, Source: source, Ports: [2]uint16{port, port}, Timeout: time.Second})
			if !lacksPort(err) {
				t.Fatalf("%v, %v; want no port", c, err)
			}
		})
	}
}

// The pool fills a small range to its last port through windows, and is full then.
func TestPortsAreUsedUpThroughWindows(t *testing.T) {
	low, high := kernelPorts(t)
	if high-low < 2000 {
		t.Skip("the kernel's range is too small")
	}
	first := low + rand.IntN(high-low-600)
	for name, connect := range ways {
		t.Run(name, func(t *testing.T) {
			v := answeringVendor(t, "127.0.0.1:0")
			o := Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL())}, Ports: [2]int{first, first + 599}}
			p := newPool(t, o)
			conns := hold(t, p, 600, connect)
			outside := 0
			for _, c := range conns[200:] { // from 150 on there are windows
				if port := int(local(c).Port()); port < o.Ports[0] || port > o.Ports[1] {
					outside++ // after three windows without a port
				}
			}
			if outside > 200 {
				t.Errorf("%d of 400 ports are not from a window", outside)
			}
			_, err := connect(t.Context(), p, Request{Target: "target.example:443"})
			var failure *ConnectError
			if !errors.As(err, &failure) || failure.Phase != PhasePick || failure.Cause != CauseNone {
				t.Errorf("error %v", err)
			}
			must(t, conns[0].Close())
			conns[0].Release()
			conns[0].Release = func() {}
			c, err := connect(t.Context(), p, Request{Target: "target.example:443"})
			must(t, err)
			must(t, c.Close())
			c.Release()
		})
	}
}

// A source address that the host does not have leaves the rest to the others.
func TestSourceThatIsNotOurs(t *testing.T) {
	for name, connect := range ways {
		t.Run(name, func(t *testing.T) {
			v := answeringVendor(t, "127.0.0.1:0")
			o := Options{Gateways: []Gateway{gatewayOf(t, "gw", v.URL())}, Sources: addrs("192.0.2.77", "127.0.0.2")}
			for _, c := range hold(t, newPool(t, o), 5, connect) {
				if local(c).Addr() != o.Sources[1] {
					t.Errorf("from %s", local(c))
				}
			}
			o.Sources = o.Sources[:1]
			_, err := connect(t.Context(), newPool(t, o), Request{Target: "target.example:443"})
			var failure *ConnectError
			if !errors.As(err, &failure) || failure.Cause != CauseNone {
				t.Errorf("error %v", err)
			}
		})
	}
}
