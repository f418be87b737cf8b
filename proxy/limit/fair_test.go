package limit

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// door admits as the relay does: the lease first, then the slot; and back in that order.
type door struct {
	*Fair
	slots   *Slots
	limiter *Memory
}

func newDoor(max int, wait time.Duration, queue int) *door {
	d := &door{slots: NewSlots(max), limiter: NewMemory()}
	d.Fair = NewFair(d.slots, FairConfig{Wait: wait, Queue: queue, InUse: d.limiter.InUse})
	return d
}

// enter admits one connection of key, and waits if it may.
func (d *door) enter(ctx context.Context, key string, weight int) (*Lease, bool) {
	lease, err := d.limiter.Acquire(context.WithoutCancel(ctx), key, Caps{})
	if err != nil {
		panic(err)
	}
	if d.Acquire(ctx, key, weight) {
		return lease, true
	}
	lease.Release()
	return nil, false
}

// try admits one connection of key without a wait.
func (d *door) try(key string, weight int) bool {
	lease, err := d.limiter.Acquire(context.Background(), key, Caps{})
	if err != nil {
		panic(err)
	}
	if !d.TryAcquire(key, weight) {
		lease.Release()
		return false
	}
	return true
}

// exit ends one connection of key.
func (d *door) exit(key string) {
	d.dropLease(key)
	d.Release()
}

// dropLease gives back one of key's leases, but no slot.
func (d *door) dropLease(key string) {
	s := d.limiter.shardOf(key)
	s.mu.Lock()
	e := s.entries[key]
	s.mu.Unlock()
	e.drop()
}

// fill has key take n slots.
func (d *door) fill(t *testing.T, key string, n int) {
	t.Helper()
	for i := range n {
		if !d.try(key, 1) {
			t.Fatalf("%s is refused slot %d of %d", key, i+1, n)
		}
	}
}

// wantEmpty ends the test's connections, and checks that nothing is left behind.
func (d *door) wantEmpty(t *testing.T) {
	t.Helper()
	for range 2 { // those who wait are served meanwhile
		held := make(map[string]int)
		d.limiter.Range(func(key string, n int) bool { held[key] = n; return true })
		for key, n := range held {
			for range n {
				d.exit(key)
			}
		}
	}
	if n, w := d.slots.InUse(), d.Waiting(); n != 0 || w != 0 {
		t.Errorf("%d slots in use and %d waiting at the end", n, w)
	}
	if d.pressed.Load()&someWait != 0 {
		t.Error("releases still look for those who wait")
	}
	if len(d.queue.byKey) != 0 || len(d.queue.heap) != 0 {
		t.Errorf("%d keys, %d lines stay in the queue", len(d.queue.byKey), len(d.queue.heap))
	}
}

func TestFairGivesAllWhileThereIsRoom(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Second} {
		d := newDoor(100, wait, 0)
		d.fill(t, "hog", 100)
		if d.try("hog", 1) {
			t.Error("a slot more than there are")
		}
		d.exit("hog")
		d.fill(t, "hog", 1) // nobody else asks: everything may be his
		if d.Waits() != (wait > 0) {
			t.Errorf("Waits is %v with a wait of %v", d.Waits(), wait)
		}
		d.wantEmpty(t)
	}
}

func TestFairWithoutLimit(t *testing.T) {
	d := newDoor(0, time.Second, 0)
	d.fill(t, "key", 1000)
	d.wantEmpty(t)
}

// arrivals are connections that come one after the other and wait.
type arrivals struct {
	d      *door
	served chan string // in the order of their slots
}

// arrive makes one connection wait; its name is heard from served.
func (a *arrivals) arrive(ctx context.Context, key, name string, weight int) {
	go func() {
		_, ok := a.d.enter(ctx, key, weight)
		if !ok {
			name = "refused " + name
		}
		a.served <- name
	}()
	synctest.Wait()
}

// next ends one connection of key and returns who got its slot.
func (a *arrivals) next(t *testing.T, key string) string {
	t.Helper()
	a.d.exit(key)
	synctest.Wait()
	select {
	case name := <-a.served:
		return name
	default:
		return "nobody"
	}
}

