package integration

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// pair is a relay in front of squid ("first") and tinyproxy ("second").
type pair struct {
	relay         *lab.Relay
	first, second *vendor
	addr          string // where the customer connects
}

func startPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{first: startSquid(t), second: startTinyproxy(t)}
	p.relay = startRelay(t, lab.Env{
		"UPSTREAMS_0_URL": p.first.url, "UPSTREAMS_0_NAME": "first", "UPSTREAMS_1_URL": p.second.url, "UPSTREAMS_1_NAME": "second",
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML),
	})
	p.addr = tapCustomer(t, p.relay.Addr).Addr()
	return p
}

// up returns maskrelay_upstream_up.
func (p *pair) up(t *testing.T, name string) float64 {
	t.Helper()
	value, ok := p.relay.Metric(t, `maskrelay_upstream_up{upstream="`+name+`"}`)
	if !ok {
		t.Fatalf("no maskrelay_upstream_up of %s", name)
	}
	return value
}

// TestRoundRobin spreads tunnels evenly over two gateways.
func TestRoundRobin(t *testing.T) {
	t.Parallel()
	const each = 10
	p, echo := startPair(t), startEcho(t)
	for range 2 * each {
		c, err := tunnel(p.addr, echo)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, v := range map[string]*vendor{"first": p.first, "second": p.second} {
		if n := strings.Count(v.heads(), "CONNECT "); n != each || p.up(t, name) != 1 {
			t.Errorf("%s got %d of %d tunnels, up is %v", name, n, 2*each, p.up(t, name))
		}
		checkVendorHeads(t, v)
	}
}

// TestKilledGateway kills one of two gateways under load: no request may be refused.
func TestKilledGateway(t *testing.T) {
	t.Parallel()
	const workers = 8
	p, echo, site := startPair(t), startEcho(t), startTarget(t, "")
	tr := startTraffic(t, p.addr, echo, workers)
	tr.waitMore(t, 50)
	if failed := tr.failures(); len(failed) > 0 {
		t.Fatalf("before the kill: %v", failed)
	}
	p.first.kill(t)
	tr.waitMore(t, 100)
	tr.end()
	// A tunnel that was open on the killed gateway ends with it, one of each worker at most; an answer with another status is a refusal.
	lost := tr.failures()
	refused := slices.DeleteFunc(slices.Clone(lost), func(err error) bool { return !strings.HasPrefix(err.Error(), "status ") })
	if len(refused) > 0 || len(lost) > workers {
		t.Errorf("%d tunnels lost, %d requests refused: %v", len(lost), len(refused), lost)
	}
	lab.Wait(t, 10*time.Second, "the gateway to be down", func() bool { return p.up(t, "first") == 0 && p.up(t, "second") == 1 })
	if relayFailures(t, p.relay, "first") == 0 {
		t.Error("no maskrelay_upstream_failures_total of the killed gateway")
	}
	tr = startTraffic(t, p.addr, echo, workers)
	tr.waitMore(t, 200)
	tr.end()
	if failed := tr.failures(); len(failed) > 0 {
		t.Errorf("with one gateway gone: %v", failed)
	}
	for range 6 {
		if got := mustDial(t, p.addr).mustGet(t, site.url("http", targetAddress, "/hello"), basic(customerName, customerPassword)); got.status != http.StatusOK || got.body != helloText {
			t.Errorf("plain with one gateway gone: %+v", got)
		}
	}
	if status, body, err := p.relay.Get("/readyz"); err != nil || status != http.StatusOK {
		t.Errorf("readyz with one gateway gone: %d %s %v", status, body, err)
	}
}

// relayFailures sums maskrelay_upstream_failures_total of one gateway over the causes that a killed one has.
func relayFailures(t *testing.T, r *lab.Relay, upstream string) (sum float64) {
	t.Helper()
	for _, cause := range []string{"refused", "closed"} {
		n, _ := r.Metric(t, fmt.Sprintf(`maskrelay_upstream_failures_total{cause=%q,upstream=%q}`, cause, upstream))
		sum += n
	}
	return sum
}

// secureGateway is a gateway that speaks TLS, in this process, and the file with its CA.
type secureGateway struct {
	*upstreamtest.Vendor
	caFile string
}

func startSecureGateway(t *testing.T) secureGateway {
	t.Helper()
	ca, err := upstreamtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server(vendorAddress)
	if err != nil {
		t.Fatal(err)
	}
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{
		Addr: net.JoinHostPort(vendorAddress, "0"), Username: vendorUser, Password: vendorPassword,
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, strings.Replace(addr, targetName, targetAddress, 1))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		checkNoMarks(t, "secure gateway", v.Received(), customerMarks())
		if n := v.Dropped(); n > 0 {
			t.Errorf("%d bytes that the gateway received were not searched", n)
		}
	})
	return secureGateway{Vendor: v, caFile: writeFile(t, t.TempDir(), "ca.pem", string(ca.PEM()))}
}

