package proxy

import (
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

func refuses(t *testing.T, addr string) bool {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return true
	}
	_ = c.Close()
	return false
}

func (r *rig) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// During the grace the relay says that it is not ready and still serves; then it
// takes no more connections, and what is open goes on until the drain's time is up.
func TestDrain(t *testing.T) { bothWays(t, testDrain) }

func testDrain(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.DrainGrace, c.DrainTimeout = 500*time.Millisecond, time.Second }})
	echo := startEcho(t)
	if reasons := r.server.NotReady(); len(reasons) > 0 {
		t.Errorf("not ready: %v", reasons)
	}
	addr := r.server.Addrs()[0].String()
	old, idle := r.dial(), r.dial()
	old.connect(echo.Addr())
	idle.get(r.judge.URL() + "/notype")
	r.stop()
	eventually(t, "draining", func() bool { return slices.Equal(r.server.NotReady(), []string{"draining"}) })
	c := r.dial() // in the grace
	c.connect(echo.Addr())
	c.echoes()
	eventually(t, "no more connections", func() bool { return refuses(t, addr) })
	idle.ends()
	old.echoes()
	c.echoes()
	must(t, c.Close())
	if r.over() {
		t.Error("over while a tunnel is open")
	}
	old.breaks() // the time is up
	eventually(t, "Run has returned", r.over)
	eventually(t, "logged", func() bool { return len(r.log.exchanges()) == 3 })
	if o := r.outcome(3); o != Drained {
		t.Errorf("outcome %s", o)
	}
}

// The drain ends with the last tunnel.
func TestDrainEndsEarly(t *testing.T) { bothWays(t, testDrainEndsEarly) }

func testDrainEndsEarly(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.DrainTimeout = time.Hour }})
	c := r.dial()
	c.connect(startEcho(t).Addr())
	r.stop()
	eventually(t, "draining", r.server.Draining)
	c.echoes()
	c.fin()
	c.ends()
	must(t, c.Close())
	eventually(t, "Run has returned", r.over)
	if o := r.outcome(1); o != OK {
		t.Errorf("outcome %s", o)
	}
}

// cut ends the grace and the drain at once.
func TestDrainCut(t *testing.T) { bothWays(t, testDrainCut) }

func testDrainCut(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.DrainGrace, c.DrainTimeout = time.Hour, time.Hour }})
	c := r.dial()
	c.connect(startEcho(t).Addr())
	plain := r.dial()
	plain.send(request("GET", r.judge.URL()+"/slow?delay=1m"))
	eventually(t, "the request is at the target", func() bool { return r.judge.Open() == 1 })
	r.stop()
	eventually(t, "draining", r.server.Draining)
	c.echoes()
	r.cut()
	eventually(t, "Run has returned", r.over)
	c.breaks()
	plain.breaks()
	r.nothingHeld()
}

// A listener that breaks ends the server with an error. The engine's are not broken by
// anybody but the engine.
func TestListenerFails(t *testing.T) {
	r := newRig(t, setup{idle: true, config: func(c *Config) { c.netHTTPAccepts = true }})
	ended := make(chan error, 1)
	go func() { ended <- r.server.Run(t.Context(), t.Context()) }()
	c := r.dial()
	c.get(r.judge.URL() + "/notype")
	must(t, r.server.listeners[0].Listener.Close())
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(patience):
		t.Fatal("the server goes on without a listener")
	}
}

// A server that never ran holds nothing after Close; one without a bound address says why.
func TestNeverRan(t *testing.T) {
	r := newRig(t, setup{idle: true})
	if refuses(t, r.server.Addrs()[0].String()) {
		t.Error("not bound")
	}
	c := r.server.config
	c.Listen = []string{r.server.Addrs()[0].String()} // taken
	s, err := New(c)
	must(t, err)
	defer s.Close()
	if err := s.Listen(t.Context()); err == nil {
		t.Error("two servers on one address")
	}
	if !slices.Contains(s.NotReady(), "starting") {
		t.Errorf("ready without listeners: %v", s.NotReady())
	}
	for _, bad := range []Config{{Auth: AuthAccounts, MaxConns: 1}, {Auth: AuthOpen}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v is taken", bad.Auth)
		}
	}
}

