package usage_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"maskrelay/proxy/usage"
)

// faulty is a ledger whose bookings fail as told: before they are done, or after, as when the answer is lost.
type faulty struct {
	usage.Ledger
	mu     sync.Mutex // guards what follows
	before error
	after  error
	hang   bool // until the context ends
	calls  int
	asked  int // calls of Totals
}

func (f *faulty) Book(ctx context.Context, b usage.Batch) ([]usage.Total, error) {
	f.mu.Lock()
	before, after, hang := f.before, f.after, f.hang
	f.calls++
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if before != nil {
		return nil, before
	}
	totals, err := f.Ledger.Book(ctx, b)
	if after != nil {
		return nil, after
	}
	return totals, err
}

func (f *faulty) Totals(ctx context.Context, names []string) ([]usage.Total, error) {
	f.mu.Lock()
	f.asked++
	before := f.before
	f.mu.Unlock()
	if before != nil {
		return nil, before
	}
	return f.Ledger.Totals(ctx, names)
}

func (f *faulty) set(change func(*faulty)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// relay is Books with what they told.
type relay struct {
	*testing.T
	*usage.Books
	meter  *usage.Meter
	ledger *faulty

	mu        sync.Mutex // guards what follows
	quota     map[string]usage.Quota
	exhausted []string
	events    []usage.Event
	troubles  []error

	stop func()
}

// startRelay starts one in a synctest bubble.
func startRelay(t *testing.T, node string, ledger usage.Ledger, quota map[string]usage.Quota) *relay {
	return startRelayWith(t, usage.BooksConfig{Node: node, Ledger: ledger}, quota)
}

// startRelayWith takes Node, Ledger and Now from the configuration.
func startRelayWith(t *testing.T, c usage.BooksConfig, quota map[string]usage.Quota) *relay {
	r := &relay{T: t, meter: usage.NewMeter(), ledger: &faulty{Ledger: c.Ledger}, quota: quota}
	c.Meter, c.Ledger = r.meter, r.ledger
	c.Quota = func(name string) (usage.Quota, bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		q, ok := r.quota[name]
		return q, ok
	}
	c.Exhausted = func(name string) { r.note(func() { r.exhausted = append(r.exhausted, name) }) }
	c.Crossed = func(e usage.Event) { r.note(func() { r.events = append(r.events, e) }) }
	c.Trouble = func(err error) { r.note(func() { r.troubles = append(r.troubles, err) }) }
	r.Books = usage.NewBooks(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Books.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(r.stop)
	return r
}

func (r *relay) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// told returns what the relay was told since the last call: accounts closed, kinds of events.
func (r *relay) told() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, name := range r.exhausted {
		all = append(all, "close "+name)
	}
	for _, e := range r.events {
		all = append(all, e.Kind+" "+e.Account)
	}
	slices.Sort(all)
	r.exhausted, r.events = nil, nil
	return strings.Join(slices.Compact(all), ", ")
}

func (r *relay) expect(what, want string) {
	r.Helper()
	synctest.Wait()
	if got := r.told(); got != want {
		r.Errorf("%s: told %q, want %q", what, got, want)
	}
}

// booked returns what the ledger has of the account.
func (r *relay) booked(name string) usage.Sums {
	r.Helper()
	totals, err := r.ledger.Ledger.Totals(r.Context(), []string{name})
	if err != nil {
		r.Fatal(err)
	}
	return totals[0].All
}

func pass(d time.Duration) {
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
}

func lifetime(bytes int64) usage.Quota { return usage.Quota{Bytes: bytes, Period: usage.Lifetime} }
func monthly(bytes int64) usage.Quota  { return usage.Quota{Bytes: bytes, Period: usage.Monthly} }

func TestBooksBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), nil)
		c := r.meter.Of("alice")
		c.Opened()
		c.Moved(true, 10)
		c.Moved(false, 20)
		pass(2 * time.Second)
		if got, want := r.booked("alice"), (usage.Sums{Sent: 10, Received: 20, Connections: 1}); got != want {
			t.Errorf("after two seconds %+v, want %+v", got, want)
		}
		c.Moved(true, 1)
		r.stop()
		if got := r.booked("alice").Sent; got != 11 {
			t.Errorf("at the end %d, want 11", got)
		}
	})
}

