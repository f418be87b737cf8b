package integration

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// wayBytes is how much goes through each gateway, each way, at a time.
const wayBytes = 3 << 20

// gatewayKind starts a real gateway. It returns its URL, what a relay needs beside it, and what the gateway must receive of a customer who
// wishes for an exit in the US, "" if it knows no login.
type gatewayKind func(t *testing.T) (v *vendor, url string, env lab.Env, login string)

var gatewayKinds = map[string]gatewayKind{
	"http": func(t *testing.T) (*vendor, string, lab.Env, string) {
		v := startSquid(t)
		return v, v.url, nil, "Proxy-Authorization: Basic " + basic(vendorUserUS, vendorPassword) + "\r\n"
	},
	"https": func(t *testing.T) (*vendor, string, lab.Env, string) {
		g := startTLSGateway(t, vendorAddress)
		u := url.URL{Scheme: "https", User: url.UserPassword(vendorUser, vendorPassword), Host: g.addr}
		return g.squid, u.String(), lab.Env{"UPSTREAMS_0_CA_FILE": writeFile(t, t.TempDir(), "ca.pem", string(g.pair.CA)), "UPSTREAMS_0_WARM": "2"},
			"Proxy-Authorization: Basic " + basic(vendorUserUS, vendorPassword) + "\r\n"
	},
	"socks5": func(t *testing.T) (*vendor, string, lab.Env, string) {
		v := &vendor{addr: lab.FreeAddr(t)}
		v.tapSOCKS(t, lab.StartMicroSOCKS(t, v.addr, vendorUserUS, tinyproxyPassword), url.UserPassword(vendorUser, tinyproxyPassword))
		return v, v.url, nil, "\x01" + short(vendorUserUS) + short(tinyproxyPassword)
	},
	"socks5 without login": func(t *testing.T) (*vendor, string, lab.Env, string) {
		v := startDante(t, 0)
		return v, v.url, nil, ""
	},
}

// short is a string with its length before it.
func short(s string) string { return string([]byte{byte(len(s))}) + s }

// customerEnd is where a customer connects: at the plain listener or the one behind TLS.
type customerEnd struct {
	addr   string
	secure *tls.Config // nil = plain
	leaks  *leakList
}

// dial connects; what the customer receives, inside TLS, is searched for the vendor.
func (e customerEnd) dial(context.Context, string, string) (net.Conn, error) {
	d := net.Dialer{Timeout: clientLimit, LocalAddr: &net.TCPAddr{IP: net.ParseIP(customerAddress)}}
	c, err := d.Dial("tcp4", e.addr)
	if err == nil && e.secure != nil {
		c = tls.Client(c, e.secure)
	}
	return &searchedConn{Conn: c, search: lab.NewSearch("customer", vendorMarks()), found: e.leaks}, err
}

// TestGatewayWays does all that customers can, at both kinds of listeners, through every kind of gateway: not a byte is lost or
// another's, wishes arrive, and neither end learns of the other.
func TestGatewayWays(t *testing.T) {
	t.Parallel()
	for kind, start := range gatewayKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v, address, env, login := start(t)
			pair := newKeyPair(t, t.TempDir())
			full := lab.Env{
				"UPSTREAMS_0_URL": address, "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML),
				"TLS_LISTEN": lab.FreeAddr(t), "TLS_CERT_FILE": pair.certFile, "TLS_KEY_FILE": pair.keyFile,
			}
			user := customerName
			if login != "" {
				full["UPSTREAMS_0_USERNAME"] = "{login}{?country:-cc-{country}}"
				user += "-country-us"
			}
			for name, value := range env {
				full[name] = value
			}
			relay := startRelay(t, full)
			w := &wayTest{site: startTarget(t, ""), judge: startJudge(t, upstreamtest.JudgeConfig{}), user: user}
			plain := customerEnd{addr: relay.Addr, leaks: &leakList{}}
			secure := customerEnd{addr: full["TLS_LISTEN"], leaks: plain.leaks, secure: &tls.Config{RootCAs: pair.pool, ServerName: "127.0.0.1"}}
			for listener, end := range map[string]customerEnd{"plain": plain, "TLS": secure} {
				t.Run(listener, func(t *testing.T) { w.run(t, end) })
			}
			for _, leak := range plain.leaks.all() {
				t.Errorf("the customer received: %v", leak)
			}
			checkLogins(t, v, login)
		})
	}
}

// checkLogins finds the customer's wish in all that the gateway received.
func checkLogins(t *testing.T, v *vendor, login string) {
	t.Helper()
	if login == "" {
		return
	}
	for _, r := range v.tap.Records() {
		if head := string(r.ToTarget()); head != "" && !strings.Contains(head, login) {
			t.Errorf("the gateway received no such login: %.300q", head)
		}
	}
	if !strings.Contains(v.heads(), login) {
		t.Error("the gateway received no login")
	}
}

// wayTest is what a customer does.
type wayTest struct {
	site  *target
	judge *upstreamtest.Judge
	user  string
}

func (w *wayTest) run(t *testing.T, end customerEnd) {
	t.Helper()
	proxy := &url.URL{Scheme: "http", User: url.UserPassword(w.user, customerPassword), Host: end.addr}
	transport := &http.Transport{
		Proxy: http.ProxyURL(proxy), DialContext: end.dial, TLSClientConfig: &tls.Config{RootCAs: w.site.ca}, MaxIdleConnsPerHost: 1,
	}
	defer transport.CloseIdleConnections()
	customer := &http.Client{Transport: transport, Timeout: clientLimit}
	body, err := io.ReadAll(bodyBytes(wayBytes))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	digest := fmt.Sprintf("%d %s\n", wayBytes, hex.EncodeToString(sum[:]))
	for _, scheme := range []string{"http", "https", "http"} {
		got := fetch(t, customer, http.MethodGet, w.site.url(scheme, targetAddress, fmt.Sprintf("/bytes?n=%d", wayBytes)), nil)
		if !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes came, and not the right ones", scheme, len(got))
		}
		if got := fetch(t, customer, http.MethodPost, w.site.url(scheme, targetAddress, "/digest"), body); string(got) != digest {
			t.Errorf("%s: the target received %q, want %q", scheme, got, digest)
		}
	}
	open := func() *client {
		conn, err := end.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		return newClient(t, conn)
	}
	open().websocket(t, handshake{target: w.judge.URL() + "/ws", host: w.judge.Addr(), login: basic(w.user, customerPassword)})
	c := open()
	if got := c.mustAsk(t, http.MethodConnect, w.judge.Addr(), basic(w.user, customerPassword)); got.status != http.StatusOK {
		t.Fatalf("CONNECT: %+v", got)
	}
	c.websocket(t, handshake{target: "/ws", host: w.judge.Addr()})
}

// fetch sends a request and returns the body of a 200.
func fetch(t *testing.T, c *http.Client, method, address string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: status %d, %d bytes, %v", method, address, resp.StatusCode, len(got), err)
	}
	return got
}
