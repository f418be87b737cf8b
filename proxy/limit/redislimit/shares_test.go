package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/limit/redislimit"
)

const (
	sharePatience  = 20 * time.Second
	shareBandwidth = 12_000_000
	shareKey       = "alice"
)

// shareRelay is one relay of a fleet.
type shareRelay struct {
	*redislimit.Shares
	client *fleet.Client
}

// startShares starts n relays that know of each other.
func startShares(t testing.TB, server *lab.Redis, n int) []shareRelay {
	t.Helper()
	relays := make([]shareRelay, n)
	for i := range relays {
		client, err := fleet.Open(fleet.Config{URL: server.URL(), Node: fmt.Sprintf("relay%d", i)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); client.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			<-done
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
		relays[i] = shareRelay{redislimit.NewShares(client), client}
	}
	for _, r := range relays {
		lab.Wait(t, sharePatience, "the relays to know each other", func() bool { return r.client.Up() && r.client.Relays() == n })
	}
	return relays
}

// ask has one relay tell what it wants, which must be answered.
func (r shareRelay) ask(t testing.TB, sent, received int64) [2]int64 {
	t.Helper()
	shares, err := r.Divide(t.Context(), shareDemand(sent, received))
	if err != nil {
		t.Fatal(err)
	}
	return shares[0]
}

func shareDemand(sent, received int64) []limit.Demand {
	return []limit.Demand{{Key: shareKey, Bandwidth: shareBandwidth, Wanted: [2]int64{sent, received}}}
}

// round has every relay ask once, as in one second, and returns the shares as they are then.
func round(t testing.TB, relays []shareRelay, wants []int64) (shares []int64, sum int64) {
	t.Helper()
	for i, r := range relays {
		share := r.ask(t, wants[i], wants[i])
		if share[0] != share[1] {
			t.Fatalf("relay %d: %d sent and %d received for the same demands", i, share[0], share[1])
		}
		shares = append(shares, share[0])
		sum += share[0]
	}
	return shares, sum
}

func TestSharesFollowDemands(t *testing.T) {
	const all, m = shareBandwidth, int64(1_000_000)
	server := lab.StartRedis(t)
	relays := startShares(t, server, 4)
	for _, tt := range []struct {
		name        string
		wants       []int64
		least, most []int64 // of the shares
	}{
		{"alone without bytes", []int64{0}, []int64{all}, []int64{all}},
		{"alone", []int64{all}, []int64{all}, []int64{all}},
		{"all evenly", []int64{all, all, all, all}, []int64{3 * m, 3 * m, 3 * m, 3 * m}, []int64{3 * m, 3 * m, 3 * m, 3 * m}},
		{"little is given, the rest split", []int64{m, 2 * m, all, all}, []int64{m, 2 * m, 4 * m, 4 * m}, []int64{m * 13 / 10, m * 23 / 10, 45 * m / 10, 45 * m / 10}},
		{"one of four", []int64{0, 0, all, 0}, []int64{1, 1, all * 95 / 100, 1}, []int64{all / 100, all / 100, all, all / 100}},
		{"less than there is", []int64{m, 2 * m}, []int64{m * 4, m * 6}, []int64{m * 6, m * 8}},
		{"less, and more than a half of it", []int64{8 * m, m}, []int64{8 * m, m}, []int64{11 * m, 4 * m}},
		{"more than a half, and one who wants all", []int64{all, 5 * m}, []int64{6 * m, 5 * m}, []int64{7 * m, 6 * m}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer relays[0].client.Redis().FlushDB(t.Context())
			used := relays[:len(tt.wants)]
			round(t, used, tt.wants)
			round(t, used, tt.wants)
			shares, sum := round(t, used, tt.wants)
			for i, share := range shares {
				if share < tt.least[i]-1 || share > tt.most[i] {
					t.Errorf("relay %d has %d, want %d to %d", i, share, tt.least[i], tt.most[i])
				}
			}
			if sum > all || sum < all*9/10 {
				t.Errorf("%d of %d given out: %d", sum, all, shares)
			}
		})
	}
}

// Each direction is divided by itself.
func TestSharesOfDirections(t *testing.T) {
	relays := startShares(t, lab.StartRedis(t), 2)
	var first, second [2]int64
	for range 3 {
		first = relays[0].ask(t, shareBandwidth, 0)
		second = relays[1].ask(t, 0, shareBandwidth)
	}
	const most = shareBandwidth * 95 / 100
	if first[0] < most || second[1] < most || first[1] > shareBandwidth-most || second[0] > shareBandwidth-most {
		t.Errorf("the shares are %d and %d", first, second)
	}
}

