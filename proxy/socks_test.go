package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"maskrelay/masking"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// newSOCKSRig is a rig whose gateway is a SOCKS5 server.
func newSOCKSRig(t *testing.T, c upstreamtest.SOCKSConfig, s setup) (*rig, *upstreamtest.SOCKS) {
	t.Helper()
	c.Username, c.Password = vendorUsername, vendorPassword
	gateway, err := upstreamtest.StartSOCKS(c)
	must(t, err)
	t.Cleanup(func() {
		must(t, gateway.Close())
		scanner := masking.NewScanner("gateway", masking.NewMarks(customerName, customerPassword, "customer-agent", "Go-http-client"), true)
		_, _ = scanner.Write(gateway.Received())
		for _, leak := range scanner.Leaks() {
			t.Errorf("leak: %v", leak)
		}
	})
	s.gateways = []upstream.GatewayConfig{{Name: "gateway", URL: "socks5://" + gateway.Addr(), Username: vendorUsername, Password: vendorPassword}}
	return newRig(t, s), gateway
}

// A customer does not see that his gateway speaks SOCKS5, nor how.
func TestSOCKSGateway(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		behaviours := map[string]upstreamtest.SOCKSBehaviour{
			"honest":       {},
			"byte by byte": {Chunk: 1, Delay: 50 * time.Microsecond},
			"slow":         {Delay: 20 * time.Millisecond},
			"a name in the reply": {Say: map[upstreamtest.SOCKSStep][]byte{
				upstreamtest.SOCKSReply: []byte("\x05\x00\x00\x03\x0fgw.vendor.invalid"[:20] + "\x00\x50"),
			}},
			"speaks first": {Early: []byte("220 ready\r\n")},
		}
		for name, b := range behaviours {
			t.Run(name, func(t *testing.T) {
				r, gateway := newSOCKSRig(t, upstreamtest.SOCKSConfig{Behaviour: b}, setup{})
				echo := startEcho(t)
				c := r.dial()
				c.send(connectTo(echo.Addr()) + "early") // with his first bytes
				c.expect(masking.Established + string(b.Early) + "early")
				c.echoes()
				c.fin()
				c.ends()
				r.idle()
				if o := r.outcome(1); o != OK {
					t.Errorf("outcome %s", o)
				}
				if q := gateway.Requests(); len(q) != 1 || q[0].Target != echo.Addr() || q[0].Username != vendorUsername || q[0].Password != vendorPassword {
					t.Errorf("the gateway was asked for %+v", q)
				}
			})
		}
	})
}

// Every refusal is one of our replies, and the log has its cause.
func TestSOCKSGatewayRefuses(t *testing.T) {
	tests := map[string]struct {
		b       upstreamtest.SOCKSBehaviour
		cause   string
		outcome Outcome
	}{
		"failure":     {upstreamtest.SOCKSBehaviour{Rep: 1}, "server", UpstreamFailed},
		"unreachable": {upstreamtest.SOCKSBehaviour{Rep: 4}, "target_unreachable", UpstreamFailed},
		"TTL":         {upstreamtest.SOCKSBehaviour{Rep: 6}, "timeout", UpstreamTimeout},
		"login": {upstreamtest.SOCKSBehaviour{Say: map[upstreamtest.SOCKSStep][]byte{upstreamtest.SOCKSLogin: {1, 9}}},
			"auth", UpstreamFailed},
		"nonsense": {upstreamtest.SOCKSBehaviour{Say: map[upstreamtest.SOCKSStep][]byte{upstreamtest.SOCKSReply: []byte("SuperVendor says no")}},
			"malformed", UpstreamFailed},
		"closes": {upstreamtest.SOCKSBehaviour{Until: upstreamtest.SOCKSReply, Then: upstreamtest.Close}, "closed", UpstreamFailed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r, _ := newSOCKSRig(t, upstreamtest.SOCKSConfig{Behaviour: test.b}, setup{})
			for i, message := range []string{connectTo("shop.example:443"), request("GET", "http://shop.example/")} {
				c := r.dial()
				c.send(message)
				method := []string{"CONNECT", "GET"}[i]
				if response, _ := c.answer(method); response.StatusCode != map[Outcome]int{UpstreamFailed: 502, UpstreamTimeout: 504}[test.outcome] {
					t.Errorf("%s: status %d", method, response.StatusCode)
				}
				must(t, c.Close())
				if o := r.outcome(i + 1); o != test.outcome {
					t.Errorf("%s: outcome %s", method, o)
				}
				if cause := r.log.exchanges()[i]["cause"]; cause != test.cause {
					t.Errorf("%s: cause %v, want %s", method, cause, test.cause)
				}
			}
			r.idle()
		})
	}
}

