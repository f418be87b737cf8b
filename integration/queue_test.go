package integration

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// queueSlots is MAX_CONNS of the relays here.
const queueSlots = 20

const queueAccounts = `accounts:
  - name: hog
    password: h-password
  - name: modest
    password: m-password
  - name: heavy
    password: h-password
    weight: 3
`

// hog holds tunnels of an account, for as long as it takes until they are let go one after the other, and takes each slot again that it can get.
type hog struct {
	addr, name, password string
	stop                 chan struct{}
	held                 chan *client // tunnels
	workers              sync.WaitGroup
	got, refused         atomic.Int64
}

// startHog hammers with workers until the end of the test.
func startHog(t *testing.T, addr, name string, workers int) *hog {
	t.Helper()
	h := &hog{addr: addr, name: name, password: name[:1] + "-password", stop: make(chan struct{}), held: make(chan *client, 4*queueSlots)}
	for range workers {
		h.workers.Go(h.hammer)
	}
	t.Cleanup(h.end)
	return h
}

func (h *hog) end() {
	select {
	case <-h.stop:
		return
	default:
		close(h.stop)
	}
	h.workers.Wait()
	for {
		select {
		case c := <-h.held:
			_ = c.Close() // that is all it is for
		default:
			return
		}
	}
}

// hammer asks again and again on one connection until it gets a tunnel, and then on another one.
func (h *hog) hammer() {
	for {
		c, err := dialProxy(h.addr)
		if err != nil {
			return
		}
		if !h.insist(c) {
			_ = c.Close() // nothing was got
			return
		}
	}
}

// insist reports whether it got a tunnel, or must begin anew.
func (h *hog) insist(c *client) bool {
	for {
		select {
		case <-h.stop:
			return false
		default:
		}
		if err := c.SetDeadline(time.Now().Add(clientLimit)); err != nil {
			return false
		}
		got, err := c.connect("shop.target.example:443", h.name, h.password)
		switch {
		case err == nil && got.status == http.StatusOK:
			h.got.Add(1)
			select {
			case h.held <- c:
			default:
				_ = c.Close() // more than there are slots
			}
			return true
		case err == nil && got.status == http.StatusServiceUnavailable:
			h.refused.Add(1)
		}
		if err != nil || got.status != http.StatusServiceUnavailable || got.closes {
			_ = c.Close() // the relay ended it, as it does behind a 503 to a CONNECT
			return true
		}
	}
}

// release ends one of the hog's tunnels.
func (h *hog) release(t *testing.T) {
	t.Helper()
	select {
	case c := <-h.held:
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	case <-time.After(clientLimit):
		t.Fatal("the hog holds nothing")
	}
}

