package upstream

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// maxDialAddrs bounds the addresses tried for one connection to one gateway.
const maxDialAddrs = 3

// maxPortless bounds how often a way runs out of local ports before it moves on to
// the next address without trying another source.
const maxPortless = 4

// hurryFor is how long the first try may take of an address family that has not proven
// itself lately, where there is another one (RFC 8305 §5, the connection attempt delay).
const hurryFor = 250 * time.Millisecond

// way is the search for a connection to one gateway: its addresses in turn, each with
// its share of the time that is left, and other ports or another source where one has
// none left. A family that may not work is given up for the other one after a moment,
// and comes last then. It decides and does no I/O; the blocking dialer and Setup both follow it.
// It holds one lane while a connection is being tried. Not safe for concurrent use.
type way struct {
	buf   [maxDialAddrs]*endpoint
	until moment
	lane  *lane   // of the try under way; nil = none
	wrong *misses // nil = nothing went wrong so far

	// A set-up that waits for its gateway holds a way: small numbers are kept small.
	ports    [2]uint16 // of the try under way
	port     uint16    // to connect to; 0 = the gateway's own
	addrs    uint8     // how many of buf there are
	at       uint8     // the address being tried
	windows  uint8     // tries on this lane that found no port
	portless uint8     // lanes that had no port left
	hurried  bool      // the try under way is one
	settled  bool      // no try is hurried any more
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
	short  bool // this host is short of what no other address could do without
}

// start begins a search through addrs, which must stand in w.buf; port is the one to
// connect to, 0 = the gateway's own.
func (w *way) start(addrs []*endpoint, port uint16, until moment) {
	*w = way{buf: w.buf, addrs: uint8(len(addrs)), port: port, until: until}
}

// next is what to try next; false if nothing is left.
func (w *way) next(now time.Time) (Dial, bool) {
	for ; w.more(now); w.pass() {
		ep := w.buf[w.at]
		if w.lane == nil {
			w.lane, w.windows = ep.take(w.port, now), 0
		}
		if w.lane == nil {
			continue
		}
		w.ports = w.lane.window(w.windows)
		share := max(w.until.left(now)/time.Duration(w.addrs-w.at), 1) // 0 would be no bound
		if w.hurried = w.hurries(now); w.hurried {
			share = min(share, hurryFor)
		}
		return Dial{Addr: w.addr(), Source: w.lane.source, Ports: w.ports, Timeout: share}, true
	}
	w.drop() // time ran out between two windows
	return Dial{}, false
}

// hurries reports whether the address being tried is the first one, of a family that
// is not proven, with the other one to follow.
func (w *way) hurries(now time.Time) bool {
	first := w.buf[0].family
	if w.settled || first.proven(now) {
		return false
	}
	return slices.ContainsFunc(w.buf[1:w.addrs], func(ep *endpoint) bool { return ep.family != first })
}

// pass goes on to the next address.
func (w *way) pass() {
	w.at++
	w.settled = true
}

// more reports whether there is an address and time left.
func (w *way) more(now time.Time) bool { return w.at < w.addrs && w.until.left(now) > 0 }

// addr is the address being tried.
func (w *way) addr() netip.AddrPort {
	addr := w.buf[w.at].addr
	if w.port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), w.port)
	}
	return addr
}

// missed notes that what next said failed. blame is false if the address is not to
// blame, because the customer went away.
func (w *way) missed(err error, blame bool, now time.Time) {
	if blame && lacksPort(err) {
		w.missedPort(err, now)
		return
	}
	w.drop()
	if blame && lacksMeans(err) {
		w.note(err, false)
		w.wrong.short = true
		w.at, w.settled = w.addrs, true
		return
	}
	if blame && w.hurried && ioCause(err, CauseRefused) == CauseTimeout {
		w.setAside(now)
		return
	}
	if blame && !w.buf[w.at].elsewhere(w.port) { // one port says nothing of the others
		w.buf[w.at].report(false, now)
	}
	w.note(err, true)
	w.pass()
}

// setAside puts the first address last. That says nothing against the address yet, but
// the next customers begin with the other family.
func (w *way) setAside(now time.Time) {
	first := w.buf[0]
	first.family.report(false, now)
	copy(w.buf[:], w.buf[1:w.addrs])
	w.buf[w.addrs-1] = first
	w.settled = true
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
	if w.portless++; w.portless >= maxPortless || w.buf[w.at].elsewhere(w.port) && int(w.portless) >= len(w.buf[w.at].lanes) {
		w.pass()
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
// towards which only ports were missing is full, not broken; what this host is short of
// it is short of towards every other one, too.
func (w *way) failure(canceled bool) *ConnectError {
	var wrong misses
	if w.wrong != nil {
		wrong = *w.wrong
	}
	switch {
	case canceled:
		return &ConnectError{Phase: PhaseDial, Cause: CauseCanceled, Err: wrong.err}
	case wrong.short:
		return &ConnectError{Phase: PhasePick, Cause: CauseNone, Err: wrong.err, final: true}
	case wrong.failed:
		return &ConnectError{Phase: PhaseDial, Cause: ioCause(wrong.err, CauseRefused), Err: wrong.err}
	case w.at < w.addrs: // out of time
		return &ConnectError{Phase: PhaseDial, Cause: CauseTimeout, Err: errors.Join(wrong.err, os.ErrDeadlineExceeded)}
	default:
		return &ConnectError{Phase: PhasePick, Cause: CauseNone, Err: errors.Join(errNoPorts, wrong.err)}
	}
}
