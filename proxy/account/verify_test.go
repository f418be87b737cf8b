package account

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// counting makes s count its comparisons with bcrypt hashes.
func counting(s *Store) *atomic.Int64 {
	runs := new(atomic.Int64)
	s.compare = func(hash, password []byte) error {
		runs.Add(1)
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return runs
}

func wantRuns(t *testing.T, runs *atomic.Int64, want int64, what string) {
	t.Helper()
	if got := runs.Swap(0); got != want {
		t.Errorf("%s: bcrypt ran %d times, want %d", what, got, want)
	}
}

func TestBcryptRunsOnce(t *testing.T) {
	bob := "name: bob, password: " + cheapHash
	s, path := fileStore(t, yamlOf(bob, "name: alice, password: x"), nil)
	runs := counting(s)
	for range 5 {
		mustAuthenticate(t, s, "bob", "hunter2")
	}
	wantRuns(t, runs, 1, "right password")
	for range 5 {
		mustRefuse(t, s, "bob", "hunter3")
	}
	wantRuns(t, runs, 1, "wrong password")
	mustAuthenticate(t, s, "bob", "hunter2")
	wantRuns(t, runs, 0, "right password after a wrong one")

	write(t, path, yamlOf(bob+", max_conns: 3", "name: alice, password: y"))
	if _, err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	mustAuthenticate(t, s, "bob", "hunter2")
	wantRuns(t, runs, 0, "right password after a reload that kept it")

	hash, err := bcrypt.GenerateFromPassword([]byte("hunter3"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, yamlOf("name: bob, password: "+string(hash)))
	if _, err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, s, "bob", "hunter2")
	mustAuthenticate(t, s, "bob", "hunter3") // remembered as wrong before
	wantRuns(t, runs, 2, "after the password changed")
}

// What an unknown name costs must be what a known one costs.
func TestUnknownNamesCostTheSame(t *testing.T) {
	tests := []struct {
		name     string
		accounts []*Account
		min, max int64 // bcrypt runs of 200 unknown names
	}{
		{"plain only", []*Account{plain("a", "x"), plain("b", "x")}, 0, 0},
		{"bcrypt only", []*Account{hashed("a"), hashed("b")}, 200, 200},
		// 100 are expected; 8 standard deviations either way.
		{"half and half", []*Account{hashed("a"), plain("b", "x"), hashed("c"), plain("d", "x")}, 43, 157},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t, StoreConfig{List: tt.accounts})
			runs := new(atomic.Int64)
			s.compare = func(_, password []byte) error {
				runs.Add(1)
				if string(password) != "hunter2" {
					return bcrypt.ErrMismatchedHashAndPassword
				}
				return nil
			}
			cost := make(map[string]int64)
			var total int64
			for i := range 200 {
				name := fmt.Sprint("unknown", i)
				mustRefuse(t, s, name, "hunter2") // right for the decoy
				cost[name] = runs.Swap(0)
				total += cost[name]
			}
			if total < tt.min || total > tt.max {
				t.Errorf("bcrypt ran %d times, want %d to %d", total, tt.min, tt.max)
			}
			for name, c := range cost {
				mustRefuse(t, s, name, "hunter2")
				wantRuns(t, runs, 0, "repeated password of an unknown name")
				mustRefuse(t, s, name, "other")
				wantRuns(t, runs, c, "another password of the same unknown name")
			}
			for _, a := range tt.accounts {
				want := int64(0)
				if a.password.bcrypt {
					want = 1
				}
				mustRefuse(t, s, a.Name, "other")
				wantRuns(t, runs, want, "wrong password of a known name")
				if a.password.bcrypt {
					mustAuthenticate(t, s, a.Name, "hunter2")
					wantRuns(t, runs, 1, "right password, which decoys had too")
				}
			}
		})
	}
}

func TestOneComparisonForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, StoreConfig{List: []*Account{hashed("bob")}, BcryptWorkers: 1})
		var runs, right atomic.Int64
		release := make(chan struct{})
		s.compare = func(_, _ []byte) error {
			runs.Add(1)
			<-release
			return nil
		}
		for range 1000 { // more than may wait, were each its own question
			go func() {
				if _, err := s.Authenticate(t.Context(), "bob", "hunter2"); err == nil {
					right.Add(1)
				}
			}()
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		if runs.Load() != 1 || right.Load() != 1000 {
			t.Errorf("%d comparisons let %d of 1000 in", runs.Load(), right.Load())
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 3
		s := newStore(t, StoreConfig{List: []*Account{hashed("bob"), plain("alice", "x")}, BcryptWorkers: workers})
		var running, worst, busy, refused atomic.Int64
		release := make(chan struct{})
		s.compare = func(_, _ []byte) error {
			worst.Store(max(worst.Load(), running.Add(1)))
			<-release
			running.Add(-1)
			return bcrypt.ErrMismatchedHashAndPassword
		}
		const extra = 10
		for i := range workers + maxWaiting + extra {
			go func() {
				_, err := s.Authenticate(t.Context(), "bob", fmt.Sprint("wrong", i))
				switch {
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				case errors.Is(err, ErrRefused):
					refused.Add(1)
				}
			}()
		}
		synctest.Wait()
		if busy.Load() != extra || refused.Load() != 0 || running.Load() != workers {
			t.Errorf("%d turned away, %d refused, %d running; want %d, 0, %d", busy.Load(), refused.Load(), running.Load(), extra, workers)
		}
		mustAuthenticate(t, s, "alice", "x") // needs no worker
		close(release)
		synctest.Wait()
		if refused.Load() != workers+maxWaiting || worst.Load() != workers {
			t.Errorf("%d refused, at most %d at once; want %d, %d", refused.Load(), worst.Load(), workers+maxWaiting, workers)
		}
		wantIdle(t, s.flights, workers)
	})
}

func TestEndedContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, StoreConfig{List: []*Account{hashed("bob"), hashed("carol")}, BcryptWorkers: 1})
		release := make(chan struct{})
		s.compare = func(_, _ []byte) error { <-release; return nil }
		results := make(chan error, 4)
		try := func(ctx context.Context, name string) {
			_, err := s.Authenticate(ctx, name, "hunter2")
			results <- err
		}
		go try(t.Context(), "bob") // has the worker
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go try(short, "carol") // waits for the worker
		synctest.Wait()
		go try(t.Context(), "carol") // waits for the one before
		go try(short, "bob")         // waits for the first
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(results) != 2 {
			t.Fatalf("%d calls are back, want those whose context ended", len(results))
		}
		for range 2 {
			if err := <-results; !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("an ended context gives %v", err)
			}
		}
		// The follower of the one who gave up asks again, and both get in.
		close(release)
		synctest.Wait()
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("a patient caller gets %v", err)
			}
		}
		if _, err := s.Authenticate(short, "bob", "wrong"); !errors.Is(err, ErrBusy) {
			t.Errorf("an ended context begins a comparison: %v", err)
		}
		if _, err := s.Authenticate(short, "bob", "hunter2"); err != nil {
			t.Errorf("a remembered password needs a context: %v", err)
		}
	})
}

func TestPanickingComparisonLeavesNothingBehind(t *testing.T) {
	s := newStore(t, StoreConfig{List: []*Account{hashed("bob")}, BcryptWorkers: 1})
	s.compare = func(_, _ []byte) error { panic("broken") }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, err := s.Authenticate(t.Context(), "bob", "hunter2")
		t.Errorf("Authenticate returned %v", err)
	}()
	counting(s)
	mustAuthenticate(t, s, "bob", "hunter2")
}

