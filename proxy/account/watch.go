package account

import (
	"context"
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
// missing file is reported once, until it changes again. Without a file Watch
// only waits.
//
// Watch runs in the caller's goroutine and returns when ctx has ended and f has
// returned. One Watch to a Store is enough.
func (s *Store) Watch(ctx context.Context, interval time.Duration, f func(Change, error)) {
	if s.file == "" {
		<-ctx.Done()
		return
	}
	if interval <= 0 {
		interval = defaultInterval
	}
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

// lastSeen returns the mark of the file as the last load found it.
func (s *Store) lastSeen() fileMark {
	s.reloadMu.Lock()
	defer s.reloadMu.Unlock()
	return s.seen
}
