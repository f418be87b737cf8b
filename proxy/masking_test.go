package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/masking"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// TestEveryVendor sends a CONNECT, a plain request and a websocket handshake, all
// full of the customer's marks, through every behaviour of a vendor. The rig scans
// what either end received.
func TestEveryVendor(t *testing.T) {
	echo := startEcho(t)
	for name, behaviour := range upstreamtest.Behaviours() {
		patient := 300 * time.Millisecond // with what never comes
		if strings.HasPrefix(name, "relay") {
			patient = 5 * time.Second
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{
				vendor: upstreamtest.VendorConfig{Behaviour: behaviour},
				config: func(c *Config) { c.IdleTimeout, c.ConnectTimeout = patient, patient },
				pool:   func(o *upstream.Options) { o.ConnectTimeout = patient },
			})
			telling := []string{
				"X-Forwarded-For: 192.0.2.7\r\n",
				"Forwarded: for=192.0.2.7\r\n", "Proxy-Connection: keep-alive\r\n", "X-Real-IP: 192.0.2.7\r\n",
			}
			connectThrough(t, r, name, connectTo(echo.Addr(), append(telling, "User-Agent: customer-agent/1\r\n")...))
			c := r.dial()
			// A vendor that answers 2xx in the target's place cannot be told from the target.
			c.unlike = slices.Contains([]string{"connect-body-length", "connect-body-chunked", "error-in-200", "folded-line"}, name)
			c.send(request("GET", r.judge.URL()+"/notype", append(telling, "Connection: close\r\n")...))
			received(t, c, name)
			c = r.dial()
			c.send(handshake(r.judge.URL()+"/ws?raw=1", telling...))
			c.head()
			_ = c.raw.CloseWrite() // a reset may have been quicker
			received(t, c, name)
			if b := r.vendor.Received(); strings.Contains(string(b), "192.0.2.7") {
				t.Errorf("the vendor received %q", b)
			}
		})
	}
}

// connectThrough sends a CONNECT and some bytes, and checks the relay's answer:
// the constant 200, or one whole reply of the table.
func connectThrough(t *testing.T, r *rig, name, head string) {
	t.Helper()
	c := r.dial()
	c.send(head + "bytes of the customer")
	_ = c.raw.CloseWrite() // a reset may have been quicker
	got := received(t, c, name)
	opens := strings.HasPrefix(name, "relay") || strings.HasPrefix(name, "tunnel")
	if (name == "no-colon" || name == "nul-in-head") && got == masking.Established {
		return // a sloppy field is nobody's harm: the head is dropped with all that is in it
	}
	if opens {
		if !strings.HasPrefix(got, masking.Established) && got != "" { // a reset may overtake the 200
			t.Errorf("got %q, want a tunnel", got)
		}
		return
	}
	if !slices.Contains([]string{r.reply(UpstreamFailed, true), r.reply(UpstreamTimeout, true)}, got) {
		t.Errorf("got %q, want a reply of ours", got)
	}
}

// received reads to the end, however it comes.
func received(t *testing.T, c *customer, name string) string {
	t.Helper()
	b, err := io.ReadAll(c.br)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s: the connection is still open; got %q", name, b)
	}
	return string(b)
}

// Vendors' pages and fields on forwarded answers stay behind, the target's own pass.
func TestForwardedAnswers(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	for _, code := range []string{"200", "301", "404", "410", "429", "500", "502", "503"} {
		response, body := c.get(r.judge.URL() + "/status?code=" + code)
		if got := response.Status[:3]; got != code || body != "the target says "+code+"\n" {
			t.Errorf("%s: got %s %q", code, got, body)
		}
		for name := range response.Header {
			if !slices.Contains([]string{"Content-Type", "Content-Length", "Date", "Connection"}, name) {
				t.Errorf("%s: the customer received %s", code, name)
			}
		}
	}
}

// direct makes a pool that dials targets itself.
func direct(allow bool) setup {
	targets, err := NewTargets(TargetsConfig{AllowPrivate: allow})
	if err != nil {
		panic(err)
	}
	return setup{
		gateways: []upstream.GatewayConfig{{URL: upstream.Direct}},
		config:   func(c *Config) { c.Targets = targets },
		pool:     func(o *upstream.Options) { o.CheckAddr = targets.CheckAddr },
	}
}

// A name that passes the gate is checked again by the address that it resolves to.
func TestDirectChecksTheAddress(t *testing.T) {
	r := newRig(t, direct(false))
	echo := startEcho(t)
	_, port, err := net.SplitHostPort(echo.Addr())
	must(t, err)
	name := loopbackName(t)
	c := r.dial()
	c.send(connectTo(net.JoinHostPort(name, port)))
	c.expect(r.reply(TargetDenied, true))
	c.ends()
	c = r.dial()
	c.send(request("GET", "http://"+net.JoinHostPort(name, port)+"/"))
	c.expect(r.reply(TargetDenied, false))
	c = r.dial()
	c.send(handshake("http://" + net.JoinHostPort(name, port) + "/"))
	c.expect(r.reply(TargetDenied, false))
	if n := echo.Accepted(); n != 0 {
		t.Errorf("the target was dialled %d times", n)
	}
}

// loopbackName is a name that the gate lets pass and this machine resolves to loopback.
func loopbackName(t *testing.T) string {
	t.Helper()
	targets, err := NewTargets(TargetsConfig{})
	must(t, err)
	host, err := net.DefaultResolver.LookupAddr(t.Context(), "127.0.0.1")
	must(t, err)
	for _, name := range append(host, "ip6-loopback", "localhost") {
		name = strings.TrimSuffix(name, ".")
		addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", name)
		if err != nil || slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !a.IsLoopback() }) {
			continue
		}
		if targets.Allow(Target{Host: name, Port: 443}) {
			return name
		}
	}
	return ""
}

func TestDirect(t *testing.T) {
	s := direct(true)
	s.unlike = true // the target is the vendor's side here
	r := newRig(t, s)
	c := r.dial()
	seen := c.seen(r.judge.URL()+"/?q=1", "X-Forwarded-For: 192.0.2.7\r\n")
	if seen.Target != "/?q=1" {
		t.Errorf("the target got %q, not origin-form", seen.Target)
	}
	response, _ := c.get(r.judge.URL() + "/status?code=407")
	if response.StatusCode != http.StatusProxyAuthRequired && response.StatusCode != http.StatusBadGateway {
		t.Errorf("got %s", response.Status)
	}
	c = r.dial()
	c.connect(startEcho(t).Addr())
	c.echoes()
}