func TestDigestSetIsBounded(t *testing.T) {
	set := newDigestSet()
	var kept digest
	kept[31] = 1
	set.add(kept)
	var d digest
	for i := range 300_000 {
		d[0], d[1], d[2], d[3] = byte(i), byte(i>>8), byte(i>>16), 1
		set.add(d)
		if !set.has(d) {
			t.Fatalf("number %d is not remembered", i)
		}
		if i%1000 == 0 && !set.has(kept) {
			t.Fatalf("a digest in use was forgotten after %d", i)
		}
	}
	n := 0
	for i := range set.shards {
		n += len(set.shards[i].young) + len(set.shards[i].old)
	}
	if limit := setShards * 2 * shardGeneration; n > limit || n < limit/4 {
		t.Errorf("%d digests are remembered, want at most %d", n, limit)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	accounts := make([]*Account, 100_000)
	for i := range accounts {
		accounts[i] = plain(fmt.Sprint("customer", i), fmt.Sprint("secret-", i))
	}
	accounts[0] = hashed("bob")
	s, err := NewStore(StoreConfig{List: accounts})
	if err != nil {
		b.Fatal(err)
	}
	for _, bench := range []struct{ name, user, password string }{
		{"plain", "customer500", "secret-500"}, {"bcrypt remembered", "bob", "hunter2"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			ctx := context.Background()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := s.Authenticate(ctx, bench.user, bench.password); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// Whoever guesses fills a quarter of the queue; the others find places and a short wait.
func TestGuessesLeavePlacesToOthers(t *testing.T) {
	s, err := NewStore(StoreConfig{List: []*Account{hashed("alice")}, BcryptWorkers: 1})
	if err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	s.compare = func(hash, password []byte) error {
		<-hold
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	guesser := WithClient(t.Context(), netip.MustParseAddr("2001:db8::1"))
	neighbour := WithClient(t.Context(), netip.MustParseAddr("2001:db8::2")) // the same /64
	var guesses sync.WaitGroup
	var refused, busy atomic.Int64
	for i := range 2 * maxOfClient {
		guesses.Go(func() {
			ctx := guesser
			if i%2 == 1 {
				ctx = neighbour
			}
			switch _, err := s.Authenticate(ctx, "alice", fmt.Sprint("guess", i)); {
			case errors.Is(err, ErrRefused):
				refused.Add(1)
			case errors.Is(err, ErrBusy):
				busy.Add(1)
			}
		})
	}
	waitUntil(t, func() bool { return openFlights(s) == maxOfClient && busy.Load() == maxOfClient })
	got := make(chan error)
	go func() {
		_, err := s.Authenticate(WithClient(t.Context(), netip.MustParseAddr("192.0.2.1")), "alice", "hunter2")
		got <- err
	}()
	waitUntil(t, func() bool { return openFlights(s) == maxOfClient+1 })
	close(hold)
	if err := <-got; err != nil {
		t.Errorf("another client: %v", err)
	}
	guesses.Wait()
	if refused.Load() != maxOfClient || busy.Load() != maxOfClient {
		t.Errorf("%d guesses were compared and %d turned away, want %d each", refused.Load(), busy.Load(), maxOfClient)
	}
	wantIdle(t, s.flights, 1)
}

func openFlights(s *Store) int {
	s.flights.mu.Lock()
	defer s.flights.mu.Unlock()
	return len(s.flights.open)
}

func waitUntil(t *testing.T, state func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !state(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the state did not come")
		}
	}
}

func TestKnown(t *testing.T) {
	s := newStore(t, StoreConfig{List: []*Account{plain("alice", "x"), hashed("bob")}})
	runs := counting(s)
	check := func(name, password string, wantKnown, wantRight bool) {
		t.Helper()
		a, known, err := s.Known(name, password)
		if known != wantKnown || (a != nil) != wantRight || (err != nil) != (known && !wantRight) {
			t.Errorf("Known(%q, %q) is %v, %v, %v", name, password, a, known, err)
		}
		if err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("error %v, want ErrRefused", err)
		}
	}
	check("alice", "x", true, true)
	check("alice", "y", true, false)
	check("bob", "hunter2", false, false)
	check("bob", "hunter3", false, false)
	wantRuns(t, runs, 0, "Known")
	mustAuthenticate(t, s, "bob", "hunter2")
	mustRefuse(t, s, "bob", "hunter3")
	wantRuns(t, runs, 2, "Authenticate")
	check("bob", "hunter2", true, true)
	check("bob", "hunter3", true, false)
	// An unknown name is charged the work of its decoy, plain or bcrypt.
	waits := 0
	for i := range 100 {
		if _, known, err := s.Known(fmt.Sprint("nobody", i), "x"); !known {
			waits++
		} else if !errors.Is(err, ErrRefused) {
			t.Errorf("an unknown name: %v", err)
		}
	}
	if waits == 0 || waits == 100 {
		t.Errorf("%d of 100 unknown names wait for a comparison, want about half", waits)
	}
	wantRuns(t, runs, 0, "Known after Authenticate")
}
