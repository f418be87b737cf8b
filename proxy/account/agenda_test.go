package account

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestAgenda: whatever is set, moved and cancelled, what is due comes in order and once.
func TestAgenda(t *testing.T) {
	type thing struct{ check appointment[thing] }
	rng := rand.New(rand.NewPCG(1, 2))
	var a agenda[thing]
	things := make([]*thing, 100)
	want := make(map[*thing]time.Time)
	for i := range things {
		things[i] = &thing{}
		things[i].check.of = things[i]
	}
	start := time.Unix(0, 0)
	now := start
	for range 10_000 {
		x := things[rng.IntN(len(things))]
		switch rng.IntN(4) {
		case 0, 1:
			at := now.Add(time.Duration(rng.IntN(50)))
			a.set(&x.check, at)
			want[x] = at
		case 2:
			a.cancel(&x.check)
			delete(want, x)
		case 3:
			now = now.Add(time.Duration(rng.IntN(3)))
			for last := start; ; {
				got := a.due(now)
				if got == nil {
					break
				}
				at, ok := want[got]
				if !ok || at.After(now) || at.Before(last) {
					t.Fatalf("due is one of %v, there: %v", at, ok)
				}
				last = at
				delete(want, got)
			}
			for _, at := range want {
				if !at.After(now) {
					t.Fatal("one that is due did not come")
				}
			}
		}
		if len(a.queue) != len(want) {
			t.Fatalf("%d appointments, want %d", len(a.queue), len(want))
		}
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	var r refusals
	now := time.Unix(0, 0)
	key := func(i int) (d digest) {
		d[0], d[1], d[2], d[3] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
		return d
	}
	const all = 2 * setShards * shardGeneration
	for i := range 2 * all {
		r.add(key(i), now.Add(time.Second))
	}
	n := 0
	for i := range 2 * all {
		if r.has(key(i), now) {
			n++
		}
	}
	if n < all/2 || n > all {
		t.Errorf("%d are remembered, want at most %d", n, all)
	}
	last := key(2*all - 1)
	if !r.has(last, now.Add(time.Second-1)) || r.has(last, now.Add(time.Second)) {
		t.Error("a refusal does not hold as long as it should")
	}
	r.forget()
	if r.has(last, now) {
		t.Error("a refusal is remembered after all were dropped")
	}
}
