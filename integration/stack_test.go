package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// stack is the whole way: customer's tap, load balancer, two relays, vendor's tap, vendor.
type stack struct {
	vendor   *vendor
	relays   []*lab.Relay
	balancer *balancer
	customer *lab.Tap
}

// relayEnv is the configuration of a relay of a stack.
func relayEnv(v *vendor) lab.Env {
	return lab.Env{
		"UPSTREAM":            v.url,
		"ACCOUNTS_FILE":       "", // set by the caller's file
		"PROXY_PROTOCOL_FROM": "127.0.0.0/8",
		"DIAL_TIMEOUT":        "3s",
		"CONNECT_TIMEOUT":     "10s",
		"DRAIN_GRACE":         "5s",
		"DRAIN_TIMEOUT":       "60s",
	}
}

// accountsYAML is the customer of the tests, and one with a cap of two connections.
var accountsYAML = fmt.Sprintf(`accounts:
  - name: %s
    password: %q
  - name: capped
    password: capped-password
    max_conns: 2
`, customerName, customerPassword)

// startStack starts everything for one balancer and one vendor; change may alter the relays' environment.
func startStack(t *testing.T, balancerKind, vendorKind string, change lab.Env) *stack {
	t.Helper()
	s := &stack{vendor: vendorKinds[vendorKind](t)}
	env := relayEnv(s.vendor)
	env["ACCOUNTS_FILE"] = writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML)
	for name, value := range change {
		env[name] = value
	}
	for range 2 {
		s.relays = append(s.relays, startRelay(t, env))
	}
	s.balancer = balancerKinds[balancerKind](t, s.relays)
	s.customer = tapCustomer(t, s.balancer.addr)
	return s
}

// proxyURL is what the customer is given.
func (s *stack) proxyURL() string { return proxyURL(s.customer.Addr(), customerName, customerPassword) }

func proxyURL(addr, name, password string) string {
	return (&url.URL{Scheme: "http", User: url.UserPassword(name, password), Host: addr}).String()
}

// exchanges returns the log lines of both relays.
func (s *stack) exchanges(t *testing.T) []lab.Exchange {
	t.Helper()
	var all []lab.Exchange
	for _, r := range s.relays {
		list, err := r.Exchanges()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// client is a connection to a proxy with a reader for its replies.
type client struct {
	net.Conn
	r *bufio.Reader
}

const clientLimit = 30 * time.Second

func dialProxy(addr string) (*client, error) {
	c, err := net.DialTimeout("tcp4", addr, clientLimit)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(clientLimit)); err != nil {
		return nil, err
	}
	return &client{Conn: c, r: bufio.NewReader(c)}, nil
}

func mustDial(t *testing.T, addr string) *client {
	t.Helper()
	c, err := dialProxy(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // most tests closed it
	return c
}

// newClient makes an open connection a client with the usual deadline.
func newClient(t *testing.T, c net.Conn) *client {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(clientLimit)); err != nil {
		t.Fatal(err)
	}
	return &client{Conn: c, r: bufio.NewReader(c)}
}

// reply is a proxy's answer to a CONNECT.
type reply struct {
	status int
	header http.Header
	body   string // of anything but a 200, read whole
	length int64  // as Content-Length announced it
	closes bool   // the proxy said that it closes the connection
}

// connect sends one CONNECT, with credentials unless name is empty, and returns the reply.
func (c *client) connect(target, name, password string) (reply, error) {
	var login string
	if name != "" {
		login = "Proxy-Authorization: Basic " + basic(name, password) + "\r\n"
	}
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s%s: %s\r\nUser-Agent: probe\r\n\r\n",
		target, target, login, customerHeader, customerTrail); err != nil {
		return reply{}, err
	}
	return c.readReply()
}

func (c *client) readReply() (reply, error) { return c.readReplyTo(http.MethodConnect) }

// readReplyTo reads the answer to a request with the method. Of a CONNECT's 200 and of a 101 nothing but the head is read.
func (c *client) readReplyTo(method string) (reply, error) {
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return reply{}, err
	}
	got := reply{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, closes: resp.Close}
	if got.status != http.StatusSwitchingProtocols && (got.status != http.StatusOK || method != http.MethodConnect) {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		got.body = string(body)
	}
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	return got, err
}

// get sends a GET for address, which it sends as it is, with Proxy-Authorization unless credentials are empty, and more header lines;
// Host is among those if address has none.
func (c *client) get(address, credentials string, lines ...string) (reply, error) {
	u, err := url.Parse(address)
	if err != nil {
		return reply{}, err
	}
	if u.Host != "" {
		lines = append([]string{"Host: " + u.Host}, lines...)
	}
	lines = append(lines, "User-Agent: probe")
	if credentials != "" {
		lines = append(lines, "Proxy-Authorization: Basic "+credentials)
	}
	if _, err := io.WriteString(c, "GET "+address+" HTTP/1.1\r\n"+strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		return reply{}, err
	}
	return c.readReplyTo(http.MethodGet)
}

// mustGet is get that ends the test where no reply comes.
func (c *client) mustGet(t *testing.T, url, credentials string, lines ...string) reply {
	t.Helper()
	got, err := c.get(url, credentials, lines...)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return got
}

// mustConnect is connect that ends the test where no reply comes.
func (c *client) mustConnect(t *testing.T, target, name, password string) reply {
	t.Helper()
	got, err := c.connect(target, name, password)
	if err != nil {
		t.Fatalf("CONNECT %s: %v", target, err)
	}
	return got
}

// ping sends text through an open tunnel to an echoing target and waits for it.
func (c *client) ping(text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c.r, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("echo of %q is %q", text, got)
	}
	return nil
}

// tunnel opens a tunnel to an echoing target through addr and uses it once.
func tunnel(addr, target string) (*client, error) {
	c, err := dialProxy(addr)
	if err != nil {
		return nil, err
	}
	got, err := c.connect(target, customerName, customerPassword)
	if err == nil && got.status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", got.status, strings.TrimSpace(got.body))
	}
	if err == nil {
		err = c.ping("ping")
	}
	if err != nil {
		_ = c.Close() // the first error says more
		return nil, err
	}
	return c, nil
}

// startEcho is a target that sends back what it gets until the end, and then ends its side.
func startEcho(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp4", lab.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c) // either end closing is the end
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return ln.Addr().String()
}
