package limit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestFairClaims: what a script of attempts and endings gets. A step is the key that
// tries, "-" before a key ends a connection of it, and a duration passes.
func TestFairClaims(t *testing.T) {
	tests := []struct {
		name   string
		slots  int
		hog    int // slots that the hog holds first, and a the rest
		script []string
	}{
		{"kept for who was refused", 4, 4, []string{"a no", "-hog", "hog no", "hog no", "a yes"}},
		{"nobody claims", 4, 4, []string{"-hog", "hog yes", "hog no", "-hog", "hog yes"}},
		{"another for the next", 8, 8, []string{"a no", "-hog", "hog no", "a yes", "1s", "-hog", "hog no", "a yes"}},
		{"no more once he stays away", 8, 8, []string{"a no", "-hog", "hog no", "a yes", "2.9s", "-hog", "hog no", "100ms", "hog yes"}},
		{"only as many as were asked for", 4, 4, []string{"a no", "-hog", "-hog", "hog yes", "hog no", "a yes"}},
		{"as many as were asked for", 8, 8, []string{"a no", "a no", "-hog", "-hog", "hog no", "a yes", "a yes", "hog no"}},
		{"no more than would be less than the hog's", 6, 6, []string{"a no", "a no", "a no", "a no", "-hog", "-hog", "hog no", "a yes", "a yes", "-hog", "-hog", "a yes", "hog yes"}},
		{"no more than make him the hog's equal", 9, 9, []string{
			"a no", "a no", "a no", "a no", "a no", "a no", "-hog", "-hog", "-hog", "-hog", "-hog", "a yes", "a yes", "hog yes", "hog no",
		}},
		{"what was asked for in the second before", 8, 8, []string{"a no", "a no", "1s", "a no", "-hog", "-hog", "hog no", "a yes", "a yes"}},
		{"not renewed while it holds up nobody", 8, 8, []string{
			"a no", "-hog", "-hog", "-hog", "-hog", "a yes", "2s", "a yes", "2s", "hog yes", "hog yes",
		}},
		{"runs out", 4, 4, []string{"a no", "-hog", "hog no", "2.9s", "hog no", "100ms", "hog yes"}},
		{"renewed by a refusal", 4, 4, []string{"a no", "2s", "a no", "2s", "-hog", "hog no", "a yes"}},
		{"not one's own", 4, 4, []string{"hog no", "hog no", "-hog", "hog yes"}},
		{"who has less is not held up", 6, 5, []string{"a no", "-hog", "b yes", "-hog", "hog no", "a yes"}},
		{"who has as much is not held up", 4, 2, []string{"a no", "-hog", "-a", "hog yes"}},
		{"tries of one connection", 100, 100, []string{"a no", "1s", "a no", "1s", "a no", "1s", "a no", "-hog", "-hog", "hog yes", "hog no", "a yes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(tt.slots, 0, 0)
				d.fill(t, "hog", tt.hog)
				d.fill(t, "a", tt.slots-tt.hog)
				for i, step := range tt.script {
					var key, want string
					if step[0] == '-' {
						d.exit(step[1:])
						continue
					}
					if n, _ := fmt.Sscan(step, &key, &want); n == 1 {
						pause, err := time.ParseDuration(key)
						if err != nil {
							t.Fatal(err)
						}
						time.Sleep(pause)
						continue
					}
					if got := d.try(key, 1); got != (want == "yes") {
						t.Fatalf("step %d, %q: got %v", i, step, got)
					}
				}
				d.wantEmpty(t)
			})
		})
	}
}

// TestFairClaimAgainstItself: connections of a key that ask at the same time are not held
// up by each other's claim.
func TestFairClaimAgainstItself(t *testing.T) {
	cs, now := newClaims(), time.Now()
	cs.refused("a", load{0, 1}, now)
	if n := cs.kept("a", load{3, 1}, 1, now); n != 0 {
		t.Errorf("%d slots are kept for a from a", n)
	}
	if n := cs.kept("b", load{3, 1}, 1, now); n != 1 {
		t.Errorf("%d slots are kept for a from b, want 1", n)
	}
}

// TestFairClaimsOfWaiters: whose wait ends without a slot has a claim against those who
// go on waiting, and these are served when it runs out.
func TestFairClaimsOfWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(4, time.Second, 0)
		d.fill(t, "hog", 4)
		if _, ok := d.enter(t.Context(), "a", 1); ok {
			t.Fatal("a slot that there is not")
		}
		time.Sleep(2500 * time.Millisecond)
		a := arrivals{d: d, served: make(chan string, 2)}
		a.arrive(t.Context(), "hog", "hog", 1)
		began := time.Now()
		if got := a.next(t, "hog"); got != "nobody" {
			t.Fatalf("%s got the slot that is a's", got)
		}
		if got := <-a.served; got != "hog" || time.Since(began) != 500*time.Millisecond {
			t.Errorf("%s after %v, want hog when a's claim ran out", got, time.Since(began))
		}
		d.wantEmpty(t)
	})
}

