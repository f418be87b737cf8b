package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
)

// fakeShares is a fleet that gives every demand a part of its bandwidth.
type fakeShares struct {
	mu    sync.Mutex // guards what follows
	part  int64      // of the bandwidth is 1/part
	calls [][]limit.Demand
	err   error
	asked chan struct{} // one for every call, if there is room
}

func newFakeShares(part int64) *fakeShares {
	return &fakeShares{part: part, asked: make(chan struct{}, 1000)}
}

func (f *fakeShares) Divide(ctx context.Context, demands []limit.Demand) ([][2]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.err
	if ctx.Err() != nil {
		err = limit.ErrUnanswered
	} else {
		f.calls = append(f.calls, slices.Clone(demands))
		select {
		case f.asked <- struct{}{}:
		default:
		}
	}
	shares := make([][2]int64, len(demands))
	for i, d := range demands {
		shares[i] = [2]int64{max(d.Bandwidth/f.part, 1), max(d.Bandwidth/f.part/2, 1)}
		if ctx.Err() != nil { // a guess
			shares[i] = [2]int64{d.Bandwidth / 10, d.Bandwidth / 10}
		}
	}
	return shares, err
}

func (f *fakeShares) last() []limit.Demand {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return nil
	}
	return f.calls[len(f.calls)-1]
}

func wantRates(t *testing.T, shared *tunnel.Shared, sent, received int64) {
	t.Helper()
	if s, r := shared.Rates(); s != sent || r != received {
		t.Errorf("the rates are %d and %d, want %d and %d", s, r, sent, received)
	}
}

// The first share is a guess, and is asked for at once: those that come together in one call.
func TestSharesAreAskedForAtOnce(t *testing.T) {
	fleet := newFakeShares(2)
	b := newBandwidths(func(string) int64 { return 1000 }, fleet, nil)
	for i := range 50 {
		wantRates(t, b.take(fmt.Sprint(i)), 100, 100)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { b.run(ctx) })
	<-fleet.asked
	if n := len(fleet.last()); n != 50 {
		t.Errorf("%d were asked for in the first call", n)
	}
	eventually(t, "the shares are there", func() bool {
		s, r := b.open["7"].shared.Rates()
		return s == 500 && r == 250
	})
}

// A reload is felt at once, and an answer to an older question does not undo it.
func TestSharesFollowAReload(t *testing.T) {
	bandwidth := int64(1000)
	fleet := newFakeShares(2)
	b := newBandwidths(func(string) int64 { return bandwidth }, fleet, nil)
	shared := b.take("alice")
	ask := func() { b.lookAtFresh(time.Now()); b.divide(t.Context()) }
	ask()
	wantRates(t, shared, 500, 250)

	b.freshLocked(b.open["alice"])
	b.lookAtFresh(time.Now()) // the question is under way
	bandwidth = 4000
	b.renew()
	wantRates(t, shared, 2000, 1000)
	b.divide(t.Context())
	wantRates(t, shared, 2000, 1000)
	fleet.part = 4
	ask()
	wantRates(t, shared, 1000, 500)

	bandwidth = 0
	b.renew()
	wantRates(t, shared, 0, 0)
	if len(b.limited) != 0 {
		t.Error("it is still asked for")
	}
	bandwidth = 100
	b.renew()
	wantRates(t, shared, 10, 10)
	ask()
	wantRates(t, shared, 25, 12)
	b.drop("alice")
	bandwidth = 0
	b.renew()
	if len(b.open) != 0 || b.lingering != 0 {
		t.Errorf("%d are kept, %d linger", len(b.open), b.lingering)
	}
}

// One that comes again soon is the same, with its debts; later it is forgotten.
func TestSharesLinger(t *testing.T) {
	fleet := newFakeShares(1)
	b := newBandwidths(func(key string) int64 { return int64(len(key)) * 1000 }, fleet, nil)
	first, other := b.take("alice"), b.take("")
	b.drop("")
	if _, open := b.open[""]; open {
		t.Error("one without a limit lingers")
	}
	wantRates(t, other, 0, 0)
	b.drop("alice")
	if b.take("alice") != first {
		t.Error("it is another one")
	}
	b.take("bob")
	b.drop("alice")
	now := time.Now()
	for range lingerLooks + 1 {
		if b.open["alice"] == nil {
			t.Fatal("forgotten early")
		}
		now = now.Add(shareLook)
		b.lookAtAll(now)
		b.divide(t.Context())
	}
	if b.open["alice"] != nil || b.open["bob"] == nil || len(b.limited) != 1 || b.lingering != 0 {
		t.Errorf("open %v, %d limited, %d linger", b.open, len(b.limited), b.lingering)
	}
	calls := len(fleet.calls)
	b.lookAtAll(now.Add(shareLook))
	b.divide(t.Context())
	if len(fleet.calls) != calls {
		t.Errorf("asked for %v, which moves nothing", fleet.last())
	}
}