func TestBooksRetryNeitherLosesNorDoubles(t *testing.T) {
	for name, fail := range map[string]func(*faulty, error){
		"never arrived": func(f *faulty, err error) { f.before = err },
		"answer lost":   func(f *faulty, err error) { f.after = err },
		"hangs":         func(f *faulty, err error) { f.hang = err != nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startRelay(t, "a", usage.NewMemory(), map[string]usage.Quota{"alice": lifetime(100)})
				c := r.meter.Of("alice")
				pass(time.Millisecond)
				r.ledger.set(func(f *faulty) { fail(f, errors.New("away")) })
				for range 30 {
					c.Moved(true, 1)
					pass(time.Second)
				}
				if c.Exhausted() {
					t.Error("30 of 100 bytes are taken as all")
				}
				c.Moved(true, 55)
				r.ledger.set(func(f *faulty) { fail(f, nil) })
				pass(10 * time.Second)
				if got := r.booked("alice").Sent; got != 85 {
					t.Errorf("booked %d, want 85", got)
				}
				r.expect("when the ledger is back", "quota.80 alice")
				if len(r.troubles) != 2 || r.troubles[0] == nil || r.troubles[1] != nil {
					t.Errorf("troubles %v, want one and its end", r.troubles)
				}
			})
		})
	}
}

// While it is not certain whether an entry is booked, it must not count twice against the quota.
func TestAnEntryOnItsWayCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), map[string]usage.Quota{"alice": lifetime(100)})
		r.ledger.set(func(f *faulty) { f.before = errors.New("away") })
		c := r.meter.Of("alice")
		pass(time.Millisecond)
		c.Moved(true, 60)
		r.ledger.set(func(f *faulty) { f.before, f.after = nil, errors.New("the answer is lost") })
		pass(2 * time.Second)
		if got := r.booked("alice").Sent; got != 60 {
			t.Fatalf("%d booked, the test means 60", got)
		}
		r.meter.Of("bob") // has totals read
		pass(time.Second)
		r.expect("60 of 100", "")
	})
}

func TestQuotaGoesOnByWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := usage.NewMemory()
		before := startRelay(t, "a", ledger, nil)
		before.meter.Of("alice").Moved(true, 60)
		before.stop()
		r := startRelay(t, "b", ledger, map[string]usage.Quota{"alice": lifetime(100)})
		c := r.meter.Of("alice")
		pass(time.Millisecond)
		r.ledger.set(func(f *faulty) { f.before = errors.New("away") })
		c.Moved(true, 39)
		pass(5 * time.Second)
		r.expect("one byte is left", "")
		c.Moved(false, 1)
		pass(2 * time.Second)
		r.expect("none is left", "close alice")
		if !c.Exhausted() {
			t.Error("not exhausted")
		}
		r.ledger.set(func(f *faulty) { f.before = nil })
		pass(3 * time.Second)
		r.expect("the ledger is back", "quota.100 alice, quota.80 alice")
	})
}

func TestQuotaCutsTheRelayThatMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), map[string]usage.Quota{"alice": lifetime(100), "bob": monthly(1000)})
		c, other := r.meter.Of("alice"), r.meter.Of("carol")
		r.meter.Of("bob").Moved(true, 799)
		other.Moved(true, 1<<40)
		c.Moved(true, 79)
		pass(5 * time.Second)
		r.expect("79 of 100", "")
		c.Moved(false, 1)
		pass(5 * time.Second)
		r.expect("80 of 100", "quota.80 alice")
		c.Moved(false, 20)
		pass(5 * time.Second)
		r.expect("all", "close alice, quota.100 alice")
		calls := r.ledger.calls
		pass(time.Minute)
		r.expect("nothing moves", "")
		if r.ledger.calls != calls {
			t.Errorf("%d bookings while nothing moved", r.ledger.calls-calls)
		}
		c.Moved(true, 5)
		pass(5 * time.Second)
		r.expect("it moves all the same", "close alice")
		if other.Exhausted() {
			t.Error("an account without a quota is exhausted")
		}
	})
}

func TestQuotaCutsOtherRelays(t *testing.T) {
	for name, inUse := range map[string]bool{"in use": true, "asked for": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ledger := usage.NewMemory()
				quota := map[string]usage.Quota{"alice": lifetime(100)}
				a, b := startRelay(t, "a", ledger, quota), startRelay(t, "b", ledger, quota)
				idle := b.meter.Of("alice")
				pass(5 * time.Minute)
				if !inUse {
					pass(time.Hour)
				}
				a.meter.Of("alice").Moved(true, 100)
				if !inUse {
					pass(time.Minute)
					b.expect("asked for an hour ago", "")
					b.meter.Of("alice")
				}
				pass(6 * time.Second)
				b.expect("used up elsewhere", "close alice")
				if !idle.Exhausted() {
					t.Error("not exhausted")
				}
				a.expect("where it moved", "close alice, quota.100 alice, quota.80 alice")
			})
		})
	}
}

func TestQuotaOfARelayThatStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := usage.NewMemory()
		quota := map[string]usage.Quota{"alice": lifetime(100)}
		a := startRelay(t, "a", ledger, quota)
		a.meter.Of("alice").Moved(true, 100)
		pass(3 * time.Second)
		a.stop()
		b := startRelay(t, "a again", ledger, quota)
		pass(time.Second + 10*time.Millisecond) // between two bookings
		c := b.meter.Of("alice")
		pass(time.Millisecond)
		if !c.Exhausted() {
			t.Error("not known at once")
		}
		pass(10 * time.Second)
		b.expect("crossings were told before the restart", "close alice")
	})
}

func TestQuotaThatChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), map[string]usage.Quota{"alice": lifetime(100)})
		set := func(q usage.Quota) {
			r.note(func() { r.quota["alice"] = q })
			r.Refresh()
			pass(time.Millisecond)
		}
		c := r.meter.Of("alice")
		c.Moved(true, 100)
		pass(5 * time.Second)
		r.expect("used up", "close alice, quota.100 alice, quota.80 alice")
		set(lifetime(1000))
		if c.Exhausted() {
			t.Error("exhausted after the quota was raised")
		}
		set(lifetime(50))
		if !c.Exhausted() {
			t.Error("not exhausted after the quota was lowered")
		}
		pass(5 * time.Second)
		r.expect("lowered", "close alice, quota.100 alice, quota.80 alice")
		set(usage.Quota{})
		if c.Exhausted() {
			t.Error("exhausted without a quota")
		}
		pass(5 * time.Second)
		set(lifetime(100))
		pass(5 * time.Second)
		r.expect("as at first, which was told", "close alice")
	})
}

func TestQuotaOfAMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		turn := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
		now := func() time.Time { return turn.Add(time.Since(begin) - time.Minute) }
		r := startRelayWith(t, usage.BooksConfig{Node: "a", Ledger: usage.NewMemoryAt(now), Now: now}, map[string]usage.Quota{"alice": monthly(100)})
		c := r.meter.Of("alice")
		c.Moved(true, 100)
		pass(5 * time.Second)
		r.expect("used up", "close alice, quota.100 alice, quota.80 alice")
		pass(turn.Sub(now()) - time.Second)
		if !c.Exhausted() {
			t.Error("open before the month turned")
		}
		r.ledger.set(func(f *faulty) { f.before = errors.New("away") }) // nor must it say so
		pass(3 * time.Second)
		if c.Exhausted() {
			t.Error("exhausted in the new month")
		}
		r.ledger.set(func(f *faulty) { f.before = nil })
		c.Moved(true, 85)
		pass(5 * time.Second)
		r.expect("the new month", "quota.80 alice")
	})
}

func TestBooksEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), nil)
		r.meter.Of("alice").Moved(true, 1)
		r.ledger.set(func(f *faulty) { f.hang = true })
		pass(2500 * time.Millisecond) // a booking is under way
		begin := time.Now()
		r.stop()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}

func TestAccountsBeyondTheBoundShareACounter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := usage.NewSmallMeter(2)
		b := usage.NewBooks(usage.BooksConfig{Meter: m, Ledger: usage.NewMemory(), Node: "a",
			Quota: func(string) (usage.Quota, bool) { return lifetime(10), true }})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.Run(ctx) }()
		for _, name := range []string{"a", "b", "c", "d", "", strings.Repeat("x", usage.MaxName+1)} {
			m.Of(name).Moved(true, 10)
		}
		pass(5 * time.Second)
		if m.Of("a") == m.Of("b") || m.Of("c") != m.Of("d") || m.Of("c") != m.Of("other") {
			t.Error("the wrong accounts share a counter")
		}
		if !m.Of("a").Exhausted() || m.Of("c").Exhausted() {
			t.Error("a quota ends what several share, or not what one has")
		}
		rows, err := b.Report(t.Context(), usage.Query{Account: "other"})
		if err != nil || rows[0].Sent != 40 {
			t.Errorf("others: %+v, %v", rows, err)
		}
		names := 0
		m.Range(func(string, *usage.Counter) bool { names++; return true })
		if names != 3 {
			t.Errorf("%d names, want 3", names)
		}
		stop()
		<-done
	})
}

func TestTotalsAreNotReadForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), map[string]usage.Quota{"alice": lifetime(100)})
		r.meter.Of("bob").Moved(true, 1)
		pass(time.Minute)
		if r.ledger.asked != 0 {
			t.Errorf("%d times for an account without a quota", r.ledger.asked)
		}
		r.meter.Of("alice")
		pass(time.Hour)
		if asked := r.ledger.asked; asked < 250 || asked > 350 {
			t.Errorf("%d times in an hour for one that was asked for once, want some ten minutes' of two seconds", asked)
		}
	})
}
