package usage

import "time"

// page is what Books know of one account. The mutex of Books guards it.
type page struct {
	name    string
	counter *Counter

	booked  Sums   // of the counter, what the ledger has for certain
	pending *Entry // told to the ledger, which has not answered
	seq     int64

	known bool // total is what the ledger said in month
	total Total
	month string
	since time.Time // when the ledger said it

	quota   Quota
	claimed claim // the last crossing that the ledger was asked about

	looked Sums // the counter when it was last looked at
	used   time.Time
	dirty  bool // to be looked at though nothing moved
}

// claim is a quota in a window: the ledger is asked once for each whether a crossing is to be told.
type claim struct {
	quota  Quota
	window string
}

// unbooked is what the ledger may not have yet.
func (p *page) unbooked() Sums { return p.counter.sums().minus(p.booked) }

// usedIn is what counts against the quota in the running month, as far as is known here.
func (p *page) usedIn(month string) int64 {
	used := p.unbooked().Bytes()
	if p.known && (p.quota.Period != Monthly || p.month == month) {
		used = addUp(used, p.total.Used(p.quota.Period))
	}
	return used
}

// due returns the entry to tell the ledger: the one that waits for an answer, what moved since,
// or an empty one when a crossing must be asked for though nothing moves. Nil = none.
func (p *page) due(now time.Time) *Entry {
	if p.pending != nil {
		return p.pending
	}
	d := p.unbooked()
	if d == (Sums{}) && !p.toClaim(now) {
		return nil
	}
	p.seq++
	p.pending = &Entry{Account: p.name, Seq: p.seq, Sums: d, Quota: p.quota}
	return p.pending
}

// toClaim reports whether the quota is used so far that a crossing may have to be told, and the
// ledger was not asked yet: after a start, and when the quota changed.
func (p *page) toClaim(now time.Time) bool {
	if p.quota.Bytes <= 0 || !p.known || p.claimed == (claim{p.quota, p.quota.Window(now)}) {
		return false
	}
	return p.usedIn(monthOf(now)) >= p.quota.Mark(Crossings[0])
}

// acknowledge takes the ledger's answer to the pending entry and returns the crossings to tell.
func (p *page) acknowledge(t Total, at time.Time) []Event {
	e := p.pending
	if e == nil {
		return nil
	}
	p.pending = nil
	p.booked = p.booked.Plus(e.Sums)
	p.learn(t, at)
	if e.Quota.Bytes <= 0 || t.Used(e.Quota.Period) < e.Quota.Mark(Crossings[0]) {
		return nil
	}
	p.claimed = claim{e.Quota, e.Quota.Window(at)}
	var events []Event
	for _, percent := range t.Crossed {
		events = append(events, Event{
			Kind:    kindOf(percent),
			Account: p.name,
			Quota:   e.Quota.Bytes,
			Used:    t.Used(e.Quota.Period),
			Period:  e.windowIn(t.Month),
			At:      at.UTC(),
		})
	}
	return events
}

// windowIn names the window that the ledger counted in.
func (e *Entry) windowIn(month string) string {
	if e.Quota.Period == Monthly {
		return month
	}
	return string(Lifetime)
}

// learn takes what the ledger said that it has.
func (p *page) learn(t Total, at time.Time) {
	p.known, p.total, p.month, p.since, p.dirty = true, t, monthOf(at), at, true
}

func monthOf(t time.Time) string { return Months.Name(Months.Index(t)) }

func kindOf(percent int64) string {
	if percent == 100 {
		return "quota.100"
	}
	return "quota.80"
}
