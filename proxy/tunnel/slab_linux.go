//go:build amd64 || arm64

package tunnel

import (
	"context"
	"time"
)

// phase is where a connection is in its life.
type phase uint8

const (
	unused     phase = iota
	visiting         // a customer without a tunnel: a head is awaited
	blocked          // Open runs in a goroutine
	connecting       // to the upstream
	asking           // the request to the upstream did not fit into its send buffer at once
	replying         // the upstream's answer is awaited
	carrying         // the tunnel is open
	breaking         // a side broke; the other one may take what was sent to it, then gets a reset
	lingering        // a last word was written and may arrive; what comes is dropped
)

// tunnel is a connection from its acceptance on, and the tunnel that it may become.
// It lives in a slab of one reactor, whose goroutine alone touches it.
type tunnel struct {
	exchange Exchange  // nil while visiting
	setup    *setup    // nil once open, and mostly while the upstream's answer is awaited
	shared   *Shared   // nil = no limit
	sides    [2]socket // the customer's and the upstream's
	start    int64     // of the tunnel; ns of the engine's clock, as all that follow
	last     int64     // the last byte either way
	// deadline is of the phase; 0 = none. While carrying there is none, and it is when
	// the sweep looked at the send queues, and set last.
	deadline int64

	index      uint32 // in the slab
	generation uint32 // grows when the place is used again
	version    uint32 // of shared's rate, as the sockets are paced
	young      uint32 // the place in reactor.young, from 1; 0 = it is not in there
	phase      phase
	ending     endingCode
	halves     uint8 // directions that have ended
	seasoned   bool  // the upstream's socket has its options for a long life
}

// setup is what only a connection needs that has no open tunnel yet. One that waits for
// its upstream's answer, which may be all there are at once, does without it unless it
// has something to keep there.
type setup struct {
	visitor   Visitor
	reception *Reception // of the listener; nil after Submit
	head      []byte     // bytes from the customer that wait: of a head, or for the upstream
	bytes     []byte     // of the request not sent yet, or of the reply so far
	reply     time.Duration
	limit     int64              // reactor's time at which the attempt is over; 0 = none
	cancel    context.CancelFunc // of Open
	err       error
	dropped   int  // bytes, while lingering
	between   bool // heads: the next one has not begun
	waits     bool // and the visitor was told so
}

// socket is one end of a tunnel. What concerns bytes is of the direction that begins
// here: customer → upstream is the customer's side's.
type socket struct {
	pending *pending // read here and not taken by the other side yet
	moved   int64    // bytes taken by the other side
	deaf    tenths   // from when the other side takes nothing any more; 0 = it does
	fd      int32    // -1 = none
	queued  int32    // unsent bytes when the sweep looked last
	flags   socketFlags
	full    uint8 // full reads in a row
}

// tenths is a time of the engine's clock in tenths of a second, from 1: it ends after 13
// years.
type tenths uint32

func tenthsOf(ns int64) tenths { return tenths(ns/int64(100*time.Millisecond)) + 1 }

// since is how long ago t was, to a tenth of a second.
func (t tenths) since(now int64) time.Duration {
	return time.Duration(tenthsOf(now)-t) * 100 * time.Millisecond
}

type socketFlags uint16

const (
	readable  socketFlags = 1 << iota // until a read says otherwise
	writable                          // until a write says otherwise
	hung                              // RDHUP, HUP or ERR was seen
	broken                            // HUP or ERR was seen
	finished                          // the end of the stream was read
	ended                             // and was passed on: the direction is over
	errored                           // ERR was seen
	held                              // its receive buffer may not grow yet
	fast                              // its direction has shown that it is
	throttled                         // waits for its share of the bandwidth
	turning                           // is in reactor.ready
	counted                           // in shared.waiting: throttled, or turning
	urgent                            // urgent data was seen: a splice does not get past its mark
)

// unsure says that a short read may not be all: what is behind it has no event of its own.
const unsure = hung | urgent

// is reports whether one of f is set.
func (s *socket) is(f socketFlags) bool { return s.flags&f != 0 }
func (s *socket) set(f socketFlags)     { s.flags |= f }
func (s *socket) clear(f socketFlags)   { s.flags &^= f }

// endingCode is an Ending in one byte; 0 = none yet.
type endingCode uint8

var endingsByCode = [...]Ending{
	"", Closed, ClientReset, UpstreamReset, ClientGone, Refused, IdleTimeout, HalfOpen, Killed, Drained, Failed,
}

func codeOf(e Ending) endingCode {
	for i, name := range endingsByCode {
		if name == e {
			return endingCode(i)
		}
	}
	return 0
}

// chunkSize is how many tunnels the slab grows by: these are whole pages.
const chunkSize = 512

// slab holds a reactor's tunnels without an allocation for each. Places are found by
// index and generation, so that a late event never meets a later tunnel.
type slab struct {
	chunks []*[chunkSize]tunnel
	free   []uint32
	live   int
}

// take returns an unused place.
func (s *slab) take() *tunnel {
	if len(s.free) == 0 {
		s.grow()
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.live++
	t := s.at(i)
	t.sides[0].fd, t.sides[1].fd = -1, -1
	return t
}

func (s *slab) grow() {
	base := uint32(len(s.chunks) * chunkSize)
	chunk := new([chunkSize]tunnel)
	s.chunks = append(s.chunks, chunk)
	for i := chunkSize - 1; i >= 0; i-- {
		chunk[i].index = base + uint32(i)
		s.free = append(s.free, base+uint32(i))
	}
}

func (s *slab) at(i uint32) *tunnel { return &s.chunks[i/chunkSize][i%chunkSize] }

// put makes t's place unused.
func (s *slab) put(t *tunnel) {
	*t = tunnel{index: t.index, generation: t.generation + 1}
	s.free = append(s.free, t.index)
	s.live--
}

// find returns the tunnel of a token, nil if it is no more.
func (s *slab) find(token uint64) *tunnel {
	i := uint32(token) >> 1
	if int(i/chunkSize) >= len(s.chunks) {
		return nil
	}
	t := s.at(i)
	if t.generation != uint32(token>>32) || t.phase == unused {
		return nil
	}
	return t
}

// each calls f with every tunnel; f may put it back.
func (s *slab) each(f func(*tunnel)) {
	for _, chunk := range s.chunks {
		for i := range chunk {
			if chunk[i].phase != unused {
				f(&chunk[i])
			}
		}
	}
}

// token names a side of t in events.
func (t *tunnel) token(side int) uint64 {
	return uint64(t.generation)<<32 | uint64(t.index)<<1 | uint64(side)
}
