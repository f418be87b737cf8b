package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// The lines that a relay logs when Redis goes and comes.
const (
	lostLine     = "redis does not answer: limits are decided here"
	returnedLine = "redis answers: limits are the fleet's"
)

// lines counts the lines with text in a relay's log.
func lines(r *lab.Relay, text string) int { return strings.Count(string(r.Stderr.Bytes()), text) }

// waitRedis waits until each relay says that Redis is up, or down, and checks that it stays ready.
func (f *relayFleet) waitRedis(t *testing.T, up float64) {
	t.Helper()
	for _, r := range f.relays {
		lab.Wait(t, 20*time.Second, fmt.Sprint("maskrelay_redis_up to be ", up), func() bool {
			got, ok := r.Metric(t, "maskrelay_redis_up")
			return ok && got == up
		})
		if status, _, err := r.Get("/readyz"); err != nil || status != http.StatusOK {
			t.Errorf("readyz: %d %v", status, err)
		}
	}
}

// setups are CONNECTs of one customer's, one after the other, each of which is over when it was answered.
type setups struct {
	stop chan struct{}
	over sync.WaitGroup

	mu     sync.Mutex
	took   []time.Duration
	status map[int]int
	failed []error
}

// startSetups begins some at each relay, and a next one a moment after the last.
func startSetups(relays []*lab.Relay, name string) *setups {
	s := &setups{stop: make(chan struct{}), status: map[int]int{}}
	for _, r := range relays {
		s.over.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-s.stop:
					return
				case <-tick.C:
				}
				start := time.Now()
				status, err := askOnce(r.Addr, name, fleetPassword)
				s.add(status, time.Since(start), err)
			}
		})
	}
	return s
}

// askOnce asks for one tunnel, and closes what it is given.
func askOnce(addr, name, password string) (status int, err error) {
	c, err := dialProxy(addr)
	if err != nil {
		return 0, err
	}
	got, err := c.connect(fleetTarget, name, password)
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return got.status, err
}

func (s *setups) add(status int, took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed = append(s.failed, err)
		return
	}
	s.status[status]++
	s.took = append(s.took, took)
}

// end waits for the last, and returns how many had each status.
func (s *setups) end(t *testing.T, what string) map[int]int {
	t.Helper()
	close(s.stop)
	s.over.Wait()
	if len(s.took) == 0 || len(s.failed) > 0 {
		t.Fatalf("%d were answered, %d failed: %v", len(s.took), len(s.failed), s.failed)
	}
	slices.Sort(s.took)
	t.Logf("%s: %d set-ups, statuses %v, median %v, slowest %v", what, len(s.took), s.status, s.took[len(s.took)/2], s.took[len(s.took)-1])
	return s.status
}

// frozenWants is what customers get while Redis is away, under one of REDIS_DOWN's values.
type frozenWants struct {
	down   string
	inside int // status of the last connection of a customer's share on a relay
	after  int // of one more
}

// TestFleetRedisFrozen stops Redis, which keeps its connections, and goes on, under customers who come all the time.
func TestFleetRedisFrozen(t *testing.T) {
	t.Parallel()
	for _, want := range []frozenWants{
		{"local_share", http.StatusOK, http.StatusTooManyRequests},
		{"open", http.StatusOK, http.StatusOK},
		{"closed", http.StatusServiceUnavailable, http.StatusServiceUnavailable},
	} {
		t.Run(want.down, func(t *testing.T) {
			t.Parallel()
			const most, relays = 20, 2
			limit := fmt.Sprint("max_conns: ", most)
			f := startFleet(t, fleetConfig{
				relays: relays, env: lab.Env{"REDIS_DOWN": want.down},
				customers: map[string]string{"capped": limit, "comes": limit, "free": "weight: 1"},
			})
			var held []*client
			for _, r := range f.relays {
				held = append(held, f.fill(t, r, "capped", most/relays-1)...)
			}
			timeouts := f.timeouts(t)
			s := startSetups(f.relays, "comes")
			f.redis.Freeze(t)
			f.waitRedis(t, 0)
			for _, r := range f.relays {
				f.wantStatus(t, r, "capped", want.inside)
				f.wantStatus(t, r, "capped", want.after)
				f.wantStatus(t, r, "free", http.StatusOK)
			}
			mustLive(t, held...)
			checkFrozen(t, f, s)
			f.redis.Thaw(t)
			f.waitRedis(t, 1)
			status := s.end(t, want.down)
			if refused := status[http.StatusServiceUnavailable]; (refused > 0) != (want.down == "closed") || status[http.StatusOK] == 0 || len(status) > 2 {
				t.Errorf("statuses %v", status)
			}
			// Those who come while Redis is away do not wait for it, each by himself.
			if n := f.timeouts(t) - timeouts; n > 16*relays {
				t.Errorf("%v calls waited for Redis in vain", n)
			}
			checkOutageLines(t, f)
		})
	}
}

