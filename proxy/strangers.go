package proxy

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"maskrelay/proxy/tunnel"
)

const (
	// strangersShare is the part of all places that the strangers of one origin may have, minStrangersShare what they
	// have at least. It is not less, because a balancer that sends no PROXY header makes all customers one address.
	strangersShare    = 4
	minStrangersShare = 64
	keptCrowds        = 256 // for reuse
)

// origin is a client address as strangers are counted by: an IPv4 address, or a /64 of IPv6. The zero origin is
// nobody's: it has no share.
type origin struct{ netip.Prefix }

// originOf is the origin of an address. Balancers speak for many: they have none, nor has who is not known yet.
func (s *Server) originOf(a netip.Addr) origin {
	if !a.IsValid() || s.trusts(a) {
		return origin{}
	}
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // fails for no address of so many bits
	return origin{p}
}

// String is for the log.
func (o origin) String() string {
	if o.IsSingleIP() {
		return o.Addr().String()
	}
	return o.Prefix.String()
}

// stranger is a connection of which nobody knows whose it is: its PROXY header, TLS handshake or head is awaited, or it
// was refused and kept. It is a part of the connection, so that the books cost nothing. Whoever is on them may be told
// to go at any time. Its zero value is on none.
type stranger struct {
	// guarded by strangers.mu, as all that follows
	before, behind [lines]*stranger
	crowd          *crowd        // nil = nobody's
	listed         bool          // in the line of all
	seat           tunnel.Seat   // of one that the engine has
	raw            *net.TCPConn  // of one that net/http has
	quit           chan struct{} // closed when it is told to go; nil unless it waits for that
}

// The lines that a stranger stands in.
const (
	ofAll = iota
	ofCrowd
	lines
)

// line is strangers in the order in which they began to wait.
type line struct {
	first, last *stranger
	count       int
}

func (l *line) push(x *stranger, of int) {
	x.before[of], x.behind[of] = l.last, nil
	if l.last != nil {
		l.last.behind[of] = x
	} else {
		l.first = x
	}
	l.last = x
	l.count++
}

func (l *line) remove(x *stranger, of int) {
	before, behind := x.before[of], x.behind[of]
	if before != nil {
		before.behind[of] = behind
	} else {
		l.first = behind
	}
	if behind != nil {
		behind.before[of] = before
	} else {
		l.last = before
	}
	x.before[of], x.behind[of] = nil, nil
	l.count--
}

// crowd is the strangers of one origin.
type crowd struct {
	line
	from origin
}

// strangers are all of a relay's. Every method takes the same short time however many there are. Use newStrangers.
type strangers struct {
	count atomic.Int64 // written under mu

	mu     sync.Mutex // guards what follows, and what is in a stranger
	all    line
	crowds map[origin]*crowd
	unused []*crowd
}

func newStrangers() *strangers { return &strangers{crowds: make(map[origin]*crowd)} }

// wait puts x at the end of the lines, whether it stood in them or not. It returns how many its origin has now, 0 for
// nobody's.
func (s *strangers) wait(x *stranger, from origin) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waitLocked(x, from)
}

// sit is wait for a visitor and his seat.
func (s *strangers) sit(x *stranger, from origin, seat tunnel.Seat) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.seat = seat
	return s.waitLocked(x, from)
}

func (s *strangers) waitLocked(x *stranger, from origin) int {
	s.takeLocked(x)
	x.listed = true
	s.all.push(x, ofAll)
	s.count.Store(int64(s.all.count))
	return s.joinLocked(x, from)
}

// again puts x at the end of the lines if it stands in them.
func (s *strangers) again(x *stranger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !x.listed {
		return
	}
	from := origin{}
	if x.crowd != nil {
		from = x.crowd.from
	}
	s.waitLocked(x, from)
}

// isFrom notes whose x is, now that it is known; its place among all stays. It returns how many that origin has now, 0
// if x is no stranger any more.
func (s *strangers) isFrom(x *stranger, from origin) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !x.listed {
		return 0
	}
	s.partLocked(x)
	return s.joinLocked(x, from)
}

// take takes x off the books: it is no stranger any more, or it is gone.
func (s *strangers) take(x *stranger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeLocked(x)
}

func (s *strangers) takeLocked(x *stranger) {
	if !x.listed {
		return
	}
	s.partLocked(x)
	s.all.remove(x, ofAll)
	s.count.Store(int64(s.all.count))
	x.listed = false
}

// joinLocked makes x one of its origin's.
func (s *strangers) joinLocked(x *stranger, from origin) int {
	if from == (origin{}) {
		return 0
	}
	c := s.crowds[from]
	if c == nil {
		c = s.newCrowdLocked()
		c.from = from
		s.crowds[from] = c
	}
	x.crowd = c
	c.push(x, ofCrowd)
	return c.count
}

func (s *strangers) newCrowdLocked() *crowd {
	n := len(s.unused)
	if n == 0 {
		return new(crowd)
	}
	c := s.unused[n-1]
	s.unused = s.unused[:n-1]
	return c
}

// partLocked takes x out of its origin's crowd.
func (s *strangers) partLocked(x *stranger) {
	c := x.crowd
	if c == nil {
		return
	}
	x.crowd = nil
	c.remove(x, ofCrowd)
	if c.count > 0 {
		return
	}
	delete(s.crowds, c.from)
	if len(s.unused) < keptCrowds {
		s.unused = append(s.unused, c)
	}
}

// evictFor tells a stranger to go to make room for one from an origin, and reports whether there was one: who has waited
// longest of that origin, if it has more than many and more than the mean, or of all. So a flood makes its own room, and
// a customer who opens a few connections at once beside a crowd does not.
func (s *strangers) evictFor(from origin, many int) bool {
	s.mu.Lock()
	x := s.all.first
	if c := s.crowds[from]; c != nil && c.count > many && c.count*len(s.crowds) > s.all.count {
		x = c.first
	}
	return s.tellUnlock(x)
}

// evictFrom tells the stranger to go who has waited longest of those of one origin.
func (s *strangers) evictFrom(from origin) bool {
	s.mu.Lock()
	var x *stranger
	if c := s.crowds[from]; c != nil {
		x = c.first
	}
	return s.tellUnlock(x)
}

// tellUnlock tells x to go, takes it off the books, and unlocks. Nothing of x is looked at after: a visitor's memory
// may be another one's then, and his seat nobody's.
func (s *strangers) tellUnlock(x *stranger) bool {
	if x == nil {
		s.mu.Unlock()
		return false
	}
	s.takeLocked(x)
	seat, raw := x.seat, x.raw
	if x.quit != nil {
		close(x.quit)
		x.quit = nil
	}
	s.mu.Unlock()
	if raw != nil {
		_ = raw.Close() // its goroutine sees that and does the rest
		return true
	}
	seat.Evict()
	return true
}

// quits returns a channel that is closed when x is told to go, which it may have been already. ends must be called when
// nobody waits for it any more.
func (s *strangers) quits(x *stranger) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	quit := make(chan struct{})
	if x.listed {
		x.quit = quit
	} else {
		close(quit)
	}
	return quit
}

func (s *strangers) ends(x *stranger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.quit = nil
}

// origins returns how many different origins there are.
func (s *strangers) origins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.crowds)
}
