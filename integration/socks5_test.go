package integration

import (
	"bytes"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// socksKinds are the programs that play a SOCKS5 vendor: one without login, one with. They resolve names with this host's resolver.
var socksKinds = map[string]func(t *testing.T, denied int) *vendor{"dante": startDante, "microsocks": startMicroSOCKS}

func startDante(t *testing.T, denied int) *vendor {
	t.Helper()
	v := &vendor{target: "localhost", addr: lab.FreeAddr(t)}
	v.tapSOCKS(t, lab.StartDante(t, openDir(t), v.addr, denied), nil)
	return v
}

func startMicroSOCKS(t *testing.T, _ int) *vendor {
	t.Helper()
	v := &vendor{target: "localhost", addr: lab.FreeAddr(t)}
	v.tapSOCKS(t, lab.StartMicroSOCKS(t, v.addr, vendorUser, tinyproxyPassword), url.UserPassword(vendorUser, tinyproxyPassword))
	return v
}

// tapSOCKS waits for the program and puts the tap before it.
func (v *vendor) tapSOCKS(t *testing.T, process *lab.Process, login *url.Userinfo) {
	t.Helper()
	v.process = process
	lab.Wait(t, 20*time.Second, process.Name+" to listen", func() bool {
		if !process.Running() {
			t.Fatalf("%s ended:\n%s%s", process.Name, process.Stdout.Bytes(), process.Stderr.Bytes())
		}
		return lab.Listening(v.addr)
	})
	v.tap = lab.StartTap(t, lab.TapConfig{Name: process.Name, Listen: vendorAddress + ":" + strconv.Itoa(lab.FreePort(t)), To: v.addr, Listener: customerMarks()})
	v.url = (&url.URL{Scheme: "socks5", User: login, Host: v.tap.Addr()}).String()
}

// startSOCKS starts a relay in front of v, and returns where the customer connects.
func startSOCKS(t *testing.T, v *vendor) (relay *lab.Relay, addr string) {
	t.Helper()
	relay = startRelay(t, lab.Env{"UPSTREAM": v.url, "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML)})
	return relay, tapCustomer(t, relay.Addr).Addr()
}

func portNumber(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSOCKS5 does what customers do through real SOCKS5 servers: tunnels by name and by address, plain requests, websockets.
func TestSOCKS5(t *testing.T) {
	t.Parallel()
	for kind, start := range socksKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v, site, echo, judge := start(t, 0), startTarget(t, ""), startEcho(t), startJudge(t, upstreamtest.JudgeConfig{})
			relay, addr := startSOCKS(t, v)
			echoPort := portNumber(t, echo)
			for _, target := range []string{echo, "localhost:" + strconv.Itoa(echoPort)} {
				c, err := tunnel(addr, target)
				if err != nil {
					t.Fatalf("%s: %v", target, err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			name := "\x05\x01\x00\x03\x09localhost" + string([]byte{byte(echoPort >> 8), byte(echoPort)})
			address := "\x05\x01\x00\x01\x7f\x00\x00\x01" + string([]byte{byte(echoPort >> 8), byte(echoPort)})
			for _, request := range []string{name, address} {
				if !strings.Contains(v.heads(), request) {
					t.Errorf("the gateway was not asked %q", request)
				}
			}

			curl := lab.Need(t, "curl")[0]
			cmd := exec.Command(curl, "-q", "-sS", "--max-time", "30", "--cacert", site.caFile, "-x", proxyURL(addr, customerName, customerPassword),
				site.url("https", targetAddress, "/hello"), site.url("http", targetAddress, "/hello"), site.url("http", "localhost", "/hello"))
			if out := output(t, cmd); out != strings.Repeat(helloText, 3) {
				t.Errorf("curl: %q", out)
			}
			mustDial(t, addr).websocket(t, handshake{target: judge.URL() + "/ws", host: judge.Addr(), login: basic(customerName, customerPassword)})
			c := mustDial(t, addr)
			if got := c.mustConnect(t, judge.Addr(), customerName, customerPassword); got.status != http.StatusOK {
				t.Fatalf("CONNECT: %+v", got)
			}
			c.websocket(t, handshake{target: "/ws", host: judge.Addr()})
			lab.Wait(t, clientLimit, "the tunnels to end", func() bool { return relay.Tunnels(t) == 0 })
		})
	}
}

// TestSOCKS5KeepsTunnels sends plain requests of one connection through one tunnel to each target.
func TestSOCKS5KeepsTunnels(t *testing.T) {
	t.Parallel()
	v, site, other := startMicroSOCKS(t, 0), startTarget(t, ""), startTarget(t, "")
	_, addr := startSOCKS(t, v)
	c := mustDial(t, addr)
	for i := range 3 {
		for _, s := range []*target{site, other} {
			if got := c.mustGet(t, s.url("http", "localhost", "/hello"), basic(customerName, customerPassword)); got.status != http.StatusOK || got.body != helloText {
				t.Errorf("request %d: %+v", i, got)
			}
		}
	}
	if n := bytes.Count([]byte(v.heads()), []byte("\x05\x01\x00\x03\x09localhost")); n != 2 {
		t.Errorf("%d tunnels for two targets", n)
	}
	if strings.Contains(v.heads(), "Proxy-") || strings.Contains(v.heads(), "http://") {
		t.Errorf("a target got %.2048q", v.heads())
	}
}

// TestSOCKS5Refusals meets what real servers say when they cannot or will not: the customer sees one neutral reply, the log has the cause.
func TestSOCKS5Refusals(t *testing.T) {
	t.Parallel()
	echo := startEcho(t)
	closed := lab.FreeAddr(t)
	tests := map[string]struct {
		start  func(t *testing.T) string // returns the gateway's URL
		target string
		cause  string
	}{
		"dante: ruleset": {func(t *testing.T) string { return startDante(t, portNumber(t, echo)).url }, echo, "forbidden"},
		"dante: no name": {func(t *testing.T) string { return startDante(t, 0).url }, "no-such-name.invalid:443", "target_unreachable"},
		"dante: refused": {func(t *testing.T) string { return startDante(t, 0).url }, closed, "target_unreachable"},
		"dante: a login that it does not know how to take": {func(t *testing.T) string {
			return strings.Replace(startDante(t, 0).url, "://", "://u:p@", 1)
		}, echo, "auth"},
		"microsocks: refused": {func(t *testing.T) string { return startMicroSOCKS(t, 0).url }, closed, "target_unreachable"},
		"microsocks: no login": {func(t *testing.T) string {
			return "socks5://" + startMicroSOCKS(t, 0).tap.Addr()
		}, echo, "auth"},
		"microsocks: wrong login": {func(t *testing.T) string {
			return strings.Replace(startMicroSOCKS(t, 0).url, tinyproxyPassword, "another", 1)
		}, echo, "auth"},
		"not a SOCKS5 server": {func(t *testing.T) string { return "socks5://" + echo }, echo, "malformed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay, addr := startSOCKS(t, &vendor{url: test.start(t)})
			checkOurReply(t, mustDial(t, addr).mustConnect(t, test.target, customerName, customerPassword), http.StatusBadGateway)
			checkOurReply(t, mustDial(t, addr).mustGet(t, "http://"+test.target+"/", basic(customerName, customerPassword)), http.StatusBadGateway)
			lab.Wait(t, 10*time.Second, "the log to tell the cause", func() bool {
				list, err := relay.Exchanges()
				if err != nil || len(list) != 2 {
					return false
				}
				for _, e := range list {
					if e.Cause != test.cause || e.Status != http.StatusBadGateway {
						t.Fatalf("%s: cause %q, status %d; want %q", e.Method, e.Cause, e.Status, test.cause)
					}
				}
				return true
			})
		})
	}
}
