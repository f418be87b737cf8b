package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"maskrelay/masking"
)

// Whatever net/http says by itself to a head, the customer gets a reply of ours,
// byte for byte what a handler would have sent on a connection that ends.
func TestHeadsThatAreRefused(t *testing.T) { bothWays(t, testHeadsThatAreRefused) }

func testHeadsThatAreRefused(t *testing.T) {
	r := newRig(t, setup{})
	long := strings.Repeat("X-Padding: "+strings.Repeat("p", 1000)+"\r\n", 60)
	for _, one := range []struct {
		name, head string
		outcome    Outcome
	}{
		{"garbage", "\x00\x01\x02\r\n\r\n", BadRequest},
		{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", BadRequest},
		{"no version", "GET http://target.test/\r\n\r\n", BadRequest},
		{"HTTP/2.0", "GET http://target.test/ HTTP/2.0\r\n\r\n", BadRequest},
		{"HTTP/3.0", "GET http://target.test/ HTTP/3.0\r\nHost: target.test\r\n\r\n", BadRequest},
		{"odd version", "GET http://target.test/ HTTQ/1.1\r\n\r\n", BadRequest},
		{"control byte in the target", "GET http://target.test/\x01 HTTP/1.1\r\nHost: target.test\r\n\r\n", BadRequest},
		{"control byte in a field", "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\nX-A: \x00\r\n\r\n", BadRequest},
		{"space before colon", "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\nX-A : b\r\n\r\n", BadRequest},
		{"no colon", "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\nX-A\r\n\r\n", BadRequest},
		{"no Host", "GET http://target.test/ HTTP/1.1\r\n\r\n", BadRequest},
		{"two Hosts", "GET http://target.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", BadRequest},
		{"bad Host", "GET http://target.test/ HTTP/1.1\r\nHost: a b/c\r\n\r\n", BadRequest},
		{"unknown expectation", "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\nExpect: tea\r\n\r\n", BadRequest},
		{"unknown coding", "POST http://target.test/ HTTP/1.1\r\nHost: target.test\r\nTransfer-Encoding: tea\r\n\r\n", BadRequest},
		{"two lengths", "POST http://target.test/ HTTP/1.1\r\nHost: target.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", BadRequest},
		{"bad length", "POST http://target.test/ HTTP/1.1\r\nHost: target.test\r\nContent-Length: -1\r\n\r\n", BadRequest},
		{"huge head", "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\n" + long + "\r\n", HeadTooLarge},
		{"10,000 lines", "GET http://target.test/ HTTP/1.1\r\nHost: target.test\r\n" + strings.Repeat("X: y\r\n", 10_000) + "\r\n", HeadTooLarge},
		{"huge line", "GET http://target.test/" + strings.Repeat("p", 60_000) + " HTTP/1.1\r\nHost: target.test\r\n\r\n", HeadTooLarge},

		{"origin-form", "GET / HTTP/1.1\r\nHost: target.test\r\n" + login() + "\r\n", BadRequest},
		{"asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: target.test\r\n" + login() + "\r\n", BadRequest},
		{"https", request("GET", "https://target.test/"), BadRequest},
		{"ftp", request("GET", "ftp://target.test/"), BadRequest},
		{"user information", request("GET", "http://user:password@target.test/"), BadRequest},
		{"fragment", request("GET", "http://target.test/#part"), BadRequest},
		{"opaque", "GET http:target.test HTTP/1.1\r\nHost: target.test\r\n" + login() + "\r\n", BadRequest},
		{"empty port", "GET http://target.test:/ HTTP/1.1\r\nHost: target.test\r\n" + login() + "\r\n", BadRequest},
		{"port 0", request("GET", "http://target.test:0/"), BadRequest},
		{"no host", "GET http:///path HTTP/1.1\r\nHost: target.test\r\n" + login() + "\r\n", BadRequest},
		{"zone", "GET http://[fe80::1%25eth0]/ HTTP/1.1\r\nHost: target.test\r\n" + login() + "\r\n", BadRequest},
		{"TRACE", request("TRACE", "http://target.test/"), BadRequest},
		{"OPTIONS for us", request("OPTIONS", "http://target.test/", "Max-Forwards: 0\r\n"), BadRequest},
	} {
		r.run(one.name, func(t *testing.T) {
			c := r.dial()
			c.send(one.head)
			c.expect(r.reply(one.outcome, true))
			c.ends()
		})
	}
	if n := r.vendor.Accepted(); n != 0 {
		t.Errorf("the vendor was asked %d times", n)
	}
	for _, x := range r.log.exchanges() {
		if status := fmt.Sprint(x["status"]); status != "400" && status != "431" {
			t.Errorf("logged with status %s", status)
		}
	}
	r.idle()
}

func TestSlowHead(t *testing.T) { bothWays(t, testSlowHead) }

func testSlowHead(t *testing.T) {
	for name, head := range map[string]string{"request line": "GET ht", "fields": "GET http://target.test/ HTTP/1.1\r\nHost:"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 100 * time.Millisecond }})
			c := r.dial()
			c.send(head)
			c.expect(r.reply(HeadTimeout, true))
			c.ends()
			must(t, c.Close())
			if o := r.outcome(1); o != HeadTimeout {
				t.Errorf("outcome %s", o)
			}
			r.idle()
		})
	}
	t.Run("not a byte", func(t *testing.T) {
		r := newRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 100 * time.Millisecond }})
		c := r.dial()
		c.ends() // nothing was asked
		r.idle()
	})
	t.Run("second head", func(t *testing.T) {
		r := newRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 100 * time.Millisecond }})
		c := r.dial()
		c.get(r.judge.URL() + "/notype")
		c.send("GET http://targ")
		c.expect(r.reply(HeadTimeout, true))
		c.ends()
		must(t, c.Close())
		r.idle()
	})
}

