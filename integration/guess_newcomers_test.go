package integration

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const (
	// newcomerTasks is how many connections a customer's program opens at once.
	newcomerTasks = 20
	newcomers     = 10
	// newcomerTime is more than a slow machine takes for them all.
	newcomerTime = 30 * time.Second
	// newcomerTries is how often a customer starts his program. He would get in by chance, did he try for long.
	newcomerTries = 3
)

// arrive has customer n log in with so many connections at once, and returns how many were let in.
func arrive(addr string, n, tasks int, password string) int {
	var in atomic.Int64
	var all sync.WaitGroup
	for range tasks {
		all.Go(func() {
			if status, err := login(addr, clientNumber(n), fmt.Sprintf("good%d", n), password); err == nil && status == http.StatusOK {
				in.Add(1)
			}
		})
	}
	all.Wait()
	return int(in.Load())
}

// TestNewcomersInFlood: customers whose passwords the relay has not compared yet get in beside 2,000 bad logins a second from many
// clients, whatever names those guess.
func TestNewcomersInFlood(t *testing.T) {
	const password = "good-password"
	accounts := writeFile(t, t.TempDir(), "accounts.yaml", goodAccounts(t, password))
	for _, tc := range []struct {
		name string
		bad  func(addr string, n int) (int, error)
	}{
		{"unknown names", guessUnknown},
		{"known names", guessKnown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := lab.Env{"UPSTREAM": startSource(t), "LOG_LEVEL": "warn", "ACCOUNTS_FILE": accounts}
			for name, value := range fromBalancer {
				env[name] = value
			}
			relay := lab.StartRelay(t, lab.Plain, env) // bcrypt takes too long with the race detector
			var counter atomic.Int64
			f := startFlood(&counter, func(n int) (int, error) { return tc.bad(relay.Addr, n) })
			defer f.end()
			if !lab.Poll(newcomerTime, func() bool { return f.statuses[http.StatusServiceUnavailable].Load() > badRate/2 }) {
				t.Fatal("the flood does not fill the queue")
			}
			start := time.Now()
			var all sync.WaitGroup
			var first, late atomic.Int64
			for n := range newcomers {
				all.Go(func() {
					for try := range newcomerTries {
						if in := arrive(relay.Addr, n, newcomerTasks, password); in > 0 {
							if try == 0 {
								first.Add(int64(in))
							}
							return
						}
						if time.Since(start) > newcomerTime {
							break
						}
					}
					late.Add(1)
				})
			}
			all.Wait()
			if late.Load() > 0 {
				t.Errorf("%d of %d newcomers were not let in", late.Load(), newcomers)
			}
			t.Logf("%d of %d tasks were let in at the first try, in %s, beside %d bad logins", first.Load(), newcomers*newcomerTasks, time.Since(start), counter.Load())
		})
	}
}
