package limit

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestSpare(t *testing.T) {
	slots := NewSlots(0)
	s := NewSpare(slots, 4)
	if slots.Max() != 4 {
		t.Errorf("the maximum is %d, want 4", slots.Max())
	}
	slots.TryAcquire()
	for n := range 3 { // one slot always stays, and it is in use
		if !s.TryTake() {
			t.Fatalf("pair %d is not lent", n+1)
		}
	}
	if s.TryTake() {
		t.Error("more lent than there is")
	}
	if slots.TryAcquire() || slots.Max() != 1 {
		t.Errorf("a slot beside three lent pairs and one in use; the maximum is %d", slots.Max())
	}
	s.Put()
	if !slots.TryAcquire() {
		t.Fatal("a pair that came back is not a slot again")
	}
	if s.TryTake() {
		t.Error("a pair in use is lent")
	}
	slots.Release()
	slots.Release()
	s.Put()
	s.Put()
	if slots.Max() != 4 || slots.InUse() != 0 {
		t.Errorf("after all came back: %d of %d in use", slots.InUse(), slots.Max())
	}
}

// TestSpareKeepsTheMaximum: with pairs in plenty, lending costs no slot.
func TestSpareKeepsTheMaximum(t *testing.T) {
	slots := NewSlots(10)
	s := NewSpare(slots, 100)
	for range 90 {
		if !s.TryTake() {
			t.Fatal("nothing to spare")
		}
	}
	if slots.Max() != 10 {
		t.Errorf("the maximum is %d, want 10", slots.Max())
	}
	s.TryTake()
	if slots.Max() != 9 {
		t.Errorf("the maximum is %d with 91 of 100 pairs lent, want 9", slots.Max())
	}
}

func TestSpareWithoutBound(t *testing.T) {
	slots := NewSlots(7)
	s := NewSpare(slots, 0)
	for range 1000 {
		if !s.TryTake() {
			t.Fatal("refused without a bound")
		}
	}
	s.Put()
	if slots.Max() != 7 || s.Short() {
		t.Errorf("maximum %d, short %v", slots.Max(), s.Short())
	}
}

func TestSpareShort(t *testing.T) {
	slots := NewSlots(0)
	s := NewSpare(slots, 32)
	for n := range 32 {
		if want := n > 30; s.Short() != want {
			t.Errorf("with %d of 32 pairs in use short is not %v", n, want)
		}
		if n%2 == 0 {
			slots.TryAcquire()
		} else if !s.TryTake() {
			t.Fatalf("pair %d is not lent", n+1)
		}
	}
}

// TestSpareUnderContention: all together stay within the pairs, but for those who are just being admitted.
func TestSpareUnderContention(t *testing.T) {
	const pairs, each, rounds = 64, 8, 2000
	slots := NewSlots(0)
	s := NewSpare(slots, pairs)
	var inUse, most atomic.Int64
	use := func(n int64) {
		now := inUse.Add(n)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
	}
	var users sync.WaitGroup
	for range each {
		users.Go(func() {
			held := 0
			for n := range rounds {
				if slots.TryAcquire() {
					use(1)
					held++
				}
				if n%7 == 0 {
					for ; held > 0; held-- {
						use(-1)
						slots.Release()
					}
				}
			}
			for ; held > 0; held-- {
				use(-1)
				slots.Release()
			}
		})
		users.Go(func() {
			for range rounds {
				if s.TryTake() {
					use(1)
					use(-1)
					s.Put()
				}
			}
		})
	}
	users.Wait()
	if n := most.Load(); n > pairs+each {
		t.Errorf("%d pairs in use at once, there are %d", n, pairs)
	}
	if slots.InUse() != 0 || slots.Max() != pairs {
		t.Errorf("at the end %d of %d in use", slots.InUse(), slots.Max())
	}
}
