package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// fakeSource is a Source in memory, whose every version is a number of its own.
type fakeSource struct {
	nudges chan struct{}

	mu      sync.Mutex // guards what follows
	version int64
	records map[string]Record
	log     []Record // all of them, in order
	lost    int64    // up to which version the log is forgotten
	err     error
	marks   []string // that Fetch was given
}

func newFakeSource() *fakeSource {
	return &fakeSource{nudges: make(chan struct{}, 1), records: map[string]Record{}}
}

func (f *fakeSource) Name() string            { return "fake" }
func (f *fakeSource) Nudges() <-chan struct{} { return f.nudges }

func (f *fakeSource) put(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	r := Record{Name: name, Version: f.version, Data: data}
	if f.records[name] = r; data == nil {
		delete(f.records, name)
	}
	if f.log = append(f.log, r); len(f.log) > 100 {
		f.lost, f.log = f.log[0].Version, f.log[1:]
	}
}

func (f *fakeSource) set(name string, maxConns int) {
	f.put(name, []byte(fmt.Sprintf(`{"password":%q,"max_conns":%d}`, cheapHash, maxConns)))
}

func (f *fakeSource) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeSource) nudge() { f.nudges <- struct{}{} }

func (f *fakeSource) Fetch(_ context.Context, mark string) (Update, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.marks = append(f.marks, mark)
	if f.err != nil {
		return Update{}, f.err
	}
	u := Update{Mark: strconv.FormatInt(f.version, 10)}
	since, err := strconv.ParseInt(mark, 10, 64)
	if u.Whole = err != nil || since < f.lost; u.Whole {
		for _, r := range f.records {
			u.Records = append(u.Records, r)
		}
		return u, nil
	}
	for _, r := range f.log {
		if r.Version > since {
			u.Records = append(u.Records, r)
		}
	}
	return u, nil
}

// fed runs test with a watched Store of a source, in a bubble of fake time.
func watchFed(t *testing.T, source *fakeSource, config StoreConfig, test func(w *watched)) {
	t.Helper()
	config.Source = source
	synctest.Test(t, func(t *testing.T) {
		source.nudges = make(chan struct{}, 1) // of the bubble
		w := &watched{Store: newStore(t, config), t: t}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Watch(ctx, time.Second, w.report)
		}()
		test(w)
		cancel()
		<-done
	})
}

func TestWatchSource(t *testing.T) {
	source := newFakeSource()
	source.set("alice", 1)
	list := []*Account{plain("bob", "x")}
	watchFed(t, source, StoreConfig{List: list}, func(w *watched) {
		if w.Len() != 2 {
			t.Fatalf("%d accounts at the start", w.Len())
		}
		w.wantQuiet()
		source.set("alice", 2)
		source.set("carl", 1)
		if r := w.wantOne(); r.err != nil || r.change.Added != 1 || r.change.Modified != 1 || len(r.change.Ended) != 0 {
			t.Errorf("report is %+v", r)
		}
		if origin, ok := w.Origin("carl"); !ok || origin != (Origin{"fake", 3}) {
			t.Errorf("carl is from %+v", origin)
		}
		if origin, ok := w.Origin("bob"); !ok || origin != (Origin{Source: FromEnvironment}) {
			t.Errorf("bob is from %+v", origin)
		}
		if _, ok := w.Origin("nobody"); ok {
			t.Error("nobody is from somewhere")
		}
		source.put("alice", nil)
		if r := w.wantOne(); r.change.Removed != 1 || !slices.Equal(r.change.Ended, []string{"alice"}) {
			t.Errorf("report is %+v", r)
		}
		source.put("carl", []byte(`{"password":"`+cheapHash+`","max_conns":1,"disabled":true}`))
		if r := w.wantOne(); !slices.Equal(r.change.Ended, []string{"carl"}) {
			t.Errorf("report is %+v", r)
		}
		source.put("carl", []byte(`{"password":"`+cheapHash+`","max_conns":1,"allow_from":["::1"]}`))
		if r := w.wantOne(); !slices.Equal(r.change.Narrowed, []string{"carl"}) {
			t.Errorf("report is %+v", r)
		}
		if change, err := w.Reload(); err != nil || change.any() { // of the file alone
			t.Errorf("reload: %+v, %v", change, err)
		}
	})
}

