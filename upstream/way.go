package upstream

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"
)

// maxDialAddrs bounds the addresses tried for one connection to one gateway.
const maxDialAddrs = 3

// maxPortless bounds how often a way runs out of local ports before it moves on to
// the next address without trying another source.
const maxPortless = 4

// way is the search for a connection to one gateway: its addresses in turn, each with
// its share of the time that is left, and other ports or another source where one has
// none left. It decides and does no I/O; the blocking dialer and Setup both follow it.
// It holds one lane while a connection is being tried. Not safe for concurrent use.
type way struct {
	buf   [maxDialAddrs]*endpoint
	until moment
	lane  *lane   // of the try under way; nil = none
	wrong *misses // nil = nothing went wrong so far

	// A set-up that waits for its gateway holds a way: small numbers are kept small.
	ports    [2]uint16 // of the try under way
	addrs    uint8     // how many of buf there are
	at       uint8     // the address being tried
	windows  uint8     // tries on this lane that found no port
	portless uint8     // lanes that had no port left
}

// freeWays are those that no set-up uses. They hold nothing.
var freeWays = sync.Pool{New: func() any { return new(way) }}

// forget gives w back, which holds no lane.
func (w *way) forget() {
	*w = way{}
	freeWays.Put(w)
}

// misses is what went wrong on a way.
type misses struct {
	err    error
	failed bool // an address failed, and not for want of a port
}

// start begins a search through addrs, which must stand in w.buf.
func (w *way) start(addrs []*endpoint, until moment) {
	*w = way{buf: w.buf, addrs: uint8(len(addrs)), until: until}
}

// next is what to try next; false if nothing is left.
func (w *way) next(now time.Time) (Dial, bool) {
	for ; w.more(now); w.at++ {
		ep := w.buf[w.at]
		if w.lane == nil {
			w.lane, w.windows = ep.take(now), 0
		}
		if w.lane == nil {
			continue
		}
		w.ports = w.lane.window(w.windows)
		share := max(w.until.left(now)/time.Duration(w.addrs-w.at), 1) // 0 would be no bound
		return Dial{Addr: ep.addr, Source: w.lane.source, Ports: w.ports, Timeout: share}, true
	}
	w.drop() // time ran out between two windows
	return Dial{}, false
}

// more reports whether there is an address and time left.
func (w *way) more(now time.Time) bool { return w.at < w.addrs && w.until.left(now) > 0 }

// addr is the address being tried.
func (w *way) addr() netip.AddrPort { return w.buf[w.at].addr }

// missed notes that what next said failed. blame is false if the address is not to
// blame, because the customer went away.
func (w *way) missed(err error, blame bool, now time.Time) {
	if blame && lacksPort(err) {
		w.missedPort(err, now)
		return
	}
	if blame {
		w.buf[w.at].report(false, now)
	}
	w.drop()
	w.note(err, true)
	w.at++
}

// missedPort goes on with other ports, then the whole range, then another source.
func (w *way) missedPort(err error, now time.Time) {
	if w.ports != [2]uint16{} {
		w.windows++
		return
	}
	w.note(err, false)
	w.lane.rest(now)
	w.drop()
	if w.portless++; w.portless >= maxPortless {
		w.at++
	}
}

// note keeps an error; failed says that it was not for want of a port.
func (w *way) note(err error, failed bool) {
	if w.wrong == nil {
		w.wrong = new(misses)
	}
	w.wrong.err = errors.Join(w.wrong.err, err)
	w.wrong.failed = w.wrong.failed || failed
}

// reached notes that the connection stands.
func (w *way) reached(now time.Time) { w.buf[w.at].report(true, now) }

// drop gives the lane back.
func (w *way) drop() {
	w.lane.release()
	w.lane = nil
}

// failure says why the search ended in vain: canceled if the customer left. A gateway
// towards which only ports were missing is full, not broken.
func (w *way) failure(canceled bool) *ConnectError {
	var wrong misses
	if w.wrong != nil {
		wrong = *w.wrong
	}
	switch {
	case canceled:
		return &ConnectError{Phase: PhaseDial, Cause: CauseCanceled, Err: wrong.err}
	case wrong.failed:
		return &ConnectError{Phase: PhaseDial, Cause: ioCause(wrong.err, CauseRefused), Err: wrong.err}
	case w.at < w.addrs: // out of time
		return &ConnectError{Phase: PhaseDial, Cause: CauseTimeout, Err: errors.Join(wrong.err, os.ErrDeadlineExceeded)}
	default:
		return &ConnectError{Phase: PhasePick, Cause: CauseNone, Err: errors.Join(errNoPorts, wrong.err)}
	}
}
