package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// securedWorld is a gateway that speaks TLS, of which n connections are kept ready.
type securedWorld struct {
	v *upstreamtest.Vendor
	p *Pool
	g *gateway
}

// newSecuredWorld makes one; run must be called for connections to be made.
func newSecuredWorld(t *testing.T, n int, c upstreamtest.VendorConfig, edit func(*Gateway, *Options)) *securedWorld {
	t.Helper()
	ca, err := upstreamtest.NewCA()
	must(t, err)
	cert, err := ca.Server("localhost")
	must(t, err)
	if c.TLS == nil {
		c.TLS = serverTLS(cert)
	}
	c.TLS.Certificates = []tls.Certificate{cert}
	w := &securedWorld{v: startVendor(t, c)}
	g := gatewayOf(t, "gw", "https://localhost:"+portOf(t, w.v.Addr()))
	g.roots, g.Warm = ca.Pool(), n
	o := Options{}
	if edit != nil {
		edit(&g, &o)
	}
	o.Gateways = append([]Gateway{g}, o.Gateways...)
	w.p = newPool(t, o)
	w.g = w.p.gateways[0]
	return w
}

// run runs the pool until the test ends, or what it returns is called.
func (w *securedWorld) run(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.p.Run(ctx) })
	end = func() { cancel(); running.Wait() }
	t.Cleanup(end)
	return end
}

// ready waits until n connections stand ready, and the gateway has them.
func (w *securedWorld) ready(t *testing.T, n int64) {
	t.Helper()
	waitFor(t, func() bool { return w.g.warm.ready() == n && w.v.Open() >= int(n) })
}

func TestWarmConnectionsAreUsed(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			echo := startEcho(t)
			w := newSecuredWorld(t, 2, upstreamtest.VendorConfig{TLS: &tls.Config{MinVersion: version, MaxVersion: version}}, func(_ *Gateway, o *Options) {
				o.Ports = [2]int{32768, 60999}
			})
			end := w.run(t)
			w.ready(t, 2)
			lane := w.g.endpoints.addrs[0].lanes[0]
			if n := w.g.conns.Load(); n != 2 || lane.inUse.Load() != 2 {
				t.Errorf("%d connections and %d ports counted", n, lane.inUse.Load())
			}
			c, err := w.p.Connect(t.Context(), Request{Target: echo.Addr()})
			must(t, err)
			w.ready(t, 2) // another has taken its place
			if n := w.v.Accepted(); n != 3 || w.g.conns.Load() != 3 || lane.inUse.Load() != 3 {
				t.Errorf("%d accepted, %d connections and %d ports counted", n, w.g.conns.Load(), lane.inUse.Load())
			}
			if requests := w.v.Conns(); len(requests[0].Requests())+len(requests[1].Requests()) != 1 {
				t.Error("the tunnel is not on one that stood ready")
			}
			if connectedCount(t, w.p, "gw") != 1 {
				t.Error("what stands ready is counted as connected")
			}
			echoThrough(t, c)
			end()
			waitFor(t, func() bool { return w.v.Open() == 0 })
			wantNothingHeld(t, w.p)
		})
	}
}

func TestWarmConnectionsCarryPlainRequests(t *testing.T) {
	judge := startJudge(t)
	w := newSecuredWorld(t, 1, upstreamtest.VendorConfig{}, nil)
	tr := NewTransport(w.p, nil)
	defer tr.Close()
	end := w.run(t)
	w.ready(t, 1)
	for range 2 {
		response, _, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/notype")})
		must(t, err)
		drain(t, response.Response)
	}
	w.ready(t, 1)
	if n, first := w.v.Accepted(), len(w.v.Conns()[0].Requests()); n != 2 || first != 2 {
		t.Errorf("%d connections, %d requests on the first", n, first)
	}
	// A request that cannot be sent twice does not take a chance.
	post := get(t, judge.URL()+"/notype")
	post.Method, post.Body, post.ContentLength = http.MethodPost, io.NopCloser(strings.NewReader("x")), 1
	response, _, err := tr.Do(PlainRequest{Request: post, Key: "another"})
	must(t, err)
	drain(t, response.Response)
	if n := w.v.Accepted(); n != 3 {
		t.Errorf("%d connections after a POST", n)
	}
	tr.Close()
	end()
	wantNothingHeld(t, w.p)
}

// A connection that ends while it waits is replaced.
func TestWarmConnectionsThatEnd(t *testing.T) {
	echo := startEcho(t)
	w := newSecuredWorld(t, 1, upstreamtest.VendorConfig{HeadTimeout: 50 * time.Millisecond}, nil)
	w.run(t)
	waitFor(t, func() bool { return w.v.Accepted() >= 3 })
	waitFor(t, func() bool { return w.v.Open() <= 2 })
	c, err := w.p.Connect(t.Context(), Request{Target: echo.Addr()})
	must(t, err)
	echoThrough(t, c)
	if failedCount(t, w.p, "gw", CauseClosed) != 0 {
		t.Error("the gateway is blamed")
	}
}

