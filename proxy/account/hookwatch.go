package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// troubleInterval is the least time between two reports of trouble.
	troubleInterval = time.Minute
	// maxRetry and minRetry bound how soon an account is asked for again after the
	// hook gave no answer.
	maxRetry, minRetry = 15 * time.Second, time.Second
)

// Watch asks again for the accounts whose time is over, those in use and those that
// customers bring, until ctx ends. Every interval (0 or less is a second) it looks
// which, and calls f with what changed in the meantime: accounts of other terms, and
// refused ones. If credentials are refused that were good, all connections of their
// account are to end, although others of its passwords may still be good: nobody knows
// which of them were opened with which, and those customers connect again. An account that is told for the first
// time is no change, nor is one that is forgotten; f's error is always nil.
//
// While nobody watches, an account whose TTL has ended is asked for when it is used,
// and the customer waits. Watch returns when ctx has ended, and f and its calls have
// returned. One Watch to a Hook is enough.
func (h *Hook) Watch(ctx context.Context, interval time.Duration, f func(Change, error)) {
	if interval <= 0 {
		interval = defaultInterval
	}
	h.watching.Store(true)
	h.answers.changes.gather(true)
	defer h.answers.changes.gather(false)
	var workers sync.WaitGroup
	jobs := make(chan asking)
	defer h.Close()
	defer workers.Wait()
	defer close(jobs)
	defer h.watching.Store(false)
	for range h.config.Concurrency / 2 {
		workers.Go(func() {
			for q := range jobs {
				h.refresh(ctx, q)
			}
		})
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var ready []asking // each credential is in it once at the most
	for {
		var out chan asking
		var next asking
		if len(ready) > 0 {
			out, next = jobs, ready[0]
		}
		select {
		case <-ctx.Done():
			for _, q := range ready {
				h.answers.putOff(q)
			}
			return
		case out <- next:
			ready[0] = asking{}
			ready = ready[1:]
		case <-ticker.C:
			if change, ok := h.answers.changes.take(); ok {
				f(change, nil)
			}
			h.troubles.flush(h.config.Now())
			ready = append(ready, h.answers.takeDue()...)
		}
	}
}

// refresh asks again. Without an answer, it is to be tried later.
func (h *Hook) refresh(ctx context.Context, q asking) {
	if _, err := h.call(ctx, q); err != nil && !errors.Is(err, ErrRefused) {
		h.answers.putOff(q)
	}
}

// takeDue goes through the credentials whose time has come, and returns those to ask for.
func (s *answers) takeDue() []asking {
	now := s.config.Now()
	var due []asking
	for {
		c := s.checks.due(now)
		if c == nil {
			return due
		}
		if q, ok := s.review(c, s.config.InUse(c.person.name), now); ok {
			due = append(due, q)
		}
	}
}

// review decides about credentials whose time has come: whether to ask again, to let
// the password go, or to forget them.
func (s *answers) review(c *credential, inUse bool, now time.Time) (asking, bool) {
	shard := s.shardOf(c.person.name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.credentials[c.d] != c {
		return asking{}, false // forgotten meanwhile
	}
	recent := now.Sub(c.used) < lull
	switch {
	case inUse:
		c.used = now
	case c.password != nil && !recent:
		c.password, c.wanted = nil, false
	}
	switch {
	case c.password != nil && now.Before(c.fresh):
		c.wanted = false
		s.checks.set(&c.check, c.fresh)
	case c.password != nil && (inUse || c.wanted):
		c.wanted = true
		s.checks.cancel(&c.check) // a customer may have come since its time was found to be over
		return asking{c.d, c.person.name, c.password, c.from}, true
	case c.password != nil:
		s.checks.set(&c.check, c.used.Add(lull))
	case now.Before(c.dies):
		s.checks.set(&c.check, c.dies)
	case inUse: // for the terms of its open connections
		s.checks.set(&c.check, now.Add(s.config.TTL))
	default:
		s.dropLocked(shard, c)
	}
	return asking{}, false
}

// putOff makes the next try of a question that was not answered.
func (s *answers) putOff(q asking) {
	shard := s.shardOf(q.name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if c := shard.credentials[q.d]; c != nil && c.wanted {
		s.checks.set(&c.check, s.config.Now().Add(min(maxRetry, max(minRetry, s.config.TTL/4))))
	}
}

// changes gathers what answers changed until a Watch takes it. Safe for concurrent use.
type changes struct {
	mu       sync.Mutex // guards what follows
	watched  bool
	altered  map[string]struct{}
	removed  map[string]struct{}
	ended    map[string]struct{}
	narrowed map[string]struct{}
}

// gather starts or ends the gathering; what was before is told nobody.
func (c *changes) gather(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = on
	c.resetLocked()
}

func (c *changes) resetLocked() {
	c.altered, c.removed = make(map[string]struct{}), make(map[string]struct{})
	c.ended, c.narrowed = make(map[string]struct{}), make(map[string]struct{})
}

func (c *changes) modified(was, is *Account, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watched {
		return
	}
	c.altered[is.Name] = struct{}{}
	switch {
	case is.Disabled || is.Expired(now):
		c.ended[is.Name] = struct{}{}
	case was.narrowed(is):
		c.narrowed[is.Name] = struct{}{}
	}
}

// refused notes that credentials are none any more; gone reports whether the account
// has no others. The connections that were opened with them cannot be told from others.
func (c *changes) refused(name string, gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watched {
		return
	}
	c.ended[name] = struct{}{}
	if gone {
		c.removed[name] = struct{}{}
		return
	}
	c.altered[name] = struct{}{}
}

// take returns what was gathered, and reports whether that is anything.
func (c *changes) take() (Change, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.altered)+len(c.removed) == 0 {
		return Change{}, false
	}
	change := Change{Removed: len(c.removed)}
	for name := range c.altered {
		if _, removed := c.removed[name]; !removed {
			change.Modified++
		}
	}
	for name := range c.ended {
		change.Ended = append(change.Ended, name)
		delete(c.narrowed, name)
	}
	for name := range c.narrowed {
		change.Narrowed = append(change.Narrowed, name)
	}
	slices.Sort(change.Ended)
	slices.Sort(change.Narrowed)
	c.resetLocked()
	return change, true
}

// troubles tells what goes wrong, at most once in troubleInterval. Safe for concurrent use.
type troubles struct {
	tell func(error) // nil = nobody

	mu    sync.Mutex // guards what follows
	told  time.Time
	count int   // since then
	last  error // of them
}

// add counts one, and tells it if it is time.
func (t *troubles) add(err error, now time.Time) {
	t.mu.Lock()
	t.count++
	t.last = err
	t.mu.Unlock()
	t.flush(now)
}

// flush tells what was counted, if it is time.
func (t *troubles) flush(now time.Time) {
	t.mu.Lock()
	if t.count == 0 || !t.told.IsZero() && now.Sub(t.told) < troubleInterval {
		t.mu.Unlock()
		return
	}
	err := fmt.Errorf("account: hook: %w", t.last)
	if t.count > 1 {
		err = fmt.Errorf("%w (%d times)", err, t.count)
	}
	t.told, t.count, t.last = now, 0, nil
	t.mu.Unlock()
	if t.tell != nil {
		t.tell(err)
	}
}
