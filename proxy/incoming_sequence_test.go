package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"maskrelay/masking"
	"maskrelay/upstream/upstreamtest"
)

// Requests of all framings on one connection, in one packet or byte by byte, are each
// exactly one request.
func TestRequestsInARow(t *testing.T) { bothWays(t, testRequestsInARow) }

func testRequestsInARow(t *testing.T) {
	r, g := recorderRig(t)
	row := plainGet("\r\n") + plainPost("Content-Length: 5\r\n\r\nhello") + plainPost("Transfer-Encoding: chunked\r\n\r\n"+hello) +
		"\r\n" + plainGet("Content-Length: 0\r\n\r\n") + plainPost("Content-Length: 3\r\n\r\n\r\n\r") + hidden()
	want := []string{askedGet, askedPost + "hello", askedPost + "hello", askedGet, askedPost + "\r\n\r", askedSmuggled}
	for name, send := range map[string]func(*customer, string){"one packet": (*customer).send, "byte by byte": (*customer).sentInBytes} {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				send(c, row)
			}()
			for range want {
				if _, body := c.answer(""); body != "ok" {
					t.Errorf("got %q", body)
				}
			}
			<-sent
			canonical(t, g, want)
		})
	}
	r.run("one after the other", func(t *testing.T) {
		c := r.dial()
		for range 3 {
			c.send(plainPost("Transfer-Encoding: chunked\r\n\r\n" + hello))
			c.answer("")
			c.send(plainPost("Content-Length: 5\r\n\r\n"))
			c.send("hello")
			c.answer("")
		}
		canonical(t, g, []string{askedPost + "hello", askedPost + "hello", askedPost + "hello", askedPost + "hello", askedPost + "hello", askedPost + "hello"})
	})
}

// What follows a refused request is the next message if the connection lives on, and
// nothing if it does not. A refused request's body is never a request.
func TestBehindRefusals(t *testing.T) { bothWays(t, testBehindRefusals) }

func testBehindRefusals(t *testing.T) {
	r, g := recorderRig(t)
	stranger := func(rest string) string {
		return "POST http://shop.example/a HTTP/1.1\r\nHost: shop.example\r\n" + rest
	}
	denied := "POST http://denied.example/a HTTP/1.1\r\nHost: shop.example\r\n" + login()
	asBody := strings.ReplaceAll(hidden(), "smuggled", "a body")
	for name, one := range map[string]struct {
		send   string
		reply  Outcome
		closes bool
	}{
		"407":                   {stranger("\r\n"), AuthRequired, false},
		"407 and a body":        {stranger("Content-Length: 5\r\n\r\nhello"), AuthRequired, false},
		"407 and chunks":        {stranger("Transfer-Encoding: chunked\r\n\r\n" + hello), AuthRequired, false},
		"407 and a request":     {stranger("Content-Length: " + strconv.Itoa(len(asBody)) + "\r\n\r\n" + asBody), AuthRequired, false},
		"407 and broken chunks": {stranger("Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"), AuthRequired, true},
		"407 and Expect":        {stranger("Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"), AuthRequired, true},
		"407, close":            {stranger("Connection: close\r\n\r\n"), AuthRequired, true},
		"403":                   {denied + "Content-Length: 5\r\n\r\nhello", TargetDenied, true},
		"403 and chunks":        {denied + "Transfer-Encoding: chunked\r\n\r\n" + hello, TargetDenied, true},
		"403 without a body":    {request("GET", "http://denied.example/"), TargetDenied, false},
		"403 of a CONNECT":      {connectTo("denied.example:443"), TargetDenied, true},
		"400":                   {stranger("X : y\r\n\r\n"), BadRequest, true},
		"400 by the target":     {request("GET", "ftp://shop.example/"), BadRequest, true},
		"400 of a CONNECT":      {connectTo("shop.example"), BadRequest, true},
		"431":                   {stranger(strings.Repeat("X: y\r\n", 10_000)), HeadTooLarge, true},
		"431 by size":           {stranger("X: " + strings.Repeat("y", 1<<16)), HeadTooLarge, true},
	} {
		r.run(name, func(t *testing.T) {
			c := r.dial()
			c.send(one.send + hidden())
			c.expect(r.reply(one.reply, one.closes))
			if one.closes {
				c.ends()
				canonical(t, g, nil)
				return
			}
			if _, body := c.answer(""); body != "ok" {
				t.Errorf("got %q", body)
			}
			canonical(t, g, []string{askedSmuggled})
		})
	}
}