// What is given out never exceeds the bandwidth for more than a round by more than a
// tenth, and what is wanted is given within three, wherever the load goes.
func TestSharesMove(t *testing.T) {
	relays := startShares(t, lab.StartRedis(t), 5)
	const all = int64(shareBandwidth)
	wants := make([]int64, len(relays))
	over := 0
	for step := range 8 {
		clear(wants)
		wants[step%len(relays)] = all
		if step%2 == 1 {
			wants[(step+2)%len(relays)] = all
		}
		var shares []int64
		for range 3 {
			var sum int64
			shares, sum = round(t, relays, wants)
			if sum > all+all/10 {
				over++
			} else {
				over = 0
			}
			if over > 1 {
				t.Fatalf("step %d: %d of %d given out: %d", step, sum, all, shares)
			}
		}
		took := int64(0)
		for i, want := range wants {
			if want > 0 {
				took += shares[i]
			}
		}
		if took < all*9/10 {
			t.Errorf("step %d: those with load have %d of %d: %d", step, took, all, shares)
		}
	}
}

// A relay that comes to a key whose bandwidth is in use has bytes to move at once.
func TestSharesOfANewcomer(t *testing.T) {
	relays := startShares(t, lab.StartRedis(t), 3)
	relays[0].ask(t, shareBandwidth, shareBandwidth)
	if share := relays[1].ask(t, shareBandwidth, shareBandwidth); share[0] < shareBandwidth/3 {
		t.Errorf("the second relay begins with %d", share)
	}
	if share := relays[0].ask(t, shareBandwidth, shareBandwidth); share[0] > shareBandwidth/2 {
		t.Errorf("the first one keeps %d", share)
	}
	if share := relays[2].ask(t, 0, 0); share[0] < shareBandwidth/200 {
		t.Errorf("the third, who wants nothing yet, has %d", share)
	}
}

// What a relay had that says it has gone is free at once.
func TestSharesOfOneGone(t *testing.T) {
	relays := startShares(t, lab.StartRedis(t), 2)
	wants := []int64{shareBandwidth, shareBandwidth}
	round(t, relays, wants)
	round(t, relays, wants)
	gone := shareDemand(0, 0)
	gone[0].Gone = true
	for range 2 { // the second time it is not known
		shares, err := relays[1].Divide(t.Context(), gone)
		if err != nil || shares[0] != [2]int64{shareBandwidth / 2, shareBandwidth / 2} {
			t.Errorf("%d, %v", shares, err)
		}
	}
	if share := relays[0].ask(t, shareBandwidth, shareBandwidth); share[0] != shareBandwidth {
		t.Errorf("the other has %d", share)
	}
}

// What a relay had that died is free when its record expires.
func TestSharesOfADeadRelay(t *testing.T) {
	t.Parallel()
	relays := startShares(t, lab.StartRedis(t), 2)
	wants := []int64{shareBandwidth, shareBandwidth}
	round(t, relays, wants)
	died := time.Now()
	round(t, relays, wants)
	lab.Wait(t, sharePatience, "the other to have all", func() bool {
		return relays[0].ask(t, shareBandwidth, shareBandwidth)[0] == shareBandwidth
	})
	t.Logf("after %v", time.Since(died))
}

func TestSharesWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	relays := startShares(t, server, 2)
	wants := []int64{shareBandwidth, 0}
	for range 3 {
		round(t, relays, wants)
	}
	had := relays[0].ask(t, shareBandwidth, shareBandwidth)

	server.Freeze(t)
	shares, err := relays[0].Divide(t.Context(), shareDemand(shareBandwidth, 0))
	if !errors.Is(err, limit.ErrUnanswered) || shares[0] != had {
		t.Errorf("while the others reckon with it: %d and %v, had %d", shares, err, had)
	}
	half := shareDemand(0, 0)
	half[0].Bandwidth /= 2
	if shares, _ = relays[0].Divide(t.Context(), half); shares[0][0] != had[0]/2 {
		t.Errorf("%d of half the bandwidth", shares)
	}
	for i, r := range relays {
		lab.Wait(t, sharePatience, "an equal part", func() bool {
			shares, err := r.Divide(t.Context(), shareDemand(shareBandwidth, 0))
			return err != nil && shares[0] == [2]int64{shareBandwidth / 2, shareBandwidth / 2}
		})
		if shares, err := r.Divide(t.Context(), []limit.Demand{{Key: "new", Bandwidth: 1}}); err == nil || shares[0] != [2]int64{1, 1} {
			t.Errorf("relay %d: a new key has %d and %v", i, shares, err)
		}
	}
	server.Thaw(t)
	settles(t, relays)

	server.Kill(t)
	lab.Wait(t, sharePatience, "the loss", func() bool { return !relays[0].client.Up() && !relays[1].client.Up() })
	server.Restart(t)
	settles(t, relays)
}

