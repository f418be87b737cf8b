package proxy

import (
	"context"
	"io"
	"strings"
	"testing"

	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// A reply of a relay that drains is the one of any connection that ends, and ends like it.
func TestReplyWhileDraining(t *testing.T) { bothWays(t, testReplyWhileDraining) }

func testReplyWhileDraining(t *testing.T) {
	asked, refuse := make(chan struct{}), make(chan struct{})
	r := newRig(t, setup{
		vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
			close(asked)
			<-refuse
			_ = c.Close()
		})},
		config: func(c *Config) { c.DrainTimeout = patience },
		pool:   func(o *upstream.Options) { o.ConnectTimeout = patience },
	})
	c := r.dial()
	c.send(request("GET", "http://target.test/"))
	<-asked
	r.stop()
	eventually(t, "no more connections", func() bool { return refuses(t, r.server.Addrs()[0].String()) })
	close(refuse)
	c.expect(r.reply(UpstreamFailed, true))
	c.ends()
}

// How much of a body an upstream has taken before it failed is not seen in the end of the
// connection.
func TestEndDoesNotTellWhatWasRead(t *testing.T) { bothWays(t, testEndDoesNotTellWhatWasRead) }

func testEndDoesNotTellWhatWasRead(t *testing.T) {
	body := strings.Repeat("b", 400<<10)
	for name, takes := range map[string]int64{"nothing": 0, "a part": 100 << 10, "all": int64(len(body))} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
				_, _ = io.CopyN(io.Discard, c, takes)
				_, _ = io.WriteString(c, "HTTP/1.1 407 NO_USER\r\nContent-Length: 0\r\n\r\n")
				_ = c.Close()
			})}})
			c := r.dial()
			c.send(request("POST", "http://target.test/", "Content-Length: 409600\r\n") + body)
			c.expect(r.reply(UpstreamFailed, true))
			c.ends()
		})
	}
}

// A reply arrives, and the connection ends in order, however much of an upload is unread.
func TestReplyToALongUpload(t *testing.T) { bothWays(t, testReplyToALongUpload) }

func testReplyToALongUpload(t *testing.T) {
	r, _ := recorderRig(t)
	for name, one := range map[string]struct {
		head  string
		reply Outcome
	}{
		"refused":      {request("POST", "http://denied.example/", "Content-Length: 5242880\r\n"), TargetDenied},
		"not in order": {request("POST", "http://target.test/", "Content-Length: 5242880\r\nX : y\r\n"), BadRequest},
	} {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(one.head + strings.Repeat("b", 5<<20))
			c.expect(r.reply(one.reply, true))
			c.ends()
		})
	}
}

// What is sent behind a connection's last request does not destroy the answer.
func TestBytesBehindTheLastRequest(t *testing.T) { bothWays(t, testBytesBehindTheLastRequest) }

func testBytesBehindTheLastRequest(t *testing.T) {
	r, _ := recorderRig(t)
	for name, head := range map[string]string{
		"HTTP/1.0": strings.Replace(plainGet("\r\n"), "HTTP/1.1", "HTTP/1.0", 1),
		"close":    plainGet("Connection: close\r\n\r\n"),
	} {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(head + strings.Repeat(hidden(), 200))
			if b, err := io.ReadAll(c.br); err != nil || !strings.HasSuffix(string(b), "\r\n\r\nok") {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}
