package proxy

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"maskrelay/proxy/limit"
)

// queued is a rig whose only slot a tunnel has, and another customer waits for it for up
// to an hour.
func queued(t *testing.T, s setup) (r *rig, first, second *customer) {
	t.Helper()
	with := s.config
	s.config = func(c *Config) {
		c.MaxConns, c.QueueTimeout = 1, time.Hour
		if with != nil {
			with(c)
		}
	}
	r = newRig(t, s)
	echo := startEcho(t).Addr()
	first, second = r.dial(), r.dial()
	first.connect(echo)
	second.send(connectTo(echo))
	eventually(t, "the second waits", func() bool { return r.server.fair.Waiting() == 1 })
	return r, first, second
}

// Who waits has asked for one connection, and his rate is charged for one.
func TestQueuedAttemptCountsOnce(t *testing.T) { bothWays(t, testQueuedAttemptCountsOnce) }

func testQueuedAttemptCountsOnce(t *testing.T) {
	_, first, second := queued(t, setup{config: func(c *Config) { c.Defaults = limit.Caps{ConnRate: 0.001, ConnBurst: 2} }})
	must(t, first.Close())
	second.expect(string(established))
	second.echoes()
}

// Who has left waits no longer: he would take the slot from those who are still there.
func TestQueueForgetsWhoLeaves(t *testing.T) { bothWays(t, testQueueForgetsWhoLeaves) }

func testQueueForgetsWhoLeaves(t *testing.T) {
	for name, leave := range map[string]func(*customer){"closes": func(c *customer) { must(t, c.Close()) }, "resets": (*customer).reset} {
		t.Run(name, func(t *testing.T) {
			r, first, second := queued(t, setup{})
			leave(second)
			eventually(t, "nobody waits", func() bool { return r.server.fair.Waiting() == 0 && r.limiter.InUse(customerName) == 1 })
			first.echoes()
		})
	}
}

// The end of the server is the end of the queue.
func TestQueueEndsWithTheServer(t *testing.T) { bothWays(t, testQueueEndsWithTheServer) }

func testQueueEndsWithTheServer(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.MaxConns, c.QueueTimeout = 1, time.Hour }})
	if !r.server.fair.TryAcquire("another", 1) { // a slot that the end of tunnels does not free
		t.Fatal("no slot")
	}
	defer r.server.fair.Release()
	second := r.dial()
	second.send(connectTo("target.test:443"))
	eventually(t, "the second waits", func() bool { return r.server.fair.Waiting() == 1 })
	r.cut()
	r.stop()
	second.breaks()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Error("the server waits for the queue")
	}
}

// An account that ends loses its waiting connections, too.
func TestQueueAndTheAccountsEnd(t *testing.T) { bothWays(t, testQueueAndTheAccountsEnd) }

func testQueueAndTheAccountsEnd(t *testing.T) {
	use, write := fileAccounts(t, "accounts:\n"+customerEntry+"}\n")
	r, first, second := queued(t, setup{config: use})
	write("accounts:\n" + customerEntry + ", disabled: true}\n")
	must(t, r.server.Reload())
	first.breaks()
	eventually(t, "nothing is held", func() bool {
		return r.server.fair.Waiting() == 0 && r.limiter.InUse(customerName) == 0 && r.server.slots.InUse() == 0
	})
	// He may have had the slot by then: he is told that his account is disabled.
	if n := r.server.closeKey(customerName); n != 0 {
		t.Errorf("%d connections of the account are open", n)
	}
	must(t, second.Close())
	r.idle()
}

// Strangers who need room do not get it from those who wait.
func TestQueueMakesNoRoomForStrangers(t *testing.T) { bothWays(t, testQueueMakesNoRoomForStrangers) }

func testQueueMakesNoRoomForStrangers(t *testing.T) {
	r, first, second := queued(t, setup{maxOpen: 4})
	for range 10 {
		stranger := r.dial()
		stranger.send("GET http://target.test/ HTTP/1.1\r\nHost: x\r\n\r\n")
		stranger.expect(r.reply(AuthRequired, false))
	}
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(r.server))
	families, err := registry.Gather()
	must(t, err)
	if n := value(t, families, "maskrelay_connections", "kind", "http"); n != 0 {
		t.Errorf("%v connections hold a slot for plain HTTP", n)
	}
	must(t, first.Close())
	second.expect(string(established))
	second.echoes()
}