// A nudge is acted on at once, but not without a pause.
func TestWatchSourceWhenNudged(t *testing.T) {
	source := newFakeSource()
	watchFed(t, source, StoreConfig{}, func(w *watched) {
		w.wantQuiet()
		source.set("alice", 1)
		source.nudge()
		time.Sleep(minFetchGap + time.Millisecond)
		synctest.Wait()
		if w.Len() != 1 {
			t.Error("alice is not there yet")
		}
		source.mu.Lock()
		before := len(source.marks)
		source.mu.Unlock()
		for range 50 { // half a second of changes
			source.set("alice", 2)
			select {
			case source.nudges <- struct{}{}:
			default:
			}
			time.Sleep(10 * time.Millisecond)
		}
		source.mu.Lock()
		defer source.mu.Unlock()
		if n := len(source.marks) - before; n > 6 {
			t.Errorf("%d looks in half a second", n)
		}
	})
}

func TestWatchSourceDown(t *testing.T) {
	source := newFakeSource()
	source.set("alice", 1)
	source.fail(errors.New("no answer"))
	watchFed(t, source, StoreConfig{List: []*Account{plain("bob", "x")}}, func(w *watched) {
		if r := w.wantOne(); r.err == nil || r.err.Error() != "accounts in fake: no answer" {
			t.Errorf("report is %+v", r)
		}
		if loaded, err := w.Status(); err == nil || loaded.IsZero() {
			t.Errorf("status: %v, %v", loaded, err)
		}
		w.wantQuiet()
		source.fail(nil)
		if r := w.wantOne(); r.err != nil || r.change.Added != 1 {
			t.Errorf("report is %+v", r)
		}
		source.fail(errors.New("no answer"))
		if r := w.wantOne(); r.err == nil || w.Len() != 2 {
			t.Errorf("report is %+v, %d accounts", r, w.Len())
		}
		source.fail(nil)
		if r := w.wantOne(); r.err != nil || r.change.any() { // that it is back, though nothing changed
			t.Errorf("report is %+v", r)
		}
	})
}

// An operator must do something else about a source that is empty than about one that is away.
func TestWatchSourceDownForAnotherReason(t *testing.T) {
	source := newFakeSource()
	source.set("alice", 1)
	watchFed(t, source, StoreConfig{}, func(w *watched) {
		w.ticks(1)
		for _, again := range []string{"first time", "second time"} {
			for _, reason := range []string{"no answer", "lost everything"} {
				source.fail(errors.New(reason))
				if r := w.wantOne(); r.err == nil || r.err.Error() != "accounts in fake: "+reason || w.Len() != 1 {
					t.Errorf("%s: report is %+v, %d accounts", again, r, w.Len())
				}
			}
			source.fail(errors.New("no answer"))
			w.wantQuiet()
			for i := range 2 * maxReasons { // however many there are
				source.fail(fmt.Errorf("another %d", i))
				w.ticks(1)
			}
			source.fail(errors.New("one too many"))
			w.wantQuiet()
			source.fail(nil)
			if r := w.wantOne(); r.err != nil || r.change.any() {
				t.Errorf("%s: report is %+v", again, r)
			}
		}
	})
}

// After a gap the whole is read, and what is not in it is gone.
func TestWatchSourceAfterAGap(t *testing.T) {
	source := newFakeSource()
	source.set("alice", 1)
	source.set("bob", 1)
	watchFed(t, source, StoreConfig{}, func(w *watched) {
		w.wantQuiet()
		for i := range 3 { // one look brings all of them
			source.set("bob", i+2)
		}
		if r := w.wantOne(); r.change.Modified != 1 {
			t.Errorf("report is %+v", r)
		}
		source.put("alice", nil)
		for i := range 150 {
			source.set("carl", i+1)
		}
		if r := w.wantOne(); r.change.Added != 1 || r.change.Removed != 1 || r.change.Modified != 0 {
			t.Errorf("report is %+v", r)
		}
		if w.Len() != 2 {
			t.Errorf("%d accounts", w.Len())
		}
	})
}

