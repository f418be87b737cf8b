package account

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestHookSingleFlight(t *testing.T) {
	s := newService(t)
	gate := make(chan struct{})
	s.instead(func(w http.ResponseWriter, _ *http.Request) {
		<-gate
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	})
	h := newHook(t, HookConfig{URL: s.URL, Timeout: 10 * time.Second})
	first, leave := context.WithCancel(t.Context())
	var one, all sync.WaitGroup
	one.Go(func() {
		if _, err := h.Authenticate(first, "alice", "secret"); !errors.Is(err, ErrBusy) || !errors.Is(err, context.Canceled) {
			t.Errorf("the one who left: %v", err)
		}
	})
	eventually(t, "the first call", func() bool { return s.calls.Load() == 1 })
	for range 50 {
		all.Go(func() {
			if _, err := h.Authenticate(t.Context(), "alice", "secret"); err != nil {
				t.Error(err)
			}
		})
	}
	leave() // another one asks in his place
	eventually(t, "the second call", func() bool { return s.calls.Load() == 2 })
	one.Wait() // an answer of before would be his, too
	close(gate)
	all.Wait()
	s.wantCalls(t, 2, "50 at once")
	wantIdle(t, h.flights, defaultHookConcurrency/2)
}

func TestHookConcurrencyIsBounded(t *testing.T) {
	s := newService(t)
	gate := make(chan struct{})
	s.instead(func(w http.ResponseWriter, _ *http.Request) { <-gate; w.WriteHeader(http.StatusForbidden) })
	h := newHook(t, HookConfig{URL: s.URL, Concurrency: 8, Timeout: 20 * time.Second})
	var all sync.WaitGroup
	var refused, busy atomic.Int64
	ask := func(ctx context.Context, i int) {
		switch _, err := h.Authenticate(ctx, "alice", fmt.Sprint("guess", i)); {
		case errors.Is(err, ErrRefused):
			refused.Add(1)
		case errors.Is(err, ErrBusy):
			busy.Add(1)
		}
	}
	guesser := WithClient(t.Context(), netip.MustParseAddr("192.0.2.1"))
	for i := range 2 * maxOfClient {
		all.Go(func() { ask(guesser, i) })
	}
	eventually(t, "the guesser has his quarter", func() bool { return busy.Load() == maxOfClient })
	for i := range 2 * maxWaiting {
		all.Go(func() { ask(t.Context(), 1000+i) })
	}
	const places = 4 + maxWaiting // half of the concurrency is for accounts that are known
	eventually(t, "the queue is full", func() bool { return busy.Load() == 2*maxOfClient+2*maxWaiting-places })
	close(gate)
	all.Wait()
	if refused.Load() != places || s.most.Load() > 4 {
		t.Errorf("%d were refused, want %d; %d calls at once, want 4", refused.Load(), places, s.most.Load())
	}
}

func TestHookKeepsCredentialsBounded(t *testing.T) {
	s := newService(t)
	var used inUse
	c := newTicks() // nobody's TTL ends
	h := newHook(t, HookConfig{URL: s.URL, InUse: used.has, Now: c.now})
	const room = 100
	h.answers.room = room
	put := func(name, password string) {
		c.advance(1)
		h.answers.accept(asking{h.digest(name, password), name, newHeld(password), origin{}}, &Account{Name: name}, true)
	}
	put("busy", "x")
	used.Store("busy", true)
	put("idle", "x")
	for i := range maxOfName + 10 {
		put("alice", fmt.Sprint(i))
	}
	if _, known, _ := h.Known("alice", "9"); known || h.Len() != 3 {
		t.Error("a name has more credentials than it may")
	}
	if _, known, _ := h.Known("alice", "10"); !known {
		t.Error("the latest credentials of a name are gone")
	}
	for i := range 2 * room * answerShards {
		put(fmt.Sprint("c", i), "x")
	}
	n := 0
	for i := range h.answers.shards {
		n += len(h.answers.shards[i].credentials)
	}
	if n > room*answerShards || len(h.answers.checks.queue) != n || h.Len() > n {
		t.Errorf("%d credentials, %d checks, %d accounts, want at most %d", n, len(h.answers.checks.queue), h.Len(), room*answerShards)
	}
	if _, known, _ := h.Known("busy", "x"); !known {
		t.Error("an account in use was forgotten")
	}
	if _, known, _ := h.Known("idle", "x"); known {
		t.Error("the longest unused account is still there")
	}
}

// BenchmarkHookKnown is what a customer costs whom the hook knows, alone and while
// 2,000 others a second guess and the hook takes 50 ms to refuse each.
func BenchmarkHookKnown(b *testing.B) {
	for _, perSecond := range []int{0, 2000} {
		b.Run(fmt.Sprintf("guesses=%d", perSecond), func(b *testing.B) { benchmarkKnown(b, perSecond) })
	}
}

