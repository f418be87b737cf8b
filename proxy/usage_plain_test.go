package proxy

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"maskrelay/proxy/usage"
	"maskrelay/upstream/upstreamtest"
)

// totals are a customer's, all 0 if nothing of his was counted.
func (r *rig) totals(name string) (sent, received, connections int64) {
	if c := r.server.config.Meter.Find(name); c != nil {
		return c.Totals()
	}
	return 0, 0, 0
}

// A body is counted as it comes, whether or not it is ever answered: it may be endless.
func TestUploadIsCountedAsItComes(t *testing.T) { bothWays(t, testUploadIsCountedAsItComes) }

func testUploadIsCountedAsItComes(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()}})
	c := r.dial()
	c.send(request("POST", "http://target.test/", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n")
	eventually(t, "the first bytes are counted", func() bool { sent, _, n := r.totals(customerName); return sent == 5 && n == 1 })
	c.send("6\r\n world\r\n")
	eventually(t, "the next bytes are counted", func() bool { sent, _, n := r.totals(customerName); return sent == 11 && n == 1 })
	c.reset()
	r.idle()
	if sent, received, n := r.totals(customerName); sent != 11 || received != 0 || n != 1 {
		t.Errorf("%d sent, %d received, %d connections", sent, received, n)
	}
}

// An upload that has no answer ends with its quota.
func TestQuotaEndsAnUpload(t *testing.T) { bothWays(t, testQuotaEndsAnUpload) }

func testQuotaEndsAnUpload(t *testing.T) {
	s := setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()}}
	books, server := usedUp(t, &s)
	r := newRig(t, s)
	*server = r.server
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); books.Run(ctx) }()
	defer func() { stop(); <-done }()
	c := r.dial()
	c.send(request("POST", "http://target.test/", "Transfer-Encoding: chunked\r\n") + "7d0\r\n" + strings.Repeat("x", 2000) + "\r\n")
	c.breaks()
}

// A connection is counted once, with its first answer, be that one without a body.
func TestConnectionsAreCounted(t *testing.T) { bothWays(t, testConnectionsAreCounted) }

func testConnectionsAreCounted(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: sayAndClose("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")}})
	for i := range 2 {
		c := r.dial()
		for range 3 {
			c.send(request("GET", "http://target.test/"))
			if response, _ := c.answer("GET"); response.StatusCode != http.StatusNoContent {
				t.Fatalf("status %d", response.StatusCode)
			}
		}
		eventually(t, "the connection is counted", func() bool { _, _, n := r.totals(customerName); return n == int64(i+1) })
	}
}

// A passthrough's customer whose quota is used up is refused under every spelling of his
// login.
func TestQuotaOfAPassthrough(t *testing.T) { bothWays(t, testQuotaOfAPassthrough) }

func testQuotaOfAPassthrough(t *testing.T) {
	s := setup{unlike: true}
	books, server := usedUp(t, &s)
	with := s.config
	s.config = func(c *Config) { with(c); c.Auth, c.Accounts = AuthPassthrough, nil }
	r := newRig(t, s)
	*server = r.server
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); books.Run(ctx) }()
	defer func() { stop(); <-done }()
	line := basic(vendorUsername, vendorPassword)
	echo := startEcho(t).Addr()
	connect := func(line string) string { return fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: x\r\n%s\r\n", echo, line) }
	c := r.dial()
	c.send(connect(line))
	c.expect(string(established))
	c.send(strings.Repeat("x", 2000))
	c.breaks()
	for _, spelling := range []string{"Basic", "basic", "BASIC"} {
		again := r.dial()
		again.send(connect(strings.Replace(line, "Basic", spelling, 1)))
		again.expect(r.reply(QuotaUsed, false))
	}
	r.server.config.Meter.Range(func(name string, _ *usage.Counter) bool {
		if name != vendorUsername {
			t.Errorf("%s has a counter", name)
		}
		return true
	})
}