// A connection of HTTP/1.0 carries one request, whatever it asks for (RFC 9112 §9.3).
func TestHTTP10IsNotKept(t *testing.T) { bothWays(t, testHTTP10IsNotKept) }

func testHTTP10IsNotKept(t *testing.T) {
	r, g := recorderRig(t)
	c := r.dial()
	c.send(strings.Replace(plainGet("Connection: keep-alive\r\nProxy-Connection: keep-alive\r\n\r\n"), "HTTP/1.1", "HTTP/1.0", 1))
	b, err := io.ReadAll(c.br)
	must(t, err)
	if s := string(b); !strings.HasSuffix(s, "\r\n\r\nok") || strings.Contains(strings.ToLower(s), "keep-alive") {
		t.Errorf("got %q", s)
	}
	canonical(t, g, []string{askedGet})

	c = r.dial()
	c.send(strings.Replace(plainGet("Connection: keep-alive\r\n\r\n"), "HTTP/1.1", "HTTP/1.0", 1) + hidden())
	c.breaks()
	canonical(t, g, []string{askedGet})
}

// What a customer sends behind a CONNECT is the tunnel's, to the byte, whenever it comes.
func TestEarlyBytesOverTLS(t *testing.T) {
	echo := startEcho(t)
	gate := make(chan struct{}, 1)
	r, ca := tlsRig(t, setup{vendor: upstreamtest.VendorConfig{
		Username: vendorUsername, Password: vendorPassword,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			<-gate
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}})
	early := "GET / HTTP/1.1\nnot a request: \x00\r\n" + strings.Repeat("early bytes ", 1000)
	for name, parts := range map[string][]string{
		"in one record":          {connectTo(echo.Addr()) + early},
		"in two":                 {connectTo(echo.Addr()), early},
		"behind another request": {"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n" + connectTo(echo.Addr()) + early[:1], early[1:]},
		"a byte at first":        {connectTo(echo.Addr()), early[:1], early[1:]},
		"in the head's record":   {"CONNECT " + echo.Addr() + " HTTP/1.1\r\n" + login(), "\r\n" + early},
	} {
		r.run(name, func(t *testing.T) {
			c := r.dialAt(0, trusting(ca))
			c.unlike = true
			for _, part := range parts {
				c.send(part)
			}
			gate <- struct{}{}
			if strings.HasPrefix(parts[0], "GET") {
				c.expect(r.reply(AuthRequired, false))
			}
			c.expect(masking.Established + early)
			c.echoes()
		})
	}
}

// A request behind one that takes its time waits for it, over TLS too.
func TestPipelinedOverTLS(t *testing.T) {
	r, ca := tlsRig(t, setup{})
	c := r.dialAt(0, trusting(ca))
	c.send(request("GET", r.judge.URL()+"/slow?delay=200ms"))
	c.send(request("GET", r.judge.URL()+"/notype") + request("GET", r.judge.URL()+"/slow?delay=1ms"))
	if _, body := c.answer("GET"); body != "at last\n" {
		t.Errorf("got %q", body)
	}
	if response, _ := c.answer("GET"); response.StatusCode != 200 {
		t.Errorf("got %s", response.Status)
	}
	if _, body := c.answer("GET"); body != "at last\n" {
		t.Errorf("got %q", body)
	}
}

// A connection that waits for its next request keeps nothing of those that it has carried.
func TestIdleConnectionsHoldNothing(t *testing.T) {
	r := newRig(t, setup{idle: true})
	waits := make(chan string, 8)
	r.server.http.ConnState = func(conn net.Conn, state http.ConnState) {
		r.server.stateChanged(conn, state)
		if c := conn.(*frontConn); state == http.StateIdle {
			waits <- fmt.Sprint(c.in.head != nil, c.in.unread, c.order)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Run(ctx, ctx) }()
	c := r.dial()
	c.send(request("POST", r.judge.URL()+"/digest", "Content-Length: 5\r\n") + "hello")
	c.answer("POST")
	c.send("POST http://shop.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + hello)
	c.expect(r.reply(AuthRequired, false))
	for range 2 {
		if kept := <-waits; kept != "false [] []" {
			t.Errorf("kept: %s", kept)
		}
	}
	must(t, c.Close())
	stop()
	must(t, <-ended)
}