func benchmarkKnown(b *testing.B, perSecond int) {
	s := newService(b)
	h := newHook(b, HookConfig{URL: s.URL, NegativeTTL: 10 * time.Second})
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprint("customer", i)
		h.answers.accept(asking{h.digest(names[i], "x"), names[i], newHeld("x"), origin{}}, &Account{Name: names[i]}, true)
	}
	s.instead(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(50 * time.Millisecond) // the work of the hook
		w.WriteHeader(http.StatusForbidden)
	})
	ctx, cancel := context.WithCancel(b.Context())
	var flood sync.WaitGroup
	if perSecond > 0 {
		flood.Go(func() {
			const beat = 5 * time.Millisecond
			ticker := time.NewTicker(beat)
			defer ticker.Stop()
			for i := 0; ctx.Err() == nil; <-ticker.C {
				for range int(time.Duration(perSecond) * beat / time.Second) {
					i++
					flood.Go(func() {
						client := WithClient(ctx, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
						_, _ = h.Authenticate(client, "customer1", fmt.Sprint("guess", i))
					})
				}
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for i := int(next.Add(7919)); pb.Next(); i++ {
			if a, known, err := h.Known(names[i%len(names)], "x"); a == nil || !known || err != nil {
				b.Fatal(known, err)
			}
		}
	})
	b.StopTimer()
	cancel()
	flood.Wait()
}

// TestHookFlood: 2,000 bad logins a second at a slow hook, from many clients, and every
// customer whom it knows is served at once.
func TestHookFlood(t *testing.T) {
	const known, guesses = 200, 4000
	s := newService(t)
	for i := range known {
		s.let(fmt.Sprintf("customer%d:secret", i), `{}`)
	}
	h := newHook(t, HookConfig{URL: s.URL, TTL: 100 * time.Millisecond, NegativeTTL: time.Minute, Stale: time.Hour, Timeout: 10 * time.Second})
	watchHook(t, h)
	for i := range known {
		mustAdmit(t, h, fmt.Sprint("customer", i), "secret")
	}
	slow := make(chan struct{})
	s.instead(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-slow:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusForbidden)
	})
	var flood sync.WaitGroup
	var turnedAway, refused atomic.Int64
	for i := range guesses {
		flood.Go(func() {
			client := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			switch _, err := h.Authenticate(WithClient(t.Context(), client), "alice", fmt.Sprint("guess", i)); {
			case errors.Is(err, ErrBusy):
				turnedAway.Add(1)
			case errors.Is(err, ErrRefused):
				refused.Add(1)
			}
		})
	}
	places := int64(32 + maxWaiting)
	eventually(t, "the queue is full", func() bool { return turnedAway.Load() == guesses-places })
	for i := range known * 20 {
		name := fmt.Sprint("customer", i%known)
		if _, ok, err := h.Known(name, "secret"); !ok || err != nil {
			t.Fatalf("%s has to wait: %v, %v", name, ok, err)
		}
	}
	if most := s.most.Load(); most > 64 {
		t.Errorf("%d calls at once", most)
	}
	close(slow)
	flood.Wait()
	if refused.Load() != places {
		t.Errorf("%d were refused, want %d", refused.Load(), places)
	}
}

// TestHookUnderStress: whatever happens at once, nothing is lost count of.
func TestHookUnderStress(t *testing.T) {
	s := newService(t)
	var turn atomic.Int64
	s.instead(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch n := turn.Add(1); n % 7 {
		case 0:
			w.WriteHeader(http.StatusForbidden)
		case 1:
			w.WriteHeader(http.StatusBadGateway)
		default:
			_, _ = fmt.Fprintf(w, `{"max_conns":%d,"disabled":%v,"expires":%q}`, n%3+1, n%5 == 0, time.Now().Add(time.Second).Format(time.RFC3339))
		}
	})
	var told atomic.Int64
	h := newHook(t, HookConfig{
		URL: s.URL, TTL: time.Millisecond, Stale: 20 * time.Millisecond, NegativeTTL: time.Millisecond, Concurrency: 16,
		InUse: func(name string) bool { return len(name)%2 == 0 }, Trouble: func(error) { told.Add(1) },
	})
	h.answers.room = 2 // of some four that a shard would hold
	w := watchHook(t, h)
	done := make(chan struct{})
	var drain, all sync.WaitGroup
	drain.Go(func() {
		for {
			select {
			case <-w.changes:
			case <-done:
				return
			}
		}
	})
	for g := range 8 {
		all.Go(func() {
			for i := range 200 {
				name := fmt.Sprint("customer", (g*131+i*7)%256)
				if _, known, _ := h.Known(name, "x"); !known {
					if a, err := h.Authenticate(t.Context(), name, fmt.Sprint("x", i%2)); err == nil && a.Name != name {
						t.Errorf("%s is %s", name, a.Name)
					}
				}
				h.Lookup(name)
				switch i % 50 {
				case 0:
					_, _ = h.Reload()
				case 1:
					h.Expired()
				case 2:
					h.Range(func(*Account) bool { return true })
				}
			}
		})
	}
	all.Wait()
	w.stop()
	close(done)
	drain.Wait()
	credentials, people, ends := 0, 0, 0
	for i := range h.answers.shards {
		shard := &h.answers.shards[i]
		shard.mu.Lock()
		credentials += len(shard.credentials)
		people += len(shard.names)
		of := 0
		for _, p := range shard.names {
			of += len(p.credentials)
			if p.end.place > 0 {
				ends++
			}
		}
		if of != len(shard.credentials) {
			t.Errorf("%d credentials, %d of them somebody's", len(shard.credentials), of)
		}
		shard.mu.Unlock()
	}
	// More than its room a shard holds only while calls end together.
	if credentials > 2*answerShards+16 || told.Load() != 1 {
		t.Errorf("%d credentials, trouble told %d times", credentials, told.Load())
	}
	if n := len(h.answers.checks.queue); n != credentials {
		t.Errorf("%d checks of %d credentials", n, credentials)
	}
	if n := len(h.answers.ends.queue); n != ends || h.Len() != people {
		t.Errorf("%d of %d ends, Len is %d of %d", n, ends, h.Len(), people)
	}
}
