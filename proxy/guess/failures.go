package guess

import (
	"sync"
	"time"
)

const (
	// ways is how many records share a place; the hash, which nobody outside can foresee,
	// says which.
	ways = 8
	// A table has 65,536 records.
	tableShards = 64
	shardSets   = 65_536 / ways / tableShards
)

// record is the failures of one network or name.
type record struct {
	hash uint64
	// until is when all is forgiven: each failure puts it off by its cost, and at a
	// period from now the allowance is used up. A record without failures is free.
	until time.Duration
}

// failures are records in a table of a fixed size. If there is no room for another one,
// it takes the place of the one with the fewest failures of its set: a flood of networks
// or names that fail once drives out its own kind, and no heavy offender. nil is empty
// and stays so.
type failures []failureShard

type failureShard struct {
	mu   sync.Mutex // guards sets
	sets [shardSets][ways]record
}

func newFailures() failures { return make(failures, tableShards) }

// find locks the shard of hash, and returns it with the set; the caller unlocks.
func (f failures) find(hash uint64) (*failureShard, *[ways]record) {
	s := &f[hash%tableShards]
	s.mu.Lock()
	return s, &s.sets[hash/tableShards%shardSets]
}

// wait returns after what time there is room for one more failure at the cost.
func (f failures) wait(hash uint64, cost, now time.Duration) time.Duration {
	if f == nil {
		return 0
	}
	s, set := f.find(hash)
	defer s.mu.Unlock()
	for i := range set {
		if set[i].hash == hash {
			return max(set[i].until+cost-period-now, 0)
		}
	}
	return 0
}

// add counts a failure.
func (f failures) add(hash uint64, cost, now time.Duration) {
	if f == nil {
		return
	}
	s, set := f.find(hash)
	defer s.mu.Unlock()
	least := 0
	for i := range set {
		if set[i].hash == hash {
			// Those that were under way when the allowance ran out make no debt.
			set[i].until = min(max(set[i].until, now)+cost, now+period)
			return
		}
		if set[i].until < set[least].until {
			least = i
		}
	}
	set[least] = record{hash: hash, until: now + cost}
}