func TestNotReadyWithoutUpstream(t *testing.T) { bothWays(t, testNotReadyWithoutUpstream) }

func testNotReadyWithoutUpstream(t *testing.T) {
	r := newRig(t, setup{})
	must(t, r.vendor.Close())
	c := r.dial()
	c.send(connectTo("target.test:443"))
	c.expect(r.reply(UpstreamFailed, true))
	if !slices.Contains(r.server.NotReady(), "no upstream") {
		t.Errorf("ready without an upstream: %v", r.server.NotReady())
	}
}

// Run returns when no handler runs any more.
func TestRunWaitsForHandlers(t *testing.T) { bothWays(t, testRunWaitsForHandlers) }

func testRunWaitsForHandlers(t *testing.T) {
	gated := &gatedLimiter{entered: make(chan struct{}, 1), gate: make(chan struct{}), deaf: true} // else the end of the request's context, which cut brings, lets the handler go
	r := newRig(t, setup{config: func(c *Config) { gated.Limiter, c.Limiter = c.Limiter, gated }})
	c := r.dial()
	c.send(request("GET", "http://target.test/"))
	<-gated.entered
	var opened, early atomic.Bool
	over := make(chan struct{})
	go func() {
		defer close(over)
		<-r.ended
		early.Store(!opened.Load())
	}()
	r.cut()
	r.stop()
	c.breaks()
	eventually(t, "all listeners are closed", func() bool { return !r.server.listening.Load() })
	opened.Store(true)
	close(gated.gate)
	eventually(t, "Run has returned", r.over)
	<-over
	if early.Load() {
		t.Error("Run returned while a handler was running")
	}
}

// Connections that wait after a refusal are closed at once: not one after the other,
// each with the time that a closing reply has to arrive.
func TestDrainDoesNotLingerOverIdleConnections(t *testing.T) {
	bothWays(t, testDrainDoesNotLingerOverIdleConnections)
}

func testDrainDoesNotLingerOverIdleConnections(t *testing.T) {
	const n = 8
	r := newRig(t, setup{config: func(c *Config) { c.DrainTimeout = time.Minute }})
	for range n {
		c := r.dial()
		c.send("CONNECT shop.example:443 HTTP/1.1\r\n\r\n")
		c.expect(r.reply(AuthRequired, false))
	}
	eventually(t, "all idle", func() bool { return len(r.log.exchanges()) == n })
	start := time.Now()
	r.stop()
	eventually(t, "Run has returned", r.over)
	if took := time.Since(start); took > n*lingerTimeout/2 {
		t.Errorf("the drain took %s", took)
	}
}

// A head that had begun when the relay stopped accepting is judged, and its answer is
// the last; a connection that has said nothing ends at once.
func TestDrainJudgesHeadsThatHaveBegun(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.DrainTimeout = patience }})
	if !r.server.listeners[0].received {
		t.Skip("the engine does not accept here")
	}
	const head = "CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n\r\n"
	begun, plain, idle := r.dial(), r.dial(), r.dial()
	for _, c := range []*customer{begun, plain, idle} { // accepted, and not only in the kernel
		c.send(head)
		c.expect(r.reply(AuthRequired, false))
	}
	begun.send(head[:20])
	plain.send(head[:20])
	eventually(t, "the halves are read", func() bool { return nothingUnread(t, r.server) })
	r.stop()
	idle.ends()
	begun.send(head[20:])
	begun.expect(r.reply(AuthRequired, true))
	begun.ends()
	plain.send("!")
	plain.send(head[20:])
	plain.expect(r.reply(BadRequest, true))
	plain.ends()
	eventually(t, "Run has returned", r.over)
}

// startingAccounts cannot be read yet.
type startingAccounts struct{ Accounts }

func (startingAccounts) Starting() bool { return true }

func TestNotReadyWithoutAccounts(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.Accounts = startingAccounts{c.Accounts} }})
	if reasons := r.server.NotReady(); !slices.Equal(reasons, []string{"starting"}) {
		t.Errorf("reasons are %v", reasons)
	}
}
