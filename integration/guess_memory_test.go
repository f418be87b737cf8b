package integration

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const (
	strangers     = 50_000
	someStrangers = 5_000
	// strangersMemory is what those beyond the first may cost: refusals that are remembered, in tables of a fixed size.
	strangersMemory = 40 << 20
)

// TestStrangersAreForgotten has 50,000 clients try a name each that nobody knows: neither memory, nor files, nor metrics grow with them.
func TestStrangersAreForgotten(t *testing.T) {
	panel := startPanel(t)
	redis := lab.StartRedis(t)
	for name, env := range map[string]lab.Env{
		"accounts": {"ACCOUNTS": "alice:a-password"},
		"hook":     {"AUTH": "hook", "AUTH_URL": panel.URL, "AUTH_CONCURRENCY": "16"},
		"fleet":    {"ACCOUNTS": "alice:a-password", "REDIS_URL": redis.URL()},
	} {
		t.Run(name, func(t *testing.T) {
			full := lab.Env{"UPSTREAM": startSource(t), "LOG_LEVEL": "warn", "USER_MAX_IPS": "3", "USER_QUOTA": "1GB"}
			for _, more := range []lab.Env{fromBalancer, env} {
				for name, value := range more {
					full[name] = value
				}
			}
			relay := lab.StartRelay(t, lab.Plain, full)
			intrude(t, relay, 0, someStrangers)
			before := relay.Usage(t)
			lines := metricBytes(t, relay)
			intrude(t, relay, someStrangers, strangers)
			const slack = 20 // idle connections of the admin listener, of a hook, of Redis
			var after lab.Usage
			if !lab.Poll(30*time.Second, func() bool {
				after = relay.Usage(t)
				return after.RSS <= before.RSS+strangersMemory && after.FDs <= before.FDs+slack && after.Goroutines <= before.Goroutines+slack
			}) {
				t.Errorf("after %d strangers %+v, after %d %+v", someStrangers, before, strangers, after)
			}
			t.Logf("RSS %d KB after %d, %d KB after %d", before.RSS>>10, someStrangers, after.RSS>>10, strangers)
			if now := metricBytes(t, relay); now > lines+2000 {
				t.Errorf("/metrics grew from %d to %d bytes", lines, now)
			}
		})
	}
}

func metricBytes(t *testing.T, r *lab.Relay) int {
	t.Helper()
	status, body, err := r.Get("/metrics")
	if err != nil || status != http.StatusOK {
		t.Fatalf("%d %v", status, err)
	}
	return len(body)
}

// intrude makes the logins from the first to before the last.
func intrude(t *testing.T, relay *lab.Relay, first, last int) {
	t.Helper()
	var next, odd atomic.Int64
	next.Store(int64(first))
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= last {
					return
				}
				status, err := login(relay.Addr, clientNumber(n), fmt.Sprintf("stranger-%d", n), "x")
				if err != nil || status != http.StatusProxyAuthRequired && status != http.StatusServiceUnavailable {
					if odd.Add(1) == 1 {
						t.Logf("stranger %d: status %d: %v", n, status, err)
					}
				}
			}
		})
	}
	all.Wait()
	if odd.Load() > 0 {
		t.Errorf("%d of %d got neither 407 nor 503", odd.Load(), last-first)
	}
}

// login opens a tunnel, or is refused, and closes the connection without a trace. It returns the status.
func login(addr string, from netip.Addr, name, password string) (int, error) {
	c, err := dialAs(addr, from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }() // the answer is read
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // no port is left waiting
	}
	got, err := c.connect("shop.target.example:443", name, password)
	return got.status, err
}