// In passthrough the customer's login is the gateway's to judge.
func TestSOCKSGatewayPassthrough(t *testing.T) {
	r, gateway := newSOCKSRig(t, upstreamtest.SOCKSConfig{}, setup{unlike: true, config: func(c *Config) { c.Auth, c.Accounts = AuthPassthrough, nil }})
	echo := startEcho(t)
	c := r.dial()
	c.unlike = true
	c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: x\r\n" + basic(vendorUsername, vendorPassword) + "\r\n")
	c.expect(masking.Established)
	c.echoes()
	must(t, c.Close())
	for _, password := range []string{"another", strings.Repeat("x", 256)} {
		c := r.dial()
		c.unlike = true
		c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: x\r\n" + basic(vendorUsername, password) + "\r\n")
		if response, _ := c.answer(http.MethodConnect); response.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("a password of %d bytes: status %d", len(password), response.StatusCode)
		}
		must(t, c.Close())
	}
	if n := len(gateway.Requests()); n != 1 {
		t.Errorf("%d requests reached a target", n)
	}
	r.idle()
}

// A customer who leaves in the midst of the handshake takes everything with him.
func TestSOCKSGatewayCustomerLeaves(t *testing.T) {
	for name, step := range map[string]upstreamtest.SOCKSStep{
		"greeting": upstreamtest.SOCKSMethod, "login": upstreamtest.SOCKSLogin, "request": upstreamtest.SOCKSReply,
	} {
		t.Run(name, func(t *testing.T) {
			r, gateway := newSOCKSRig(t, upstreamtest.SOCKSConfig{Behaviour: upstreamtest.SOCKSBehaviour{Until: step, Then: upstreamtest.KeepOpen}}, setup{})
			c := r.dial()
			c.send(connectTo("shop.example:443"))
			eventually(t, "the gateway to be asked", func() bool { return gateway.Open() == 1 })
			must(t, c.Close())
			if o := r.outcome(1); o != ClientGone {
				t.Errorf("outcome %s", o)
			}
			eventually(t, "the gateway to be left", func() bool { return gateway.Open() == 0 })
			r.idle()
		})
	}
}

// Websockets and plain requests go through tunnels of their own.
func TestSOCKSGatewayWebsocketAndPlain(t *testing.T) {
	r, gateway := newSOCKSRig(t, upstreamtest.SOCKSConfig{}, setup{})
	c := r.dial()
	c.send(handshake(r.judge.URL() + "/ws?raw=1"))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("got %q", head)
	}
	c.echoes()
	must(t, c.Close())
	c = r.dial()
	for range 2 {
		if response, _ := c.get(r.judge.URL() + "/"); response.StatusCode != http.StatusOK {
			t.Errorf("status %d", response.StatusCode)
		}
	}
	if n := gateway.Accepted(); n != 2 {
		t.Errorf("%d connections, want one for the websocket and one for the requests", n)
	}
	must(t, c.Close())
	r.idle()
	if got := string(r.judge.Received()); strings.Contains(got, "http://") || strings.Contains(got, "Proxy-") {
		t.Errorf("the target got %q", got)
	}
}
