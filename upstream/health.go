package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// What ejects a gateway. The constants are meant for gateways of proxy vendors, whose
// exits are homes and phones: a failure now and then is ordinary there.
const (
	// failuresInRow is how many blamed failures without a success between them eject:
	// chance makes five of a gateway that fails a tenth of its exchanges once in 100,000.
	failuresInRow = 5
	// busyShare is what "many" means on a busy gateway: the counts above and below are
	// raised to one attempt of so many in the window, since in 10,000 exchanges
	// everything happens once. A gateway that dies under such a load still goes within
	// a tenth of a second.
	busyShare = 100
	// minSamples is how many attempts in the window a success rate needs to count.
	minSamples = 20
	// minSuccess, in percent, is the success rate below which a gateway is ejected.
	minSuccess = 60
	// maxExcess is how many failures beyond those that minSuccess allows, counted from the
	// last attempts back, eject: on a busy gateway the window holds so many successes from
	// before it fell ill that its rate would be good for seconds, and a drop is over then.
	// One that fails half goes after some 200 attempts; one that fails 30 % stays.
	maxExcess = 20
	// wellExcess is from how many on a gateway does not do well: one that succeeds in
	// goodSuccess of its attempts hardly ever has so many.
	wellExcess = 3
	// goodSuccess, in percent, is the success rate of a gateway that does better: without
	// one in the pool, the customers' targets or the vendor are the trouble, and
	// ejecting would only push the load onto the others.
	goodSuccess = 80
	// slowMean, slowTimes and slowSamples: a gateway is slow with a mean set-up time of at
	// least slowMean and slowTimes that of the others, each side over slowSamples.
	slowMean    = 2 * time.Second
	slowTimes   = 4
	slowSamples = 50
	// probesInRow is how many failed probes of the health target eject.
	probesInRow = 2
	// askAgain is how long a gateway that was spared, as the last or no worse than the
	// others, is spared without another look.
	askAgain = 100 * time.Millisecond
)

// How a gateway comes back.
const (
	// backoffMin is the first back-off, and for how long at least a gateway that could not
	// be reached is left alone after each look. It doubles with every ejection and failed
	// trial up to backoffMax, spread by backoffSpread of itself either way, so that a
	// fleet of relays does not try at once.
	backoffMin    = 5 * time.Second
	backoffMax    = 5 * time.Minute
	backoffSpread = 0.2
	// calmMin, and twice the last back-off, is how long a gateway must stay up for its next
	// back-off to be the first again.
	calmMin = time.Minute
	// trialsInRow is how many trial exchanges must succeed one after the other.
	trialsInRow = 3
)

// CauseSlow is the cause of an ejection: the gateway takes several times as long as the
// others of its pool. No attempt fails with it.
const CauseSlow Cause = "slow"

// state is what is known of a gateway. Half-open is not one: it is an ejected or
// unreachable gateway whose back-off is over.
type state uint8

const (
	stateUp          state = iota
	stateEjected           // it fails, or is slow
	stateUnreachable       // no connection, or no TLS
)

// health is what is known of a gateway's fitness. Made by overseer.start; the zero value
// is healthy and learns nothing. Safe for concurrent use.
type health struct {
	overseer *overseer // nil = learns nothing
	g        *gateway

	until    atomic.Int64  // moment of the back-off's end; 0 = up
	trial    atomic.Int64  // moment at which the trial under way is given up; noMoment = none
	since    atomic.Int64  // moment of the last change of state
	inRow    atomic.Int64  // blamed failures without a success between them
	run      run           // the same by customer
	failedBy atomic.Uint32 // the customer of the trial that failed last; 0 = none, or not known
	excess   atomic.Int64  // hundredths of blamed failures beyond those that minSuccess allows, lately
	doubts   atomic.Int64  // refused logins with wishes without a success between them
	quiet    atomic.Int64  // moment until which ejecting it is not considered
	window   window
	troubles troubles

	judgement // guarded by overseer.mu
}

// judgement is the judged part of a health.
type judgement struct {
	state     state
	cause     Cause         // of the state; empty when up
	changed   time.Time     // when the state began
	falls     int           // ejections and failed trials since the last calm
	backoff   time.Duration // the last one
	passed    int           // trials that succeeded, in a row
	badProbes int           // of the health target, in a row
	lastErr   error         // why it is not up
	begunUp   moment        // when it came up last
	begunDown moment        // when it went down last
}

// noMoment is before every moment.
const noMoment = math.MinInt64

// usable reports whether the gateway should get exchanges. It costs an atomic load or two.
func (h *health) usable(now time.Time) bool {
	until := h.until.Load()
	if until == 0 {
		return true
	}
	m := int64(momentOf(now))
	return until <= m && h.trial.Load() <= m
}

// hopeful reports whether the gateway is up or may be: half-open, whether or not a trial
// is under way.
func (h *health) hopeful(now time.Time) bool {
	until := h.until.Load()
	return until == 0 || until <= int64(momentOf(now))
}

