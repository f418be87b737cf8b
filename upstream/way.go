package upstream

import (
	"errors"
	"net/netip"
	"os"
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
	until time.Time
	lane  *lane // of the try under way; nil = none
	err   error // what went wrong so far

	// A set-up that waits for its gateway holds a way: small numbers are kept small.
	ports    [2]uint16 // of the try under way
	addrs    uint8     // how many of buf there are
	at       uint8     // the address being tried
	windows  uint8     // tries on this lane that found no port
	portless uint8     // lanes that had no port left
	failed   bool      // some address failed for another reason
}

// start begins a search through addrs, which must stand in w.buf.
func (w *way) start(addrs []*endpoint, until time.Time) {
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
		share := w.until.Sub(now) / time.Duration(w.addrs-w.at)
		return Dial{Addr: ep.addr, Source: w.lane.source, Ports: w.ports, Timeout: share}, true
	}
	w.drop() // time ran out between two windows
	return Dial{}, false
}

// more reports whether there is an address and time left.
func (w *way) more(now time.Time) bool { return w.at < w.addrs && now.Before(w.until) }

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
	w.failed = true
	w.err = errors.Join(w.err, err)
	w.at++
}

// missedPort goes on with other ports, then the whole range, then another source.
func (w *way) missedPort(err error, now time.Time) {
	if w.ports != [2]uint16{} {
		w.windows++
		return
	}
	w.err = errors.Join(w.err, err)
	w.lane.rest(now)
	w.drop()
	if w.portless++; w.portless >= maxPortless {
		w.at++
	}
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
	switch {
	case canceled:
		return &ConnectError{Phase: PhaseDial, Cause: CauseCanceled, Err: w.err}
	case w.failed:
		return &ConnectError{Phase: PhaseDial, Cause: ioCause(w.err, CauseRefused), Err: w.err}
	case w.at < w.addrs: // out of time
		return &ConnectError{Phase: PhaseDial, Cause: CauseTimeout, Err: errors.Join(w.err, os.ErrDeadlineExceeded)}
	default:
		return &ConnectError{Phase: PhasePick, Cause: CauseNone, Err: errors.Join(errNoPorts, w.err)}
	}
}
