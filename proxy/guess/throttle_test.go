package guess

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watch is a clock that tests move.
type watch struct{ passed atomic.Int64 }

func (w *watch) now() time.Time          { return time.Unix(1e9, w.passed.Load()) }
func (w *watch) advance(d time.Duration) { w.passed.Add(int64(d)) }

// login is one attempt with a wrong password, as the relay makes it.
func login(t *Throttle, client, name string) time.Duration {
	addr, _ := netip.ParseAddr(client)
	wait := t.Check(addr, name)
	if wait == 0 {
		t.Failed(addr, name)
	}
	return wait
}

func TestThrottle(t *testing.T) {
	// A step is "client name result": a number of logins that fail before the throttle
	// steps in (of ten tries), "known", or a wait that is checked; or a pause.
	tests := []struct {
		name                string
		perAddress, perName int
		script              string
	}{
		{"off", 0, 0, "1.1.1.1 a 10, 1.1.1.1 a known, 1.1.1.1 a 10"},
		{"by address", 3, 0, "1.1.1.1 a 3, 1.1.1.1 b 0, 1.1.1.2 a 3, 1.1.1.1 c wait=20s"},
		{"by name", 0, 3, "1.1.1.1 a 3, 1.1.1.2 a 0, 1.1.1.1 b 3, 1.1.1.9 a wait=20s"},
		{"the longer wait", 6, 3, "1.1.1.1 a 3, 1.1.1.1 b 3, 1.1.1.1 a wait=20s, 1.1.1.1 c wait=10s"},
		{"one at a time", 6, 0, "1.1.1.1 a 6, 10s, 1.1.1.1 a 1, 1.1.1.1 a wait=10s, 4s, 1.1.1.1 a wait=6s, 26s, 1.1.1.1 a 3"},
		{"all forgiven", 6, 0, "1.1.1.1 a 6, 60s, 1.1.1.1 a 6"},
		{"IPv6 by network", 3, 0, "2001:db8::1 a 3, 2001:db8::2:3:4:5 a 0, 2001:db8:0:1::1 a 3"},
		{"IPv6 by site", 1, 0, "2001:db8::1 a 1, 2001:db8:0:1::1 a 1, 2001:db8:0:2::1 a 1, 2001:db8:0:3::1 a 1, 2001:db8:0:4::1 a 1, " +
			"2001:db8:0:5::1 a 1, 2001:db8:0:6::1 a 1, 2001:db8:0:7::1 a 1, 2001:db8:0:8::1 a 0, 2001:db8:1::1 a 1"},
		{"IPv4 in IPv6", 3, 0, "::ffff:1.1.1.1 a 3, 1.1.1.1 a 0"},
		{"no address", 3, 0, "- a 3, - b 0, 1.1.1.1 a 3"},
		{"known behind the same address", 3, 3, "1.1.1.1 good known, 1.1.1.1 a 3, 1.1.1.1 b 0, 1.1.1.1 good 10, 1.1.1.2 good 0"},
		{"known while the name is flooded", 0, 3, "1.1.1.1 good known, 6.6.6.6 good 3, 7.7.7.7 good 0, 1.1.1.1 good 10"},
		{"known in the same IPv6 network", 3, 3, "2001:db8::1 good known, 2001:db8::2 a 3, 2001:db8::3 good 10, 2001:db8:0:1::1 good 0"},
		{"known for an hour", 3, 3, "1.1.1.1 good known, 3599s, 1.1.1.1 a 3, 1.1.1.1 good 10, 2s, 1.1.1.1 good 0"},
		{"known again", 3, 3, "1.1.1.1 good known, 3500s, 1.1.1.1 good known, 3500s, 1.1.1.1 a 3, 1.1.1.1 good 10"},
		{"unknown names are like known ones", 3, 2, "1.1.1.1 good known, 2.2.2.2 good 2, 3.3.3.3 nobody 2, 2.2.2.2 good wait=30s, 3.3.3.3 nobody wait=30s"},
		{"long names", 0, 2, "1.1.1.1 " + strings.Repeat("x", 10_000) + " 2, 1.1.1.1 " + strings.Repeat("x", 9_999) + " 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var w watch
			th := New(Config{PerAddress: tt.perAddress, PerName: tt.perName, Now: w.now})
			for i, step := range strings.Split(tt.script, ", ") {
				if pause, err := time.ParseDuration(step); err == nil {
					w.advance(pause)
					continue
				}
				f := strings.Fields(step)
				addr, _ := netip.ParseAddr(f[0])
				got := ""
				switch {
				case f[2] == "known":
					th.Succeeded(addr, f[1])
					continue
				case strings.HasPrefix(f[2], "wait="):
					got = fmt.Sprint("wait=", th.Check(addr, f[1]))
				default:
					n := 0
					for n < 10 && login(th, f[0], f[1]) == 0 {
						n++
					}
					got = fmt.Sprint(n)
				}
				if got != f[2] {
					t.Fatalf("step %d, %.40q: got %s", i, step, got)
				}
			}
		})
	}
}