func startCrowded(t *testing.T, wait string) *lab.Relay {
	t.Helper()
	return startRelay(t, lab.Env{"UPSTREAM": startSource(t), "MAX_CONNS": "20", "QUEUE_TIMEOUT": wait, "LOG_LEVEL": "warn",
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", queueAccounts)})
}

// leases is how many connections of the account the relay counts.
func leases(t *testing.T, r *lab.Relay, name string) int {
	t.Helper()
	n, _ := r.Metric(t, `maskrelay_account_connections{account="`+name+`"}`)
	return int(n)
}

// TestFairShare fills a relay with a hog's tunnels. As they end one by one, a modest customer who asks in his own time gets his half, though the
// hog asks for each freed slot at once and many times.
func TestFairShare(t *testing.T) {
	t.Parallel()
	for _, wait := range []string{"0s", "2s"} {
		t.Run(wait, func(t *testing.T) {
			t.Parallel()
			relay := startCrowded(t, wait)
			h := startHog(t, relay.Addr, "hog", 8)
			lab.Wait(t, clientLimit, "the hog to have it all", func() bool { return relay.Tunnels(t) == queueSlots && (wait != "0s" || h.refused.Load() > 100) })
			got, asked := 0, 0
			var mine []*client
			defer func() {
				for _, c := range mine {
					_ = c.Close() // what they are for was seen
				}
			}()
			start := time.Now()
			for range queueSlots {
				// He asks, is refused perhaps, and a slot ends; he asks again within the time for which Retry-After says to wait.
				h.release(t)
				ok := lab.Poll(1500*time.Millisecond, func() bool {
					asked++
					c, ok := tryTunnel(t, relay.Addr, "modest")
					if ok {
						mine = append(mine, c)
					}
					return ok
				})
				if ok {
					got++
				}
				if got == queueSlots/2 {
					break
				}
			}
			t.Logf("%d slots for %d requests in %v; the hog was refused %d times", got, asked, time.Since(start), h.refused.Load())
			if got < queueSlots/2-1 {
				t.Errorf("the modest customer got %d of %d slots", got, queueSlots)
			}
			// Beyond his half he gets no more than the other: the slot goes back to the hog.
			before := h.got.Load()
			h.release(t)
			lab.Wait(t, clientLimit, "the hog to keep its half", func() bool { return h.got.Load() > before })
		})
	}
}

// tryTunnel asks once and reports whether there was a tunnel.
func tryTunnel(t *testing.T, addr, name string) (*client, bool) {
	t.Helper()
	c := mustDial(t, addr)
	got, err := c.connect("shop.target.example:443", name, name[:1]+"-password")
	if err == nil && got.status == http.StatusOK {
		return c, true
	}
	if err == nil && got.status != http.StatusServiceUnavailable {
		t.Errorf("%s: %+v", name, got)
	}
	if err == nil {
		checkOurReply(t, got, http.StatusServiceUnavailable)
	}
	_ = c.Close() // it has its answer
	return nil, false
}

// TestQueueTimeout lets a customer wait for room: he is let in when there is some, and refused when the time is over.
func TestQueueTimeout(t *testing.T) {
	t.Parallel()
	relay := startCrowded(t, "2s")
	var all []*mover
	for range queueSlots {
		all = append(all, openMover(t, relay.Addr, "hog", "h-password"))
	}
	start := time.Now()
	checkOurReply(t, mustDial(t, relay.Addr).mustConnect(t, "shop.target.example:443", "modest", "m-password"), http.StatusServiceUnavailable)
	if took := time.Since(start); took < 1900*time.Millisecond || took > 10*time.Second {
		t.Errorf("refused after %v, want two seconds", took)
	}
	waiting := mustDial(t, relay.Addr)
	answer := make(chan error, 1)
	go func() {
		got, err := waiting.connect("shop.target.example:443", "modest", "m-password")
		if err == nil && got.status != http.StatusOK {
			err = errors.New(got.body)
		}
		answer <- err
	}()
	lab.Wait(t, 5*time.Second, "him to be counted", func() bool { return leases(t, relay, "modest") == 1 })
	select {
	case err := <-answer:
		t.Fatalf("answered while the relay is full: %v", err)
	default:
	}
	if err := all[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("with room again: %v", err)
	}
	// One who leaves the queue takes no slot with him.
	gone := mustDial(t, relay.Addr)
	go func() { _, _ = gone.connect("shop.target.example:443", "modest", "m-password") }() // ends with the connection
	lab.Wait(t, 5*time.Second, "one more in the queue", func() bool { return leases(t, relay, "modest") == 2 })
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 10*time.Second, "the one who left to be forgotten", func() bool { return leases(t, relay, "modest") == 1 })
	if err := all[1].Close(); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 10*time.Second, "his place to be free", func() bool { return relay.Tunnels(t) == queueSlots-1 })
	openMover(t, relay.Addr, "modest", "m-password")
}

// TestFairWeights has two customers, one of weight 3, fight for every slot of a relay: they come to hold three to one.
func TestFairWeights(t *testing.T) {
	t.Parallel()
	for _, wait := range []string{"0s", "2s"} {
		t.Run(wait, func(t *testing.T) {
			t.Parallel()
			relay := startCrowded(t, wait)
			light, heavy := startHog(t, relay.Addr, "modest", 8), startHog(t, relay.Addr, "heavy", 8)
			lab.Wait(t, clientLimit, "the relay to be full", func() bool { return relay.Tunnels(t) == queueSlots })
			// Tunnels end on both sides until the shares are what they should be.
			var ended int
			fair := func() bool {
				return len(light.held) <= queueSlots/4+1 && len(light.held) >= queueSlots/4-1 && len(light.held)+len(heavy.held) >= queueSlots-1
			}
			if !lab.Poll(clientLimit, func() bool {
				if fair() {
					return true
				}
				for _, h := range []*hog{light, heavy} {
					if len(h.held) > 0 {
						h.release(t)
						ended++
					}
				}
				return false
			}) {
				t.Errorf("weights 1 and 3 hold %d and %d", len(light.held), len(heavy.held))
			}
			t.Logf("%d and %d after %d tunnels had ended", len(light.held), len(heavy.held), ended)
			light.end()
			heavy.end()
		})
	}
}
