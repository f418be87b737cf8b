package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

const websocketKey = "dGhlIHNhbXBsZSBub25jZQ=="

// handshake is a websocket handshake of the customer.
func handshake(url string, lines ...string) string {
	return request("GET", url, append([]string{
		"Connection: keep-alive, Upgrade\r\n", "Upgrade: websocket\r\n", "Sec-WebSocket-Version: 13\r\n",
		"Sec-WebSocket-Key: " + websocketKey + "\r\n",
	}, lines...)...)
}

func websocketRow(t *testing.T) {
	r := newRig(t, setup{})
	open := func() *customer {
		c := r.dial()
		c.send(handshake(r.judge.URL() + "/ws?raw=1"))
		response, err := http.ReadResponse(c.br, nil)
		must(t, err)
		if response.StatusCode != 101 || response.Header.Get("Sec-Websocket-Accept") != upstreamtest.AcceptKey(websocketKey) ||
			!strings.EqualFold(response.Header.Get("Upgrade"), "websocket") || !strings.EqualFold(response.Header.Get("Connection"), "upgrade") {
			t.Fatalf("got %v", response)
		}
		return c
	}
	r.run("echo, and the customer's end goes through", func(t *testing.T) {
		c := open()
		c.echoes()
		c.fin()
		c.ends()
		r.idle()
		if o := r.outcome(1); o != OK {
			t.Errorf("outcome %s", o)
		}
	})
	r.run("frames, and the target's end goes through", func(t *testing.T) {
		c := r.dial()
		c.send(handshake(r.judge.URL()+"/ws") + "\x81\x85\x00\x00\x00\x00HELLO") // early: a masked text frame
		c.head()
		c.expect("\x81\x05HELLO")
		c.send("\x88\x80\x00\x00\x00\x00")
		c.expect("\x88\x00")
		c.breaks()
		must(t, c.Close())
		r.idle()
	})
	r.run("the customer leaves without a word", func(t *testing.T) {
		c := open()
		c.echoes()
		c.reset()
		r.idle()
	})
	r.run("no proxy login, no telling field reaches the target", func(t *testing.T) {
		c := r.dial()
		c.send(handshake(r.judge.URL()+"/ws?raw=1", "X-Forwarded-For: 192.0.2.7\r\n"))
		c.head()
		if s := string(r.judge.Received()); strings.Contains(strings.ToLower(s), "proxy-authorization") {
			t.Errorf("the target received %q", s)
		}
	})
	r.run("the target refuses", func(t *testing.T) {
		c := r.dial()
		c.send(handshake(r.judge.URL() + "/status?code=403"))
		if response, body := c.answer("GET"); response.StatusCode != 403 || body != "the target says 403\n" {
			t.Errorf("got %s %q", response.Status, body)
		}
		if response, _ := c.get(r.judge.URL() + "/notype"); response.StatusCode != 200 { // the connection lives on
			t.Errorf("then %s", response.Status)
		}
	})
}

func TestWebsocketUpstreamFails(t *testing.T) { bothWays(t, testWebsocketUpstreamFails) }

func testWebsocketUpstreamFails(t *testing.T) {
	for name, want := range map[string]Outcome{
		"407": UpstreamFailed, "503": UpstreamFailed, "silent": UpstreamTimeout, "connect-body-length": UpstreamFailed,
		"close-before-reply": UpstreamFailed, "tunnel-silent": UpstreamTimeout, "tunnel-close-at-once": UpstreamFailed,
		"garbage": UpstreamFailed,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{
				vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Behaviours()[name]},
				config: func(c *Config) { c.ConnectTimeout = 200 * time.Millisecond },
				pool:   func(o *upstream.Options) { o.ConnectTimeout = 200 * time.Millisecond },
			})
			c := r.dial()
			c.send(handshake("http://target.test/ws"))
			c.expect(r.reply(want, false))
			eventually(t, "no connection to the vendor is left", func() bool { return r.vendor.Open() == 0 })
			c.send(request("OPTIONS", "http://target.test/", "Max-Forwards: 0\r\n"))
			c.expect(r.reply(BadRequest, true)) // the connection was kept
		})
	}
}

// A customer who leaves during the handshake takes the upstream connection with him.
func TestWebsocketCustomerLeaves(t *testing.T) { bothWays(t, testWebsocketCustomerLeaves) }

func testWebsocketCustomerLeaves(t *testing.T) {
	reached := make(chan struct{}, 1)
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(
		func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			if _, err := c.Read(make([]byte, 1)); err == nil {
				reached <- struct{}{}
			}
			_, _ = io.Copy(io.Discard, c)
		})}})
	c := r.dial()
	c.send(handshake("http://target.test/ws"))
	<-reached
	must(t, c.Close())
	eventually(t, "the vendor's connection is closed", func() bool { return r.vendor.Open() == 0 })
	r.idle()
	if o := r.outcome(1); o != ClientGone {
		t.Errorf("outcome %s", o)
	}
}
