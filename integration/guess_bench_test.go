package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"maskrelay/integration/lab"
)

const (
	badRate   = 2000 // bad logins a second
	goodRate  = 500  // tunnels that good customers open a second
	goodCount = 200  // good customers
	probeTime = 2 * time.Second
)

// goodAccounts are customers with bcrypt hashes, all of one password, as "maskrelay hash-password" makes them.
func goodAccounts(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("accounts:\n")
	for i := range goodCount {
		fmt.Fprintf(&text, "  - name: good%d\n    password: %s\n", i, hash)
	}
	return text.String()
}

// guessUnknown is a guess at a name that does not exist, from one of many clients.
func guessUnknown(addr string, n int) (int, error) {
	return login(addr, clientNumber(1<<18+n%(1<<19)), fmt.Sprintf("guess%d", n), "x")
}

// guessKnown is a guess at the password of a good customer, from one of many clients.
func guessKnown(addr string, n int) (int, error) {
	return login(addr, clientNumber(1<<18+n%(1<<19)), fmt.Sprintf("good%d", n%goodCount), fmt.Sprint(n))
}

// flood is bad logins at a rate, whatever becomes of them, until it is stopped.
type flood struct {
	stop     chan struct{}
	all      sync.WaitGroup
	under    atomic.Int64
	statuses [600]atomic.Int64
}

// startFlood has bad make logins; it is given a number that is never the same.
func startFlood(counter *atomic.Int64, bad func(n int) (int, error)) *flood {
	f := &flood{stop: make(chan struct{})}
	f.all.Go(func() {
		const tick = 5 * time.Millisecond
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-ticker.C:
			}
			for range badRate * int(tick) / int(time.Second) {
				if f.under.Load() >= 4*badRate {
					break // the relay holds that many already
				}
				f.under.Add(1)
				f.all.Go(func() {
					defer f.under.Add(-1)
					status, err := bad(int(counter.Add(1)))
					if err == nil {
						f.statuses[status].Add(1)
					}
				})
			}
		}
	})
	return f
}

func (f *flood) end() {
	close(f.stop)
	f.all.Wait()
}

// customers open tunnels at goodRate for a probeTime, each at home where he logged in before, and return how many there were and how long each took.
func customers(addr, password string, among int) (took []time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	const workers = 20
	end := time.Now().Add(probeTime)
	for w := range workers {
		all.Go(func() {
			ticker := time.NewTicker(time.Second * workers / goodRate)
			defer ticker.Stop()
			for i := w; time.Now().Before(end); i += workers {
				<-ticker.C
				start := time.Now()
				n := i % among
				if status, err := login(addr, clientNumber(n), fmt.Sprintf("good%d", n), password); err == nil && status == http.StatusOK {
					mu.Lock()
					took = append(took, time.Since(start))
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	return took
}

func quantile(took []time.Duration, q float64) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
}

// BenchmarkGoodLoginsInFlood measures, second by second in turns, good customers alone and beside 2,000 bad logins a second. "kept" is the
// share of their rate that good customers keep; "first-kept" that of those who log in for the first time, whose password must be compared,
// with one connection, and "first20-kept" that of those who come with 20 at once and get in with one of them at least.
func BenchmarkGoodLoginsInFlood(b *testing.B) {
	const password = "good-password"
	accounts := goodAccounts(b, password)
	panel := startPanel(b)
	for i := range goodCount {
		panel.good[fmt.Sprintf("good%d:%s", i, password)] = `{}`
	}
	path := filepath.Join(b.TempDir(), "accounts.yaml")
	if err := os.WriteFile(path, []byte(accounts), 0o644); err != nil {
		b.Fatal(err)
	}
	file := lab.Env{"ACCOUNTS_FILE": path}
	hook := lab.Env{"AUTH": "hook", "AUTH_URL": panel.URL}
	for _, bc := range []struct {
		name string
		env  lab.Env
		bad  func(addr string, n int) (int, error)
	}{
		{"bcrypt/one client", file, func(addr string, n int) (int, error) {
			return login(addr, clientNumber(1<<20), fmt.Sprintf("guess%d", n), "x")
		}},
		{"bcrypt/many clients, unknown names", file, guessUnknown},
		{"bcrypt/many clients, known names", file, guessKnown},
		{"hook/many clients, unknown names", hook, guessUnknown},
	} {
		b.Run(bc.name, func(b *testing.B) {
			env := lab.Env{"UPSTREAM": startSource(b), "LOG_LEVEL": "warn"}
			for _, more := range []lab.Env{fromBalancer, bc.env} {
				for name, value := range more {
					env[name] = value
				}
			}
			relay := lab.StartRelay(b, lab.Plain, env)
			measureFlood(b, relay.Addr, password, bc.bad)
		})
	}
}

func measureFlood(b *testing.B, addr, password string, bad func(addr string, n int) (int, error)) {
	const known = goodCount * 3 / 4 // the rest logs in for the first time in the flood
	for n := range known {
		if status, err := login(addr, clientNumber(n), fmt.Sprintf("good%d", n), password); err != nil || status != http.StatusOK {
			b.Fatalf("good%d: %d %v", n, status, err)
		}
	}
	var counter atomic.Int64
	var alone, beside []time.Duration
	statuses := map[int]int64{}
	newcomer, firsts := known, 0
	var firstsKept, crowdsKept atomic.Int64
	var flooded time.Duration
	for b.Loop() {
		alone = append(alone, customers(addr, password, known)...)
		start := time.Now()
		f := startFlood(&counter, func(n int) (int, error) { return bad(addr, n) })
		beside = append(beside, customers(addr, password, known)...)
		var first sync.WaitGroup // now that whatever has a bound has reached it
		for range 5 {
			if newcomer+2 > goodCount {
				break
			}
			one, many := newcomer, newcomer+1
			newcomer += 2
			firsts++
			first.Go(func() { firstsKept.Add(int64(arrive(addr, one, 1, password))) })
			first.Go(func() { crowdsKept.Add(int64(min(1, arrive(addr, many, newcomerTasks, password)))) })
		}
		first.Wait()
		flooded += time.Since(start)
		f.end()
		for s := range f.statuses {
			if n := f.statuses[s].Load(); n > 0 {
				statuses[s] += n
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(beside))/float64(len(alone)), "kept")
	b.ReportMetric(float64(firstsKept.Load())/float64(firsts), "first-kept")
	b.ReportMetric(float64(crowdsKept.Load())/float64(firsts), "first20-kept")
	b.ReportMetric(quantile(alone, 0.5), "alone-p50-ms")
	b.ReportMetric(quantile(beside, 0.5), "flood-p50-ms")
	b.ReportMetric(quantile(alone, 0.99), "alone-p99-ms")
	b.ReportMetric(quantile(beside, 0.99), "flood-p99-ms")
	b.ReportMetric(float64(counter.Load())/flooded.Seconds(), "bad/s")
	b.Logf("bad logins by status: %v", statuses)
}
