package account

import (
	"sync"
	"time"
)

// refusals remembers for a time that credentials were refused: at least 32,768 of them
// and at most 65,536 if they are spread evenly. Safe for concurrent use.
type refusals struct {
	shards [setShards]refusalShard
}

// refusalShard forgets by generations, as a digestShard does, before the time if it must.
type refusalShard struct {
	mu         sync.Mutex // guards what follows
	young, old map[digest]time.Time
}

func (r *refusals) shardOf(d digest) *refusalShard { return &r.shards[d[0]%setShards] }

// has reports whether d is refused at now.
func (r *refusals) has(d digest, now time.Time) bool {
	s := r.shardOf(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.young[d]
	if !ok {
		until, ok = s.old[d]
	}
	return ok && now.Before(until)
}

// add refuses d until then.
func (r *refusals) add(d digest, until time.Time) {
	s := r.shardOf(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil {
		s.young = make(map[digest]time.Time)
	}
	if len(s.young) >= shardGeneration {
		s.young, s.old = make(map[digest]time.Time), s.young
	}
	s.young[d] = until
}

// forget drops all.
func (r *refusals) forget() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		s.young, s.old = nil, nil
		s.mu.Unlock()
	}
}