// settles waits until the first relay, which wants all, has it again.
func settles(t *testing.T, relays []shareRelay) {
	t.Helper()
	lab.Wait(t, sharePatience, "Redis to divide again", func() bool {
		shares, err := relays[0].Divide(t.Context(), shareDemand(shareBandwidth, shareBandwidth))
		_, other := relays[1].Divide(t.Context(), shareDemand(0, 0))
		return err == nil && other == nil && shares[0][0] > shareBandwidth*9/10
	})
}

// With a context that has ended the answer is there at once, and Redis is not asked.
func TestSharesAtOnce(t *testing.T) {
	relays := startShares(t, lab.StartRedis(t), 3)
	ended, end := context.WithCancel(t.Context())
	end()
	before := relays[0].client.Calls()
	shares, err := relays[0].Divide(ended, shareDemand(1, 1))
	if !errors.Is(err, limit.ErrUnanswered) || shares[0] != [2]int64{shareBandwidth / 3, shareBandwidth / 3} {
		t.Errorf("%d and %v", shares, err)
	}
	if calls := relays[0].client.Calls() - before; calls != 0 {
		t.Errorf("%d calls", calls)
	}
}

// A key that Redis cannot serve does not spoil the others of its pipeline.
func TestSharesOfABrokenKey(t *testing.T) {
	r := startShares(t, lab.StartRedis(t), 1)[0]
	if err := r.client.Redis().Set(t.Context(), r.client.Key("bandwidth", "broken"), "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	demands := []limit.Demand{{Key: "broken", Bandwidth: 1000}, {Key: "good", Bandwidth: 1000}}
	shares, err := r.Divide(t.Context(), demands)
	if err == nil || errors.Is(err, limit.ErrUnanswered) || !r.client.Up() {
		t.Errorf("up %v and %v", r.client.Up(), err)
	}
	if shares[0] != [2]int64{1000, 1000} || shares[1] != [2]int64{1000, 1000} {
		t.Errorf("the shares are %d", shares)
	}
	n, err := r.client.Redis().HLen(t.Context(), r.client.Key("bandwidth", "good")).Result()
	if err != nil || n != 1 {
		t.Errorf("%d records of the good key, %v", n, err)
	}
}

// Bad records, and demands without sense, do no harm.
func TestSharesOfNonsense(t *testing.T) {
	r := startShares(t, lab.StartRedis(t), 1)[0]
	key := r.client.Key("bandwidth", shareKey)
	if err := r.client.Redis().HSet(t.Context(), key, "a", "x", "b", strings.Repeat("x", 40), "c", strings.Repeat("\xff", 40), "d", strings.Repeat("\x00", 40)).Err(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []limit.Demand{
		{Key: shareKey, Bandwidth: 1, Wanted: [2]int64{-1, 1 << 62}},
		{Key: shareKey, Bandwidth: 1 << 62, Wanted: [2]int64{1 << 62, 0}},
	} {
		shares, err := r.Divide(t.Context(), []limit.Demand{d})
		if err != nil || shares[0][0] != min(d.Bandwidth, 1<<50) {
			t.Errorf("%+v: %d and %v", d, shares, err)
		}
	}
	fields, err := r.client.Redis().HKeys(t.Context(), key).Result()
	if err != nil || len(fields) != 1 || fields[0] != r.client.Node() {
		t.Errorf("%q are left, %v", fields, err)
	}
}

// Many keys are few round trips.
func TestSharesCalls(t *testing.T) {
	r := startShares(t, lab.StartRedis(t), 1)[0]
	r.ask(t, 0, 0) // loads the script
	demands := make([]limit.Demand, 1001)
	for i := range demands {
		demands[i] = limit.Demand{Key: fmt.Sprint(i), Bandwidth: 1 << 20}
	}
	before := r.client.Calls()
	shares, err := r.Divide(t.Context(), demands)
	if err != nil || len(shares) != len(demands) {
		t.Fatalf("%d shares, %v", len(shares), err)
	}
	if calls := r.client.Calls() - before; calls > 5 {
		t.Errorf("%d round trips", calls)
	}
}

// BenchmarkShares is what a second costs with 10,000 keys in use on each of several relays.
func BenchmarkShares(b *testing.B) {
	for _, n := range []int{1, 4, 10} {
		b.Run(fmt.Sprintf("relays=%d", n), func(b *testing.B) {
			relays := startShares(b, lab.StartRedis(b), n)
			demands := make([]limit.Demand, 10_000)
			for i := range demands {
				demands[i] = limit.Demand{Key: fmt.Sprint("customer", i), Bandwidth: 10 << 20, Wanted: [2]int64{1 << 20, int64(i) << 12}}
			}
			divide := func(r shareRelay) {
				if _, err := r.Divide(b.Context(), demands); err != nil {
					b.Fatal(err)
				}
			}
			for _, r := range relays {
				divide(r)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				divide(relays[i%n])
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(demands)), "ns/key")
		})
	}
}
