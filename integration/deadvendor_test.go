package integration

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// The relay's DIAL_TIMEOUT in these tests, and what a busy machine may add to it.
const (
	dialTimeout = 3 * time.Second
	dialSlack   = 2 * time.Second
)

// TestKilledVendor kills the vendor's program while the relays run.
func TestKilledVendor(t *testing.T) {
	t.Parallel()
	s := startStack(t, "haproxy", "squid", lab.Env{"DIAL_TIMEOUT": dialTimeout.String()})
	site := startTarget(t, "")
	echo := startEcho(t)
	live, err := tunnel(s.customer.Addr(), echo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = live.Close() }) // it was cut
	s.vendor.kill(t)
	if err := live.ping("still here"); err == nil {
		t.Error("a tunnel outlived its vendor")
	}
	checkVendorFailure(t, s.customer.Addr(), vendorFailure{status: http.StatusBadGateway, connect: echo, plain: site.url("http", targetName, "/hello")})
}

// TestSilentNetwork has a vendor's address that answers no SYN, as behind a firewall that drops.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	hole := startBlackHole(t)
	relay := startRelay(t, lab.Env{
		"UPSTREAM":      (&url.URL{Scheme: "http", User: url.UserPassword(vendorUser, vendorPassword), Host: hole}).String(),
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML),
		"DIAL_TIMEOUT":  dialTimeout.String(), "CONNECT_TIMEOUT": "60s",
	})
	addr := tapCustomer(t, relay.Addr).Addr()
	checkVendorFailure(t, addr, vendorFailure{status: http.StatusGatewayTimeout, connect: "shop.example:443", plain: "http://shop.example/", atLeast: dialTimeout - time.Second})
	if up, ok := relay.Metric(t, `maskrelay_upstream_up{upstream="`+vendorAddress+`"}`); !ok || up != 0 {
		t.Errorf("maskrelay_upstream_up of the silent gateway: %v %v", up, ok)
	}
	if status, body, err := relay.Get("/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("readyz with the only gateway silent: %d %s %v", status, body, err)
	}
}

// vendorFailure is what a customer asks for while the vendor is gone, and what he must get.
type vendorFailure struct {
	status         int
	connect, plain string        // a target of CONNECT, and a URL
	atLeast        time.Duration // proves that the dial was waited for
}

// checkVendorFailure asserts that CONNECT and plain HTTP are answered by the relay's own reply within DIAL_TIMEOUT and some slack.
func checkVendorFailure(t *testing.T, addr string, f vendorFailure) {
	t.Helper()
	for name, ask := range map[string]func() reply{
		"CONNECT": func() reply { return mustDial(t, addr).mustConnect(t, f.connect, customerName, customerPassword) },
		"GET":     func() reply { return mustDial(t, addr).mustGet(t, f.plain, basic(customerName, customerPassword)) },
	} {
		start := time.Now()
		got := ask()
		if took := time.Since(start); took > dialTimeout+dialSlack || took < f.atLeast {
			t.Errorf("%s was answered after %v, want %v to %v", name, took, f.atLeast, dialTimeout+dialSlack)
		}
		checkOurReply(t, got, f.status)
	}
	curl := lab.Need(t, "curl")[0]
	out := output(t, exec.Command(curl, "-q", "-sS", "-i", "--max-time", "20", "-x", proxyURL(addr, customerName, customerPassword), f.plain))
	if !strings.HasPrefix(out, "HTTP/1.1 "+strconv.Itoa(f.status)+" "+http.StatusText(f.status)+"\r\n") || !strings.Contains(out, "Proxy-Status: Proxy; error=") {
		t.Errorf("curl's plain request: %q", out)
	}
}

// startBlackHole returns a loopback address that drops SYNs: Linux does that for a listener whose queue of connections to accept is full.
func startBlackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socket", err))
	}
	t.Cleanup(func() {
		if err := syscall.Close(fd); err != nil {
			t.Error(os.NewSyscallError("close", err))
		}
	})
	at := &syscall.SockaddrInet4{Port: lab.FreePort(t), Addr: [4]byte(net.ParseIP(vendorAddress).To4())}
	if err := syscall.Bind(fd, at); err != nil {
		t.Fatal(os.NewSyscallError("bind", err))
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(os.NewSyscallError("listen", err))
	}
	addr := net.JoinHostPort(vendorAddress, strconv.Itoa(at.Port))
	for range 16 {
		c, err := net.DialTimeout("tcp4", addr, 500*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = c.Close() }) // it held a place in the queue
	}
	t.Fatalf("%s still accepts with a queue of one and 16 connections in it", addr)
	return ""
}
