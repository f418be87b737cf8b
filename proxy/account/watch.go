package account

import (
	"context"
	"sync"
	"time"
)

// defaultInterval is the interval of a Watch that is given none.
const defaultInterval = time.Second

// Watch looks at the file every interval (0 or less is a second) until ctx ends,
// and reloads it when it has changed: another file at the path, links followed,
// or another time, size or mode. A change is taken up once the file has looked
// the same for an interval, so that neither a file that is still being written
// nor one that is missing during a rename is taken for the operator's word. f is
// called after each such reload with what [Store.Reload] returned; a bad or
// missing file is reported once, until it changes again.
//
// It looks at the source as often, and at once when that says so. f is told what
// changed, and then, by a call of its own, which records are refused and why, each
// once; and once that the source cannot be reached, until it can.
//
// f is called one at a time. Watch returns when ctx has ended and f has returned.
// One Watch to a Store is enough.
func (s *Store) Watch(ctx context.Context, interval time.Duration, f func(Change, error)) {
	if interval <= 0 {
		interval = defaultInterval
	}
	var watches sync.WaitGroup
	defer watches.Wait()
	if s.feed != nil {
		var mu sync.Mutex // one call of f at a time
		tell := f
		f = func(c Change, err error) {
			mu.Lock()
			defer mu.Unlock()
			tell(c, err)
		}
		watches.Go(func() { s.watchSource(ctx, interval, f) })
	}
	if s.file != "" {
		s.watchFile(ctx, interval, f)
	}
	<-ctx.Done()
}

func (s *Store) watchFile(ctx context.Context, interval time.Duration, f func(Change, error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := s.lastSeen()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		mark := markFile(s.file)
		steady := mark.equal(last)
		last = mark
		if !steady || mark.equal(s.lastSeen()) {
			continue
		}
		f(s.Reload())
	}
}

// minFetchGap leaves time for other work when the source says that it changes all the time.
const minFetchGap = 100 * time.Millisecond

func (s *Store) watchSource(ctx context.Context, interval time.Duration, f func(Change, error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		s.fetch(ctx, f)
		gap := time.NewTimer(minFetchGap)
		select {
		case <-ctx.Done():
			gap.Stop()
			return
		case <-gap.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.feed.source.Nudges():
		}
	}
}

// lastSeen returns the mark of the file as the last load found it.
func (s *Store) lastSeen() fileMark {
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	return s.seen
}
