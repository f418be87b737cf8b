//go:build amd64 || arm64

package tunnel

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// load is a number of tunnels of one account that all have bytes to move.
type load struct {
	engine   *Engine
	shared   *Shared
	received []atomic.Int64 // at the far end of each
	files    []io.Closer
	running  sync.WaitGroup
}

// newLoad starts n tunnels that move all they can, up or down.
func newLoad(tb testing.TB, n int, up bool, bytesPerSecond int64) *load {
	tb.Helper()
	l := &load{engine: NewEngine(Options{pumpsOnly: pumpsOnly}), shared: NewShared(bytesPerSecond), received: make([]atomic.Int64, n)}
	tb.Cleanup(l.close)
	for i := range n {
		client, inside := loadPair(tb)
		vendor, upstream := loadPair(tb)
		l.files = append(l.files, client, vendor)
		l.engine.Submit((&script{
			client: inside, shared: l.shared, key: "alice",
			open: func(context.Context) (Peer, error) { return Peer{Conn: upstream}, nil },
		}).job())
		from, to := vendor, client
		if up {
			from, to = client, vendor
		}
		l.running.Go(func() {
			b := make([]byte, 256<<10)
			for {
				if _, err := from.Write(b); err != nil {
					return
				}
			}
		})
		l.running.Go(func() {
			b := make([]byte, 256<<10)
			for {
				n, err := to.Read(b)
				l.received[i].Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	return l
}

func loadPair(tb testing.TB) (outside, inside net.Conn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if outside, err = net.Dial("tcp", l.Addr().String()); err == nil {
		inside, err = l.Accept()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return outside, inside
}

func (l *load) close() {
	for _, f := range l.files {
		_ = f.Close()
	}
	l.running.Wait()
	l.engine.Close()
}

// counts are the bytes that each tunnel has delivered.
func (l *load) counts() []int64 {
	counts := make([]int64, len(l.received))
	for i := range counts {
		counts[i] = l.received[i].Load()
	}
	return counts
}

func (l *load) total() (sum int64) {
	for _, n := range l.counts() {
		sum += n
	}
	return sum
}

// Never faster than the rate, whatever the buffers and the number of tunnels.
func TestSharedIsNeverFaster(t *testing.T) {
	const rate, size = 4 << 20, 2 << 20
	for _, n := range []int{1, 8} {
		for _, up := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %t", n, up), func(t *testing.T) {
				start := time.Now()
				l := newLoad(t, n, up, rate)
				until(t, func() bool { return l.total() >= size })
				// What may go at once is a burst and a move for each tunnel, far below a half.
				if least := time.Since(start); least < time.Second*size/rate/2 {
					t.Errorf("%d bytes took %v", size, least)
				}
			})
		}
	}
}

func TestSharedIsFair(t *testing.T) {
	l := newLoad(t, 8, false, 16<<20)
	until(t, func() bool { return l.total() > 16<<20 })
	counts := l.counts()
	if least, most := slices.Min(counts), slices.Max(counts); most > 3*least {
		t.Errorf("the tunnels got %v", counts)
	}
}

// A debt at a low rate does not outlive the rate.
func TestSharedRateChangesLive(t *testing.T) {
	for _, rate := range []int64{0, 1 << 30} {
		for _, pumps := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %t", rate, pumps), func(t *testing.T) {
				pumpsOnly = pumps
				defer func() { pumpsOnly = false }()
				l := newLoad(t, 4, false, 1) // one move is an hour of debt
				until(t, func() bool { return l.shared.ways[1].waiting.Load() == 4 })
				l.shared.Set(rate, rate)
				want := l.total() + 32<<20
				until(t, func() bool { return l.total() > want })
			})
		}
	}
	t.Run("down", func(t *testing.T) {
		l := newLoad(t, 2, true, 0)
		until(t, func() bool { return l.total() > 32<<20 })
		l.shared.Set(100<<10, 100<<10)
		until(t, func() bool { return l.shared.ways[0].waiting.Load() == 2 })
	})
}

// A rate that changes often gives nobody more than it says: who waits goes on waiting.
func TestSharedChangesGiveNothing(t *testing.T) {
	const n, rate = 200, 64 << 10
	for name, pumps := range map[string]bool{"reactor": false, "pumps": true} {
		t.Run(name, func(t *testing.T) {
			pumpsOnly = pumps
			defer func() { pumpsOnly = false }()
			l := newLoad(t, n, false, rate)
			until(t, func() bool { return l.shared.ways[downward].waiting.Load() == n })
			before, start := l.total(), time.Now()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := 0; time.Since(start) < 2500*time.Millisecond; i++ { // beyond two scans of the reactors
				<-tick.C
				l.shared.Set(rate, rate<<(i%2))
			}
			most := int64(time.Since(start).Seconds()*2*rate) + 16*minQuantum
			if moved := l.total() - before; moved > most {
				t.Errorf("%d bytes, not more than %d were allowed", moved, most)
			}
		})
	}
}

