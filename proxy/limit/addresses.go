package limit

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxAddresses is how many addresses of all keys together are remembered. Beyond it
	// new ones take the places of some that were seen long ago.
	maxAddresses = 1 << 18
	// addressSweep is how many addresses a new one looks at that may be out of the
	// window: two keep ahead of any inflow.
	addressSweep = 2
)

// MemoryAddresses is the [Addresses] of one process. An address counts for the window
// since it was last admitted, to the nanosecond. IPv6 addresses count by their /64, which
// is what one customer has; an IPv4 address in IPv6 form is that IPv4 address.
//
// A call takes constant time, behind one of 64 mutexes. 262,144 addresses of all keys
// are remembered, about 60 MB; a flood beyond that makes it forget old ones of some
// keys, which are then let in from more addresses than they should be. Memory is given
// back as the window passes. Safe for concurrent use.
type MemoryAddresses struct {
	window time.Duration
	began  time.Time
	most   int64 // addresses
	seed   maphash.Seed
	count  atomic.Int64 // addresses of all shards
	shards [shardCount]addressShard
}

// NewAddresses returns a MemoryAddresses without addresses. window must be above 0.
func NewAddresses(window time.Duration) *MemoryAddresses {
	m := &MemoryAddresses{window: window, began: time.Now(), most: maxAddresses, seed: maphash.MakeSeed()}
	for i := range m.shards {
		s := &m.shards[i]
		s.owners = make(map[string]*owner)
		s.seen = make(map[address]*sighting)
		s.oldest.prev, s.oldest.next = &s.oldest, &s.oldest
	}
	return m
}

// Admit implements [Addresses]. It does not wait: the error for an ended ctx comes from a
// look at ctx on entry. Refusals are an [*ExceededError].
func (m *MemoryAddresses) Admit(ctx context.Context, key string, addr netip.Addr, max int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("limit: admit an address: %w", err)
	}
	return m.AdmitNow(key, addr, max)
}

