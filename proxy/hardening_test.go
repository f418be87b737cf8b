package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"maskrelay/proxy/limit"
	"maskrelay/proxy/usage"
	"maskrelay/upstream/upstreamtest"
)

// says answers any request with these bytes and keeps the connection until its end.
func says(answer string) upstreamtest.Behaviour {
	return upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		if _, err := io.WriteString(c, answer); err == nil {
			<-ctx.Done()
		}
	})
}

// sayAndClose answers any request with these bytes and closes.
func sayAndClose(answer string) upstreamtest.Behaviour {
	return upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, answer)
		_ = c.Close()
	})
}

// A target that streams 1xx while its customers leave must not meet goproxy in a map.
func TestEndlessHintsAndLeavingCustomers(t *testing.T) {
	bothWays(t, testEndlessHintsAndLeavingCustomers)
}

func testEndlessHintsAndLeavingCustomers(t *testing.T) {
	var hint strings.Builder
	hint.WriteString("HTTP/1.1 103 Early Hints\r\n")
	for i := range 400 {
		fmt.Fprintf(&hint, "X-H%d: aaaaaaaaaaaaaaaaaaaa\r\n", i)
	}
	hint.WriteString("\r\n")
	s := direct(true) // a gateway's hints wait for the final answer
	s.unlike = true
	s.vendor.Behaviour = upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		for {
			if _, err := io.WriteString(c, hint.String()); err != nil {
				return
			}
		}
	})
	r := newRig(t, s)
	var customers sync.WaitGroup
	for range 8 {
		customers.Go(func() {
			for range 15 {
				conn, err := net.Dial("tcp", r.server.Addrs()[0].String())
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = io.WriteString(conn, request("GET", "http://"+r.vendor.Addr()+"/"))
				_, _ = io.CopyN(io.Discard, conn, 60_000)
				_ = conn.Close()
			}
		})
	}
	customers.Wait()
}

// Trailers that arrive as the answer is handed on must not meet it in a map.
func TestTrailersThatComeWithTheAnswer(t *testing.T) { bothWays(t, testTrailersThatComeWithTheAnswer) }

func testTrailersThatComeWithTheAnswer(t *testing.T) {
	var names, lines strings.Builder
	for i := range 200 {
		fmt.Fprintf(&names, ", Xa%d", i)
		fmt.Fprintf(&lines, "Xa%d:1\r\n", i)
	}
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: inParts(
		"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nTrailer: Xz"+names.String()+"\r\n\r\n5\r\nhello\r\n",
		"0\r\n"+lines.String()+"\r\n",
	)}})
	var customers sync.WaitGroup
	for range 16 {
		customers.Go(func() {
			conn, err := net.Dial("tcp", r.server.Addrs()[0].String())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, request("GET", "http://shop.example/"))
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Error(err)
				return
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || string(body) != "hello" || response.Trailer.Get("Xa7") != "1" {
				t.Errorf("body %q, %v; trailers %d", body, err, len(response.Trailer))
			}
		})
	}
	customers.Wait()
}

// An answer to a body that never comes is not held up by the wait for it.
func TestReplyDoesNotWaitForTheBody(t *testing.T) { bothWays(t, testReplyDoesNotWaitForTheBody) }

func testReplyDoesNotWaitForTheBody(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")}})
	c := r.dial()
	c.send(request("POST", "http://shop.example/", "Content-Length: 100\r\n") + "1234567890")
	c.expect(r.reply(UpstreamFailed, true))
	c.ends()
	r.idle()
}

// Strangers who send half of a request each make room for those who pay.
func TestStrangersBodiesMakeRoom(t *testing.T) { bothWays(t, testStrangersBodiesMakeRoom) }

func testStrangersBodiesMakeRoom(t *testing.T) {
	r := newRig(t, setup{maxOpen: 20})
	for range 20 {
		r.dial().send("POST http://shop.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	}
	eventually(t, "full", func() bool { return r.server.open.Load() >= 20 })
	c := r.dial()
	c.send(request("GET", r.judge.URL()+"/notype"))
	if response, _ := c.answer("GET"); response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
}

// A closing reply is followed by an orderly end, whatever was sent after the request.
func TestClosingRepliesEndInOrder(t *testing.T) { bothWays(t, testClosingRepliesEndInOrder) }

func testClosingRepliesEndInOrder(t *testing.T) {
	r := newRig(t, setup{})
	tests := map[string]string{
		"400":           "CONNECT shop.example HTTP/1.1\r\n\r\n",
		"407, close":    "CONNECT shop.example:443 HTTP/1.1\r\nConnection: close\r\n\r\n",
		"407, HTTP/1.0": "CONNECT shop.example:443 HTTP/1.0\r\n\r\n",
	}
	for name, head := range tests {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(head + strings.Repeat("early", 10_000))
			if _, err := io.ReadAll(c.br); err != nil {
				t.Errorf("got %v, want an end", err)
			}
		})
	}
}