// checkFrozen has hundreds of customers come while Redis is away, and finds one line for the loss, not one for each.
func checkFrozen(t *testing.T, f *relayFleet, s *setups) {
	t.Helper()
	for _, r := range f.relays {
		lab.Wait(t, 10*time.Second, "a line for the loss", func() bool { return lines(r, lostLine) == lines(r, returnedLine) })
	}
	said, before := f.outageLines(), s.answered()
	lab.Wait(t, 20*time.Second, "customers while Redis is away", func() bool { return s.answered() >= before+300 })
	if now := f.outageLines(); now != said {
		t.Errorf("the loss is logged more than once:\n%s\n%s", said, now)
	}
}

// answered counts the set-ups so far.
func (s *setups) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took)
}

// outageLines counts each relay's lines of losses and returns.
func (f *relayFleet) outageLines() string {
	var all []string
	for _, r := range f.relays {
		all = append(all, fmt.Sprintf("%s: %d lost, %d returned", r.Name, lines(r, lostLine), lines(r, returnedLine)))
	}
	return strings.Join(all, "; ")
}

// checkOutageLines wants a line for each loss and one for each return, and Redis back at last. A busy machine can have losses of its own.
func checkOutageLines(t *testing.T, f *relayFleet) {
	t.Helper()
	for _, r := range f.relays {
		lab.Wait(t, 10*time.Second, "a line for the return", func() bool { return lines(r, lostLine) < lines(r, returnedLine) })
		lost, returned := lines(r, lostLine), lines(r, returnedLine)
		if lost < 1 || returned != lost+1 {
			t.Errorf("%s: %d lines for losses, %d for the start and returns", r.Name, lost, returned)
		}
	}
}

// timeouts counts the calls of all relays that Redis did not answer.
func (f *relayFleet) timeouts(t *testing.T) (sum float64) {
	t.Helper()
	for _, r := range f.relays {
		n, _ := r.Metric(t, `maskrelay_redis_calls_total{result="timeout"}`)
		sum += n
	}
	return sum
}

// TestFleetRedisEmptied ends Redis and starts an empty one: the relays tell it what they carry before anybody is let in on top of that.
func TestFleetRedisEmptied(t *testing.T) {
	t.Parallel()
	const most = 40
	f := startFleet(t, fleetConfig{relays: 3, customers: map[string]string{"capped": fmt.Sprint("max_conns: ", most)}})
	var open []*client
	for i, r := range f.relays {
		open = append(open, f.fill(t, r, "capped", []int{30, 9, 1}[i])...)
	}
	f.redis.Kill(t)
	f.waitRedis(t, 0)
	f.redis.Restart(t)
	f.addUser(t)
	f.meet(t)
	for _, r := range f.relays {
		f.mustRefuse(t, r, "capped")
	}
	if n := f.tunnels(t); n != most {
		t.Errorf("%d tunnels with a cap of %d", n, most)
	}
	for i, c := range open {
		if err := c.ping("through all that"); err != nil {
			t.Fatalf("tunnel %d: %v", i, err)
		}
	}
	closeAll(t, open)
	f.fill(t, f.relays[2], "capped", most) // nothing is lost for good
}

// TestFleetWithoutRedisAtStart starts a relay before its Redis.
func TestFleetWithoutRedisAtStart(t *testing.T) {
	t.Parallel()
	for down, status := range map[string]int{"local_share": http.StatusOK, "closed": http.StatusServiceUnavailable} {
		t.Run(down, func(t *testing.T) {
			t.Parallel()
			c := fleetConfig{customers: map[string]string{"capped": "max_conns: 2"}, env: lab.Env{"REDIS_DOWN": down}}
			f := newFleet(t, &c)
			f.redis.Kill(t)
			r := f.start(t, c, "early")
			lab.Wait(t, 10*time.Second, "the relay to say so", func() bool { return lines(r, lostLine) == 1 })
			if !r.Stderr.Contains("nothing listens at the address of Redis") || !r.Stderr.Contains(`"redis_down":"`+down+`"`) {
				t.Errorf("the line says neither why nor what now:\n%s", r.Stderr.Bytes())
			}
			f.wantStatus(t, r, "capped", status)
			f.redis.Restart(t)
			f.addUser(t)
			f.waitRedis(t, 1)
			f.fill(t, r, "capped", 2-f.tunnels(t))
			f.mustRefuse(t, r, "capped")
		})
	}
}