func TestConnectTargets(t *testing.T) { bothWays(t, testConnectTargets) }

func testConnectTargets(t *testing.T) {
	r := newRig(t, setup{})
	for name, target := range map[string]string{
		"no port": "target.test", "empty port": "target.test:", "port 0": "target.test:0", "port 65536": "target.test:65536",
		"leading zero": "target.test:0443", "sign": "target.test:+443", "name as port": "target.test:https", "no host": ":443",
		"user information": "user@target.test:443", "user and password": "user:pw@target.test:443", "path": "target.test:443/",
		"query": "target.test:443?q", "absolute-form": "http://target.test:443", "absolute-form https": "https://target.test:443/",
		"origin-form": "/target.test:443", "two ports": "target.test:80:443", "bare IPv6": "::1:443", "unclosed": "[::1:443",
		"brackets around IPv4": "[127.0.0.1]:443", "brackets around a name": "[target.test]:443", "zone": "[fe80::1%25eth0]:443",
		"bracket without port": "[::1]", "after the bracket": "[::1]x:443", "escape": "target%2etest:443", "space": "target .test:443",
		"comma": "a,b:443", "asterisk": "*:443", "star name": "*.test:443", "empty label": "target..test:443", "8 bit": "t\xe4rget.test:443",
		"five numbers": "1.2.3.4.5:443", "number too big": "256.1.1.1:443", "hex overflow": "0x17f000001:443", "last label a number": "target.1:443",
		"NUL": "target\x00.test:443", "tab": "target\t.test:443",
	} {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(connectTo(target))
			c.expect(r.reply(BadRequest, true))
			c.ends()
		})
	}
	if n := r.vendor.Accepted(); n != 0 {
		t.Errorf("the vendor was asked %d times", n)
	}
}

// What real clients send, though it is not all that the RFCs want.
func TestConnectAsClientsSendIt(t *testing.T) { bothWays(t, testConnectAsClientsSendIt) }

func testConnectAsClientsSendIt(t *testing.T) {
	r := newRig(t, setup{})
	echo := startEcho(t).Addr()
	for name, head := range map[string]string{
		"usual":                 connectTo(echo),
		"HTTP/1.0 without Host": "CONNECT " + echo + " HTTP/1.0\r\n" + login() + "\r\n",
		"HTTP/1.1 without Host": "CONNECT " + echo + " HTTP/1.1\r\n" + login() + "\r\n",
		"Host without port":     "CONNECT " + echo + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + login() + "\r\n",
		"another Host":          "CONNECT " + echo + " HTTP/1.1\r\nHost: other.test\r\n" + login() + "\r\n",
		"Connection: close":     connectTo(echo, "Connection: close\r\n"),
		"keep-alive":            connectTo(echo, "Proxy-Connection: Keep-Alive\r\n", "Connection: Keep-Alive\r\n"),
		"Content-Length: 0":     connectTo(echo, "Content-Length: 0\r\n"),
	} {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(head)
			c.expect(masking.Established)
			c.echoes()
			c.fin()
			c.ends()
		})
		r.run(name+" with early bytes", func(t *testing.T) {
			c := r.dial()
			c.send(head + "early")
			c.expect(masking.Established + "early")
			c.echoes()
		})
	}
	r.run("in pieces", func(t *testing.T) {
		c := r.dial()
		for _, piece := range strings.SplitAfter(connectTo(echo), "\n") {
			c.send(piece)
		}
		c.expect(masking.Established)
		c.echoes()
	})
}

// A plain request behind another in one packet is served too, and what follows it
// as no request gets our words, not net/http's.
func TestPipelined(t *testing.T) { bothWays(t, testPipelined) }

func testPipelined(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	one := request("GET", r.judge.URL()+"/notype")
	c.send(one + one + "no request\r\n\r\n")
	for range 2 {
		if response, _ := c.answer("GET"); response.StatusCode != 200 {
			t.Errorf("got %s", response.Status)
		}
	}
	c.expect(r.reply(BadRequest, true))
	c.ends()
}

// A connection that carries a request is never closed to make room, even if the
// request came in the packet of one that was refused.
func TestPipelinedIsNotEvicted(t *testing.T) { bothWays(t, testPipelinedIsNotEvicted) }

func testPipelinedIsNotEvicted(t *testing.T) {
	r := newRig(t, setup{maxOpen: 1})
	c := r.dial()
	c.send("GET " + r.judge.URL() + "/ HTTP/1.1\r\nHost: x\r\n\r\n" + request("GET", r.judge.URL()+"/slow?delay=200ms"))
	eventually(t, "the second is at the target", func() bool { return r.judge.Open() == 1 })
	late := r.dial()
	late.expect(r.reply(RelayFull, true))
	c.expect(r.reply(AuthRequired, false))
	if response, body := c.answer("GET"); response.StatusCode != 200 || body != "at last\n" {
		t.Errorf("got %s %q", response.Status, body)
	}
}
