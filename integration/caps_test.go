package integration

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestConnectionCap meets the cap of two connections through HAProxy, on a connection that lives on and gets its tunnel once there is room.
func TestConnectionCap(t *testing.T) {
	t.Parallel()
	s := startStack(t, "haproxy", "squid", nil)
	echo := startEcho(t)
	// leastconn alternates, so of enough tunnels both relays have their two.
	var open []*client
	var refused *client
	for range 5 {
		c := mustDial(t, s.customer.Addr())
		got := c.mustConnect(t, echo, "capped", "capped-password")
		if got.status == http.StatusOK {
			open = append(open, c)
			continue
		}
		checkOurReply(t, got, http.StatusTooManyRequests)
		if n, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || n < 1 {
			t.Errorf("Retry-After %q", got.header.Get("Retry-After"))
		}
		if got.closes {
			t.Error("the relay closes the connection after 429")
		}
		refused = c
	}
	if len(open) != 4 || refused == nil {
		t.Fatalf("%d tunnels with a cap of 2 on each of 2 relays", len(open))
	}
	for _, c := range open {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range s.relays {
		lab.Wait(t, 10*time.Second, "the tunnels to end", func() bool { return r.Tunnels(t) == 0 })
	}
	if got := refused.mustConnect(t, echo, "capped", "capped-password"); got.status != http.StatusOK {
		t.Fatalf("on the kept connection: %+v", got)
	}
	if err := refused.ping("at last"); err != nil {
		t.Error(err)
	}
}

// TestConnectionRate allows a burst of three and then one in ten seconds.
func TestConnectionRate(t *testing.T) {
	t.Parallel()
	_, addr := startSingle(t, lab.Env{"USER_CONN_RATE": "0.1", "USER_CONN_BURST": "3"})
	echo := startEcho(t)
	var statuses []string
	for range 5 {
		statuses = append(statuses, strconv.Itoa(mustDial(t, addr).mustConnect(t, echo, customerName, customerPassword).status))
	}
	if got := strings.Join(statuses, " "); got != "200 200 200 429 429" {
		t.Errorf("statuses %s", got)
	}
}

// TestRelayFull fills MAX_CONNS.
func TestRelayFull(t *testing.T) {
	t.Parallel()
	relay, addr := startSingle(t, lab.Env{"MAX_CONNS": "3"})
	echo := startEcho(t)
	for range 3 {
		c, err := tunnel(addr, echo)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() }) // what it did was seen
	}
	got := mustDial(t, addr).mustConnect(t, echo, customerName, customerPassword)
	checkOurReply(t, got, http.StatusServiceUnavailable)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if limit, ok := relay.Metric(t, "maskrelay_connections_limit"); !ok || limit != 3 {
		t.Errorf("maskrelay_connections_limit %v", limit)
	}
	if status, _, err := relay.Get("/readyz"); err != nil || status != http.StatusOK {
		t.Errorf("a full relay must stay ready: %d %v", status, err)
	}
}

// TestRefusals asks for what is never given, each on one connection after the other.
func TestRefusals(t *testing.T) {
	t.Parallel()
	_, addr := startSingle(t, lab.Env{"ALLOW_PRIVATE": "false", "ALLOW_PORTS": "80,443", "DENY_HOSTS": "*.denied.example"})
	cases := []struct {
		name, target, password string
		status                 int
	}{
		{"wrong password", "shop.example:443", "wrong", http.StatusProxyAuthRequired},
		{"loopback", "127.0.0.1:443", customerPassword, http.StatusForbidden},
		{"decimal loopback", "2130706433:443", customerPassword, http.StatusForbidden},
		{"metadata", "169.254.169.254:80", customerPassword, http.StatusForbidden},
		{"port", "shop.example:25", customerPassword, http.StatusForbidden},
		{"name", "www.denied.example:443", customerPassword, http.StatusForbidden},
		{"no port", "shop.example", customerPassword, http.StatusBadRequest},
		{"port 0", "shop.example:0", customerPassword, http.StatusBadRequest},
		{"userinfo", "a@shop.example:443", customerPassword, http.StatusBadRequest},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got := mustDial(t, addr).mustConnect(t, tc.target, customerName, tc.password)
			checkOurReply(t, got, tc.status)
			if challenge := got.header.Get("Proxy-Authenticate"); tc.status == http.StatusProxyAuthRequired && challenge != `Basic realm="Proxy"` {
				t.Errorf("Proxy-Authenticate %q", challenge)
			}
		})
	}
	t.Run("origin form", func(t *testing.T) {
		c := mustDial(t, addr)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := c.readReply(); err != nil || got.status != http.StatusBadRequest {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// TestProxyHeaderIsRequired connects without one to a relay that requires it, and with one to a relay that refuses it.
func TestProxyHeaderIsRequired(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ from, send string }{
		"missing":   {"127.0.0.0/8", ""},
		"forbidden": {"", "PROXY TCP4 10.1.2.3 10.4.5.6 1000 8080\r\n"},
		"untrusted": {"10.0.0.0/8", "PROXY TCP4 10.1.2.3 10.4.5.6 1000 8080\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addr := startSingle(t, lab.Env{"PROXY_PROTOCOL_FROM": tc.from})
			c := mustDial(t, addr)
			if _, err := io.WriteString(c, tc.send); err != nil {
				t.Fatal(err)
			}
			if got, err := c.connect("127.0.0.1:1", customerName, customerPassword); err == nil && got.status != http.StatusBadRequest {
				t.Errorf("answered with %+v", got)
			}
		})
	}
}
