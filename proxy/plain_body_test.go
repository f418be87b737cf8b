package proxy

import (
	"bytes"
	"context"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// answering is a vendor that answers a plain request with text before it reads the
// body, and then sends the body back, as a chunk for each read.
func answering(text string) upstreamtest.Behaviour {
	return upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		if _, err := io.WriteString(c, text); err == nil {
			_, _ = io.Copy(c, c)
		}
	})
}

// A target may answer while the body still comes: nothing of either is lost.
func TestBothWaysAtOnce(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")}})
	c := r.dial()
	c.send(request("POST", "http://target.test/", "Transfer-Encoding: chunked\r\n"))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") || !strings.Contains(head, "Connection: close\r\n") {
		t.Errorf("got %q", head)
	}
	for range 50 {
		chunk := "400\r\n" + strings.Repeat("0123456789abcdef", 64) + "\r\n"
		c.send(chunk) // the echo of the body's framing is the answer's framing
		c.expect(chunk)
	}
	c.send("0\r\n\r\n")
	c.expect("0\r\n\r\n")
	c.ends()
	r.idle()
}

// A refusal that comes before the body is whole is delivered, and the rest of the
// body is not taken for a request.
func TestEarlyRefusalOfABody(t *testing.T) {
	for name, size := range map[string]int{"small": 2000, "large": 4 << 20} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{
				Behaviour: answering("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nbig\n"),
			}})
			c := r.dial()
			c.send(request("POST", "http://target.test/", "Content-Length: "+strconv.Itoa(size)+"\r\n") + "first bytes")
			response, body := c.answer("POST")
			if response.StatusCode != 413 || body != "big\n" || !response.Close {
				t.Errorf("got %v %q", response, body)
			}
			must(t, c.Close())
			r.idle()
		})
	}
}

// A vendor that takes the head and not the body holds nobody for ever.
func TestVendorStopsReading(t *testing.T) {
	r := newRig(t, setup{
		vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Behaviours()["stall"]},
		pool:   func(o *upstream.Options) { o.ConnectTimeout = 300 * time.Millisecond },
	})
	c := r.dial()
	c.send(request("POST", "http://target.test/", "Transfer-Encoding: chunked\r\n"))
	block := []byte("10000\r\n" + strings.Repeat("x", 1<<16) + "\r\n")
	sent := make(chan struct{})
	go func() { // until the relay has had enough
		defer close(sent)
		for {
			if _, err := c.raw.Write(block); err != nil {
				return
			}
		}
	}()
	b, _ := io.ReadAll(c.br)
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 50")) && len(b) > 0 {
		t.Errorf("got %q", b)
	}
	must(t, c.raw.Close())
	<-sent
	if o := r.outcome(1); o != UpstreamTimeout && o != UpstreamFailed {
		t.Errorf("outcome %s", o)
	}
	r.idle()
}

// A customer who stops sending his body, or leaves, takes the exchange with him.
func TestCustomerStopsSending(t *testing.T) {
	t.Run("stops", func(t *testing.T) {
		r := newRig(t, setup{config: func(c *Config) { c.IdleTimeout = 150 * time.Millisecond }})
		c := r.dial()
		c.send(request("POST", r.judge.URL()+"/digest", "Content-Length: 10\r\n") + "half")
		c.breaks()
		r.idle()
	})
	t.Run("leaves in the body", func(t *testing.T) {
		r := newRig(t, setup{})
		c := r.dial()
		c.send(request("POST", r.judge.URL()+"/digest", "Content-Length: 10\r\n") + "half")
		eventually(t, "the vendor has it", func() bool { return bytes.Contains(r.vendor.Received(), []byte("half")) })
		must(t, c.Close())
		r.idle()
	})
	t.Run("leaves before the answer", func(t *testing.T) {
		r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()}})
		c := r.dial()
		c.send(request("GET", "http://target.test/"))
		eventually(t, "the vendor has it", func() bool { return r.vendor.Open() == 1 })
		c.fin()
		c.ends() // no invented answer
		r.idle()
		if o := r.outcome(1); o != ClientGone {
			t.Errorf("outcome %s", o)
		}
		eventually(t, "the vendor's connection is closed", func() bool { return r.vendor.Open() == 0 })
	})
}

// A body that breaks off must not look whole.
func TestTargetBreaksOff(t *testing.T) {
	for name, head := range map[string]string{
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	} {
		for how, then := range map[string]upstreamtest.Ending{"close": upstreamtest.Close, "reset": upstreamtest.RST, "silence": upstreamtest.Stall} {
			t.Run(name+" "+how, func(t *testing.T) {
				r := newRig(t, setup{
					vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Bytes: []byte(head), Then: then}},
					config: func(c *Config) { c.IdleTimeout = 300 * time.Millisecond },
				})
				c := r.dial()
				c.send(request("GET", "http://target.test/"))
				if got := c.breaks(); strings.HasSuffix(got, "0\r\n\r\n") {
					t.Errorf("a cut body looks whole: %q", got)
				}
				want := UpstreamReset
				if how == "silence" {
					want = IdleTimeout
				}
				if o := r.outcome(1); o != want && (how != "reset" || o != UpstreamFailed) {
					t.Errorf("outcome %s", o)
				}
				r.idle()
			})
		}
	}
}
