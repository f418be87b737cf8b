package guess

import (
	"sync/atomic"
	"time"
)

const (
	// pairSets times ways is how many pairs are known.
	pairSets = 65_536 / ways
	// knownTime is how long a pair is known after its last success.
	knownTime = time.Hour
	// renewTime is how old the record of a success must be to be worth a write.
	renewTime = time.Minute
	// tries is how often a lost race for a place is run again. Nothing but an
	// exemption, which the next success brings, is lost with the last.
	tries = 4
)

// pairs are the networks and names that logged in lately. Each is one word, half of its
// hash over the second of its last success, so that nothing is locked. The set is chosen by
// other bits: one wrong pair in 500 million is taken for a known one. nil is empty.
type pairs [][ways]atomic.Uint64

func newPairs() pairs { return make(pairs, pairSets) }

// stamp is a time in seconds, and never 0.
func stamp(now time.Duration) uint64 { return uint64(uint32(now/time.Second) + 1) }

// age returns how long before now a word was written.
func age(word uint64, now time.Duration) time.Duration {
	return time.Duration(max(int64(stamp(now))-int64(uint32(word)), 0)) * time.Second
}

// has reports whether a pair is known.
func (p pairs) has(hash uint64, now time.Duration) bool {
	set := &p[hash%pairSets]
	for i := range set {
		if word := set[i].Load(); word>>32 == hash>>32 && word != 0 {
			return age(word, now) < knownTime
		}
	}
	return false
}

// add makes a pair known, in the place of the one that succeeded longest ago.
func (p pairs) add(hash uint64, now time.Duration) {
	set := &p[hash%pairSets]
	fresh := hash>>32<<32 | stamp(now)
	for range tries {
		oldest, old := 0, uint64(1<<64-1)
		for i := range set {
			word := set[i].Load()
			if word>>32 == hash>>32 && word != 0 {
				if age(word, now) < renewTime {
					return
				}
				oldest, old = i, word
				break
			}
			if uint32(word) < uint32(old) {
				oldest, old = i, word
			}
		}
		if set[oldest].CompareAndSwap(old, fresh) {
			return
		}
	}
}
