package proxy

import (
	"context"
	"errors"
	"time"

	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
)

const (
	// shareLook is the time between two looks at what is moved and wanted.
	shareLook = 500 * time.Millisecond
	// Told is what has changed, or waits for more, at once; else every second, and what uses
	// little of much, as most do, every other second.
	tellAfter, tellRelaxedAfter = 2, 4 // looks
	shareTimeout                = time.Second
	// freshPause gathers those that come together into one call.
	freshPause = 5 * time.Millisecond
	// lingerLooks is for how long a bandwidth is kept, and asked for, that moves nothing.
	lingerLooks = 20
	// longOwed is a debt that shows want, however little moves.
	longOwed = 250 * time.Millisecond
	// steadyPart of a share is a change that is not worth making.
	steadyPart = 64
	// changedPart of what was told, and littlePart of the bandwidth, is a change of demand
	// that the fleet should know at once.
	changedPart, littlePart = 4, 64
)

// demand is what is known of the want of one bandwidth.
type demand struct {
	measured time.Time
	limit    int64    // the customer's, when it was looked at last
	unused   bool     // it had no users then
	gone     bool     // as the fleet knows
	moved    [2]int64 // between the last two looks: bytes per second, sent and received
	bound    [2]int   // looks for which the share held a direction back
	told     [2]int64 // what the fleet knows of, as moved
	quiet    int      // looks since then
	idle     int      // looks without a byte
}

// demands is what goes into one call, and the memory that it needs.
type demands struct {
	ones    []*bandwidth
	asking  []*bandwidth
	told    []limit.Demand
	failing bool
}

// ended is the context for an answer without a wait.
var ended = func() context.Context {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx
}()

// beginLocked sets the first share of a bandwidth that has a limit, in a fleet, and has
// it asked for.
func (b *bandwidths) beginLocked(one *bandwidth) {
	if b.shares == nil || one.limit == 0 {
		return
	}
	shares, _ := b.shares.Divide(ended, []limit.Demand{{Key: one.key, Bandwidth: one.limit}}) // has no answer but a share
	one.shared.Set(shares[0][0], shares[0][1])
	b.limited = append(b.limited, one)
	one.place = len(b.limited)
	b.freshLocked(one)
}

// endLocked has a bandwidth not asked for any more.
func (b *bandwidths) endLocked(one *bandwidth) {
	if one.place == 0 {
		return
	}
	last := len(b.limited) - 1
	moved := b.limited[last]
	moved.place = one.place
	b.limited[one.place-1] = moved
	b.limited[last] = nil
	b.limited = b.limited[:last]
	one.place = 0
}

// rescaleLocked gives a bandwidth whose limit has changed the same part of the new one,
// and has the fleet asked.
func (b *bandwidths) rescaleLocked(one *bandwidth, before int64) {
	sent, received := one.shared.Rates()
	part := float64(one.limit) / float64(before)
	one.shared.Set(max(int64(float64(sent)*part), 1), max(int64(float64(received)*part), 1))
	b.freshLocked(one)
}

func (b *bandwidths) freshLocked(one *bandwidth) {
	if one.fresh {
		return
	}
	one.fresh = true
	b.fresh = append(b.fresh, one)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run divides the bandwidths among the relays of the fleet until ctx ends.
func (b *bandwidths) run(ctx context.Context) {
	tick := time.NewTicker(shareLook)
	defer tick.Stop()
	pause := time.NewTimer(freshPause)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			b.lookAtAll(time.Now())
		case <-b.wake:
			pause.Reset(freshPause)
			select {
			case <-ctx.Done():
				return
			case <-pause.C:
			}
			b.lookAtFresh(time.Now())
		}
		b.divide(ctx)
	}
}

// lookAtFresh gathers those that are to be asked for at once. What they want is not known
// yet; it is what they have.
func (b *bandwidths) lookAtFresh(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.fresh {
		one.fresh = false
		if one.place == 0 {
			continue
		}
		d := &one.demand
		one.shared.Demand() // from now on
		d.measured, d.limit, d.gone, d.quiet = now, one.limit, false, 0
		d.told[0], d.told[1] = one.shared.Rates()
		b.demands.add(one)
	}
	clear(b.fresh)
	b.fresh = b.fresh[:0]
}