// chosen notes that an exchange is about to try the gateway, and reports whether it may:
// one that is half-open takes one at a time. A trial that is never reported is given up
// once the longest set-up would be over.
func (h *health) chosen(now time.Time) bool {
	until := h.until.Load()
	if until == 0 {
		return true
	}
	m := int64(momentOf(now))
	if until > m {
		return false
	}
	before := h.trial.Load()
	return before <= m && h.trial.CompareAndSwap(before, m+int64(h.overseer.longest))
}

// report learns from an attempt; nil is a success. took is the time from the choice to
// the target's first byte or the failure; 0 = not known. An attempt that began before the
// gateway's state changed last says nothing of how it is now.
func (h *health) report(e *ConnectError, took time.Duration, now time.Time) {
	h.reportOf(0, e, took, now)
}

// reportOf is report of a customer's attempt.
func (h *health) reportOf(who customer, e *ConnectError, took time.Duration, now time.Time) {
	if h.overseer == nil {
		return
	}
	m, blame := momentOf(now), h.blame(e)
	h.endTrial(m - moment(took))
	if e != nil && e.elsewhere && h.until.Load() != 0 {
		return // no proof that it is there, nor that it is not
	}
	if blame == blameNothing || int64(m)-int64(took) < h.since.Load() {
		return
	}
	h.window.add(m, sample{blame: blame, took: took, failure: e, customer: who})
	h.troubles.see(e, m)
	if h.until.Load() != 0 {
		h.overseer.tried(h, attempt{blame: blame, took: took, failure: e, customer: who}, now)
		return
	}
	switch blame {
	case blameNone:
		if h.inRow.Load() != 0 {
			h.inRow.Store(0)
			h.run.clear()
		}
		h.exceed(minSuccess - 100)
		if h.doubts.Load() != 0 {
			h.doubts.Store(0)
		}
	case blameDoubt:
		h.doubts.Add(1)
		h.consider(e, now)
	case blameGateway, blameReach:
		h.inRow.Add(1)
		h.exceed(minSuccess)
		h.run.add(who)
		h.consider(e, now)
	}
}

// well reports whether the gateway does well as far as is known.
func (h *health) well(m moment) bool {
	t := h.window.sum(m)
	return t.well() && (h.excess.Load() < 100*wellExcess || t.attempts() == 0)
}

// exceed changes excess, within its bounds.
func (h *health) exceed(by int64) {
	for {
		had := h.excess.Load()
		has := min(max(had+by, 0), 100*maxExcess)
		if has == had || h.excess.CompareAndSwap(had, has) {
			return
		}
	}
}

// blame is blameOf, but what a direct:// way out is refused is the target's doing.
func (h *health) blame(e *ConnectError) blame {
	b := blameOf(e)
	if h.g.endpoints == nil && b > blameOthers {
		return blameOthers
	}
	return b
}

// endTrial makes room for the next trial, unless what ends began before it.
func (h *health) endTrial(began moment) {
	if until := h.trial.Load(); until != noMoment && int64(began) >= until-int64(h.overseer.longest) {
		h.trial.CompareAndSwap(until, noMoment)
	}
}

// consider ejects the gateway if e was one failure too many. Refused logins that carried
// wishes count only when it served nobody within the window: then it is not one
// customer who asks for what the vendor does not understand.
func (h *health) consider(e *ConnectError, now time.Time) {
	m := momentOf(now)
	if h.quiet.Load() > int64(m) && !e.down() {
		return
	}
	t := h.window.sum(m)
	inRow, doubts := h.inRow.Load(), h.doubts.Load()
	switch {
	case t.served == 0 && doubts >= failuresInRow:
		h.overseer.eject(h, reason{cause: e.Cause, err: errInRow(doubts, e)}, now)
	case e.down() && t.missed >= many(1, t):
		h.overseer.unreachable(h, e, now)
	case inRow >= many(failuresInRow, t):
		h.ejectUnless(h.onesOwn(m) && !h.run.agrees(), reason{cause: e.Cause, err: errInRow(inRow, e)}, now)
	case t.attempts() >= minSamples && 100*t.served < minSuccess*t.attempts():
		h.ejectUnless(h.onesOwn(m), reason{cause: h.window.worst(m, e.Cause), err: errRate(t, e)}, now)
	case t.attempts() >= minSamples && h.excess.Load() >= 100*maxExcess:
		h.ejectUnless(h.onesOwn(m), reason{cause: h.window.worst(m, e.Cause), err: errExcess(e)}, now)
	}
}

// ejectUnless ejects the gateway unless it is one customer's doing: then it is looked at
// again a moment later.
func (h *health) ejectUnless(onesOwn bool, why reason, now time.Time) {
	if onesOwn {
		h.quiet.Store(int64(momentOf(now)) + int64(askAgain))
		return
	}
	h.overseer.eject(h, why, now)
}

// many is n, or more on a busy gateway.
func many(n int64, t tally) int64 { return max(n, t.attempts()/busyShare) }
