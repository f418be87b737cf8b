package integration

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// tlsGateway is HAProxy with TLS in front of squid, as vendors have their https gateways.
type tlsGateway struct {
	squid   *vendor
	haproxy *lab.Process
	addr    string
	pair    lab.KeyPair
}

// startTLSGateway starts one whose certificate is for a name or an address.
func startTLSGateway(t *testing.T, certified string) *tlsGateway {
	t.Helper()
	program := lab.Need(t, "haproxy")[0]
	dir := openDir(t)
	g := &tlsGateway{squid: startSquid(t), addr: net.JoinHostPort(vendorAddress, strconv.Itoa(lab.FreePort(t))), pair: lab.NewKeyPair(t, dir, certified)}
	var both []byte
	for _, file := range []string{g.pair.CertFile, g.pair.KeyFile} {
		part, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, part...)
	}
	conf := writeFile(t, dir, "gateway.cfg", fmt.Sprintf(`global
  log stdout format raw local0
defaults
  mode tcp
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend gateway
  bind %s ssl crt %s alpn h2,http/1.1
  log global
  log-format "resumed=%%[ssl_fc_is_resumed] alpn=%%[ssl_fc_alpn] received=%%U"
  default_backend squid
backend squid
  server squid %s
`, g.addr, writeFile(t, dir, "both.pem", string(both)), g.squid.tap.Addr()))
	g.haproxy = lab.Start(t, "haproxy (gateway)", exec.Command(program, "-db", "-f", conf))
	lab.Wait(t, 20*time.Second, "haproxy to listen", func() bool {
		if !g.haproxy.Running() {
			t.Fatalf("haproxy ended:\n%s", g.haproxy.Stderr.Bytes())
		}
		return lab.Listening(g.addr)
	})
	return g
}

// startRelay starts a relay in front of g that trusts ca, and returns where the customer connects.
func (g *tlsGateway) startRelay(t *testing.T, ca []byte) (relay *lab.Relay, addr string) {
	t.Helper()
	dir := t.TempDir()
	relay = startRelay(t, lab.Env{
		"UPSTREAMS_0_URL":     (&url.URL{Scheme: "https", User: url.UserPassword(vendorUser, vendorPassword), Host: g.addr}).String(),
		"UPSTREAMS_0_CA_FILE": writeFile(t, dir, "ca.pem", string(ca)), "ACCOUNTS_FILE": writeFile(t, dir, "accounts.yaml", accountsYAML),
	})
	return relay, tapCustomer(t, relay.Addr).Addr()
}

// TestTLSGateway does what customers do through HAProxy and squid, and finds that only the first handshake was a full one.
func TestTLSGateway(t *testing.T) {
	t.Parallel()
	g, site, echo := startTLSGateway(t, vendorAddress), startTarget(t, ""), startEcho(t)
	relay, addr := g.startRelay(t, g.pair.CA)
	const tunnels = 5
	for range tunnels {
		c, err := tunnel(addr, echo)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		lab.Wait(t, clientLimit, "the tunnel to end", func() bool { return relay.Tunnels(t) == 0 })
	}
	log := func() string { return string(g.haproxy.Stdout.Bytes()) }
	lab.Wait(t, 10*time.Second, "haproxy to log the tunnels", func() bool { return strings.Count(log(), "resumed=1 alpn=http/1.1") == tunnels-1 })
	if n := strings.Count(log(), "resumed=0 alpn=http/1.1"); n != 1 {
		t.Errorf("%d full handshakes: %s", n, log())
	}

	curl := lab.Need(t, "curl")[0]
	cmd := exec.Command(curl, "-q", "-sS", "--max-time", "30", "--cacert", site.caFile, "-x", proxyURL(addr, customerName, customerPassword),
		site.url("http", targetName, "/hello"), site.url("https", targetName, "/hello"), site.url("http", targetName, "/hello"))
	if out := output(t, cmd); out != strings.Repeat(helloText, 3) {
		t.Errorf("curl: %q", out)
	}
	checkVendorHeads(t, g.squid)
}

// TestTLSGatewayWithAnotherName meets a certificate that the right authority signed for another host: nothing is said to it.
func TestTLSGatewayWithAnotherName(t *testing.T) {
	t.Parallel()
	g := startTLSGateway(t, "127.66.6.7")
	relay, addr := g.startRelay(t, g.pair.CA)
	checkOurReply(t, mustDial(t, addr).mustConnect(t, "shop.example:443", customerName, customerPassword), http.StatusBadGateway)
	checkOurReply(t, mustDial(t, addr).mustGet(t, "http://shop.example/", basic(customerName, customerPassword)), http.StatusBadGateway)
	lab.Wait(t, 10*time.Second, "the log to tell the cause", func() bool {
		list, err := relay.Exchanges()
		return err == nil && len(list) == 2 && list[0].Cause == "tls" && list[1].Cause == "tls"
	})
	if heads := g.squid.heads(); heads != "" {
		t.Errorf("the gateway was told %q", heads)
	}
	if log := string(g.haproxy.Stdout.Bytes()); strings.Contains(log, "resumed=") && !strings.Contains(log, "received=0") {
		t.Errorf("haproxy received something: %s", log)
	}
}
