package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit/redislimit"
)

const (
	fleetBandwidth = 4_000_000
	// fleetWindow is over what rates are taken: bursts are a tenth of a second's bytes.
	fleetWindow = 2 * time.Second
)

// fleetRelays are relays that share one customer's bandwidth, and what they carry.
type fleetRelays struct {
	t       *testing.T
	rigs    []*rig
	target  net.Listener
	moved   []atomic.Int64
	samples []fleetSample // of the last fleetWindow
}

type fleetSample struct {
	at    time.Time
	moved []int64
}

func startFleetRelays(t *testing.T, n int) *fleetRelays {
	t.Helper()
	server := lab.StartRedis(t)
	f := &fleetRelays{t: t, target: startEndless(t), moved: make([]atomic.Int64, n)}
	var clients []*fleet.Client
	for i := range n {
		client, err := fleet.Open(fleet.Config{URL: server.URL(), Node: fmt.Sprint("relay", i)})
		must(t, err)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); client.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done; must(t, client.Close()) })
		clients = append(clients, client)
		f.rigs = append(f.rigs, newRig(t, setup{config: func(c *Config) {
			c.Bandwidth, c.Shares = fleetBandwidth, redislimit.NewShares(client)
		}}))
	}
	for _, client := range clients {
		eventually(t, "the relays know each other", func() bool { return client.Up() && client.Relays() == n })
	}
	return f
}

// startEndless is a target that sends without end.
func startEndless(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var running sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = c.Close() }()
				b := make([]byte, 64<<10)
				for err := error(nil); err == nil; {
					_, err = c.Write(b)
				}
			})
		}
	})
	return l
}

// load opens tunnels on relay i that move all they can, until the returned function is
// called, which waits until the relay has let go of them.
func (f *fleetRelays) load(i, tunnels int) (stop func()) {
	var running sync.WaitGroup
	var conns []net.Conn
	for range tunnels {
		c, err := net.Dial("tcp", f.rigs[i].server.Addrs()[0].String())
		must(f.t, err)
		must(f.t, c.SetDeadline(time.Now().Add(time.Minute)))
		_, err = io.WriteString(c, connectTo(f.target.Addr().String()))
		must(f.t, err)
		conns = append(conns, c)
		running.Go(func() {
			r := bufio.NewReaderSize(c, 64<<10)
			if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
				f.t.Errorf("the answer is %q, %v", line, err)
			}
			b := make([]byte, 64<<10)
			for {
				n, err := r.Read(b)
				f.moved[i].Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	stop = sync.OnceFunc(func() {
		for _, c := range conns {
			_ = c.Close()
		}
		running.Wait()
		eventually(f.t, "the tunnels have ended", func() bool { return f.rigs[i].server.engine.Count() == 0 })
	})
	f.t.Cleanup(stop)
	return stop
}

// rates are the relays' and their sum over the last window, in parts of the bandwidth;
// reports whether a whole window has been seen.
func (f *fleetRelays) rates() (each []float64, sum float64, whole bool) {
	now := fleetSample{at: time.Now()}
	for i := range f.moved {
		now.moved = append(now.moved, f.moved[i].Load())
	}
	f.samples = append(f.samples, now)
	for len(f.samples) > 2 && now.at.Sub(f.samples[1].at) >= fleetWindow {
		f.samples = f.samples[1:]
	}
	first := f.samples[0]
	took := now.at.Sub(first.at)
	for i := range f.moved {
		r := float64(now.moved[i]-first.moved[i]) / max(took, time.Millisecond).Seconds() / fleetBandwidth
		each = append(each, r)
		sum += r
	}
	return each, sum, took >= fleetWindow
}

// settles waits until the relays with load carry the customer's bandwidth within a tenth,
// each at least the part that least says, and then looks that they do not carry more. A
// busy machine may make it less, or late; how soon and how exact it is, the model says.
func (f *fleetRelays) settles(what string, least []float64) {
	f.t.Helper()
	start := time.Now()
	f.samples = nil
	eventually(f.t, what, func() bool {
		each, sum, whole := f.rates()
		ok := whole && sum > 0.9 && sum < 1.1
		for i := range least {
			ok = ok && each[i] >= least[i]
		}
		return ok
	})
	took := time.Since(start) - fleetWindow // which is right as a whole
	f.t.Logf("%s: right after %v", what, took.Round(100*time.Millisecond))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 60 {
		<-tick.C
		if each, sum, _ := f.rates(); sum > 1.2 {
			f.t.Errorf("%s: later it is %.2f of the bandwidth, each %.2f", what, sum, each)
			return
		}
	}
}

// One account has its bandwidth once, on however many relays it is used, and wherever its
// load goes.
func TestFleetSharesOneBandwidth(t *testing.T) {
	f := startFleetRelays(t, 3)
	first := f.load(0, 8)
	f.settles("one relay alone", []float64{0.9, 0, 0})
	second, third := f.load(1, 8), f.load(2, 2)
	f.settles("all three", []float64{0.28, 0.28, 0.28})
	first()
	second()
	f.settles("moved to the third", []float64{0, 0, 0.9})
	third()
	f.load(1, 4)
	f.settles("moved to the second", []float64{0, 0.9, 0})
}