func TestFairOrder(t *testing.T) {
	type one struct {
		key    string
		weight int
	}
	tests := []struct {
		name  string
		holds map[string]int
		come  []one
		ends  string   // whose connections end, one after the other
		want  []string // who gets their slots: key and number of arrival
	}{
		{"in order within a key", map[string]int{"hog": 4}, []one{{"a", 1}, {"a", 1}, {"a", 1}, {"a", 1}}, "hog", []string{"a0", "a1", "a2", "a3"}},
		{"the key with less first", map[string]int{"hog": 3, "a": 2}, []one{{"a", 1}, {"b", 1}, {"b", 1}, {"c", 1}}, "hog", []string{"b1", "c3", "b2"}},
		{"as many: who came first", map[string]int{"hog": 4}, []one{{"b", 1}, {"a", 1}, {"b", 1}, {"a", 1}}, "hog", []string{"b0", "a1", "b2", "a3"}},
		{
			"three times the weight", map[string]int{"hog": 8},
			[]one{{"a", 1}, {"a", 1}, {"a", 1}, {"b", 3}, {"b", 3}, {"b", 3}, {"b", 3}, {"b", 3}, {"b", 3}}, "hog",
			[]string{"a0", "b3", "b4", "b5", "a1", "b6", "b7", "b8"},
		},
		{"a weight of nothing is one", map[string]int{"hog": 4}, []one{{"a", 0}, {"b", -5}, {"a", 0}, {"b", -5}}, "hog", []string{"a0", "b1", "a2", "b3"}},
		{"the hog comes last", map[string]int{"hog": 4}, []one{{"hog", 1}, {"hog", 1}, {"a", 1}, {"a", 1}}, "hog", []string{"a2", "a3"}},
		{"what ended in the queue's back counts", map[string]int{"hog": 3, "a": 3}, []one{{"hog", 1}, {"a", 1}}, "a", []string{"a1", "hog0"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slots := 0
				for _, n := range tt.holds {
					slots += n
				}
				d := newDoor(slots, time.Hour, 0)
				for key, n := range tt.holds {
					d.fill(t, key, n)
				}
				a := arrivals{d: d, served: make(chan string, len(tt.come))}
				for i, c := range tt.come {
					a.arrive(t.Context(), c.key, fmt.Sprint(c.key, i), c.weight)
				}
				for i, want := range tt.want {
					if got := a.next(t, tt.ends); got != want {
						t.Fatalf("slot %d went to %s, want %s", i, got, want)
					}
				}
				d.slots.SetMax(0) // lets the others in
				synctest.Wait()
				d.wantEmpty(t)
			})
		})
	}
}

// TestFairManyKeysWait: the order holds with more keys than are looked at for one slot.
func TestFairManyKeysWait(t *testing.T) {
	const keys = 5 * looksAtOnce
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(keys, time.Hour, 0)
		d.fill(t, "hog", keys)
		a := arrivals{d: d, served: make(chan string, 2*keys)}
		for i := range 2 * keys {
			a.arrive(t.Context(), fmt.Sprint("key", i/2), fmt.Sprint("key", i/2), 1)
		}
		for i := range keys {
			if got, want := a.next(t, "hog"), fmt.Sprint("key", i); got != want {
				t.Fatalf("slot %d went to %s, want %s", i, got, want)
			}
		}
		d.slots.SetMax(0)
		synctest.Wait()
		d.wantEmpty(t)
	})
}

// TestFairNewcomerWaits: while others wait nobody gets ahead of them, lighter or not.
func TestFairNewcomerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(2, time.Hour, 0)
		d.fill(t, "hog", 2)
		a := arrivals{d: d, served: make(chan string, 2)}
		a.arrive(t.Context(), "a", "a", 1)
		if d.try("b", 1) {
			t.Error("a newcomer has a slot while another waits")
		}
		if got := a.next(t, "hog"); got != "a" {
			t.Errorf("the slot went to %s", got)
		}
		d.exit("hog")
		if !d.try("b", 1) {
			t.Error("refused though nobody waits and a slot is free")
		}
		d.wantEmpty(t)
	})
}

func TestFairWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(1, 10*time.Second, 0)
		d.fill(t, "hog", 1)
		tests := []struct {
			name  string
			after time.Duration // when the context ends
			want  time.Duration
		}{{"wait", time.Hour, 10 * time.Second}, {"context", 2 * time.Second, 2 * time.Second}, {"ended context", 0, 0}}
		for _, tt := range tests {
			ctx, cancel := context.WithTimeout(t.Context(), tt.after)
			defer cancel()
			began := time.Now()
			if _, ok := d.enter(ctx, "a", 1); ok {
				t.Errorf("%s: got a slot that there is not", tt.name)
			}
			if took := time.Since(began); took != tt.want {
				t.Errorf("%s: waited %v, want %v", tt.name, took, tt.want)
			}
			if d.Waiting() != 0 {
				t.Errorf("%s: %d still wait", tt.name, d.Waiting())
			}
		}
		d.wantEmpty(t)
	})
}

