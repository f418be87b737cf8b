package upstream

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// overseer changes the states of a pool's gateways: one at a time, so that the last
// usable gateway of a pool is known to be that.
type overseer struct {
	longest time.Duration // that a set-up can take
	events  *events
	metrics *metrics
	spread  func(time.Duration) time.Duration // makes a back-off a little longer or shorter

	mu sync.Mutex // guards every gateway's judgement
}

func newOverseer(o Options, m *metrics) *overseer {
	return &overseer{longest: o.DialTimeout + o.ConnectTimeout, events: newEvents(o.Notify), metrics: m, spread: spread}
}

func spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + backoffSpread*(2*rand.Float64()-1)))
}

// start makes g's health ready. It must be called before g is used.
func (o *overseer) start(g *gateway, now time.Time) {
	h := &g.health
	h.overseer, h.g = o, g
	h.since.Store(noMoment)
	h.trial.Store(noMoment)
	h.quiet.Store(noMoment)
	h.window.start()
	h.troubles.start()
	h.changed, h.begunUp = now, momentOf(now)
}

// reason is why a gateway is ejected.
type reason struct {
	cause Cause
	err   error
}

func errInRow(n int64, last error) error {
	return fmt.Errorf("%d failures in a row: %w", n, last)
}

func errRate(t tally, last error) error {
	return fmt.Errorf("%d of %d attempts failed within %s: %w", t.blamed, t.attempts(), windowSlots*windowSlot, last)
}

func errExcess(last error) error {
	return fmt.Errorf("more than %d of 100 attempts fail since a moment ago: %w", 100-minSuccess, last)
}

// attempt is what a gateway that is not up was seen to do.
type attempt struct {
	blame   blame
	took    time.Duration
	failure *ConnectError
	probe   bool // of the health target

	customer customer
}

// eject takes h out of use if another gateway of its pool is up and does well.
func (o *overseer) eject(h *health, why reason, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h.state != stateUp {
		return
	}
	m := momentOf(now)
	if !slices.ContainsFunc(h.others(), func(s *health) bool { return s.state == stateUp && s.well(m) }) {
		h.quiet.Store(int64(m) + int64(askAgain))
		return
	}
	o.downLocked(h, stateEjected, why, now)
}

// unreachable notes that h could not be reached. That is a fact and no judgement: it
// holds for the last gateway of a pool, too. Then those that were ejected are wanted
// back: half an answer is better than none.
func (o *overseer) unreachable(h *health, e *ConnectError, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h.state == stateUp {
		o.downLocked(h, stateUnreachable, reason{cause: e.Cause, err: e}, now)
	}
}

func (o *overseer) downLocked(h *health, s state, why reason, now time.Time) {
	m := momentOf(now)
	if time.Duration(m-h.begunUp) >= max(calmMin, 2*h.backoff) {
		h.falls = 0
	}
	h.begunDown = m
	o.fallLocked(h, m)
	if s == stateUnreachable {
		h.leaveLocked(m)
	}
	o.enterLocked(h, s, why, now)
	o.recallLocked(h, now)
}

// fallLocked begins the next back-off.
func (o *overseer) fallLocked(h *health, m moment) {
	h.falls++
	h.passed, h.badProbes = 0, 0
	h.backoff = backoffMax
	if shift := h.falls - 1; shift < 6 { // 5 s to 160 s
		h.backoff = backoffMin << shift
	}
	h.backoff = o.spread(h.backoff)
	h.until.Store(notZero(m + moment(h.backoff)))
	h.trial.Store(noMoment)
}

// leaveLocked leaves a gateway that could not be reached to Pool.Run, until its next look
// has ended: no exchange is to wait for what may be silence again.
func (h *health) leaveLocked(m moment) {
	look := max(backoffMin, h.g.timeout+2*probeInterval)
	h.until.Store(notZero(max(moment(h.until.Load()), m+moment(look))))
}

// notZero is m where 0 has a meaning of its own.
func notZero(m moment) int64 {
	if m == 0 {
		return 1
	}
	return int64(m)
}

// enterLocked is the one way into a state that is not up.
func (o *overseer) enterLocked(h *health, s state, why reason, now time.Time) {
	h.state, h.cause, h.lastErr, h.changed = s, why.cause, why.err, now
	h.since.Store(int64(momentOf(now)))
	o.metrics.ejections.WithLabelValues(h.g.Name, string(why.cause)).Inc()
	o.events.send(Event{Gateway: h.g.Name, Kind: EventDown, Cause: why.cause, Advice: h.g.advice(why.cause, why.err), Err: why.err})
}

// recallLocked takes the ejected gateways of h's pool back if h was the last one up.
func (o *overseer) recallLocked(h *health, now time.Time) {
	if o.anyUpLocked(h) {
		return
	}
	for _, s := range h.others() {
		if s.state == stateEjected {
			o.upLocked(s, now, errRecalled)
		}
	}
}

// anyUpLocked reports whether another gateway of h's pool is up.
func (o *overseer) anyUpLocked(h *health) bool {
	return slices.ContainsFunc(h.others(), func(s *health) bool { return s.state == stateUp })
}

