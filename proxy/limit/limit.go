package limit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"sync/atomic"
	"time"
)

// Names of the caps, as they stand in [ExceededError.Cap].
const (
	// CapMaxConns is the cap on simultaneous connections.
	CapMaxConns = "max_conns"
	// CapConnRate is the cap on new connections per second.
	CapConnRate = "conn_rate"
	// CapMaxIPs is the cap on client addresses.
	CapMaxIPs = "max_ips"
)

// ErrWouldBlock means that the answer takes a wait: nothing was consumed, and whoever
// may wait asks the blocking method instead.
var ErrWouldBlock = errors.New("limit: the answer takes a wait")

// ErrUnavailable means that the connection can neither be admitted nor held against its customer: who counts
// for the fleet does not answer, and nobody is to be admitted uncounted. Nothing was consumed.
var ErrUnavailable = errors.New("limit: connections cannot be counted at present")

// Caps are the bounds of one key. The zero value sets none.
type Caps struct {
	// MaxConns is the number of simultaneous connections; 0 or less is no limit.
	MaxConns int
	// ConnRate is the number of new connections per second; 0 or less, NaN and
	// +Inf are no limit.
	ConnRate float64
	// ConnBurst is how many connections may be opened at once after a quiet
	// time; 0 or less is ConnRate rounded up, at least 1. Without ConnRate it
	// means nothing.
	ConnBurst int
}

// Bucket returns the rate of new connections per second and the size of the bucket that it fills, both 0 if the caps
// bound no rate. It is for other implementations of [Limiter].
func (c Caps) Bucket() (rate float64, burst int) {
	if !c.rated() {
		return 0, 0
	}
	return c.ConnRate, c.burst()
}

// rated reports whether the caps bound the rate of new connections.
func (c Caps) rated() bool {
	return c.ConnRate > 0 && !math.IsInf(c.ConnRate, 1)
}

// burst returns the size of the bucket that ConnRate fills.
func (c Caps) burst() int {
	if c.ConnBurst > 0 {
		return c.ConnBurst
	}
	if c.ConnRate >= math.MaxInt32 {
		return math.MaxInt32
	}
	return max(1, int(math.Ceil(c.ConnRate)))
}

// ExceededError says which cap refused a connection. The refusal took neither a
// slot nor a token; the same attempt may be made again later.
type ExceededError struct {
	// Cap is [CapMaxConns] or [CapConnRate].
	Cap string
	// Limit is the cap's value: connections, or connections per second.
	Limit float64
	// RetryAfter is when a next attempt is worth while: for the rate the time
	// until there is a token again, for the number of connections, whose ends
	// nobody can foresee, one second. It is positive and at most one day.
	RetryAfter time.Duration
}

// Error names the cap and its value.
func (e *ExceededError) Error() string {
	return fmt.Sprintf("limit: %s of %g reached", e.Cap, e.Limit)
}

// Limiter admits connections. Implementations are safe for concurrent use, and
// are held to package limittest.
type Limiter interface {
	// Acquire admits one connection of key under caps, or refuses it with an
	// [*ExceededError]. It never waits for a slot or a token; if ctx has ended
	// or ends on the way it returns an error that wraps ctx's. Any error means
	// that nothing was consumed. Caps may differ from call to call and apply at
	// once: a lowered MaxConns refuses new connections and leaves held ones be.
	Acquire(ctx context.Context, key string, caps Caps) (*Lease, error)
	// InUse returns the number of connections that key holds.
	InUse(key string) int
	// Range calls f for every key with a connection, in no order, until f
	// returns false. It is no snapshot: keys that come or go meanwhile may be
	// missed. f may call the Limiter.
	Range(f func(key string, inUse int) bool)
}

// Immediate is a Limiter that can also admit without blocking, for callers who serve
// thousands of connections from one goroutine.
type Immediate interface {
	Limiter
	// AcquireNow is Acquire for a lease of the caller's own, which must be the zero
	// Lease or a released one, and stays as it is if there is an error. An error that
	// wraps [ErrWouldBlock] is no refusal.
	AcquireNow(l *Lease, key string, caps Caps) error
}

// Addresses bounds from how many client addresses a key comes within a window of time.
// Implementations are safe for concurrent use.
type Addresses interface {
	// Admit counts addr among key's for the window from now on; an address that is
	// counted already is admitted whatever max is. Beyond max (at least 1) it is an
	// [*ExceededError] with [CapMaxIPs]. It waits no longer than ctx lets it.
	Admit(ctx context.Context, key string, addr netip.Addr, max int) error
	// AdmitNow is Admit for callers that must not wait, or wraps [ErrWouldBlock].
	AdmitNow(key string, addr netip.Addr, max int) error
}

// Demand is what one relay's customers of a key want of the key's bandwidth.
type Demand struct {
	Key string
	// Bandwidth is the key's, of all relays together, in bytes per second each way; above 0.
	Bandwidth int64
	// Wanted is what this relay could use, in bytes per second: sent, received.
	Wanted [2]int64
	// Gone says that nobody uses the key here any more; it is told once.
	Gone bool
}

// ErrUnanswered means that the fleet gave no answer in time, or is known not to.
var ErrUnanswered = errors.New("limit: no answer from the fleet")

// Shares divides bandwidths among the relays of a fleet.
type Shares interface {
	// Divide tells the demands of this relay and returns its share of each, in the
	// same order: bytes per second sent and received, each at least 1. It is called about once a
	// second for every key in use; a key not named for some seconds demands nothing.
	// On an error, which wraps [ErrUnanswered] unless something is wrong, the shares are what
	// the implementation thinks right without an answer; so they are, and at once, if ctx has ended.
	Divide(ctx context.Context, demands []Demand) ([][2]int64, error)
}

// holder is what a lease gives back to.
type holder interface {
	// drop gives one slot back; called once for each lease.
	drop()
}

// releaseFunc is the holder of leases made by [NewLease].
type releaseFunc func()

func (f releaseFunc) drop() { f() }

// Lease is one admitted connection. It is owned by the connection and must be
// released when that ends. The zero Lease holds nothing. It must not be copied.
type Lease struct {
	released atomic.Bool
	holder   holder
}

// NewLease returns a lease that calls release once, on its first Release. It is
// for other implementations of [Limiter].
func NewLease(release func()) *Lease {
	return &Lease{holder: releaseFunc(release)}
}

// Release gives the slot back. Only the first call does; it is safe for
// concurrent use, and on a nil lease it does nothing.
func (l *Lease) Release() {
	if l == nil || l.holder == nil || !l.released.CompareAndSwap(false, true) {
		return
	}
	l.holder.drop()
}

// MoveTo makes another lease, the zero one or a released one, the owner of what l
// holds; l is then as good as released. It must not run at the same time as
// another method of either.
func (l *Lease) MoveTo(other *Lease) {
	if l == nil || l.holder == nil || !l.released.CompareAndSwap(false, true) {
		return
	}
	other.grant(l.holder)
}

// grant makes l the owner of one slot of h.
func (l *Lease) grant(h holder) {
	l.holder = h
	l.released.Store(false)
}