// TestFairClaimsAreBounded: the lightest of many keys have claims.
func TestFairClaimsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(3*maxClaims, 0, 0)
		for i := range maxClaims {
			d.fill(t, fmt.Sprint("heavy", i), 3)
		}
		for i := range maxClaims {
			d.try(fmt.Sprint("heavy", i), 1)
		}
		for i := range maxClaims {
			d.try(fmt.Sprint("light", i), 1)
		}
		d.try("late", 1) // as light as the others: no claim is his
		if n := d.claims.len(); n != maxClaims {
			t.Errorf("%d claims, want %d", n, maxClaims)
		}
		for i := range maxClaims {
			if _, ok := d.claims.byKey[fmt.Sprint("light", i)]; !ok {
				t.Errorf("light%d has no claim", i)
			}
		}
		time.Sleep(claimTime)
		d.exit("heavy0")
		if !d.try("heavy1", 1) || d.claims.len() != 0 || d.pressed.Load() != 0 {
			t.Errorf("%d claims stay after their time", d.claims.len())
		}
		d.wantEmpty(t)
	})
}

// guest is an account that tries to open connections at a steady pace.
type guest struct {
	key    string
	weight int
	pace   time.Duration // between two attempts
	want   int           // connections at the most; 0 = all that it gets
	next   time.Time
	held   int
	sum    int // of held, each second of the second half
}

// crowd has the guests try for a while in a relay whose connections last a minute, and
// leaves in each the average of its connections.
func crowd(t *testing.T, slots int, first *guest, guests ...*guest) {
	t.Helper()
	const (
		minutes = 6
		life    = time.Minute
		tick    = 20 * time.Millisecond
		ticks   = int(minutes * time.Minute / tick)
		second  = int(time.Second / tick)
	)
	d := newDoor(slots, 0, 0)
	rnd := rand.New(rand.NewPCG(1, 2))
	d.fill(t, first.key, slots)
	first.held = slots
	guests = append(guests, first)
	began := time.Now()
	for i := range ticks {
		for _, g := range guests {
			// Each connection ends within this tick by chance.
			for range g.held {
				if rnd.Float64() < tick.Seconds()/life.Seconds() {
					d.exit(g.key)
					g.held--
				}
			}
		}
		for _, at := range rnd.Perm(len(guests)) {
			g := guests[at]
			for ; !g.next.After(time.Now()); g.next = g.next.Add(g.pace) {
				if g.next.IsZero() {
					g.next = began
				}
				if (g.want == 0 || g.held < g.want) && d.try(g.key, g.weight) {
					g.held++
				}
			}
			if i >= ticks/2 && i%second == 0 {
				g.sum += g.held
			}
		}
		time.Sleep(tick)
	}
	for _, g := range guests {
		g.sum /= minutes * 30
	}
	d.wantEmpty(t)
}

// TestFairShareOfTheRefused: with nobody waiting, accounts that ask come to their
// weighted shares however often another asks.
func TestFairShareOfTheRefused(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name   string
		hog    guest
		guests []guest
		want   []int // averages: of the guests, and the hog's last
	}{
		{"a hundred times the attempts", guest{weight: 1, pace: 10 * ms}, []guest{{weight: 1, pace: 1000 * ms}}, []int{60, 140}},
		{"both hammer", guest{weight: 1, pace: 10 * ms}, []guest{{weight: 1, pace: 20 * ms}}, []int{100, 100}},
		{"weights of one and three", guest{weight: 1, pace: 10 * ms}, []guest{{weight: 3, pace: 50 * ms}}, []int{150, 50}},
		{"three keys, one wants little", guest{weight: 1, pace: 10 * ms}, []guest{{weight: 1, pace: 50 * ms, want: 20}, {weight: 1, pace: 50 * ms}}, []int{20, 90, 90}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.hog.key = "hog"
				all := make([]*guest, len(tt.guests))
				for i := range tt.guests {
					all[i] = &tt.guests[i]
					all[i].key = fmt.Sprint("guest", i)
				}
				crowd(t, 200, &tt.hog, all...)
				for i, g := range append(all, &tt.hog) {
					t.Logf("%s holds %d", g.key, g.sum)
					if want := tt.want[i]; g.sum < want*85/100 || g.sum > want*115/100 {
						t.Errorf("%s holds %d of 200 slots, want about %d", g.key, g.sum, want)
					}
				}
			})
		})
	}
}

// TestFairStarvation: in a full relay that lets wait, a customer who comes now and then is
// served with the next slot, whatever number of another's wait before him.
func TestFairStarvation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(50, time.Minute, 1000)
		d.fill(t, "hog", 50)
		ctx, cancel := context.WithCancel(t.Context())
		a := arrivals{d: d, served: make(chan string, 2000)}
		for range 1000 {
			a.arrive(ctx, "hog", "hog", 1)
		}
		for i := range 20 {
			a.arrive(ctx, "small", "small", 1)
			// The queue was full: a hog's place was taken.
			if got := <-a.served; got != "refused hog" {
				t.Fatalf("round %d: %s left the queue", i, got)
			}
			if got := a.next(t, "hog"); got != "small" {
				t.Fatalf("round %d: the slot went to %s", i, got)
			}
			a.arrive(ctx, "hog", "hog", 1)
		}
		cancel()
		synctest.Wait()
		d.wantEmpty(t)
	})
}
