package limit

import (
	"sync"
	"testing"
)

func TestSlotsExactUnderContention(t *testing.T) {
	const slots, goroutines, attempts = 1000, 64, 100
	s := NewSlots(slots)
	var mu sync.Mutex
	var leases []*Lease
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range attempts {
				lease, ok := s.TryAcquire()
				if ok != (lease != nil) {
					t.Errorf("TryAcquire returned %v, %v", lease, ok)
				}
				if ok {
					mu.Lock()
					leases = append(leases, lease)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(leases) != slots || s.InUse() != slots {
		t.Errorf("%d of %d slots given out, %d in use", len(leases), slots, s.InUse())
	}
	for range goroutines {
		wg.Go(func() {
			for _, lease := range leases {
				lease.Release()
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
	var leases []*Lease
	take := func(want bool) {
		t.Helper()
		lease, ok := s.TryAcquire()
		if ok != want {
			t.Fatalf("TryAcquire with %d of %d in use returned %v", s.InUse(), s.Max(), ok)
		}
		if ok {
			leases = append(leases, lease)
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
	for _, lease := range leases[:2] {
		lease.Release()
	}
	take(false)
	leases[2].Release()
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
			lease, ok := s.TryAcquire()
			if !ok {
				b.Error("no slot")
				return
			}
			lease.Release()
		}
	})
}
