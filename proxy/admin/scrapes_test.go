package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Scrapes share a gathering for nine times as long as it took, a second at most.
func TestScrapesShareAGathering(t *testing.T) {
	for name, tc := range map[string]struct{ cost, age time.Duration }{
		"usual": {2 * time.Millisecond, 18 * time.Millisecond},
		"slow":  {time.Minute, maxGatheringAge},
		"free":  {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			now, n := time.Unix(1, 0), 0
			failure := errors.New("a collector's")
			s := &sharedGatherer{now: func() time.Time { return now }, gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
				n++
				now = now.Add(tc.cost)
				return []*dto.MetricFamily{{}}, failure
			})}
			scrape := func(want int) {
				t.Helper()
				if got, err := s.Gather(); len(got) != 1 || !errors.Is(err, failure) {
					t.Errorf("got %v, %v", got, err)
				}
				if n != want {
					t.Errorf("%d gatherings, want %d", n, want)
				}
			}
			scrape(1)
			if tc.age > 0 {
				now = now.Add(tc.age - 1)
				scrape(1)
			}
			now = now.Add(1)
			scrape(2)
		})
	}
}

// Scrapes at the same time cost one gathering, and each has the whole page.
func TestScrapesAtOnce(t *testing.T) {
	var gathered atomic.Int32
	entered, gate := make(chan struct{}, maxScrapes), make(chan struct{})
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slow", Help: "Slow."}, func() float64 {
		gathered.Add(1)
		entered <- struct{}{}
		<-gate
		return 1
	}))
	h := newHandler(Config{Gatherer: registry}, newGuard("", "127.0.0.1"))
	h.gatherer.now = func() time.Time { return time.Unix(int64(gathered.Load()), 0) } // a gathering takes a second
	var all sync.WaitGroup
	for range maxScrapes {
		all.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "slow 1") {
				t.Errorf("status %d, %q", w.Code, w.Body)
			}
		})
	}
	<-entered
	close(gate)
	all.Wait()
	if n := gathered.Load(); n != 1 {
		t.Errorf("%d gatherings", n)
	}
}

// Scrapes run one after the other, with three times a scrape's time between them; who cannot
// wait so long gets nothing, and keeps nobody's turn.
func TestScrapesArePaced(t *testing.T) {
	var running, most, served atomic.Int32
	now, cost := time.Unix(1, 0), time.Hour
	p := newPacedScrapes(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), running.Add(1)))
		served.Add(1)
		now = now.Add(cost)
		running.Add(-1)
	}))
	p.now = func() time.Time { return now }
	scrape := func(ctx context.Context) {
		p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
	}
	scrape(t.Context())
	if pause := p.after.Sub(now); pause != maxScrapePause {
		t.Errorf("a pause of %v", pause)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	scrape(gone)
	if n := served.Load(); n != 1 {
		t.Errorf("%d served", n)
	}
	cost, p.after = time.Millisecond, now
	var all sync.WaitGroup
	for range maxScrapes {
		all.Go(func() { scrape(t.Context()) })
	}
	all.Wait()
	if most.Load() != 1 || served.Load() != maxScrapes+1 {
		t.Errorf("%d at once, %d served", most.Load(), served.Load())
	}
	if pause := p.after.Sub(now); pause != (scrapeShare-1)*cost {
		t.Errorf("a pause of %v", pause)
	}
}

// BenchmarkScrape is what a scrape costs beside others.
func BenchmarkScrape(b *testing.B) {
	for name, share := range map[string]bool{"shared": true, "alone": false} {
		b.Run(name, func(b *testing.B) {
			h := newHandler(Config{Gatherer: NewRegistry("v", "c")}, newGuard("", "127.0.0.1"))
			if !share {
				h.gatherer.now = func() time.Time { return time.Unix(1, 0) }
			}
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
