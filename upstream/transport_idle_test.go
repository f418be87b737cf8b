package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// quietSocket is a socket on which nothing comes.
type quietSocket struct{}

func (quietSocket) Control(f func(uintptr)) error  { f(0); return nil }
func (quietSocket) Read(func(uintptr) bool) error  { return nil }
func (quietSocket) Write(func(uintptr) bool) error { return nil }

// idleConn is a connection of key for an idlePool.
func idleConn(key idleKey) *plainConn {
	ours, theirs := net.Pipe()
	_ = theirs.Close()
	key.gateway.conns.Add(1)
	c := newPlainConn(ours, key)
	c.socket, c.probe = quietSocket{}, func(uintptr) { c.quiet = true }
	return c
}

func newestIdle(tr *Transport) *plainConn {
	tr.idle.mu.Lock()
	defer tr.idle.mu.Unlock()
	return tr.idle.newest
}

// idleTest runs on a clock of its own.
func idleTest(t *testing.T, f func(t *testing.T, p *idlePool, g *gateway)) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{}
		p := &idlePool{}
		f(t, p, g)
		p.close()
		if n := g.conns.Load(); n != 0 {
			t.Errorf("%d connections count after the end", n)
		}
	})
}

func TestIdlePoolExpires(t *testing.T) {
	idleTest(t, func(t *testing.T, p *idlePool, g *gateway) {
		key := idleKey{gateway: g, key: "alice"}
		p.put(idleConn(key))
		time.Sleep(plainIdle - time.Second)
		synctest.Wait()
		c := p.take(key)
		if c == nil {
			t.Fatal("gone too early")
		}
		p.put(c)
		time.Sleep(plainIdle + 2*plainSweep)
		synctest.Wait()
		if n := g.conns.Load(); n != 0 || p.total != 0 || p.sweeping {
			t.Errorf("%d connections, %d listed, sweeping %v", n, p.total, p.sweeping)
		}
		p.put(idleConn(key)) // a new sweep
		time.Sleep(plainIdle + 2*plainSweep)
		synctest.Wait()
		if n := g.conns.Load(); n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}

// A key keeps eight connections; more for a second after a burst.
func TestIdlePoolPerKey(t *testing.T) {
	idleTest(t, func(t *testing.T, p *idlePool, g *gateway) {
		alice, bob := idleKey{gateway: g, key: "alice"}, idleKey{gateway: g, key: "bob"}
		for range plainIdleBurst + 10 {
			p.put(idleConn(alice))
		}
		p.put(idleConn(bob))
		if n := g.conns.Load(); n != plainIdleBurst+1 {
			t.Errorf("%d connections in a burst", n)
		}
		time.Sleep(3 * plainSurplus)
		synctest.Wait()
		if a, b := len(p.byKey[alice]), len(p.byKey[bob]); a != plainIdlePerKey || b != 1 {
			t.Errorf("%d and %d connections after it", a, b)
		}
	})
}

// A customer with a session for each request, or a tunnel to each target, does not take
// the place of the others' connections.
func TestIdlePoolPerCustomer(t *testing.T) {
	idleTest(t, func(t *testing.T, p *idlePool, g *gateway) {
		bob := idleKey{gateway: g, key: "bob"}
		p.put(idleConn(bob))
		for i := range 2 * plainIdleTotal {
			p.put(idleConn(idleKey{gateway: g, key: "alice", login: fmt.Sprint(i)}))
		}
		if n := g.conns.Load(); n != plainIdleBurst+1 {
			t.Errorf("%d connections", n)
		}
		newest, gone := fmt.Sprint(2*plainIdleTotal-1), fmt.Sprint(2*plainIdleTotal-plainIdleBurst-1)
		if c := p.take(idleKey{gateway: g, key: "alice", login: newest}); c == nil {
			t.Error("alice's newest is gone")
		} else {
			_ = c.Close()
		}
		if p.take(idleKey{gateway: g, key: "alice", login: gone}) != nil {
			t.Error("alice's oldest is still there")
		}
		if c := p.take(bob); c == nil {
			t.Error("bob's is gone")
		} else {
			_ = c.Close()
		}
		p.evict(g)
		if len(p.owners) != 0 {
			t.Errorf("%v", p.owners)
		}
	})
}

func TestIdlePoolTotal(t *testing.T) {
	idleTest(t, func(t *testing.T, p *idlePool, g *gateway) {
		first := idleKey{gateway: g, key: "first"}
		p.put(idleConn(first))
		for i := range plainIdleTotal {
			p.put(idleConn(idleKey{gateway: g, key: fmt.Sprint(i)}))
		}
		if p.total != plainIdleTotal || g.conns.Load() != plainIdleTotal {
			t.Errorf("%d connections listed, %d open", p.total, g.conns.Load())
		}
		if p.take(first) != nil {
			t.Error("the oldest is still there")
		}
	})
}

func TestIdlePoolKeepsApart(t *testing.T) {
	idleTest(t, func(t *testing.T, p *idlePool, g *gateway) {
		other := &gateway{}
		key := idleKey{gateway: g, key: "alice", login: "Basic a"}
		p.put(idleConn(key))
		for name, not := range map[string]idleKey{
			"gateway": {other, "alice", "Basic a", 0, ""}, "account": {g, "bob", "Basic a", 0, ""}, "login": {g, "alice", "Basic b", 0, ""},
			"port": {g, "alice", "Basic a", 10001, ""}, "target": {g, "alice", "Basic a", 0, "target.example:80"},
		} {
			if p.take(not) != nil {
				t.Errorf("another %s got it", name)
			}
		}
		p.put(idleConn(idleKey{gateway: other}))
		p.evict(g)
		if g.conns.Load() != 0 || other.conns.Load() != 1 {
			t.Errorf("%d and %d connections after eviction", g.conns.Load(), other.conns.Load())
		}
		p.close()
		late := idleConn(key)
		p.put(late)
		if g.conns.Load() != 0 || other.conns.Load() != 0 {
			t.Error("kept after the end")
		}
	})
}

// What comes on an idle connection is no answer to the next request.
func TestForgedAnswerOnAnIdleConnection(t *testing.T) {
	send := make(chan struct{})
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		select {
		case <-send:
		case <-ctx.Done():
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
		_, _ = c.ReadRequest()
	})})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	ask := func() string {
		response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
		must(t, err)
		return drain(t, response.Response)
	}
	ask()
	idle := newestIdle(tr)
	if idle == nil {
		t.Fatal("no idle connection")
	}
	close(send)
	waitFor(t, func() bool { return !idle.usable() })
	if got := ask(); got != "ok" || v.Accepted() != 2 {
		t.Errorf("got %q over %d connections", got, v.Accepted())
	}
}

