package proxy

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"maskrelay/upstream/upstreamtest"
)

// doors are the ways in by which customers come.
func doors(t *testing.T, s setup, f func(t *testing.T, r *rig, dial func() *customer)) {
	t.Helper()
	t.Run("plain", func(t *testing.T) {
		r := newRig(t, s)
		f(t, r, r.dial)
	})
	t.Run("TLS", func(t *testing.T) {
		r, ca := tlsRig(t, s)
		f(t, r, func() *customer { return r.dialAt(0, trusting(ca)) })
	})
	t.Run("balancer", func(t *testing.T) {
		s.config = balanced
		r := newRig(t, s)
		f(t, r, func() *customer {
			c := r.dial()
			c.send("PROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\n")
			return c
		})
	})
}

// A customer who leaves while the vendor is silent, or in the midst of an answer, takes
// the exchange with him, however he leaves.
func TestCustomerLeaves(t *testing.T) {
	begun := []byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning")
	heads := map[string]string{
		"GET":  request("GET", "http://target.test/"),
		"POST": request("POST", "http://target.test/", "Content-Length: 5\r\n") + "HELLO",
	}
	leaves := map[string]func(c *customer){"end": (*customer).fin, "reset": (*customer).reset}
	for _, text := range [][]byte{nil, begun} {
		s := setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Bytes: text}}}
		for name, head := range heads {
			for how, leave := range leaves {
				t.Run(fmt.Sprintf("%s, %d bytes, %s", name, len(text), how), func(t *testing.T) {
					t.Parallel()
					doors(t, s, func(t *testing.T, r *rig, dial func() *customer) {
						c := dial()
						c.send(head)
						if text != nil {
							c.head()
						}
						eventually(t, "the vendor has the request", func() bool { return strings.Contains(string(r.vendor.Received()), "\r\n\r\n") })
						leave(c)
						r.idle()
						if o := r.outcome(1); o != ClientGone {
							t.Errorf("outcome %s", o)
						}
						eventually(t, "the vendor's connection is closed", func() bool { return r.vendor.Open() == 0 })
					})
				})
			}
		}
	}
}

// An exchange that lasted leaves the connection as it was: what has come meanwhile is
// the next request, and nothing of it is lost.
func TestNextRequestAfterALongOne(t *testing.T) {
	doors(t, setup{}, func(t *testing.T, r *rig, dial func() *customer) {
		c := dial()
		slow := request("POST", r.judge.URL()+"/slow?delay=60ms", "Content-Length: 5\r\n") + "HELLO"
		for range 3 {
			c.send(slow)
			c.answer("POST")
		}
		c.send(slow)
		eventually(t, "the vendor has it", func() bool { return strings.Count(string(r.vendor.Received()), "HELLO") == 4 })
		c.send("GET " + r.judge.URL() + "/notype HTTP/1.1\r\nHost: x\r\n") // half of the next one
		if response, _ := c.answer("POST"); response.StatusCode != 200 {
			t.Errorf("got %s", response.Status)
		}
		c.send(login() + "\r\n")
		if response, body := c.answer("GET"); response.StatusCode != 200 || body != "<html>untyped and undated</html>\n" {
			t.Errorf("then %s %q", response.Status, body)
		}
	})
}

// Requests that come in one packet are served one after the other, and the last one's
// customer may leave too.
func TestPipelinedRequests(t *testing.T) {
	var requests int // of one connection, one after the other
	s := setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		for {
			if requests++; requests <= 2 {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
			if _, err := c.ReadRequest(); err != nil {
				return
			}
		}
	})}}
	r := newRig(t, s)
	c := r.dial()
	one := request("GET", "http://target.test/")
	c.send(one + one)
	for range 2 {
		if _, body := c.answer("GET"); body != "ok" {
			t.Errorf("got %q", body)
		}
	}
	c.send(one)
	eventually(t, "the vendor has the third", func() bool { return strings.Count(string(r.vendor.Received()), "\r\n\r\n") == 3 })
	must(t, c.Close())
	r.idle()
	if o := r.outcome(3); o != ClientGone {
		t.Errorf("outcome %s", o)
	}
}

// A websocket's handshake that lasted leaves nobody reading what is the tunnel's.
func TestWebsocketAfterALongHandshake(t *testing.T) {
	release := make(chan struct{})
	doors(t, setup{}, func(t *testing.T, r *rig, dial func() *customer) {
		r.vendor.SetBehaviour(upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			<-release
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(c, c)
		}))
		c := dial()
		c.send(handshake("http://target.test/ws"))
		eventually(t, "somebody looks for the customer's end", func() bool { return watching(r.server) || c.Conn != c.raw || !canWatch })
		release <- struct{}{}
		if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
			t.Errorf("got %q", head)
		}
		c.echoes()
	})
}

// watching reports whether a watch has begun on any connection.
func watching(s *Server) bool {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	for c := range s.conns {
		if w := c.watch.Load(); w != nil {
			w.mu.Lock()
			begun := w.ended != nil
			w.mu.Unlock()
			if begun {
				return true
			}
		}
	}
	return false
}