// A gateway that talks before it is asked is not believed later.
func TestWarmConnectionsThatSpeak(t *testing.T) {
	w := newSecuredWorld(t, 1, upstreamtest.VendorConfig{}, nil)
	l, failure := w.g.connect(t.Context(), "", 0, true)
	if failure != nil {
		t.Fatal(failure)
	}
	w.g.warm.running = true
	w.g.warm.add(l.Conn, l.held)
	_, err := l.Write([]byte("not a request\r\n\r\n")) // which the gateway answers
	must(t, err)
	waitFor(t, func() bool { return w.g.warm.ready() == 0 })
	w.g.warm.watchers.Wait()
	wantNothingHeld(t, w.p)
}

// A connection may end in the very moment that it is taken: a fresh one is tried, and
// the gateway is not blamed.
func TestWarmConnectionThatEndsWhenTaken(t *testing.T) {
	echo, judge := startEcho(t), startJudge(t)
	var heads atomic.Int32
	closing := func() upstreamtest.Behaviour {
		return upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, r *upstreamtest.RecordedRequest) {
			if heads.Add(1) > 1 {
				upstreamtest.Relay{}.Serve(ctx, c, r)
			}
		})
	}
	tests := map[string]func(t *testing.T, w *securedWorld){
		"tunnel": func(t *testing.T, w *securedWorld) {
			c, err := w.p.Connect(t.Context(), Request{Target: echo.Addr()})
			must(t, err)
			echoThrough(t, c)
		},
		"plain": func(t *testing.T, w *securedWorld) {
			tr := NewTransport(w.p, nil)
			defer tr.Close()
			response, _, err := tr.Do(PlainRequest{Request: get(t, judge.URL()+"/")})
			must(t, err)
			drain(t, response.Response)
		},
	}
	for name, try := range tests {
		t.Run(name, func(t *testing.T) {
			heads.Store(0)
			w := newSecuredWorld(t, 1, upstreamtest.VendorConfig{Behaviour: closing()}, nil)
			end := w.run(t)
			w.ready(t, 1)
			try(t, w)
			if n := failedCount(t, w.p, "gw", CauseClosed); n != 0 || heads.Load() != 2 {
				t.Errorf("%g failures, %d requests", n, heads.Load())
			}
			end()
			wantNothingHeld(t, w.p)
		})
	}
}

func TestWarmConnectionsGrowOld(t *testing.T) {
	w := newSecuredWorld(t, 2, upstreamtest.VendorConfig{}, nil)
	w.g.warm.age = 40 * time.Millisecond
	w.run(t)
	waitFor(t, func() bool { return w.v.Accepted() >= 8 })
	waitFor(t, func() bool { return w.v.Open() <= 4 })
	if failedCount(t, w.p, "gw", CauseClosed) != 0 || !w.p.Usable() {
		t.Error("the gateway is blamed")
	}
}

// What is too old is not handed out, even if its goroutine has not noticed yet.
func TestWarmConnectionTooOldToTake(t *testing.T) {
	w := newSecuredWorld(t, 1, upstreamtest.VendorConfig{}, nil)
	w.g.warm.running = true
	l, failure := w.g.connect(t.Context(), "", 0, true)
	if failure != nil {
		t.Fatal(failure)
	}
	w.g.warm.add(l.Conn, l.held)
	w.g.warm.mu.Lock()
	w.g.warm.conns[0].until = time.Now().Add(-time.Second)
	w.g.warm.mu.Unlock()
	if _, ok := w.g.warm.take(); ok {
		t.Error("handed out")
	}
	w.g.warm.watchers.Wait()
	wantNothingHeld(t, w.p)
}

// What has come after the goroutine looked, and before the connection is handed out, is
// seen too: bytes, or the end.
func TestWarmConnectionIsLookedAtWhenTaken(t *testing.T) {
	for name, behaviour := range map[string]upstreamtest.Behaviour{
		"nothing": upstreamtest.Silent(), "bytes": upstreamtest.Raw{Bytes: []byte("HTTP/1.1 408 Timeout\r\n\r\n")}, "end": upstreamtest.CloseBeforeReply(),
	} {
		t.Run(name, func(t *testing.T) {
			w := newSecuredWorld(t, 1, upstreamtest.VendorConfig{Behaviour: behaviour, TLS: &tls.Config{MaxVersion: tls.VersionTLS12}}, nil)
			l, failure := w.g.connect(t.Context(), "", 0, true)
			if failure != nil {
				t.Fatal(failure)
			}
			secured := l.Conn.(*tls.Conn)
			c := &warmConn{Conn: secured, until: time.Now().Add(time.Hour), ended: make(chan struct{}), err: os.ErrDeadlineExceeded}
			close(c.ended)
			_, err := l.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) // so that the behaviour begins
			must(t, err)
			if name == "nothing" {
				waitFor(t, func() bool { return len(w.v.Conns()[0].Requests()) == 1 })
			} else {
				socket, err := secured.NetConn().(*net.TCPConn).SyscallConn()
				must(t, err)
				waitFor(t, func() (came bool) {
					must(t, socket.Control(func(fd uintptr) { came = !isQuiet(fd) }))
					return came
				})
			}
			if good := c.halt(); good != (name == "nothing") {
				t.Errorf("good: %t", good)
			}
			must(t, secured.NetConn().Close())
			l.held.Release()
		})
	}
}

