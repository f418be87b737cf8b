package admin

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	// gatheringShare is the part of one processor's time that gatherings may take, scrapeShare
	// that scrapes may take in all.
	gatheringShare = 10
	scrapeShare    = 4
	// maxGatheringAge is how old what a scrape shows may be, whatever it takes.
	maxGatheringAge = time.Second
	// maxScrapePause is the longest pause between two scrapes.
	maxScrapePause = time.Second
)

// pacedScrapes serves scrapes one after the other, with pauses for others' work between them.
// It must stand behind something that buffers answers and ends requests in time.
type pacedScrapes struct {
	inner http.Handler
	now   func() time.Time
	turn  chan struct{} // a slot; whoever holds it owns after
	after time.Time     // when the next one may begin
}

func newPacedScrapes(inner http.Handler) *pacedScrapes {
	return &pacedScrapes{inner: inner, now: time.Now, turn: make(chan struct{}, 1)}
}

// ServeHTTP implements http.Handler. A request that ends before its turn gets nothing.
func (p *pacedScrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	over := r.Context().Done()
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-over:
		return
	}
	if pause := p.after.Sub(p.now()); pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-over:
			return
		}
	}
	start := p.now()
	defer func() {
		end := p.now()
		p.after = end.Add(min((scrapeShare-1)*end.Sub(start), maxScrapePause))
	}()
	p.inner.ServeHTTP(w, r)
}

// sharedGatherer gathers for all scrapes that come within a short time at once: whoever can
// reach the listener may scrape, and each gathering reads files of the host's and looks at
// everything there is. The time is in proportion to what the gathering takes, so that a flood
// of scrapes has its share of a processor and no more, and others get news. Safe for
// concurrent use; what it returns must not be changed.
type sharedGatherer struct {
	gatherer prometheus.Gatherer
	now      func() time.Time

	mu       sync.Mutex // guards what follows; held while gathering
	families []*dto.MetricFamily
	err      error
	until    time.Time // when they are too old
}

// Gather implements prometheus.Gatherer.
func (s *sharedGatherer) Gather() ([]*dto.MetricFamily, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if start := s.now(); !start.Before(s.until) {
		s.families, s.err = s.gatherer.Gather()
		end := s.now()
		s.until = end.Add(min((gatheringShare-1)*end.Sub(start), maxGatheringAge))
	}
	return slices.Clone(s.families), s.err
}
