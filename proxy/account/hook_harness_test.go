package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// service is a hook of the style json on loopback. What it knows can be changed while
// it runs.
type service struct {
	*httptest.Server
	calls, under, most atomic.Int64 // calls in all; under way now; at most at once

	mu    sync.Mutex
	good  map[string]string // the answer to name:password
	takes http.HandlerFunc  // instead of all that; nil = none
	last  map[string]string // the last question
}

func newService(t testing.TB) *service {
	s := &service{good: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	defer s.under.Add(-1)
	under := s.under.Add(1)
	for most := s.most.Load(); under > most && !s.most.CompareAndSwap(most, under); {
		most = s.most.Load()
	}
	var question map[string]string
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	takes := s.takes
	if err == nil && json.Unmarshal(body, &question) == nil {
		s.last = question
	}
	answer, ok := s.good[question["username"]+":"+question["password"]]
	s.mu.Unlock()
	switch {
	case takes != nil:
		takes(w, r)
	case !ok:
		w.WriteHeader(http.StatusForbidden)
	default:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, answer)
	}
}

// let makes credentials good, with the account that is the answer; an empty one makes
// them bad.
func (s *service) let(credentials, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer == "" {
		delete(s.good, credentials)
		return
	}
	s.good[credentials] = answer
}

// instead answers with h from now on; nil = as before.
func (s *service) instead(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = h
}

func (s *service) question() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// status503 answers with nothing but a status.
func status503(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }

func newHook(t testing.TB, config HookConfig) *Hook {
	t.Helper()
	h, err := NewHook(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func mustAdmit(t testing.TB, h *Hook, name, password string) *Account {
	t.Helper()
	a, err := h.Authenticate(t.Context(), name, password)
	if err != nil || a == nil || a.Name != name || a.HasPassword() {
		t.Fatalf("Authenticate(%q) is %v, %v", name, a, err)
	}
	return a
}

func mustNotAdmit(t testing.TB, h *Hook, name, password string, want error) {
	t.Helper()
	if a, err := h.Authenticate(t.Context(), name, password); !errors.Is(err, want) || a != nil {
		t.Fatalf("Authenticate(%q) is %v, %v, want %v", name, a, err, want)
	}
}

func (s *service) wantCalls(t testing.TB, want int64, what string) {
	t.Helper()
	if got := s.calls.Load(); got != want {
		t.Fatalf("%s: %d calls, want %d", what, got, want)
	}
}

// inUse is which accounts have connections.
type inUse struct{ sync.Map }

func (u *inUse) has(name string) bool { _, ok := u.Load(name); return ok }

// hookChanges are what a Watch told.
type hookChanges struct {
	changes chan Change
	stop    func() // ends Watch and waits for it
}

// watchHook runs Watch until the test ends.
func watchHook(t testing.TB, h *Hook) *hookChanges {
	t.Helper()
	w := &hookChanges{changes: make(chan Change, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Watch(ctx, time.Millisecond, func(c Change, err error) {
			if err != nil {
				t.Error(err)
			}
			w.changes <- c
		})
	}()
	w.stop = func() { cancel(); <-done }
	t.Cleanup(w.stop)
	eventually(t, "Watch has begun", h.watching.Load)
	return w
}

// want waits for a change and checks it.
func (w *hookChanges) want(t testing.TB, want Change) {
	t.Helper()
	select {
	case got := <-w.changes:
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("the change is %+v, want %+v", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no change, want %+v", want)
	}
}

// none checks that nothing was told.
func (w *hookChanges) none(t testing.TB) {
	t.Helper()
	select {
	case got := <-w.changes:
		t.Fatalf("an unexpected change: %+v", got)
	default:
	}
}

// wantNextCall waits for the call of that number and until its answer is taken up.
func (s *service) wantNextCall(t testing.TB, h *Hook, number int64) {
	t.Helper()
	eventually(t, "the next call", func() bool { return s.calls.Load() == number })
	eventually(t, "its answer", func() bool {
		n := 0
		for i := range h.answers.shards {
			shard := &h.answers.shards[i]
			shard.mu.Lock()
			n += len(shard.credentials)
			shard.mu.Unlock()
		}
		h.answers.checks.mu.Lock()
		defer h.answers.checks.mu.Unlock()
		return len(h.answers.checks.queue) == n
	})
}

// eventually waits for a state.
func eventually(t testing.TB, what string, state func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !state(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// turns waits until Watch has looked again: what was due when this was called is taken.
func turns(t testing.TB, c *ticks) {
	t.Helper()
	from := c.asked.Load()
	eventually(t, "Watch looks at the clock", func() bool { return c.asked.Load() > from+8 })
}

// ticks is a clock that counts how often it is asked.
type ticks struct {
	clock
	asked atomic.Int64
}

func newTicks() *ticks {
	c := &ticks{}
	c.at.Store(newClock().at.Load())
	return c
}

func (c *ticks) now() time.Time { c.asked.Add(1); return c.clock.now() }

// quiet is a server's log that nobody reads.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
