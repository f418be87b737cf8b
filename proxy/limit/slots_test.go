package limit

import (
	"sync"
	"testing"
)

func TestSlotsExactUnderContention(t *testing.T) {
	const slots, goroutines, attempts = 1000, 64, 100
	s := NewSlots(slots)
	var given [goroutines]int
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for range attempts {
				if s.TryAcquire() {
					given[i]++
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range given {
		sum += n
	}
	if sum != slots || s.InUse() != slots {
		t.Errorf("%d of %d slots given out, %d in use", sum, slots, s.InUse())
	}
	for i := range goroutines {
		wg.Go(func() {
			for range given[i] {
				s.Release()
			}
		})
	}
	wg.Wait()
	if s.InUse() != 0 {
		t.Errorf("%d slots in use after all were released", s.InUse())
	}
}

func TestSlotsSetMax(t *testing.T) {
	s := NewSlots(3)
	take := func(want bool) {
		t.Helper()
		if ok := s.TryAcquire(); ok != want {
			t.Fatalf("TryAcquire with %d of %d in use returned %v", s.InUse(), s.Max(), ok)
		}
	}
	for range 3 {
		take(true)
	}
	take(false)
	s.SetMax(4)
	take(true)
	take(false)
	s.SetMax(2) // four stay held
	take(false)
	s.Release()
	s.Release()
	take(false)
	s.Release()
	take(true)
	take(false)
	s.SetMax(0)
	for range 100 {
		take(true)
	}
	if s.InUse() != 102 || s.Max() != 0 {
		t.Errorf("InUse %d, Max %d, want 102 and 0", s.InUse(), s.Max())
	}
	s.SetMax(-5)
	if s.Max() != 0 {
		t.Errorf("Max is %d after SetMax(-5), want 0", s.Max())
	}
}

func BenchmarkSlots(b *testing.B) {
	s := NewSlots(1 << 30)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !s.TryAcquire() {
				b.Error("no slot")
				return
			}
			s.Release()
		}
	})
}