// Throttled bytes are spliced where the rate is worth it, and are the right ones.
func TestSharedBytesAreRight(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.job.shared = NewShared(200 << 20)
	s.open()
	data := randomBytes(64 << 20)
	go func() { _, _ = s.vendor.Write(data); _ = s.vendor.(*net.TCPConn).CloseWrite() }()
	hash := sha256.New()
	_, err := io.Copy(hash, s.client)
	must(t, err)
	if want := sha256.Sum256(data); string(hash.Sum(nil)) != string(want[:]) {
		t.Error("other bytes came")
	}
	spliced := s.engine.reactors.each(func(r *reactor) int { return len(r.pipes.free) })
	if spliced == 0 {
		t.Error("nothing was spliced")
	}
}

// A cut does not wait for a debt, and leaves none.
func TestCutWhileThrottled(t *testing.T) {
	l := newLoad(t, 8, false, 1000)
	until(t, func() bool { return l.shared.ways[1].waiting.Load() == 8 })
	if n := l.engine.CloseKey("alice"); n != 8 {
		t.Errorf("cut %d tunnels", n)
	}
	until(t, func() bool { return l.engine.Count() == 0 })
	if n := l.shared.ways[1].waiting.Load(); n != 0 {
		t.Errorf("%d tunnels wait", n)
	}
}

// The debts of tunnels that have ended, due in hours, do not pile up.
func TestOldDebtsAreForgotten(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one reactor
	engine := NewEngine(Options{})
	defer engine.Close()
	shared := NewShared(1)
	move := strings.Repeat("x", minQuantum)
	for range 2000 {
		s := &scene{t: t, engine: engine, results: make(chan Result, 2)}
		var inside, upstream, client, vendor net.Conn
		client, inside = loadPair(t)
		vendor, upstream = loadPair(t)
		s.job = &script{client: inside, shared: shared, done: func(r Result) { s.results <- r }}
		engine.Submit(Job{Client: inside, Exchange: s.job, Peer: &Peer{Conn: upstream}})
		send(t, client, move)
		expect(t, vendor, move)
		breakOff(t, vendor)
		must(t, client.Close())
		s.result()
	}
	if n := engine.reactors.each(func(r *reactor) int { return len(r.debts) }); n > 3*chunkSize {
		t.Errorf("%d debts of no tunnel", n)
	}
}

// TestSharedAccuracy prints how exact and how fair a shared bandwidth is; it takes
// minutes, and runs only where MASKRELAY_SHARED is set: to a list of MB/s, or to all.
func TestSharedAccuracy(t *testing.T) {
	wanted := os.Getenv("MASKRELAY_SHARED")
	if wanted == "" {
		t.Skip("MASKRELAY_SHARED is not set")
	}
	if wanted == "all" {
		wanted = "1,5,10,50,100,500"
	}
	fmt.Println("| MB/s | tunnels | way | of the rate | max/min | CPU, s per s |")
	fmt.Println("|---|---|---|---|---|---|")
	for word := range strings.SplitSeq(wanted, ",") {
		rate, err := strconv.ParseInt(word, 10, 64)
		must(t, err)
		for _, n := range []int{1, 8, 64} {
			for _, up := range []bool{false, true} {
				way := map[bool]string{false: "down", true: "up"}[up]
				share, ratio, cpu := measureShared(t, n, up, rate*1e6)
				fmt.Printf("| %d | %d | %s | %.3f | %.2f | %.2f |\n", rate, n, way, share, ratio, cpu)
			}
		}
	}
}

func measureShared(t *testing.T, n int, up bool, rate int64) (share, ratio, cpu float64) {
	l := newLoad(t, n, up, rate)
	defer l.close()
	time.Sleep(1500 * time.Millisecond) // what buffers take at first is no measure
	before, start, used := l.counts(), time.Now(), cpuTime()
	time.Sleep(4 * time.Second)
	after, took := l.counts(), time.Since(start).Seconds()
	cpu = (cpuTime() - used).Seconds() / took
	sum := int64(0)
	for i := range after {
		after[i] -= before[i]
		sum += after[i]
	}
	return float64(sum) / took / float64(rate), float64(slices.Max(after)) / float64(max(slices.Min(after), 1)), cpu
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