func (o *overseer) upLocked(h *health, now time.Time, why error) {
	m := momentOf(now)
	h.state, h.cause, h.lastErr, h.changed = stateUp, "", nil, now
	h.passed, h.badProbes = 0, 0
	h.begunUp = m
	h.window.clear()
	h.inRow.Store(0)
	h.excess.Store(0)
	h.run.clear()
	h.failedBy.Store(0)
	h.doubts.Store(0)
	h.quiet.Store(noMoment)
	h.since.Store(int64(m))
	h.trial.Store(noMoment)
	h.until.Store(0)
	o.events.send(Event{Gateway: h.g.Name, Kind: EventUp, For: time.Duration(m - h.begunDown), Err: why})
}

// tried learns from an attempt through a gateway that is not up.
func (o *overseer) tried(h *health, a attempt, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch h.state {
	case stateUnreachable:
		o.triedUnreachableLocked(h, a, now)
	case stateEjected:
		o.triedEjectedLocked(h, a, now)
	}
}

// triedUnreachableLocked takes any answer for proof that the gateway is there again. One
// that keeps coming and going waits for its back-off, unless nothing else is up.
func (o *overseer) triedUnreachableLocked(h *health, a attempt, now time.Time) {
	m := momentOf(now)
	if a.blame == blameReach {
		h.cause, h.lastErr = a.failure.Cause, a.failure
		h.leaveLocked(m)
		return
	}
	if h.falls <= 1 || h.until.Load() <= int64(m) || !o.anyUpLocked(h) {
		o.upLocked(h, now, nil)
	}
}

// triedEjectedLocked counts trials; of what began before the back-off's end nothing counts
// but that the gateway cannot be reached any more.
func (o *overseer) triedEjectedLocked(h *health, a attempt, now time.Time) {
	m := momentOf(now)
	waiting := h.until.Load() > int64(m)-int64(a.took)
	if a.blame == blameNone && h.cause == CauseSlow && a.took >= slowMean {
		a.blame = blameGateway
	}
	if a.blame == blameDoubt {
		a.blame = blameIf(h.cause == a.failure.Cause) // what it was ejected for is not over
	}
	switch {
	case a.blame == blameReach:
		h.passed = 0
		h.leaveLocked(m)
		o.enterLocked(h, stateUnreachable, reason{cause: a.failure.Cause, err: a.failure}, now)
	case waiting || a.blame == blameOthers:
	case a.blame == blameGateway:
		o.fallLocked(h, m)
		h.failedBy.Store(uint32(a.customer))
	case a.probe:
		o.upLocked(h, now, nil)
	default:
		if h.passed++; h.passed >= trialsInRow {
			o.upLocked(h, now, nil)
		}
	}
}

// reached notes that a connection to the gateway was made, by a probe.
func (o *overseer) reached(h *health, now time.Time) {
	if h.until.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if h.state == stateUnreachable {
		o.triedUnreachableLocked(h, attempt{blame: blameOthers}, now)
	}
}

// probed learns from a probe of the health target.
func (o *overseer) probed(h *health, e *ConnectError, took time.Duration, now time.Time) {
	m, blame := momentOf(now), h.blame(e)
	if blame == blameNothing {
		return
	}
	h.window.add(m, sample{blame: blame, took: took, failure: e})
	h.troubles.seeProbe(e, m)
	if h.until.Load() != 0 {
		o.tried(h, attempt{blame: blame, took: took, failure: e, probe: true}, now)
		return
	}
	o.mu.Lock()
	bad := 0
	switch blame {
	case blameNone:
		h.badProbes = 0
	case blameGateway, blameReach:
		h.badProbes++
		bad = h.badProbes
	}
	o.mu.Unlock()
	switch {
	case blame == blameReach:
		h.consider(e, now)
	case bad >= probesInRow:
		o.eject(h, reason{cause: e.Cause, err: fmt.Errorf("%d probes of the health target in a row: %w", bad, e)}, now)
	}
}

// findSlow ejects a gateway that takes much longer than the others of its pool.
func (o *overseer) findSlow(h *health, now time.Time) {
	m := momentOf(now)
	own := h.window.sum(m)
	if h.until.Load() != 0 || own.served < slowSamples || own.mean() < slowMean {
		return
	}
	var rest tally
	for _, s := range h.others() {
		if s.until.Load() == 0 {
			t := s.window.sum(m)
			rest.served, rest.took = rest.served+t.served, rest.took+t.took
		}
	}
	if rest.served < slowSamples || own.mean() < slowTimes*rest.mean() {
		return
	}
	err := fmt.Errorf("a set-up takes %s, through the others of the pool %s", own.mean().Round(time.Millisecond), rest.mean().Round(time.Millisecond))
	o.eject(h, reason{cause: CauseSlow, err: err}, now)
}

// others are the healths of the other gateways of the pool.
func (h *health) others() []*health {
	siblings := h.g.siblings()
	others := make([]*health, 0, len(siblings))
	for _, s := range siblings {
		if s != h.g && s.health.overseer != nil {
			others = append(others, &s.health)
		}
	}
	return others
}