// What is wanted is what was moved, and grows fast while the share holds it back.
func TestWantedGrows(t *testing.T) {
	const all = 16_000_000
	d := demand{limit: all}
	moved := func(n int64, starved bool) tunnel.Demand { return tunnel.Demand{Moved: n, Starved: starved} }
	for _, step := range []struct {
		name  string
		m     tunnel.Demand
		share int64
		want  int64
	}{
		{"nothing", moved(0, false), all / 4, 0},
		{"little", moved(1000, false), all / 4, 250},
		{"somebody waited, for something else", moved(1000, true), all / 4, 500},
		{"held back by a small share", moved(200_000, true), 100_000, all / 8},
		{"still", moved(200_000, true), 100_000, all},
		{"not any more", moved(1_900_000, true), 2_000_000, 525_000},
		{"held back", moved(4_000_000, true), 2_000_000, 8_000_000},
		{"still", moved(16_000_000, true), 8_000_000, all},
		{"nothing moves for all the debts", tunnel.Demand{Starved: true, Owed: time.Second}, 1000, all},
	} {
		if got := d.wanted(0, step.m, step.share, 2*time.Second); got != step.want {
			t.Errorf("%s: %d is wanted, not %d", step.name, got, step.want)
		}
	}
}

// Who is held back is told at every look, who uses much at every other, and the others
// still less often; a change is told at once.
func TestWhoIsTold(t *testing.T) {
	const share = 1_000_000
	d := demand{limit: share}
	tell := func(looks int, moved int64, starved bool) (told int) {
		for range looks {
			seen := [2]tunnel.Demand{{Moved: moved / 2, Starved: starved}, {}} // in half a second
			if d.worthTelling(seen, [2]int64{share, share}, shareLook) {
				told++
			}
		}
		return told
	}
	for _, step := range []struct {
		name      string
		looks     int
		moved     int64
		starved   bool
		most      int
		thenWants int64
	}{
		{"much begins", 2, 500_000, false, 2, 500_000},
		{"much", 10, 500_000, false, 5, 500_000},
		{"held back", 10, 990_000, true, 10, share},
		{"stops", 2, 0, false, 2, 0},
		{"little", 20, 10_000, false, 5, 10_000},
		{"nothing", 10, 0, false, 2, 0},
		{"nothing for long", 40, 0, false, 4, 0},                                   // at last that it is gone
		{"little again, when the fleet has forgotten", 2, 10_000, false, 1, 5_000}, // the mean of nothing and it
	} {
		if told := tell(step.looks, step.moved, step.starved); told > step.most || told < step.most-1 || d.told[0] != step.thenWants {
			t.Errorf("%s: told %d times, wants %d at last; want %d and %d", step.name, told, d.told[0], step.most, step.thenWants)
		}
	}
	d.unused = true
	if told := tell(4, 0, false); told != 1 || !d.gone || d.told[0] != 0 {
		t.Errorf("told %d times that it is gone (%t) and wants %d", told, d.gone, d.told[0])
	}
}

// An outage is the fleet's own to tell; what is wrong is told once.
func TestSharesTrouble(t *testing.T) {
	fleet := newFakeShares(1)
	var told []error
	b := newBandwidths(func(string) int64 { return 1000 }, fleet, func(err error) { told = append(told, err) })
	b.take("alice")
	wrong := errors.New("wrong")
	for _, err := range []error{limit.ErrUnanswered, wrong, wrong, nil, wrong} {
		fleet.err = err
		b.freshLocked(b.open["alice"])
		b.lookAtFresh(time.Now())
		b.divide(t.Context())
	}
	if len(told) != 2 {
		t.Errorf("told %v", told)
	}
}

// BenchmarkShareTick is a second's work for 10,000 limited customers in use, without the fleet's.
func BenchmarkShareTick(b *testing.B) {
	bw := newBandwidths(func(string) int64 { return 1_000_000 }, newFakeShares(1), nil)
	for i := range 10_000 {
		bw.take(fmt.Sprint(i))
	}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(shareLook)
		b.StopTimer()
		for _, one := range bw.limited {
			one.shared.Owe(false, 50_000)
		}
		b.StartTimer()
		bw.lookAtAll(now)
		bw.demands.asking, bw.demands.told = bw.demands.asking[:0], bw.demands.told[:0]
	}
}
