package integration

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// withoutLogin is the vendor's URL with no credentials in it.
func (v *vendor) withoutLogin() string { return "http://" + v.tap.Addr() }

// startPassthrough starts a relay that lets squid check the customer's own vendor login, and allows two connections a name.
func startPassthrough(t *testing.T) (v *vendor, relay *lab.Relay, addr string) {
	t.Helper()
	v = startSquid(t)
	relay = startRelay(t, lab.Env{"UPSTREAM": v.withoutLogin(), "AUTH": "passthrough", "USER_MAX_CONNS": "2"})
	return v, relay, tapCustomer(t, relay.Addr).Addr()
}

// TestPassthroughGoodLogin finds the login unchanged at the vendor, and the cap by its name.
func TestPassthroughGoodLogin(t *testing.T) {
	t.Parallel()
	v, relay, addr := startPassthrough(t)
	site, echo := startTarget(t, ""), startEcho(t)
	var open []*client
	for range 2 {
		c := mustDial(t, addr)
		if got := c.mustConnect(t, echo, vendorUser, vendorPassword); got.status != http.StatusOK {
			t.Fatalf("good login: %+v", got)
		}
		if err := c.ping("passed through"); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	checkOurReply(t, mustDial(t, addr).mustConnect(t, echo, vendorUser, vendorPassword), http.StatusTooManyRequests)
	for _, c := range open {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	lab.Wait(t, 10*time.Second, "the tunnels to end", func() bool { return relay.Tunnels(t) == 0 })

	curl := lab.Need(t, "curl")[0]
	for _, scheme := range []string{"http", "https"} {
		out := output(t, exec.Command(curl, "-q", "-sS", "--max-time", "30", "--cacert", site.caFile, "-x", proxyURL(addr, vendorUser, vendorPassword), site.url(scheme, targetName, "/hello")))
		if out != helloText {
			t.Errorf("%s with a good login: %q", scheme, out)
		}
	}
	checkVendorHeads(t, v)
	// Two tunnels, two of curl's; nothing of the relay's own.
	heads := v.heads()
	if unchanged := strings.Count(heads, "\r\nProxy-Authorization: Basic "+basic(vendorUser, vendorPassword)+"\r\n"); unchanged != 4 || strings.Count(heads, "Proxy-Authorization") != unchanged {
		t.Errorf("%d of 4 heads have the customer's login unchanged:\n%s", unchanged, heads)
	}
}

// TestPassthroughBadLogin gets our 407 in place of squid's, on CONNECT and plain HTTP.
func TestPassthroughBadLogin(t *testing.T) {
	t.Parallel()
	_, relay, addr := startPassthrough(t)
	site, echo := startTarget(t, ""), startEcho(t)
	plain := site.url("http", targetName, "/hello")
	for name, ask := range map[string]func(c *client) reply{
		"CONNECT, wrong password": func(c *client) reply { return c.mustConnect(t, echo, vendorUser, "wrong") },
		"CONNECT, unknown user":   func(c *client) reply { return c.mustConnect(t, echo, "nobody", "wrong") },
		"CONNECT, no login":       func(c *client) reply { return c.mustConnect(t, echo, "", "") },
		"GET, wrong password":     func(c *client) reply { return c.mustGet(t, plain, basic(vendorUser, "wrong")) },
		"GET, no login":           func(c *client) reply { return c.mustGet(t, plain, "") },
	} {
		c := mustDial(t, addr)
		got := ask(c)
		checkOurReply(t, got, http.StatusProxyAuthRequired)
		if challenge := got.header.Values("Proxy-Authenticate"); len(challenge) != 1 || challenge[0] != `Basic realm="Proxy"` {
			t.Errorf("%s: Proxy-Authenticate %q", name, challenge)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// A stranger who knows a name takes none of its connections: what a refused login held is given back though he stays.
	stranger := mustDial(t, addr)
	checkOurReply(t, stranger.mustConnect(t, echo, vendorUser, "wrong"), http.StatusProxyAuthRequired)
	patient := mustDial(t, addr)
	checkOurReply(t, patient.mustGet(t, plain, basic(vendorUser, "wrong")), http.StatusProxyAuthRequired)
	lab.Wait(t, 10*time.Second, "the refused login to hold nothing", func() bool {
		held, _ := relay.Metric(t, `maskrelay_account_connections{account="`+vendorUser+`"}`)
		return held == 0
	})
	if up, ok := relay.Metric(t, `maskrelay_upstream_up{upstream="`+vendorAddress+`"}`); !ok || up != 1 {
		t.Errorf("customers' wrong logins made the gateway look down: %v %v", up, ok)
	}
}

// TestOpen asks nobody for a login: the customer's network is let in, this machine's own address is not.
func TestOpen(t *testing.T) {
	t.Parallel()
	v, site, echo := startSquid(t), startTarget(t, ""), startEcho(t)
	relay := startRelay(t, lab.Env{"UPSTREAM": v.url, "AUTH": "open", "ALLOW_FROM": customerAddress + "/32"})
	addr := tapCustomer(t, relay.Addr).Addr()
	plain := site.url("http", targetName, "/hello")

	c := mustDial(t, addr)
	if got := c.mustConnect(t, echo, "", ""); got.status != http.StatusOK {
		t.Fatalf("allowed: %+v", got)
	}
	if err := c.ping("open"); err != nil {
		t.Error(err)
	}
	if got := mustDial(t, addr).mustGet(t, plain, ""); got.status != http.StatusOK || got.body != helloText {
		t.Errorf("allowed GET: %+v", got)
	}
	// What a customer sends without being asked goes no further either.
	if got := mustDial(t, addr).mustGet(t, plain, basic(customerName, customerPassword)); got.status != http.StatusOK {
		t.Errorf("allowed GET with a login: %+v", got)
	}
	if heads := v.heads(); strings.Count(heads, "Basic "+basic(vendorUser, vendorPassword)) != 3 {
		t.Errorf("the operator's login is not in each of 3 heads:\n%s", heads)
	}
	before := len(v.tap.Records())

	stranger := lab.StartTap(t, lab.TapConfig{Name: "stranger", To: relay.Addr, Dialer: vendorMarks()}).Addr()
	checkOurReply(t, mustDial(t, stranger).mustConnect(t, echo, "", ""), http.StatusForbidden)
	checkOurReply(t, mustDial(t, stranger).mustGet(t, plain, ""), http.StatusForbidden)
	checkOurReply(t, mustDial(t, stranger).mustConnect(t, echo, customerName, customerPassword), http.StatusForbidden)
	if now := len(v.tap.Records()); now != before {
		t.Errorf("strangers' requests opened %d connections to the vendor", now-before)
	}
}
