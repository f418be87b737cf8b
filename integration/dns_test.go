package integration

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// gatewayName is the vendor's gateway as dnsmasq knows it.
const gatewayName = "gw.vendor.test"

// named is a relay whose gateway is a name that dnsmasq resolves.
type named struct {
	dns   *lab.Dnsmasq
	relay *lab.Relay
	port  int // of the gateway, at all its addresses
	echo  string
}

// startNamed starts them with a TTL of 1 s, below the floor; the name has these addresses.
func startNamed(t *testing.T, addrs ...string) *named {
	t.Helper()
	n := &named{dns: lab.StartDnsmasq(t, time.Second), port: lab.FreePort(t), echo: startEcho(t)}
	n.dns.Set(t, map[string][]string{gatewayName: addrs})
	n.relay = startRelay(t, lab.Env{
		"UPSTREAM":   fmt.Sprintf("http://%s:%s@%s:%d", vendorUser, vendorPassword, gatewayName, n.port),
		"DNS_SERVER": n.dns.Addr, "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML),
	})
	return n
}

// serve starts a vendor at one of the addresses.
func (n *named) serve(t *testing.T, addr string) {
	t.Helper()
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{
		Addr: net.JoinHostPort(addr, strconv.Itoa(n.port)), Username: vendorUser, Password: vendorPassword, RecordLimit: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
}

// open opens a tunnel that lives until the test's end.
func (n *named) open(t *testing.T) *client {
	t.Helper()
	c, err := tunnel(n.relay.Addr, n.echo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// conns is how many connections lead to an address, and whether it is still known.
func (n *named) conns(t *testing.T, addr string) (int, bool) {
	t.Helper()
	address := net.JoinHostPort(addr, strconv.Itoa(n.port))
	v, ok := n.relay.Metric(t, `maskrelay_upstream_endpoint_connections{address="`+address+`",upstream="`+gatewayName+`"}`)
	return int(v), ok
}

// waitFor waits until the relay knows an address.
func (n *named) waitFor(t *testing.T, addr string) {
	t.Helper()
	lab.Wait(t, 30*time.Second, "the relay to know "+addr, func() bool { _, ok := n.conns(t, addr); return ok })
}

const firstAddr, secondAddr = "127.0.0.11", "127.0.0.12"

// TestChangedRecord moves a gateway to another address: new tunnels go there, open ones live on, and the old address is forgotten with the last.
func TestChangedRecord(t *testing.T) {
	t.Parallel()
	n := startNamed(t, firstAddr)
	n.serve(t, firstAddr)
	n.serve(t, secondAddr)
	old := n.open(t)
	if got, _ := n.conns(t, firstAddr); got != 1 {
		t.Errorf("%d connections to %s", got, firstAddr)
	}
	n.dns.Set(t, map[string][]string{gatewayName: {secondAddr}})
	n.waitFor(t, secondAddr)
	for range 4 {
		n.open(t)
	}
	if got, _ := n.conns(t, secondAddr); got != 4 {
		t.Errorf("%d connections to %s", got, secondAddr)
	}
	if got, ok := n.conns(t, firstAddr); got != 1 || !ok {
		t.Errorf("%d connections to %s, known: %t", got, firstAddr, ok)
	}
	if err := old.ping("still there"); err != nil {
		t.Errorf("an open tunnel: %v", err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 10*time.Second, "the old address to be forgotten", func() bool { _, ok := n.conns(t, firstAddr); return !ok })
}

// TestTwoRecords spreads tunnels evenly, and over a new record, too.
func TestTwoRecords(t *testing.T) {
	t.Parallel()
	n := startNamed(t, firstAddr)
	n.serve(t, firstAddr)
	n.serve(t, secondAddr)
	for range 6 {
		n.open(t)
	}
	n.dns.Set(t, map[string][]string{gatewayName: {firstAddr, secondAddr}})
	n.waitFor(t, secondAddr)
	for range 14 {
		n.open(t)
	}
	first, _ := n.conns(t, firstAddr)
	second, _ := n.conns(t, secondAddr)
	if first < 9 || first > 11 || first+second != 20 {
		t.Errorf("%d and %d connections", first, second)
	}
}

// TestNameServerLost stops the name server: the last answer goes on being used, and a changed one is taken up when it is back.
func TestNameServerLost(t *testing.T) {
	losses := map[string]struct {
		lose, back func(*lab.Dnsmasq, testing.TB)
	}{
		"frozen": {(*lab.Dnsmasq).Freeze, (*lab.Dnsmasq).Thaw},
		"killed": {(*lab.Dnsmasq).Kill, (*lab.Dnsmasq).Restart},
	}
	for name, loss := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNamed(t, firstAddr)
			n.serve(t, firstAddr)
			n.serve(t, secondAddr)
			n.open(t)
			loss.lose(n.dns, t)
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for until := time.Now().Add(8 * time.Second); time.Now().Before(until); <-tick.C { // past the TTL's floor
				began := time.Now()
				c, err := tunnel(n.relay.Addr, n.echo)
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("a tunnel took %s", took)
				}
			}
			loss.back(n.dns, t)
			n.dns.Set(t, map[string][]string{gatewayName: {secondAddr}})
			n.waitFor(t, secondAddr)
			n.open(t)
			if got, _ := n.conns(t, secondAddr); got != 1 {
				t.Errorf("%d connections to %s", got, secondAddr)
			}
		})
	}
}

// TestNameThatIsMissing has a gateway whose name does not exist yet.
func TestNameThatIsMissing(t *testing.T) {
	t.Parallel()
	n := startNamed(t)
	n.serve(t, firstAddr)
	c, err := dialProxy(n.relay.Addr)
	if err != nil {
		t.Fatal(err)
	}
	got := c.mustConnect(t, n.echo, customerName, customerPassword)
	if _ = c.Close(); got.status != http.StatusBadGateway && got.status != http.StatusServiceUnavailable {
		t.Errorf("status %d without a gateway", got.status)
	}
	n.dns.Set(t, map[string][]string{gatewayName: {firstAddr}})
	n.waitFor(t, firstAddr)
	n.open(t)
}

// TestIPv6IsABlackHole gives a gateway an IPv6 address where nothing ever answers: customers hardly notice.
func TestIPv6IsABlackHole(t *testing.T) {
	t.Parallel()
	n := startNamed(t)
	n.serve(t, firstAddr)
	swallow(t, n.port)
	n.dns.Set(t, map[string][]string{gatewayName: {"::1", firstAddr}})
	n.waitFor(t, "::1")
	for i := range 30 {
		began := time.Now()
		n.open(t)
		if took := time.Since(began); took > 1500*time.Millisecond { // an equal share of the time would be 2.5 s
			t.Errorf("tunnel %d took %s", i, took)
		}
	}
	if got, _ := n.conns(t, firstAddr); got != 30 {
		t.Errorf("%d connections to %s", got, firstAddr)
	}
}

// swallow listens on ::1 with a full queue: further connections are neither accepted nor refused.
func swallow(t *testing.T, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		lab.Missing(t, "IPv6", err.Error())
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	at := &unix.SockaddrInet6{Port: port}
	at.Addr[15] = 1
	if err := unix.Bind(fd, at); err != nil {
		lab.Missing(t, "IPv6", err.Error())
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("[::1]:%d", port)
	for range 8 {
		c, err := net.DialTimeout("tcp", addr, 300*time.Millisecond)
		if err != nil {
			return // full
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the queue does not fill")
}
