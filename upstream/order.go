package upstream

import (
	"math/rand/v2"
	"time"
)

// Ranks of addresses; the sum counts, the lowest comes first. From rankFailing on an
// address, or its family, failed when it was last heard of.
const (
	rankShort    = 1 // local ports run out soon
	rankUnproven = 2 // the family did not work lately, and there is another
	rankIPv6     = 1 // of those: where neither works, one family must come first
	rankFailing  = 8
	rankFull     = 32 // or taken already
)

// orderLocked fills dst, up to its capacity, with the addresses to try, best first. Each
// call begins at the next one, so that connections spread over all of them; of two with
// the same rank the one with fewer connections comes first, so that they also spread
// after the addresses have changed. What does not work comes last, what has no port left
// not at all. Where there are two families the second address is of the other one (RFC
// 8305 §4). One connection each addressCooldown puts to the test what does not work.
func (e *endpoints) orderLocked(dst []*endpoint, port uint16, now time.Time) []*endpoint {
	e.rotator++
	n := len(e.addrs)
	at := func(i int) *endpoint { return e.addrs[(int(e.rotator%uint32(n))+i)%n] }
	var ranks [resolveMaxAddrs]uint8
	first := -1
	for i := range n {
		ep := at(i)
		if ranks[i] = e.rankLocked(ep, port, now); ranks[i] < rankFull && first < 0 && e.tryLocked(ep, now) {
			first = i
		}
	}
	if first < 0 {
		first = lessBusy(ranks[:n], at)
	}
	for first >= 0 && len(dst) < cap(dst) {
		dst = append(dst, at(first))
		ranks[first] = rankFull
		other := e.dual && len(dst) == 1
		first = lowest(ranks[:n], func(i int) bool { return other && ranks[i] < rankFailing && at(i).family != dst[0].family })
	}
	return dst
}

// rankLocked is how gladly an address is used.
func (e *endpoints) rankLocked(ep *endpoint, port uint16, now time.Time) (rank uint8) {
	if !ep.open(port, now) {
		return rankFull
	}
	if ep.short(port, now) {
		rank += rankShort
	}
	if e.dual && !ep.family.proven(now) {
		rank += rankUnproven
		if ep.family == &e.families[1] {
			rank += rankIPv6
		}
	}
	if ep.failing() || e.dual && ep.family.failing(now) {
		rank += rankFailing
	}
	return rank
}

// tryLocked reports whether this connection puts the address, or its family, to the test.
func (e *endpoints) tryLocked(ep *endpoint, now time.Time) bool {
	if e.dual && !ep.family.proven(now) {
		return ep.family.tryLocked(now)
	}
	return ep.try(now)
}

// lowest is the first of the lowest ranks, those that are preferred before all others; -1 if all are full.
func lowest(ranks []uint8, preferred func(int) bool) int {
	best := -1
	for i, rank := range ranks {
		if rank >= rankFull {
			continue
		}
		if preferred(i) {
			return i
		}
		if best < 0 || rank < ranks[best] {
			best = i
		}
	}
	return best
}

// lessBusy is the first of the lowest ranks, or another one, chosen at random, if that
// has fewer connections; -1 if all are full.
func lessBusy(ranks []uint8, at func(int) *endpoint) int {
	first := lowest(ranks, func(int) bool { return false })
	if first < 0 {
		return -1
	}
	second, seen := first, 0
	for i := first + 1; i < len(ranks); i++ {
		if ranks[i] != ranks[first] {
			continue
		}
		if seen++; rand.IntN(seen) == 0 {
			second = i
		}
	}
	if at(second).conns.Load() < at(first).conns.Load() {
		return second
	}
	return first
}