// TestFairGivenUp: a slot handed to one whose context has ended is the next one's.
func TestFairGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(1, time.Hour, 0)
		d.fill(t, "hog", 1)
		ctx, cancel := context.WithCancel(t.Context())
		a := arrivals{d: d, served: make(chan string, 2)}
		a.arrive(ctx, "a", "a", 1)
		a.arrive(t.Context(), "b", "b", 1)
		// Before a's goroutine can look, it has a slot and its context has ended.
		d.mu.Lock()
		d.dropLease("hog")
		d.slots.Release()
		d.serveLocked(time.Now())
		cancel()
		d.mu.Unlock()
		synctest.Wait()
		got := map[string]bool{<-a.served: true, <-a.served: true}
		if !got["refused a"] || !got["b"] {
			t.Errorf("got %v, want a refused and b served", got)
		}
		d.wantEmpty(t)
	})
}

func TestFairMaximumRises(t *testing.T) {
	tests := []struct {
		name string
		rise func(*door, *Spare)
	}{
		{"SetMax", func(d *door, _ *Spare) { d.slots.SetMax(3) }},
		{"no limit any more", func(d *door, _ *Spare) { d.slots.SetMax(0) }},
		{"Spare", func(_ *door, s *Spare) { s.Put() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(3, time.Hour, 0)
				spare := NewSpare(d.slots, 3)
				if !spare.TryTake() {
					t.Fatal("nothing to spare")
				}
				d.fill(t, "hog", 2)
				a := arrivals{d: d, served: make(chan string, 1)}
				a.arrive(t.Context(), "a", "a", 1)
				select {
				case name := <-a.served:
					t.Fatalf("%s was served by a full relay", name)
				default:
				}
				tt.rise(d, spare)
				if name := <-a.served; name != "a" {
					t.Errorf("got %q", name)
				}
				d.wantEmpty(t)
			})
		})
	}
}

// TestFairQueueIsShared: a full queue gives a newcomer the place of the last of whoever
// has more of it.
func TestFairQueueIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(1, time.Hour, 4)
		d.fill(t, "x", 1)
		a := arrivals{d: d, served: make(chan string, 16)}
		for i := range 4 {
			a.arrive(t.Context(), "hog", fmt.Sprint("hog", i), 1)
		}
		steps := []struct {
			key    string
			weight int
			out    string // who leaves the queue unserved
		}{
			{"hog", 1, "refused hog"},
			{"a", 1, "refused hog3"},
			{"a", 1, "refused hog2"},
			{"a", 1, "refused a"},   // two places each
			{"hog", 3, "refused a"}, // two for a weight of three are less than two for one
			{"a", 1, "refused a"},
		}
		for i, s := range steps {
			a.arrive(t.Context(), s.key, s.key, s.weight)
			select {
			case got := <-a.served:
				if got != s.out {
					t.Errorf("step %d: %s, want %s", i, got, s.out)
				}
			default:
				t.Errorf("step %d: nobody left the queue", i)
			}
			if n := d.Waiting(); n != 4 {
				t.Fatalf("step %d: %d wait, want 4", i, n)
			}
		}
		d.slots.SetMax(0)
		synctest.Wait()
		d.wantEmpty(t)
	})
}

// TestFairPressed: a relay with room says so, and one that may refuse does not.
func TestFairPressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(2, 0, 0)
		want := func(when string, pressed bool) {
			t.Helper()
			if got := d.Pressed(); got != pressed {
				t.Errorf("%s: pressed is %v", when, got)
			}
		}
		want("empty", false)
		d.fill(t, "hog", 1)
		want("a slot left", false)
		d.fill(t, "hog", 1)
		want("full", true)
		d.try("a", 1)
		d.exit("hog")
		want("the slot is kept for another", true)
		time.Sleep(claimTime)
		d.try("hog", 1)
		d.exit("hog")
		want("the claim has run out", false)
		d.wantEmpty(t)
	})
}
