package account

import "sync"

const (
	setShards = 16
	// shardGeneration is how many digests a generation of a shard holds; with
	// two generations to each of 16 shards that makes 65,536.
	shardGeneration = 2048
)

// digestSet remembers the digests that were last added or asked for, at least
// 32,768 and at most 65,536 if they are spread evenly. Safe for concurrent use.
type digestSet struct {
	shards [setShards]digestShard
}

// digestShard forgets by generations: when the young one is full it becomes the
// old one, and the old one goes.
type digestShard struct {
	mu         sync.Mutex // guards what follows
	young, old map[digest]struct{}
}

func newDigestSet() *digestSet { return &digestSet{} }

func (s *digestSet) shardOf(d digest) *digestShard { return &s.shards[d[0]%setShards] }

// has reports whether d is remembered, and keeps it so.
func (s *digestSet) has(d digest) bool {
	shard := s.shardOf(d)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if _, ok := shard.young[d]; ok {
		return true
	}
	if _, ok := shard.old[d]; !ok {
		return false
	}
	shard.addLocked(d)
	return true
}

func (s *digestSet) add(d digest) {
	shard := s.shardOf(d)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.addLocked(d)
}

func (s *digestShard) addLocked(d digest) {
	if s.young == nil {
		s.young = make(map[digest]struct{})
	}
	if len(s.young) >= shardGeneration {
		s.young, s.old = make(map[digest]struct{}), s.young
	}
	s.young[d] = struct{}{}
}