// They are within the gateway's limit, and serve those who would meet it.
func TestWarmConnectionsWithinTheLimit(t *testing.T) {
	echo := startEcho(t)
	w := newSecuredWorld(t, 4, upstreamtest.VendorConfig{}, func(g *Gateway, _ *Options) { g.MaxConns = 2 })
	w.run(t)
	w.ready(t, 2)
	var conns []*Conn
	for range 2 {
		c, err := w.p.Connect(t.Context(), Request{Target: echo.Addr()})
		must(t, err)
		conns = append(conns, c)
	}
	_, err := w.p.Connect(t.Context(), Request{Target: echo.Addr()})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseNone {
		t.Errorf("a third: %v", err)
	}
	if n := w.v.Accepted(); n != 2 || w.g.conns.Load() != 2 {
		t.Errorf("%d accepted, %d counted", n, w.g.conns.Load())
	}
	for _, c := range conns {
		echoThrough(t, c)
	}
}

func TestWarmConnectionsGiveWay(t *testing.T) {
	w := newSecuredWorld(t, 3, upstreamtest.VendorConfig{}, nil)
	w.run(t)
	w.ready(t, 3)
	if !w.g.evict() || w.g.warm.ready() != 0 || w.g.evict() {
		t.Errorf("%d are left", w.g.warm.ready())
	}
	wantNothingHeld(t, w.p) // and for a while there are no new ones
	waitFor(t, func() bool { return w.v.Open() == 0 })
}

// A gateway that is down gets none.
func TestWarmConnectionsOfAGatewayThatIsDown(t *testing.T) {
	other := startVendor(t, upstreamtest.VendorConfig{})
	w := newSecuredWorld(t, 2, upstreamtest.VendorConfig{}, func(_ *Gateway, o *Options) {
		o.Gateways = []Gateway{gatewayOf(t, "other", other.URL())}
	})
	for range 100 {
		w.g.health.report(&ConnectError{Gateway: "gw", Phase: PhaseDial, Cause: CauseRefused}, 0, time.Now())
	}
	if w.g.health.usable(time.Now()) {
		t.Fatal("the gateway is not down")
	}
	w.g.warm.running = true
	l, failure := w.g.connect(t.Context(), "", 0, true)
	if failure != nil {
		t.Fatal(failure)
	}
	w.g.warm.add(l.Conn, l.held)
	w.g.warm.fill(t.Context())
	if n := w.g.warm.ready(); n != 0 || w.v.Accepted() != 1 {
		t.Errorf("%d are ready, %d were made", n, w.v.Accepted())
	}
	w.g.warm.watchers.Wait()
	wantNothingHeld(t, w.p)
}

// A gateway that cannot be trusted is not asked again and again.
func TestWarmConnectionsRestAfterAFailure(t *testing.T) {
	w := newSecuredWorld(t, 3, upstreamtest.VendorConfig{}, func(g *Gateway, _ *Options) { g.roots = nil })
	w.g.warm.running = true
	w.g.warm.fill(t.Context())
	w.g.warm.fill(t.Context())
	if n := w.v.Accepted(); n > warmDials || w.g.warm.ready() != 0 {
		t.Errorf("%d tries, %d ready", n, w.g.warm.ready())
	}
	if len(w.v.Received()) > 0 {
		t.Errorf("it was told %q", w.v.Received())
	}
	wantNothingHeld(t, w.p)
}

func TestWarmConnectionsUnderLoad(t *testing.T) {
	const workers, each = 8, 20
	echo := startEcho(t)
	w := newSecuredWorld(t, 4, upstreamtest.VendorConfig{}, func(g *Gateway, _ *Options) { g.MaxConns = workers + 2 })
	w.g.warm.age = 30 * time.Millisecond
	end := w.run(t)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range each {
				c, err := w.p.Connect(t.Context(), Request{Target: echo.Addr()})
				var failure *ConnectError
				if errors.As(err, &failure) && failure.Cause == CauseNone {
					continue // the others have all
				}
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				if _, err := c.Write([]byte{byte(i)}); err != nil {
					t.Errorf("write: %v", err)
				}
				b := make([]byte, 1)
				if _, err := io.ReadFull(c, b); err != nil || b[0] != byte(i) {
					t.Errorf("read %v, %v", b, err)
				}
				_ = c.Close()
				c.Release()
			}
		})
	}
	wg.Wait()
	end()
	wantNothingHeld(t, w.p)
}