// lookAtAll gathers those that move bytes, or did lately, with what they want, and
// forgets those that nobody uses any more. Others wait for the lock only while a list is
// copied.
func (b *bandwidths) lookAtAll(now time.Time) {
	d := &b.demands
	b.mu.Lock()
	d.ones = append(d.ones[:0], b.limited...)
	for _, one := range d.ones {
		one.demand.limit, one.demand.unused = one.limit, one.users == 0
	}
	b.mu.Unlock()
	for _, one := range d.ones {
		if one.demand.look(one.shared, now) {
			d.add(one)
		}
		if one.demand.idle > lingerLooks {
			b.forgetUnused(one)
		}
	}
	clear(d.ones)
}

func (b *bandwidths) forgetUnused(one *bandwidth) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one.users == 0 && b.open[one.key] == one {
		b.forgetLocked(one)
	}
}

func (d *demands) add(one *bandwidth) {
	d.asking = append(d.asking, one)
	d.told = append(d.told, limit.Demand{Key: one.key, Bandwidth: one.demand.limit, Wanted: one.demand.told, Gone: one.demand.gone})
}

// divide asks for the shares of those that were gathered, and sets them.
func (b *bandwidths) divide(ctx context.Context) {
	d := &b.demands
	if len(d.asking) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	shares, err := b.shares.Divide(ctx, d.told)
	failing := err != nil && !errors.Is(err, limit.ErrUnanswered)
	if failing && !d.failing {
		b.trouble(err)
	}
	d.failing = failing
	for i, one := range d.asking {
		b.apply(one, d.told[i].Bandwidth, shares[i])
	}
	clear(d.asking)
	clear(d.told)
	d.asking, d.told = d.asking[:0], d.told[:0]
}

// apply sets a share, unless it is one of a limit that has changed meanwhile.
func (b *bandwidths) apply(one *bandwidth, of int64, share [2]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if one.limit != of || one.place == 0 {
		return
	}
	sent, received := one.shared.Rates()
	if !steady(sent, share[0]) || !steady(received, share[1]) {
		one.shared.Set(share[0], share[1])
	}
}

func steady(before, now int64) bool {
	return now >= before-before/steadyPart && now <= before+before/steadyPart
}

// look measures what was moved and wanted since the last look, and reports whether the
// fleet should know now.
func (d *demand) look(shared *tunnel.Shared, now time.Time) bool {
	took := now.Sub(d.measured)
	if took < shareLook/2 {
		return false // it was fresh just now
	}
	d.measured = now
	var seen [2]tunnel.Demand
	var shares [2]int64
	seen[0], seen[1] = shared.Demand()
	shares[0], shares[1] = shared.Rates()
	return d.worthTelling(seen, shares, took)
}

// worthTelling reports whether the fleet should know now what is wanted, which is then in told.
func (d *demand) worthTelling(seen [2]tunnel.Demand, shares [2]int64, took time.Duration) bool {
	d.idle++
	d.quiet++
	for _, m := range seen {
		if m.Moved > 0 || m.Starved {
			d.idle = 0
		}
	}
	if d.unused || d.idle > lingerLooks {
		known := !d.gone
		*d = demand{measured: d.measured, limit: d.limit, unused: d.unused, gone: true, idle: d.idle}
		return known
	}
	var wanted [2]int64
	changed, relaxed := false, true
	for way, m := range seen {
		wanted[way] = d.wanted(way, m, shares[way], took)
		told := d.told[way]
		changed = changed || d.bound[way] > 0 || max(wanted[way], told)-min(wanted[way], told) > told/changedPart+d.limit/littlePart
		relaxed = relaxed && max(wanted[way], told) <= shares[way]/4
	}
	if !d.gone && !changed && (d.quiet < tellAfter || relaxed && d.quiet < tellRelaxedAfter) {
		return false
	}
	d.told, d.quiet, d.gone = wanted, 0, false
	return true
}

// wanted is what one direction could use, in bytes per second: what it moved lately, and
// several times as much when its share held it back. If it still does the next time, all.
// A share is a little more than what was wanted, so that to be held back shows.
func (d *demand) wanted(way int, m tunnel.Demand, share int64, took time.Duration) int64 {
	moved := int64(float64(m.Moved) / took.Seconds())
	before := d.moved[way]
	d.moved[way] = moved
	if m.Owed < longOwed && (!m.Starved || moved < share-share/20) {
		d.bound[way] = 0
		return min(moved/2+before/2, d.limit)
	}
	d.bound[way]++
	if d.bound[way] > 1 || max(moved, share) > d.limit/4 {
		return d.limit
	}
	return max(4*max(moved, share), d.limit/8, 1)
}