// AdmitNow implements [Addresses], and never wraps [ErrWouldBlock]. A max below 1 is no
// limit, and nothing is counted.
func (m *MemoryAddresses) AdmitNow(key string, addr netip.Addr, max int) error {
	if max < 1 {
		return nil
	}
	addr = counted(addr)
	s := &m.shards[maphash.String(m.seed, key)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(m.began) // under the lock, so that the lists are in order
	o := s.owners[key]
	a := s.seen[address{o, addr}]
	switch {
	case o == nil:
	case a != nil && now-a.at < m.window:
		s.againLocked(a, now)
		return nil
	default:
		if a != nil {
			m.forgetLocked(s, a)
		}
		if m.shrinkLocked(s, o, max-1, now) >= max {
			wait := min(o.oldest.nextOwn.at+m.window-now, maxRetryAfter)
			return &ExceededError{Cap: CapMaxIPs, Limit: float64(max), RetryAfter: wait}
		}
	}
	m.makeRoomLocked(s, now)
	m.addLocked(s, key, addr, now)
	return nil
}

// Count returns from how many addresses key was admitted within the window.
func (m *MemoryAddresses) Count(key string) int {
	s := &m.shards[maphash.String(m.seed, key)%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.owners[key]; o != nil {
		return m.shrinkLocked(s, o, 0, time.Since(m.began))
	}
	return 0
}

// counted is the address that addr counts as.
func counted(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		network, _ := addr.Prefix(64) // cannot fail: 64 is within an IPv6 address
		return network.Addr()
	}
	return addr
}

// address is one of an owner's.
type address struct {
	owner *owner
	addr  netip.Addr
}

// owner is a key with at least one address.
type owner struct {
	key    string
	count  int
	oldest sighting // ring of the owner's addresses, the one seen longest ago first
}

// sighting is when an address was last admitted.
type sighting struct {
	address
	at               time.Duration
	linked           time.Duration // what at was when it got its place in the shard's ring
	prev, next       *sighting     // in the shard's ring
	prevOwn, nextOwn *sighting     // in the owner's
}

// addressShard holds the keys of one hash class.
type addressShard struct {
	mu     sync.Mutex // guards what follows
	owners map[string]*owner
	seen   map[address]*sighting
	oldest sighting // ring of all addresses, about in the order in which they were seen
	peak   int      // the most addresses since the maps were made
	_      [64]byte // keeps neighbours' mutexes off one cache line
}

// addLocked enters an address that is not there.
func (m *MemoryAddresses) addLocked(s *addressShard, key string, addr netip.Addr, now time.Duration) {
	o := s.owners[key]
	if o == nil {
		own := strings.Clone(key) // key may be part of a larger string
		o = &owner{key: own}
		o.oldest.prevOwn, o.oldest.nextOwn = &o.oldest, &o.oldest
		s.owners[own] = o
	}
	a := &sighting{address: address{o, addr}, at: now, linked: now}
	s.seen[a.address] = a
	s.linkLocked(a)
	a.linkOwn(&o.oldest)
	o.count++
	m.count.Add(1)
	s.peak = max(s.peak, len(s.seen))
}

// againLocked admits a once more. Its place among its owner's follows at once; the shard's
// ring is put right when a is looked at there, so that an admission touches little memory.
func (s *addressShard) againLocked(a *sighting, now time.Duration) {
	a.at = now
	own := &a.owner.oldest
	if a.nextOwn == own {
		return
	}
	a.prevOwn.nextOwn, a.nextOwn.prevOwn = a.nextOwn, a.prevOwn
	a.linkOwn(own)
}

// linkOwn puts a last in its owner's ring.
func (a *sighting) linkOwn(own *sighting) {
	a.prevOwn, a.nextOwn = own.prevOwn, own
	a.prevOwn.nextOwn, a.nextOwn.prevOwn = a, a
}

// linkLocked puts a last in the shard's ring.
func (s *addressShard) linkLocked(a *sighting) {
	a.prev, a.next = s.oldest.prev, &s.oldest
	a.prev.next, a.next.prev = a, a
}

// unlink takes a out of both rings.
func (a *sighting) unlink() {
	a.prev.next, a.next.prev = a.next, a.prev
	a.prevOwn.nextOwn, a.nextOwn.prevOwn = a.nextOwn, a.prevOwn
}

// shrinkLocked forgets addresses of o that are out of the window until it has no more
// than most, and returns how many it has.
func (m *MemoryAddresses) shrinkLocked(s *addressShard, o *owner, most int, now time.Duration) int {
	for o.count > most && now-o.oldest.nextOwn.at >= m.window {
		m.forgetLocked(s, o.oldest.nextOwn)
	}
	return o.count
}

// makeRoomLocked forgets addresses that are out of the window, looking at a few, and one
// that is not if there are too many.
func (m *MemoryAddresses) makeRoomLocked(s *addressShard, now time.Duration) {
	for range addressSweep {
		a := s.oldest.next
		switch {
		case a == &s.oldest:
			return
		case now-a.at >= m.window:
			m.forgetLocked(s, a)
		case a.at > a.linked: // seen again since it came to its place
			a.linked = a.at
			a.prev.next, a.next.prev = a.next, a.prev
			s.linkLocked(a)
		}
	}
	if a := s.oldest.next; m.count.Load() >= m.most && a != &s.oldest {
		m.forgetLocked(s, a)
	}
}

// forgetLocked removes an address, and its owner if it was the last.
func (m *MemoryAddresses) forgetLocked(s *addressShard, a *sighting) {
	a.unlink()
	delete(s.seen, a.address)
	m.count.Add(-1)
	o := a.owner
	if o.count--; o.count == 0 {
		delete(s.owners, o.key)
	}
	if s.peak < shrinkFrom || len(s.seen) > s.peak/4 {
		return
	}
	// Go's maps do not shrink. The copy costs a third of the removals that led here.
	s.seen, s.owners = maps.Collect(maps.All(s.seen)), maps.Collect(maps.All(s.owners))
	s.peak = len(s.seen)
}
