package limit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// defaultQueue is how many connections wait for a slot when FairConfig names no number.
const defaultQueue = 4096

// Bits of Fair.pressed.
const (
	someWait  = 1 << iota // freed slots are to be handed over
	someClaim             // freed slots may be kept for somebody
)

// FairConfig says how a full relay's slots are shared out.
type FairConfig struct {
	// Wait is how long Acquire waits for a slot at most; 0 or less: not at all.
	Wait time.Duration
	// Queue is how many wait at most; 0 or less is 4096.
	Queue int
	// InUse returns the connections of a key, as a Limiter counts them whose leases are
	// taken before the slots and given back before them: the connection that asks for a
	// slot, and those that wait for one, are among them. It is called with a lock held
	// and must not call the Fair. nil: all keys are taken to have as many.
	InUse func(key string) int
}

// Fair gives out Slots so that, while there are none left, no key keeps more than its
// weighted share from others that ask: what becomes free goes to the key that has the
// fewest slots for its weight. While there are slots left, anybody may have all of them.
// Slots held stay held; a share is reached as others' connections end.
//
// With a Wait, [Fair.Acquire] queues, in order within a key. A newcomer never gets
// ahead of those who wait. If the queue is full, the keys have their share of its places
// in the same way: one that has more than a newcomer's key loses its last.
//
// Whoever is refused leaves a claim to the next free slots for three seconds, so that a
// key which asks a hundred times a second does not get them all before one that asks
// once. A claim only keeps slots from keys that have more for their weight, and no more
// slots than its key asked for within a second.
//
// All slots must be taken and released through the Fair. It is safe for concurrent use,
// costs one atomic load beside the Slots while there is room, and is bounded: the queue,
// and 256 claims.
type Fair struct {
	slots   *Slots
	config  FairConfig
	pressed atomic.Uint32 // someWait, someClaim; written under mu

	mu      sync.Mutex // guards what follows
	queue   queue
	claims  claims
	recheck *time.Timer // while a free slot is kept from the waiting by a claim; nil before the first
}

// NewFair returns a Fair for slots, which it owns from now on; only their maximum may
// be changed by others, at any time.
func NewFair(slots *Slots, c FairConfig) *Fair {
	if c.Queue <= 0 {
		c.Queue = defaultQueue
	}
	if c.InUse == nil {
		c.InUse = func(string) int { return 0 }
	}
	f := &Fair{slots: slots, config: c, queue: newQueue(), claims: newClaims()}
	freed := f.handOver
	slots.raised.Store(&freed)
	return f
}

// Waits reports whether Acquire may get what TryAcquire could not.
func (f *Fair) Waits() bool { return f.config.Wait > 0 }

// Pressed reports whether TryAcquire may have to refuse. It costs an atomic load or two.
func (f *Fair) Pressed() bool { return f.pressed.Load() != 0 || f.slots.free() <= 0 }

// Waiting returns how many wait for a slot.
func (f *Fair) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.queue.waiting
}

// TryAcquire takes a slot for key, whose weight counts as at least 1, and reports whether
// there was one for it. It never waits. The slot must be given back with Release, once.
func (f *Fair) TryAcquire(key string, weight int) bool {
	if f.pressed.Load() == 0 && f.slots.TryAcquire() {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queue.waiting > 0 {
		// Nothing is free that those who wait could have.
		return false
	}
	l := f.loadOf(key, weight, 1)
	now := time.Now()
	if f.takeLocked(key, l, now) {
		return true
	}
	if !f.Waits() {
		f.claims.refused(key, l, now)
	}
	f.noteLocked()
	return false
}

// Acquire is TryAcquire that waits its turn, for no longer than the configured time and
// until ctx ends.
func (f *Fair) Acquire(ctx context.Context, key string, weight int) bool {
	if !f.Waits() {
		return f.TryAcquire(key, weight)
	}
	if ctx.Err() != nil {
		return false
	}
	if f.pressed.Load() == 0 && f.slots.TryAcquire() {
		return true
	}
	w := f.enqueue(key, max(weight, 1))
	if w == nil {
		return false
	}
	timer := time.NewTimer(f.config.Wait)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	return f.leave(ctx, w)
}

// Release gives back one slot, to the next who waits if there is one.
func (f *Fair) Release() {
	f.slots.Release()
	// Whoever begins to wait sets the bit before he looks for a slot: either he finds
	// this one, or the bit is found here.
	if f.pressed.Load()&someWait != 0 {
		f.handOver()
	}
}

// handOver gives what is free to those who wait.
func (f *Fair) handOver() {
	if f.pressed.Load()&someWait == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.serveLocked(time.Now())
	f.noteLocked()
}

// loadOf is what key has, without those of its connections that have no slot yet.
func (f *Fair) loadOf(key string, weight, without int) load {
	return load{slots: max(f.config.InUse(key)-without, 0), weight: max(weight, 1)}
}

// takeLocked takes a slot that is not kept for others.
func (f *Fair) takeLocked(key string, l load, now time.Time) bool {
	free := f.slots.free()
	if free <= 0 || f.claims.kept(key, l, free, now) >= free || !f.slots.TryAcquire() {
		return false
	}
	l.slots++
	f.claims.served(key, l, now)
	f.noteLocked()
	return true
}

// noteLocked tells those without the lock what there is to heed.
func (f *Fair) noteLocked() {
	var bits uint32
	if f.queue.waiting > 0 {
		bits |= someWait
	}
	if f.claims.len() > 0 {
		bits |= someClaim
	}
	if f.pressed.Load() != bits {
		f.pressed.Store(bits)
	}
	if f.queue.waiting == 0 && f.recheck != nil {
		f.recheck.Stop()
	}
}

// load is what a key has of the slots, beside its weight.
type load struct {
	slots  int
	weight int // at least 1
}

// lighter reports whether l has fewer slots for its weight than other.
func (l load) lighter(other load) bool {
	return int64(l.slots)*int64(other.weight) < int64(other.slots)*int64(l.weight)
}

// below returns how many slots l must get to be no lighter than other any more.
func (l load) below(other load) int {
	weight := int64(other.weight)
	return max(int((int64(other.slots)*int64(l.weight)+weight-1)/weight)-l.slots, 0)
}
