package integration

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// traffic opens tunnels one after another, with several workers, until it is stopped.
type traffic struct {
	stop   chan struct{}
	wg     sync.WaitGroup
	opened atomic.Int64
	mu     sync.Mutex
	failed []error
}

func startTraffic(t *testing.T, addr, target string, workers int) *traffic {
	t.Helper()
	tr := &traffic{stop: make(chan struct{})}
	for range workers {
		tr.wg.Go(func() { tr.work(addr, target) })
	}
	t.Cleanup(tr.end)
	return tr
}

func (tr *traffic) work(addr, target string) {
	for {
		select {
		case <-tr.stop:
			return
		default:
		}
		c, err := tunnel(addr, target)
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			tr.mu.Lock()
			tr.failed = append(tr.failed, err)
			tr.mu.Unlock()
		}
		tr.opened.Add(1)
	}
}

// end stops the traffic and waits; it may be called twice.
func (tr *traffic) end() {
	tr.mu.Lock()
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	tr.mu.Unlock()
	tr.wg.Wait()
}

func (tr *traffic) failures() []error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return append([]error(nil), tr.failed...)
}

// waitMore waits until n more tunnels have been tried.
func (tr *traffic) waitMore(t *testing.T, n int64) {
	t.Helper()
	target := tr.opened.Load() + n
	lab.Wait(t, 60*time.Second, fmt.Sprintf("%d more tunnels", n), func() bool { return tr.opened.Load() >= target })
}

// tunnelOn opens tunnels through addr until one is on relay; the others are closed.
func tunnelOn(t *testing.T, relay *lab.Relay, addr, target string) *client {
	t.Helper()
	var others []*client
	defer func() {
		for _, c := range others {
			_ = c.Close() // what they did was seen
		}
	}()
	before := relay.Tunnels(t)
	for range 20 {
		c, err := tunnel(addr, target)
		if err != nil {
			t.Fatal(err)
		}
		// A page of metrics may be as old as a second.
		if lab.Poll(1200*time.Millisecond, func() bool { return relay.Tunnels(t) > before }) {
			t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
			return c
		}
		others = append(others, c)
	}
	t.Fatalf("none of 20 tunnels went to %s", relay.Name)
	return nil
}

// TestKilledRelay kills one of two relays under load, behind both load balancers.
func TestKilledRelay(t *testing.T) {
	t.Parallel()
	for balancerKind := range balancerKinds {
		t.Run(balancerKind, func(t *testing.T) {
			t.Parallel()
			killRelay(t, startStack(t, balancerKind, "squid", nil))
		})
	}
}

func killRelay(t *testing.T, s *stack) {
	const workers = 8
	echo := startEcho(t)
	live := tunnelOn(t, s.relays[1], s.customer.Addr(), echo)
	tr := startTraffic(t, s.customer.Addr(), echo, workers)
	tr.waitMore(t, 100)
	if failed := tr.failures(); len(failed) > 0 {
		t.Fatalf("before the kill: %v", failed)
	}
	s.relays[0].Signal(t, syscall.SIGKILL)
	lab.Wait(t, 20*time.Second, "the balancer to notice", func() bool { return s.balancer.noticed(t) })
	tr.waitMore(t, 100)
	tr.end()
	// Both balancers try the other relay when a connection is refused, so only what was on its way may be lost: one tunnel of each
	// worker, and one more that the listener took in while the kernel, closing the dead process's descriptors one by one, had not come to it.
	if lost := tr.failures(); len(lost) > 2*workers {
		t.Errorf("%d tunnels lost, at most %d may be: %v", len(lost), 2*workers, lost)
	}
	tr = startTraffic(t, s.customer.Addr(), echo, workers)
	tr.waitMore(t, 200)
	tr.end()
	if failed := tr.failures(); len(failed) > 0 {
		t.Errorf("new connections failed with one relay gone: %v", failed)
	}
	if err := live.ping("still here"); err != nil {
		t.Errorf("the live tunnel of the other relay: %v", err)
	}
}

// checkOurReply asserts that a reply is one of the relay's own: status, type, exact length, one sentence, Proxy-Status.
func checkOurReply(t *testing.T, got reply, status int) {
	t.Helper()
	if got.status != status {
		t.Errorf("status %d, want %d", got.status, status)
	}
	if kind := got.header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
		t.Errorf("Content-Type %q", kind)
	}
	if got.length != int64(len(got.body)) || len(got.body) == 0 {
		t.Errorf("Content-Length %d with a body of %d bytes", got.length, len(got.body))
	}
	if strings.Count(got.body, "\n") != 1 || !strings.HasSuffix(got.body, "\n") {
		t.Errorf("body %q is not one line", got.body)
	}
	for _, banned := range []string{"Via", "Server", "X-Cache", "X-Squid-Error"} {
		if got.header.Get(banned) != "" {
			t.Errorf("reply has %s: %q", banned, got.header.Get(banned))
		}
	}
	if status >= 500 && !strings.HasPrefix(got.header.Get("Proxy-Status"), "Proxy; error=") {
		t.Errorf("Proxy-Status %q", got.header.Get("Proxy-Status"))
	}
}