// A request whose idle connection has been closed goes over a new one: at once if
// that can be seen, else once more if it may be sent twice.
func TestStaleConnections(t *testing.T) {
	judge := startJudge(t)
	seen := upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, req *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // and close
	})
	reset := upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, req *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = c.ReadRequest()
		_ = c.Reset()
	})
	tests := map[string]struct {
		behaviour upstreamtest.Behaviour
		method    string
		closed    bool // before the second request is sent
		want      bool
	}{
		"closed, GET":           {seen, http.MethodGet, true, true},
		"closed, POST":          {seen, http.MethodPost, true, true},
		"just closing, GET":     {upstreamtest.StaleKeepAlive(), http.MethodGet, false, true},
		"just closing, POST":    {upstreamtest.StaleKeepAlive(), http.MethodPost, false, false},
		"just closing, DELETE":  {upstreamtest.StaleKeepAlive(), http.MethodDelete, false, false},
		"just resetting, GET":   {reset, http.MethodGet, false, true},
		"just resetting, PATCH": {reset, http.MethodPatch, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: test.behaviour})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
			response, _, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/notype")})
			must(t, err)
			drain(t, response.Response)
			if idle := newestIdle(tr); test.closed && idle != nil {
				waitFor(t, func() bool { return !idle.usable() })
			}
			second := get(t, judge.URL()+"/notype")
			second.Method = test.method
			response, _, err = tr.Do(PlainRequest{Request: second})
			var failure *ConnectError
			switch {
			case test.want:
				must(t, err)
				drain(t, response.Response)
			case !errors.As(err, &failure) || failure.Cause != CauseClosed || v.Accepted() != 1:
				t.Errorf("got %v over %d connections", err, v.Accepted())
			}
		})
	}
}

// A new connection that fails is not tried again, and a silent one not twice.
func TestNoSecondTryOnAFreshConnection(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.CloseBeforeReply()})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	if _, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")}); err == nil || v.Accepted() != 1 {
		t.Errorf("got %v over %d connections", err, v.Accepted())
	}
	silent := upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		for {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
		}
	})
	v = startVendor(t, upstreamtest.VendorConfig{Behaviour: silent})
	tr = newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 100 * time.Millisecond})
	response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
	must(t, err)
	drain(t, response.Response)
	_, _, err = tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseTimeout || v.Accepted() != 1 {
		t.Errorf("got %v over %d connections", err, v.Accepted())
	}
}

// The end of the context ends the exchange at every step, and its connection.
func TestContextEndsTheExchange(t *testing.T) {
	for name, text := range map[string]string{
		"before the answer": "", "in the head": "HTTP/1.1 200 OK\r\nX", "in the body": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
		"in the chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Bytes: []byte(text)}})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 20 * time.Second})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/").WithContext(ctx)})
				if err == nil {
					_, err = io.ReadAll(response.Body)
					_ = response.Body.Close() // twice is once
					_ = response.Body.Close()
				}
				ended <- err
			}()
			waitFor(t, func() bool { return bytes.Contains(v.Received(), []byte("\r\n\r\n")) })
			cancel()
			err := <-ended
			var failure *ConnectError
			if err == nil || errors.As(err, &failure) && failure.Cause != CauseCanceled {
				t.Errorf("got %v", err)
			}
			waitFor(t, func() bool { return v.Open() == 0 })
		})
	}
}

// Close interrupts a Read that waits, in another goroutine.
func TestCloseWhileReading(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Bytes: []byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")}})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
	must(t, err)
	begun, ended := make(chan struct{}), make(chan error)
	go func() {
		_, _ = io.ReadFull(response.Body, make([]byte, 5))
		close(begun)
		_, err := response.Body.Read(make([]byte, 5))
		ended <- err
	}()
	<-begun
	must(t, response.Body.Close())
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Read: %v", err)
	}
	if _, err := response.Body.Read(make([]byte, 5)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("Read after Close: %v", err)
	}
	waitFor(t, func() bool { return v.Open() == 0 })
}
