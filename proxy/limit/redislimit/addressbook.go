package redislimit

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// visitsMax is the number of pairs of a key and an address that a shard remembers. Beyond it the oldest is forgotten, and
// Redis is asked about it when it comes again.
const visitsMax = 2048

// addressBook is what this relay knows of the addresses of each key.
type addressBook struct {
	seed   maphash.Seed
	shards [shardCount]addressShard
}

func (b *addressBook) init() {
	b.seed = maphash.MakeSeed()
	for i := range b.shards {
		s := &b.shards[i]
		s.keys = make(map[string]*visitors)
		s.line.prev, s.line.next = &s.line, &s.line
	}
}

// addressShard holds the keys of one hash class.
type addressShard struct {
	mu   sync.Mutex // guards what follows and everything below it
	keys map[string]*visitors
	line visit // ring of all visits, the oldest first
	len  int
	_    [64]byte
}

// visitors are the addresses of one key.
type visitors struct {
	key string
	by  map[netip.Addr]*visit
}

// visit is what is known of one address of one key. Times are of the Limiter's clock.
type visit struct {
	of          *visitors
	addr        netip.Addr
	admitted    bool
	seen        time.Duration // when Redis was told last, if admitted
	max         int           // under which it was denied
	deniedUntil time.Duration
	retry       time.Duration
	brokenUntil time.Duration // the policy decides until then
	flight      *addressCall
	prev, next  *visit
}

// visitLocked returns the visit of addr to key, a new one if there is none.
func (s *addressShard) visitLocked(key string, addr netip.Addr) *visit {
	of := s.keys[key]
	if of == nil {
		of = &visitors{key: strings.Clone(key), by: make(map[netip.Addr]*visit, 1)}
		s.keys[of.key] = of
	}
	v := of.by[addr]
	if v != nil {
		return v
	}
	v = &visit{of: of, addr: addr}
	of.by[addr] = v
	v.prev, v.next = s.line.prev, &s.line
	v.prev.next, v.next.prev = v, v
	s.len++
	if s.len > visitsMax {
		s.forgetLocked(s.line.next)
	}
	return v
}

// forgetLocked forgets v. A flight that is under way puts its answer into what nobody sees any more.
func (s *addressShard) forgetLocked(v *visit) {
	v.prev.next, v.next.prev = v.next, v.prev
	s.len--
	delete(v.of.by, v.addr)
	if len(v.of.by) == 0 {
		delete(s.keys, v.of.key)
	}
}

// knownLocked returns the number of addresses that were admitted within the window.
func (v *visitors) knownLocked(now, window time.Duration) int {
	n := 0
	for _, each := range v.by {
		if each.admitted && now-each.seen < window {
			n++
		}
	}
	return n
}