// TestRate: whoever never stops is let through as often as is allowed, and no debt grows
// from what was under way.
func TestRate(t *testing.T) {
	var w watch
	th := New(Config{PerAddress: 60, Now: w.now})
	passed := 0
	for range 600_000 { // ten minutes
		if login(th, "1.1.1.1", "a") == 0 {
			passed++
		}
		w.advance(time.Millisecond)
	}
	if passed < 650 || passed > 660 {
		t.Errorf("%d attempts passed in ten minutes, want 60 and one each second", passed)
	}
	for range 1000 {
		th.Failed(netip.MustParseAddr("1.1.1.1"), "a")
	}
	if wait := th.Check(netip.MustParseAddr("1.1.1.1"), "a"); wait != time.Second {
		t.Errorf("wait of %v after a thousand failures at once, want 1s", wait)
	}
}

func TestExtremes(t *testing.T) {
	var w watch
	th := New(Config{PerAddress: math.MaxInt, PerName: -1, Now: w.now})
	for range maxAllowance {
		if wait := login(th, "1.1.1.1", "a"); wait != 0 {
			t.Fatalf("wait of %v within an allowance of a million", wait)
		}
	}
	if wait := login(th, "1.1.1.1", "a"); wait <= 0 || wait > time.Second {
		t.Errorf("wait of %v beyond it", wait)
	}
	w.advance(-time.Hour) // a clock that was put back
	if wait := login(th, "2.2.2.2", "a"); wait != 0 {
		t.Errorf("wait of %v on a clock that runs backwards", wait)
	}
}

// TestFloods: half a million names or addresses that fail once neither drive out those who
// failed often, nor make the tables grow.
func TestFloods(t *testing.T) {
	var w watch
	th := New(Config{PerAddress: 60, PerName: 60, Now: w.now})
	offenders := 1000
	for i := range offenders {
		for range 70 {
			login(th, addr(uint32(i)).String(), fmt.Sprint("victim", i))
		}
	}
	for i := range 500_000 {
		a := addr(1<<24 + uint32(i))
		th.Failed(a, fmt.Sprint("invented", i))
	}
	lost := 0
	for i := range offenders {
		if th.Check(addr(uint32(i)), "x") == 0 || th.Check(addr(7<<24), fmt.Sprint("victim", i)) == 0 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d offenders were forgotten", lost, offenders)
	}
	if n := len(th.addresses) + len(th.names); n != 2*tableShards {
		t.Errorf("%d shards", n)
	}
}

// TestKnownPairsAreBounded: with far more pairs than there is room for, the latest are known.
func TestKnownPairsAreBounded(t *testing.T) {
	var w watch
	th := New(Config{PerName: 1, Now: w.now})
	const pairs, latest = 200_000, 20_000
	for i := range pairs {
		th.Succeeded(addr(uint32(i)), "name")
		w.advance(10 * time.Millisecond)
	}
	login(th, "9.9.9.9", "name")
	known := 0
	for i := pairs - latest; i < pairs; i++ {
		if th.Check(addr(uint32(i)), "name") == 0 {
			known++
		}
	}
	if known < latest*99/100 {
		t.Errorf("%d of the latest %d pairs are known", known, latest)
	}
	if th.Check(addr(0), "name") == 0 {
		t.Error("the first of many is still known")
	}
}

func TestCollector(t *testing.T) {
	var w watch
	th := New(Config{PerAddress: 1, PerName: 1, Now: w.now})
	for range 3 {
		login(th, "1.1.1.1", "a") // one, then two by address and by name, which count by address
	}
	login(th, "1.1.1.2", "a")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(th)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "maskrelay_login_throttled_total" {
		t.Fatalf("gathered %v, error %v", families, err)
	}
	got := make(map[string]float64)
	for _, m := range families[0].GetMetric() {
		got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	if got["address"] != 2 || got["name"] != 1 || len(got) != 2 {
		t.Errorf("counted %v, want 2 by address and 1 by name", got)
	}
}

// TestContention: with everybody at once the allowance is kept, but for those under way.
func TestContention(t *testing.T) {
	const goroutines, allowance = 16, 100
	var w watch
	th := New(Config{PerAddress: allowance, PerName: allowance, Now: w.now})
	good := netip.MustParseAddr("1.1.1.1")
	th.Succeeded(good, "good")
	var passed, held atomic.Int64
	var users sync.WaitGroup
	for range goroutines {
		users.Go(func() {
			for range 1000 {
				if login(th, "1.1.1.1", "a") == 0 {
					passed.Add(1)
				}
				if th.Check(good, "good") > 0 {
					held.Add(1)
				}
				th.Succeeded(good, "good")
			}
		})
	}
	users.Wait()
	if n := passed.Load(); n < allowance || n > allowance+goroutines {
		t.Errorf("%d passed, want %d and at most %d under way", n, allowance, goroutines)
	}
	if n := held.Load(); n > 0 {
		t.Errorf("a known customer was held up %d times", n)
	}
}

func addr(i uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], i)
	return netip.AddrFrom4(b)
}

func BenchmarkThrottle(b *testing.B) {
	th := New(Config{PerAddress: 60, PerName: 300})
	known, guesser := addr(1), addr(2)
	th.Succeeded(known, "customer")
	for range 100 {
		th.Failed(guesser, "guess")
	}
	for _, bench := range []struct {
		name string
		call func()
	}{
		{"check known", func() { th.Check(known, "customer") }},
		{"check unknown", func() { th.Check(known, "stranger") }},
		{"check throttled", func() { th.Check(guesser, "guess") }},
		{"succeeded", func() { th.Succeeded(known, "customer") }},
		{"failed", func() { th.Failed(guesser, "guess") }},
	} {
		b.Run(bench.name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bench.call()
			}
		})
		b.Run(bench.name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					bench.call()
				}
			})
		})
	}
}
