package upstream

import (
	"hash/maphash"
	"sync/atomic"
	"time"
)

// customer tells customers apart where it matters that something is not one customer's
// doing alone: his targets may all be dead, and he may want it so. Few may share a
// number. 0 = not known, or nobody's.
type customer uint8

const customers = 32 // numbers, 0 included

// customerSeed keeps anybody from finding out whose number he shares.
var customerSeed = maphash.MakeSeed()

func customerOf(c *Choice) customer {
	var h uint64
	switch {
	case c.Account != "":
		h = maphash.String(customerSeed, c.Account)
	case c.Client.IsValid():
		h = maphash.Comparable(customerSeed, c.Client.Unmap())
	default:
		return 0
	}
	return customer(1 + h%(customers-1))
}

// run counts the blamed failures since the last success by customer. The zero value is
// ready. Safe for concurrent use.
type run [customers]atomic.Int32

func (r *run) add(who customer) { r[who].Add(1) }

func (r *run) clear() {
	for i := range r {
		if r[i].Load() != 0 {
			r[i].Store(0)
		}
	}
}

// agrees reports whether more than one customer makes up the run: at least two failures,
// and a quarter, are not of the one with the most.
func (r *run) agrees() bool {
	var sum, most int32
	for i := range r {
		n := r[i].Load()
		sum, most = sum+n, max(most, n)
	}
	return sum-most >= 2 && 4*(sum-most) >= sum
}

// withoutWorst is the sum of the customers' attempts without those of the customer with
// the most blamed failures; several reports whether there is more than one customer.
func (w *window) withoutWorst(m moment) (rest tally, several bool) {
	var served, blamed [customers]int64
	w.each(m, func(s *slot) {
		for i := range s.customers {
			served[i] += int64(s.customers[i].served.Load())
			blamed[i] += int64(s.customers[i].blamed.Load())
		}
	})
	served[0], blamed[0] = 0, 0
	seen, worst := 0, 0
	for i := range served {
		if served[i]+blamed[i] > 0 {
			seen++
		}
		if blamed[i] > blamed[worst] {
			worst = i
		}
	}
	served[worst], blamed[worst] = 0, 0
	for i := range served {
		rest.served += served[i]
		rest.blamed += blamed[i]
	}
	return rest, seen > 1
}

// onesOwn reports whether the gateway's failures are one customer's, while it serves others.
func (h *health) onesOwn(m moment) bool {
	rest, several := h.window.withoutWorst(m)
	return several && rest.served > 0 && 100*rest.served >= minSuccess*rest.attempts()
}

// usableFor is usable for a customer: one who has failed a trial lets others go first to
// the next.
func (h *health) usableFor(who customer, now time.Time) bool {
	until := h.until.Load()
	if until == 0 {
		return true
	}
	m := int64(momentOf(now))
	if who != 0 && h.failedBy.Load() == uint32(who) {
		until += int64(backoffMin)
	}
	return until <= m && h.trial.Load() <= m
}

// purse is what pays for the retries of a route: the pool's budget, and in it the
// customer's own share, so that one whose exchanges all fail leaves the others theirs.
type purse struct{ pool, own *budget } // own is nil if the customer is not known

func (r *Route) purse() purse {
	p := purse{pool: &r.group.budget}
	if r.customer != 0 {
		p.own = &r.group.shares[r.customer]
	}
	return p
}

func (p purse) each(f func(*budget)) {
	f(p.pool)
	if p.own != nil {
		f(p.own)
	}
}

// take takes a token, and reports whether there was one.
func (p purse) take() bool {
	if p.own != nil && !p.own.take() {
		p.pool.denied.Add(1)
		return false
	}
	if p.pool.take() {
		return true
	}
	if p.own != nil {
		p.own.refund()
	}
	return false
}

// makePlain makes the routes of those whose choice changes nothing.
func (group *group) makePlain(p *Pool) {
	for i := range group.plains {
		group.plains[i] = &Route{pool: p, group: group, key: hashKey("", ""), customer: customer(i)}
		group.shares[i].init()
	}
	group.plain = group.plains[0]
}
