package limit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFairLosesNoSlot: whatever attempts, waits that end, endings and changes of the
// maximum meet, no slot is lost, and never are more in use than the maximum was.
func TestFairLosesNoSlot(t *testing.T) {
	for _, wait := range []time.Duration{0, 2 * time.Millisecond, time.Minute} {
		t.Run(wait.String(), func(t *testing.T) {
			const most, goroutines, rounds = 20, 60, 300
			d := newDoor(most, wait, 30)
			spare := NewSpare(d.slots, most)
			var inUse, peak atomic.Int64
			var users sync.WaitGroup
			for g := range goroutines {
				users.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(g), 7))
					key := fmt.Sprint("key", g%7)
					for range rounds {
						visit(d, rnd, key, 1+g%3, &inUse, &peak)
					}
				})
			}
			users.Go(func() {
				for range rounds {
					if spare.TryTake() {
						spare.Put()
					}
				}
			})
			users.Wait()
			if n := peak.Load(); n > most {
				t.Errorf("%d slots in use at once, there are %d", n, most)
			}
			d.wantEmpty(t)
			d.slots.SetMax(most)
			for i := range most { // all are there
				if !d.slots.TryAcquire() {
					t.Fatalf("slot %d is lost", i)
				}
			}
		})
	}
}

// visit makes an attempt in one of the ways there are, and ends the connection.
func visit(d *door, rnd *rand.Rand, key string, weight int, inUse, peak *atomic.Int64) {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if rnd.IntN(2) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.IntN(1000))*time.Microsecond)
	}
	defer cancel()
	lease, err := d.limiter.Acquire(context.Background(), key, Caps{})
	if err != nil {
		panic(err)
	}
	defer lease.Release()
	if ok := rnd.IntN(3) == 0 && d.TryAcquire(key, weight) || d.Acquire(ctx, key, weight); !ok {
		return
	}
	now := inUse.Add(1)
	for old := peak.Load(); now > old && !peak.CompareAndSwap(old, now); old = peak.Load() {
	}
	for range rnd.IntN(2000) {
		_ = rnd.Uint64()
	}
	inUse.Add(-1)
	lease.Release()
	d.Release()
}

// BenchmarkFair measures what the Fair costs: with room, beside the Slots alone, and in a
// full relay a refusal and a slot that changes hands.
func BenchmarkFair(b *testing.B) {
	b.Run("room", func(b *testing.B) {
		d := newDoor(1<<30, 0, 0)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if !d.TryAcquire("key", 1) {
					b.Error("no slot")
					return
				}
				d.Release()
			}
		})
	})
	b.Run("room, one", func(b *testing.B) {
		d := newDoor(1<<30, 0, 0)
		for b.Loop() {
			d.TryAcquire("key", 1)
			d.Release()
		}
	})
	for _, keys := range []int{1, 1000} {
		b.Run(fmt.Sprintf("refused/keys=%d", keys), func(b *testing.B) {
			d := fullDoor(b, keys, 0)
			names := make([]string, keys)
			for i := range names {
				names[i] = fmt.Sprint("key", i)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if d.TryAcquire(names[i%keys], 1) {
					b.Fatal("a slot too many")
				}
			}
		})
	}
	for _, keys := range []int{1, 16, 4096} {
		b.Run(fmt.Sprintf("hand over/waiting keys=%d", keys), func(b *testing.B) {
			d := fullDoor(b, keys, time.Hour)
			var users sync.WaitGroup
			defer users.Wait()
			var left atomic.Int64
			left.Store(int64(b.N) + 4096)
			for i := range 4096 {
				users.Go(func() {
					key := fmt.Sprint("key", i%keys)
					for left.Add(-1) >= 0 && d.Acquire(context.Background(), key, 1) {
						d.Release() // to the next
					}
				})
			}
			for d.Waiting() < 4000 {
				runtime.Gosched()
			}
			b.ResetTimer()
			d.Release()
		})
	}
}

// fullDoor is a full relay in which each of the keys has a connection.
func fullDoor(b *testing.B, keys int, wait time.Duration) *door {
	b.Helper()
	d := newDoor(keys, wait, 4096)
	for i := range keys {
		if !d.try(fmt.Sprint("key", i), 1) {
			b.Fatal("no slot")
		}
	}
	return d
}