func TestBrokenBodyLooksBroken(t *testing.T) { bothWays(t, testBrokenBodyLooksBroken) }

func testBrokenBodyLooksBroken(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: sayAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo")}})
	c := r.dial()
	c.send(strings.Replace(request("GET", "http://shop.example/"), "HTTP/1.1\r\n", "HTTP/1.0\r\n", 1))
	if b, err := io.ReadAll(c.br); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q and %v, want a reset", b, err)
	}
}

// The head, and each part of a body of known length, come when the target sends them.
func TestSlowAnswerOfKnownLengthComesAsItComes(t *testing.T) {
	bothWays(t, testSlowAnswerOfKnownLengthComesAsItComes)
}

func testSlowAnswerOfKnownLengthComesAsItComes(t *testing.T) {
	steps := make(chan struct{})
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		for _, part := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "first", "other"} {
			_, _ = io.WriteString(c, part)
			select {
			case <-steps:
			case <-ctx.Done():
			}
		}
	})}})
	c := r.dial()
	c.send(request("GET", "http://shop.example/"))
	for _, part := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "first", "other"} {
		c.expect(part)
		steps <- struct{}{}
	}
}

func TestStatusWithoutAPhrase(t *testing.T) { bothWays(t, testStatusWithoutAPhrase) }

func testStatusWithoutAPhrase(t *testing.T) {
	const body = "status code 520 is what Go would say"
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: says(fmt.Sprintf(
		"HTTP/1.1 520 Web Server Returned an Unknown Error\r\nServer: cloudflare\r\nContent-Length: %d\r\n\r\n%s", len(body), body))}})
	c := r.dial()
	c.send(request("GET", "http://shop.example/"))
	c.expect(fmt.Sprintf("HTTP/1.1 520 \r\nServer: cloudflare\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
}

// A malformed body is the customer's fault, and his reply says so.
func TestMalformedChunk(t *testing.T) { bothWays(t, testMalformedChunk) }

func testMalformedChunk(t *testing.T) {
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()}})
	c := r.dial()
	c.send(request("POST", "http://shop.example/", "Transfer-Encoding: chunked\r\n") + "zz\r\nhello\r\n")
	c.expect(r.reply(BadRequest, true))
	c.ends()
}

// keyBook are shares that note whose they are asked for.
type keyBook struct {
	mu   sync.Mutex // guards keys
	keys []string
}

func (b *keyBook) Divide(_ context.Context, demands []limit.Demand) ([][2]int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	shares := make([][2]int64, len(demands))
	for i, d := range demands {
		if !slices.Contains(b.keys, d.Key) {
			b.keys = append(b.keys, d.Key)
		}
		shares[i] = [2]int64{d.Bandwidth, d.Bandwidth}
	}
	return shares, nil
}

func (b *keyBook) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.keys)
}

// Strangers' names use up no labels: only those whom the vendor has taken get one.
func TestPassthroughLabels(t *testing.T) { bothWays(t, testPassthroughLabels) }

func testPassthroughLabels(t *testing.T) {
	shares := &keyBook{}
	r := newRig(t, setup{unlike: true, config: func(c *Config) {
		c.Auth, c.Accounts, c.Shares, c.Bandwidth = AuthPassthrough, nil, shares, 1<<20
	}})
	for i := range 20 {
		c := r.dial()
		c.send("POST " + r.judge.URL() + "/digest HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n" + basic(fmt.Sprint("nobody", i), "x") + "\r\nbody")
		if response, _ := c.answer("POST"); response.StatusCode != http.StatusProxyAuthRequired {
			t.Errorf("status %d", response.StatusCode)
		}
	}
	if told := shares.told(); len(told) > 0 {
		t.Errorf("the fleet was told of strangers: %v", told)
	}
	c := r.dial()
	c.send("POST " + r.judge.URL() + "/digest HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n" + basic(vendorUsername, vendorPassword) + "\r\nbody")
	c.answer("POST")
	if told := shares.told(); len(told) != 1 || told[0] != vendorUsername {
		t.Errorf("the fleet was told of %v, want the customer", told)
	}
	n := 0
	r.server.config.Meter.Range(func(name string, c *usage.Counter) bool {
		n++
		if sent, _, connections := c.Totals(); name != vendorUsername || sent != 4 || connections != 1 {
			t.Errorf("%s sent %d bytes by %d connections", name, sent, connections)
		}
		return true
	})
	if n != 1 {
		t.Errorf("%d labels", n)
	}
}
