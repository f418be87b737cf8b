package limit

import (
	"strings"
	"time"
)

const (
	// maxClaims is how many keys have a claim at once. The heaviest gives way.
	maxClaims = 256
	// claimTime is how long a claim outlives its key's last attempt that renewed it.
	claimTime = 3 * time.Second
	// claimSpan is the time within which a key's attempts are taken to be of different
	// connections, and not one's tries.
	claimSpan = time.Second
)

// claim is one key's to slots that become free.
type claim struct {
	key       string
	load      load
	until     time.Time
	began     time.Time
	now, last int // attempts since began, and in the span before it
}

// wanted is how many slots are claimed.
func (c *claim) wanted() int { return max(c.now, c.last) }

// asked counts an attempt.
func (c *claim) asked(l load, now time.Time) {
	if now.Sub(c.began) >= claimSpan {
		c.began, c.last, c.now = now, c.now, 0
	}
	c.now++
	c.load = l
}

// claims are those of all keys, one each.
type claims struct {
	list     []claim
	byKey    map[string]int // places in list
	earliest time.Time      // no claim ends before
	heeded   time.Time      // when a slot was last kept from somebody
}

func newClaims() claims { return claims{byKey: make(map[string]int)} }

func (cs *claims) len() int { return len(cs.list) }

// refused enters a refusal of key, whose load is l.
func (cs *claims) refused(key string, l load, now time.Time) {
	cs.expire(now)
	i, ok := cs.byKey[key]
	if !ok {
		if len(cs.list) == maxClaims && !cs.yield(l) {
			return
		}
		i = len(cs.list)
		cs.list = append(cs.list, claim{key: strings.Clone(key), began: now})
		cs.byKey[cs.list[i].key] = i
		if i == 0 {
			cs.earliest = now.Add(claimTime)
		}
	}
	c := &cs.list[i]
	c.asked(l, now)
	c.until = now.Add(claimTime)
}

// served tells that key, whose load is l now, got a slot. The claim lives on for the next
// one while it serves a purpose: else a key that asks once a second would be refused
// every other time.
func (cs *claims) served(key string, l load, now time.Time) {
	i, ok := cs.byKey[key]
	if !ok {
		return
	}
	c := &cs.list[i]
	c.asked(l, now)
	if now.Sub(cs.heeded) < claimSpan {
		c.until = now.Add(claimTime)
	}
}

// kept returns how many free slots are kept for others than key, whose load is l, and
// does not count further than enough.
func (cs *claims) kept(key string, l load, enough int, now time.Time) int {
	cs.expire(now)
	kept := 0
	for i := range cs.list {
		c := &cs.list[i]
		if !c.load.lighter(l) || c.key == key {
			continue
		}
		if kept += min(c.wanted(), c.load.below(l)); kept >= enough {
			cs.heeded = now
			break
		}
	}
	return kept
}

// yield removes the heaviest claim if it is heavier than l.
func (cs *claims) yield(l load) bool {
	heaviest := 0
	for i := range cs.list {
		if cs.list[heaviest].load.lighter(cs.list[i].load) {
			heaviest = i
		}
	}
	if !l.lighter(cs.list[heaviest].load) {
		return false
	}
	cs.remove(heaviest)
	return true
}

// expire removes the claims that have run out.
func (cs *claims) expire(now time.Time) {
	if len(cs.list) == 0 || now.Before(cs.earliest) {
		return
	}
	cs.earliest = now.Add(claimTime)
	for i := 0; i < len(cs.list); {
		if until := cs.list[i].until; now.Before(until) {
			if until.Before(cs.earliest) {
				cs.earliest = until
			}
			i++
			continue
		}
		cs.remove(i)
	}
}

func (cs *claims) remove(i int) {
	last := len(cs.list) - 1
	delete(cs.byKey, cs.list[i].key)
	if i != last {
		cs.list[i] = cs.list[last]
		cs.byKey[cs.list[i].key] = i
	}
	cs.list[last] = claim{}
	cs.list = cs.list[:last]
}