// startRelay starts a relay that trusts caFile for the gateway, and returns where the customer connects.
func (g secureGateway) startRelay(t *testing.T, caFile string) (relay *lab.Relay, addr string) {
	t.Helper()
	relay = startRelay(t, lab.Env{
		"UPSTREAMS_0_URL": "https://" + g.Addr(), "UPSTREAMS_0_USERNAME": vendorUser, "UPSTREAMS_0_PASSWORD": vendorPassword,
		"UPSTREAMS_0_CA_FILE": caFile, "VENDOR_MARKS": g.Brand(), "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML),
	})
	return relay, lab.StartTap(t, lab.TapConfig{Name: "customer", To: relay.Addr, From: net.ParseIP(customerAddress), Dialer: vendorMarks().With(g.Marks()...)}).Addr()
}

func TestSecureGateway(t *testing.T) {
	t.Parallel()
	g, site, echo := startSecureGateway(t), startTarget(t, ""), startEcho(t)
	_, addr := g.startRelay(t, g.caFile)
	curl := lab.Need(t, "curl")[0]
	for _, scheme := range []string{"http", "https"} {
		cmd := exec.Command(curl, "-q", "-sS", "--max-time", "30", "--cacert", site.caFile, "-x", proxyURL(addr, customerName, customerPassword),
			site.url(scheme, targetName, "/hello"), site.url(scheme, targetName, "/hello"))
		if out := output(t, cmd); out != helloText+helloText {
			t.Errorf("%s: %q", scheme, out)
		}
	}
	c, err := tunnel(addr, echo)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	received := string(g.Received())
	if !strings.Contains(received, "CONNECT "+echo+" HTTP/1.1\r\nHost: "+echo+"\r\nProxy-Authorization: Basic "+basic(vendorUser, vendorPassword)+"\r\n\r\n") {
		t.Errorf("the gateway received %.4096q", received)
	}

	g.SetBehaviour(upstreamtest.Loud(http.StatusForbidden, "QUOTA_EXCEEDED"))
	checkOurReply(t, mustDial(t, addr).mustConnect(t, echo, customerName, customerPassword), http.StatusBadGateway)
}

// TestSecureGatewayWithAnotherCA meets a gateway whose certificate a stranger signed: it must not even see the login.
func TestSecureGatewayWithAnotherCA(t *testing.T) {
	t.Parallel()
	g := startSecureGateway(t)
	relay, addr := g.startRelay(t, startSecureGateway(t).caFile)
	for name, got := range map[string]reply{
		"CONNECT": mustDial(t, addr).mustConnect(t, "shop.example:443", customerName, customerPassword),
		"GET":     mustDial(t, addr).mustGet(t, "http://shop.example/", basic(customerName, customerPassword)),
	} {
		checkOurReply(t, got, http.StatusBadGateway)
		if strings.Contains(strings.ToLower(got.body), "certificate") {
			t.Errorf("%s: the reply tells why: %q", name, got.body)
		}
	}
	if received := g.Received(); len(received) > 0 {
		t.Errorf("a gateway that is not trusted received %q", received)
	}
	if g.Accepted() == 0 {
		t.Error("the gateway was never dialled")
	}
	lab.Wait(t, 10*time.Second, "the log to tell the cause", func() bool {
		list, err := relay.Exchanges()
		return err == nil && len(list) == 2 && !slices.ContainsFunc(list, func(e lab.Exchange) bool { return e.Cause != "tls" || e.Status != http.StatusBadGateway })
	})
}
