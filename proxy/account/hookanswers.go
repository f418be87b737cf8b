package account

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	answerShards = 64
	// maxAnswers is how many credentials are remembered, if they are spread evenly.
	maxAnswers = 200_000
	// maxOfName is how many of them are of one name: a hook that takes any password
	// would fill the rest with one customer's.
	maxOfName = 64
	// evictionSample is how many of the longest unused are looked at for one that is
	// not in use.
	evictionSample = 8
	// lull is how long credentials count as used after the last customer brought them,
	// whose connection may still be waiting to be admitted.
	lull = 30 * time.Second
)

// answers are the good credentials that a hook has told, and the accounts that they
// are of. Safe for concurrent use. A shard's lock is taken before an agenda's.
type answers struct {
	config HookConfig
	seed   maphash.Seed
	shards [answerShards]answerShard
	// room is how many credentials a shard holds.
	room   int
	people atomic.Int64
	// checks are when credentials are to be asked for again, let go, or forgotten.
	checks agenda[credential]
	// ends are when accounts expire.
	ends    agenda[person]
	changes changes
}

// answerShard holds the names that hash to it.
type answerShard struct {
	mu          sync.Mutex // guards what follows and all that is in it
	credentials map[digest]*credential
	names       map[string]*person
}

// person is a name with good credentials.
type person struct {
	name        string
	account     *Account      // of the latest answer to any of them
	credentials []*credential // at least one, the first to have come first
	end         appointment[person]
}

// credential is a name and a password that the hook let in.
type credential struct {
	d      digest
	person *person
	// password is nil once nobody is using the account.
	password *secret
	from     origin
	// fresh is until when the answer holds, dies until when it is served all the same.
	fresh, dies time.Time
	used        time.Time
	// wanted reports that it will be asked for again without further ado.
	wanted bool
	check  appointment[credential]
}

// newHeld returns a password to be kept: not as a piece of a header.
func newHeld(password string) *secret {
	password = strings.Clone(password)
	return &secret{text: &password}
}

func newAnswers(config HookConfig) *answers {
	s := &answers{config: config, seed: maphash.MakeSeed(), room: maxAnswers / answerShards}
	for i := range s.shards {
		s.shards[i].credentials = make(map[digest]*credential)
		s.shards[i].names = make(map[string]*person)
	}
	return s
}

func (s *answers) shardOf(name string) *answerShard {
	return &s.shards[maphash.String(s.seed, name)%answerShards]
}

// find returns the account of good credentials, or nil, and marks them as used. stale
// reports whether an answer may be served whose time is over; then it is asked for again.
func (s *answers) find(d digest, name, password string, stale bool) *Account {
	now := s.config.Now()
	shard := s.shardOf(name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	c := shard.credentials[d]
	if c == nil {
		return nil
	}
	over := !now.Before(c.fresh)
	if over && !(stale && now.Before(c.dies)) {
		return nil
	}
	c.used = now
	held := c.password != nil
	if !held {
		c.password = newHeld(password)
	}
	switch {
	case over && !c.wanted:
		c.wanted = true
		s.checks.set(&c.check, now)
	case !held:
		s.checks.set(&c.check, c.fresh)
	}
	return c.person.account
}

// accept takes up that the hook lets credentials in, and returns their account. current
// reports whether the answer is not older than the last reload.
func (s *answers) accept(q asking, a *Account, current bool) *Account {
	now := s.config.Now()
	shard := s.shardOf(q.name)
	s.makeRoom(shard, q.d)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	p := shard.names[q.name]
	if p == nil {
		p = &person{name: strings.Clone(q.name), account: a}
		p.end.of = p
		shard.names[p.name] = p
		s.people.Add(1)
		s.watchEnd(p, now)
	} else if !p.account.sameTerms(a) {
		s.changes.modified(p.account, a, now)
		p.account = a // otherwise the old one stays, which others may hold already
		s.watchEnd(p, now)
	}
	c := shard.credentials[q.d]
	if c == nil {
		if len(p.credentials) >= maxOfName {
			s.dropLocked(shard, p.credentials[0])
		}
		c = &credential{d: q.d, person: p, used: now}
		c.check.of = c
		p.credentials = append(p.credentials, c)
		shard.credentials[q.d] = c
	}
	c.fresh = now
	if current {
		c.fresh = now.Add(s.config.TTL)
	}
	c.dies = now.Add(s.config.TTL + s.config.Stale)
	c.password, c.from, c.wanted = q.password, q.from, false
	s.checks.set(&c.check, c.fresh)
	return p.account
}

// remove takes up that the hook refuses credentials.
func (s *answers) remove(d digest, name string) {
	shard := s.shardOf(name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	c := shard.credentials[d]
	if c == nil {
		return
	}
	s.changes.refused(name, len(c.person.credentials) == 1)
	s.dropLocked(shard, c)
}

// dropLocked forgets credentials, and the account with the last of them.
func (s *answers) dropLocked(shard *answerShard, c *credential) {
	delete(shard.credentials, c.d)
	s.checks.cancel(&c.check)
	p := c.person
	p.credentials = slices.DeleteFunc(p.credentials, func(other *credential) bool { return other == c })
	if len(p.credentials) == 0 {
		delete(shard.names, p.name)
		s.ends.cancel(&p.end)
		s.people.Add(-1)
	}
}

// makeRoom forgets credentials if the shard is full and d would be one more: the
// longest unused, and none of an account in use if that can be helped.
func (s *answers) makeRoom(shard *answerShard, d digest) {
	shard.mu.Lock()
	var oldest []*credential
	if len(shard.credentials) >= s.room && shard.credentials[d] == nil {
		for _, c := range shard.credentials {
			at, _ := slices.BinarySearchFunc(oldest, c, func(a, b *credential) int { return a.used.Compare(b.used) })
			if at < evictionSample {
				oldest = slices.Insert(oldest, at, c)
				oldest = oldest[:min(len(oldest), evictionSample)]
			}
		}
	}
	shard.mu.Unlock()
	if len(oldest) == 0 {
		return
	}
	victim := oldest[0]
	// InUse is not ours to call with a lock held.
	if i := slices.IndexFunc(oldest, func(c *credential) bool { return !s.config.InUse(c.person.name) }); i >= 0 {
		victim = oldest[i]
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.credentials[victim.d] == victim {
		s.dropLocked(shard, victim)
	}
}

func (s *answers) lookup(name string) *Account {
	shard := s.shardOf(name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if p := shard.names[name]; p != nil {
		return p.account
	}
	return nil
}

func (s *answers) all() []*Account {
	accounts := make([]*Account, 0, s.people.Load())
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.Lock()
		for _, p := range shard.names {
			accounts = append(accounts, p.account)
		}
		shard.mu.Unlock()
	}
	return accounts
}

// watchEnd makes or drops the appointment with an account's end.
func (s *answers) watchEnd(p *person, now time.Time) {
	if p.account.Expires.After(now) {
		s.ends.set(&p.end, p.account.Expires)
		return
	}
	s.ends.cancel(&p.end) // never, or over: then it was told as changed
}

func (s *answers) expired() []string {
	var names []string
	for now := s.config.Now(); ; {
		p := s.ends.due(now)
		if p == nil {
			return names
		}
		names = append(names, p.name)
	}
}

// outdate makes every answer one to be asked for again.
func (s *answers) outdate() {
	now := s.config.Now()
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.Lock()
		for _, c := range shard.credentials {
			c.fresh = now
			if c.password != nil && !c.wanted {
				s.checks.set(&c.check, now)
			}
		}
		shard.mu.Unlock()
	}
}