func TestWatchSourceOfBadRecords(t *testing.T) {
	source := newFakeSource()
	source.set("alice", 1)
	source.put("bad", []byte(`nonsense`))
	watchFed(t, source, StoreConfig{List: []*Account{plain("bob", "x")}}, func(w *watched) {
		if r := w.wantOne(); r.err == nil || r.err.Error() != `account "bad" in fake refused: account: not valid JSON` {
			t.Errorf("report is %+v", r)
		}
		w.wantQuiet()
		source.put("alice", []byte(`{"password":"sesame"}`))
		source.set("bob", 5)
		reports := w.ticks(5)
		if len(reports) != 1 || reports[0].err == nil || strings.Contains(reports[0].err.Error(), "sesame") {
			t.Fatalf("reports are %+v", reports)
		}
		for _, want := range []string{`"alice" in fake refused: account: password: must be a hash`, `"bob" in fake refused: the name is also in the list`} {
			if !strings.Contains(reports[0].err.Error(), want) {
				t.Errorf("%q is not told in %v", want, reports[0].err)
			}
		}
		if _, err := w.Status(); strings.Count(err.Error(), "refused") != 3 {
			t.Errorf("status: %v", err)
		}
		mustAuthenticate(w.t, w.Store, "bob", "x")
		mustAuthenticate(w.t, w.Store, "alice", "hunter2")
		source.put("bad", nil)
		w.wantQuiet() // it never was anything, and others are still refused
		source.put("bob", nil)
		w.wantQuiet()
		source.set("alice", 3)
		if r := w.wantOne(); r.err != nil || r.change.Modified != 1 || r.change.Removed != 0 {
			t.Errorf("report is %+v", r)
		}
		if _, err := w.Status(); err != nil {
			t.Errorf("status: %v", err)
		}
		source.put("bad", []byte(`{}`))
		if r := w.wantOne(); r.err == nil {
			t.Errorf("report is %+v", r)
		}
		source.put("bad", nil)
		if r := w.wantOne(); r.err != nil || r.change.any() { // that nothing is wrong any more
			t.Errorf("report is %+v", r)
		}
	})
}

// A password that was a wrong one is the right one once it is put.
func TestSourceChangesAPassword(t *testing.T) {
	source := newFakeSource()
	source.set("alice", 1)
	s := newStore(t, StoreConfig{Source: source})
	fetch := func() { s.fetch(t.Context(), func(Change, error) {}) }
	mustRefuse(t, s, "new", "hunter2")
	mustRefuse(t, s, "alice", "sesame")
	wrong := s.current.Load().wrong
	source.set("alice", 2)
	fetch()
	if s.current.Load().wrong != wrong {
		t.Error("a cap makes wrong passwords be compared again")
	}
	mustAuthenticate(t, s, "alice", "hunter2")
	source.set("new", 1)
	fetch()
	mustAuthenticate(t, s, "new", "hunter2")
	hash, err := bcrypt.GenerateFromPassword([]byte("sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	source.put("alice", []byte(`{"password":"`+string(hash)+`"}`))
	fetch()
	mustAuthenticate(t, s, "alice", "sesame")
	mustRefuse(t, s, "alice", "hunter2")
}

// Expired tells of a source's accounts, too, and once.
func TestSourceExpires(t *testing.T) {
	c := newClock()
	source := newFakeSource()
	source.put("alice", []byte(`{"password":"`+cheapHash+`","expires":"2026-06-01T00:01:00Z"}`))
	source.set("bob", 1)
	s := newStore(t, StoreConfig{Source: source, Now: c.now})
	c.advance(2 * time.Minute)
	if names := s.Expired(); !slices.Equal(names, []string{"alice"}) {
		t.Errorf("expired: %v", names)
	}
	source.put("bob", []byte(`{"password":"`+cheapHash+`","expires":"2026-06-01T00:01:30Z"}`))
	var ended []string
	s.fetch(t.Context(), func(change Change, _ error) { ended = append(ended, change.Ended...) })
	if names := s.Expired(); len(names) != 0 || !slices.Equal(ended, []string{"bob"}) {
		t.Errorf("expired: %v, ended: %v", names, ended)
	}
}

// Reloads, changes and readers meet without harm.
func TestSourceAndFileAtOnce(t *testing.T) {
	source := newFakeSource()
	source.set("alice", 1)
	path := t.TempDir() + "/a.yaml"
	write(t, path, yamlOf("name: bob, password: x"))
	s := newStore(t, StoreConfig{File: path, Source: source})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Watch(ctx, time.Millisecond, func(Change, error) {}) })
	running.Go(func() {
		for i := range 100 {
			source.set("alice", i+1)
			source.set(fmt.Sprintf("a%d", i%10), i+1)
			select {
			case source.nudges <- struct{}{}:
			default:
			}
			_, _ = s.Reload()
		}
		stop()
	})
	for ctx.Err() == nil {
		if _, err := s.Authenticate(context.Background(), "alice", "hunter2"); err != nil {
			t.Fatal(err)
		}
		mustAuthenticate(t, s, "bob", "x")
	}
	running.Wait()
	s.fetch(t.Context(), func(Change, error) {})
	if a, _ := s.Lookup("alice"); a == nil || a.MaxConns != 100 || s.Len() != 12 {
		t.Errorf("alice is %+v of %d", a, s.Len())
	}
}
