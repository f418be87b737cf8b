package account

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// held reports whether the hook keeps the password.
func held(h *Hook, name, password string) bool {
	shard := h.answers.shardOf(name)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	c := shard.credentials[h.digest(name, password)]
	return c != nil && c.password != nil
}

// TestHookActsOnOpenConnections: the hook is asked again for an account in use although
// nobody connects, and Watch tells what its answer changes.
func TestHookActsOnOpenConnections(t *testing.T) {
	tests := []struct {
		name, before, now string
		want              Change
	}{
		{"cap", `{}`, `{"max_conns":5}`, Change{Modified: 1}},
		{"quota", `{}`, `{"quota":"5GB"}`, Change{Modified: 1}},
		{"networks", `{}`, `{"allow_from":["192.0.2.0/24"]}`, Change{Modified: 1, Narrowed: []string{"alice"}}},
		{"addresses", `{"max_ips":2}`, `{"max_ips":1}`, Change{Modified: 1, Narrowed: []string{"alice"}}},
		{"disabled", `{}`, `{"disabled":true}`, Change{Modified: 1, Ended: []string{"alice"}}},
		{"disabled and networks", `{}`, `{"disabled":true,"max_ips":1}`, Change{Modified: 1, Ended: []string{"alice"}}},
		{"expired", `{}`, `{"expires":"2026-05-31T00:00:00Z"}`, Change{Modified: 1, Ended: []string{"alice"}}},
		{"enabled", `{"disabled":true}`, `{}`, Change{Modified: 1}},
		{"refused", `{}`, "", Change{Removed: 1, Ended: []string{"alice"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newService(t), newTicks()
			var used inUse
			s.let("alice:secret", tt.before)
			h := newHook(t, HookConfig{URL: s.URL, TTL: time.Minute, NegativeTTL: time.Minute, InUse: used.has, Now: c.now})
			w := watchHook(t, h)
			before := mustAdmit(t, h, "alice", "secret")
			used.Store("alice", true)
			for i := range 3 {
				c.advance(time.Minute)
				s.wantNextCall(t, h, int64(i+2))
			}
			turns(t, c)
			w.none(t)
			if a, _ := h.Lookup("alice"); a != before {
				t.Error("the same answer makes another account")
			}
			s.let("alice:secret", tt.now)
			c.advance(time.Minute)
			w.want(t, tt.want)
			if tt.now == "" {
				mustNotAdmit(t, h, "alice", "secret", ErrRefused)
				if _, ok := h.Lookup("alice"); ok || h.Len() != 0 {
					t.Error("the account is still there")
				}
				s.wantCalls(t, 5, "refused is refused")
				return
			}
			a, ok := h.Lookup("alice")
			if want := mustParseJSON(t, "alice", tt.now); !ok || !a.equal(want) {
				t.Errorf("Lookup is %s, want %s", a.JSON(), want.JSON())
			}
			if got := mustAdmit(t, h, "alice", "secret"); got != a {
				t.Error("Authenticate and Lookup differ")
			}
		})
	}
}

// TestHookLetsPasswordsGo: nobody's password is kept who has no connections.
func TestHookLetsPasswordsGo(t *testing.T) {
	s, c := newService(t), newTicks()
	var used inUse
	s.let("alice:secret", `{}`)
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Minute, Stale: 10 * time.Minute, InUse: used.has, Now: c.now})
	watchHook(t, h)
	mustAdmit(t, h, "alice", "secret")
	used.Store("alice", true)
	c.advance(time.Minute)
	s.wantNextCall(t, h, 2)
	if !held(h, "alice", "secret") {
		t.Fatal("the password of an account in use is gone")
	}
	used.Delete("alice")
	c.advance(time.Minute)
	eventually(t, "the password is let go", func() bool { return !held(h, "alice", "secret") })
	c.advance(time.Minute)
	turns(t, c)
	s.wantCalls(t, 2, "nobody uses the account")

	// The next customer is served at once, and his password serves to ask again.
	s.let("alice:secret", `{"max_conns":5}`)
	if _, known, err := h.Known("alice", "secret"); !known || err != nil {
		t.Fatalf("Known is %v, %v", known, err)
	}
	eventually(t, "the new answer", func() bool { a, _ := h.Lookup("alice"); return a.MaxConns == 5 })
	s.wantCalls(t, 3, "after the customer")

	c.advance(11 * time.Minute)
	eventually(t, "the account is forgotten", func() bool { return h.Len() == 0 })
	s.wantCalls(t, 3, "forgotten unasked")
	if n := len(h.answers.checks.queue); n != 0 {
		t.Errorf("%d checks of nothing", n)
	}
}

// TestHookForgottenCredentials: whom the hook refuses later was forgotten, and that is no change.
func TestHookForgottenCredentials(t *testing.T) {
	s, c := newService(t), newTicks()
	s.let("alice:secret", `{}`)
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Minute, Now: c.now})
	w := watchHook(t, h)
	mustAdmit(t, h, "alice", "secret")
	c.advance(time.Minute)
	eventually(t, "the account is forgotten", func() bool { return h.Len() == 0 })
	s.let("alice:secret", "")
	mustNotAdmit(t, h, "alice", "secret", ErrRefused)
	turns(t, c)
	w.none(t)
}

// TestHookChangesAddUp: what happened between two looks is one change.
func TestHookChangesAddUp(t *testing.T) {
	now := time.Now()
	var c changes
	c.modified(&Account{Name: "early"}, &Account{Name: "early", Disabled: true}, now) // nobody watches
	c.gather(true)
	if change, ok := c.take(); ok {
		t.Errorf("nothing happened, but %+v", change)
	}
	for _, name := range []string{"c", "b", "a"} {
		c.modified(&Account{Name: name}, &Account{Name: name, MaxIPs: 1}, now)
		c.modified(&Account{Name: name}, &Account{Name: name, MaxConns: 1}, now)
	}
	c.modified(&Account{Name: "b"}, &Account{Name: "b", Disabled: true}, now)
	c.refused("a", false)
	c.refused("a", true)
	c.refused("d", false)
	want := Change{Modified: 3, Removed: 1, Ended: []string{"a", "b", "d"}, Narrowed: []string{"c"}}
	if got, ok := c.take(); !ok || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the change is %+v, want %+v", got, want)
	}
	if change, ok := c.take(); ok {
		t.Errorf("told twice: %+v", change)
	}
}

// TestHookTellsLateTrouble: what was counted is told although nothing more goes wrong.
func TestHookTellsLateTrouble(t *testing.T) {
	s, c := newService(t), newTicks()
	s.instead(status503)
	told := make(chan string, 10)
	h := newHook(t, HookConfig{URL: s.URL, Now: c.now, Trouble: func(err error) { told <- err.Error() }})
	watchHook(t, h)
	for range 3 {
		mustNotAdmit(t, h, "alice", "x", ErrBusy)
	}
	<-told
	c.advance(time.Minute)
	if text := <-told; text != "account: hook: status 503 Service Unavailable (2 times)" {
		t.Errorf("told %q", text)
	}
}

// TestHookServesWhileItAsks: a slow hook makes nobody wait whom it knows.
func TestHookServesWhileItAsks(t *testing.T) {
	s, c := newService(t), newTicks()
	s.let("alice:secret", `{}`)
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Minute, Stale: time.Hour, Timeout: 20 * time.Second, Now: c.now})
	watchHook(t, h)
	mustAdmit(t, h, "alice", "secret")
	gate := make(chan struct{})
	s.instead(func(w http.ResponseWriter, _ *http.Request) {
		<-gate
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"max_conns":5}`)
	})
	c.advance(time.Minute)
	for range 100 {
		if a, known, err := h.Known("alice", "secret"); !known || err != nil || a.MaxConns != 0 {
			t.Fatalf("Known is %v, %v, %v", a, known, err)
		}
	}
	eventually(t, "the call", func() bool { return s.calls.Load() == 2 })
	mustAdmit(t, h, "alice", "secret")
	turns(t, c)
	s.wantCalls(t, 2, "while one is under way")
	close(gate)
	eventually(t, "the new answer", func() bool { a, _ := h.Lookup("alice"); return a.MaxConns == 5 })
}

// TestHookOutageInUse: an account in use outlives its hook, and is asked for until the
// hook is back.
func TestHookOutageInUse(t *testing.T) {
	s, c := newService(t), newTicks()
	var used inUse
	var told atomic.Int64
	s.let("alice:secret", `{"max_conns":5}`)
	h := newHook(t, HookConfig{
		URL: s.URL, TTL: time.Minute, Stale: 10 * time.Minute, InUse: used.has, Now: c.now, Trouble: func(error) { told.Add(1) },
	})
	w := watchHook(t, h)
	mustAdmit(t, h, "alice", "secret")
	used.Store("alice", true)
	s.instead(status503)
	for range 44 { // a try each quarter of a minute
		before := s.calls.Load()
		c.advance(time.Minute / 4)
		if c.now().Before(newClock().now().Add(time.Minute)) {
			continue
		}
		s.wantNextCall(t, h, before+1)
	}
	if n := told.Load(); n < 9 || n > 11 {
		t.Errorf("trouble was told %d times in 10 minutes", n)
	}
	mustNotAdmit(t, h, "alice", "secret", ErrBusy)
	if a, ok := h.Lookup("alice"); !ok || a.MaxConns != 5 {
		t.Fatal("open connections have lost their account")
	}
	w.none(t)
	s.instead(nil)
	c.advance(time.Minute / 4)
	eventually(t, "the hook's answer", func() bool { _, known, _ := h.Known("alice", "secret"); return known })
	w.none(t)
}

// TestHookTwoPasswords: a name has the terms of the latest answer, and an end of one
// password ends connections that may have come in with it.
func TestHookTwoPasswords(t *testing.T) {
	s, c := newService(t), newTicks()
	var used inUse
	s.let("alice:old", `{"max_conns":1}`)
	s.let("alice:new", `{"max_conns":2}`)
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Hour, NegativeTTL: time.Hour, InUse: used.has, Now: c.now})
	w := watchHook(t, h)
	mustAdmit(t, h, "alice", "old")
	used.Store("alice", true)
	if a := mustAdmit(t, h, "alice", "new"); a.MaxConns != 2 {
		t.Fatalf("the latest answer is %s", a.JSON())
	}
	w.want(t, Change{Modified: 1})
	if a := mustAdmit(t, h, "alice", "old"); a.MaxConns != 2 || h.Len() != 1 {
		t.Fatalf("the other password's account is %s of %d", a.JSON(), h.Len())
	}
	s.let("alice:old", "")
	c.advance(time.Hour)
	s.wantNextCall(t, h, 4)
	w.want(t, Change{Modified: 1, Ended: []string{"alice"}})
	mustNotAdmit(t, h, "alice", "old", ErrRefused)
	mustAdmit(t, h, "alice", "new")
	s.let("alice:new", "")
	c.advance(time.Hour)
	w.want(t, Change{Removed: 1, Ended: []string{"alice"}})
}

func TestHookReloadAsksAgain(t *testing.T) {
	s, c := newService(t), newTicks()
	var used inUse
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Hour, Stale: time.Hour, InUse: used.has, Now: c.now})
	w := watchHook(t, h)
	for _, name := range []string{"alice", "bob"} {
		s.let(name+":secret", `{}`)
		mustAdmit(t, h, name, "secret")
		s.let(name+":secret", `{"disabled":true}`)
	}
	used.Store("alice", true)
	if _, err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	w.want(t, Change{Modified: 1, Ended: []string{"alice"}})
	s.wantCalls(t, 3, "one is in use")
	mustAdmit(t, h, "bob", "secret") // as he was, and asked for
	w.want(t, Change{Modified: 1, Ended: []string{"bob"}})
}

func TestHookExpired(t *testing.T) {
	s, c := newService(t), newTicks()
	at := c.now().Add(time.Hour)
	for i, name := range []string{"alice", "bob", "carol"} {
		s.let(name+":x", fmt.Sprintf(`{"expires":%q}`, at.Add(time.Duration(i)*time.Minute).Format(time.RFC3339)))
	}
	s.let("dora:x", `{"expires":"2020-01-01T00:00:00Z"}`)
	s.let("eve:x", `{}`)
	h := newHook(t, HookConfig{URL: s.URL, TTL: 10 * time.Minute, Now: c.now})
	for _, name := range []string{"alice", "bob", "carol", "dora", "eve"} {
		mustAdmit(t, h, name, "x")
	}
	want := func(names ...string) {
		t.Helper()
		if got := h.Expired(); fmt.Sprint(got) != fmt.Sprint(names) {
			t.Fatalf("Expired is %q, want %q", got, names)
		}
	}
	want()
	c.advance(time.Hour)
	want("alice")
	want()
	s.let("bob:x", `{}`) // made to last for ever
	mustAdmit(t, h, "bob", "x")
	c.advance(time.Hour)
	want("carol")
}

// TestHookWatchWaits: it returns when its calls have.
func TestHookWatchWaits(t *testing.T) {
	s, c := newService(t), newTicks()
	h := newHook(t, HookConfig{
		URL: s.URL, TTL: time.Minute, Stale: time.Hour, Concurrency: 2, InUse: func(string) bool { return true }, Now: c.now,
		Trouble: func(err error) { t.Errorf("an end is no trouble: %v", err) },
	})
	for i := range 50 {
		s.let(fmt.Sprintf("c%d:x", i), `{}`)
		mustAdmit(t, h, fmt.Sprint("c", i), "x")
	}
	s.instead(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Watch(ctx, time.Millisecond, func(Change, error) {})
	}()
	c.advance(time.Minute)
	eventually(t, "a call", func() bool { return s.under.Load() == 1 })
	cancel()
	<-done
	// All are asked for again by the next Watch.
	s.instead(nil)
	watchHook(t, h)
	before := s.calls.Load()
	c.advance(time.Minute)
	eventually(t, "all calls", func() bool { return s.calls.Load() == before+50 })
}

// A customer who comes just when credentials are found to be due makes no second call.
func TestHookAsksOnceWhenDue(t *testing.T) {
	s, c := newService(t), newTicks()
	s.let("alice:secret", `{}`)
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Minute, Stale: time.Hour, Now: c.now})
	mustAdmit(t, h, "alice", "secret")
	c.advance(time.Minute)
	due := h.answers.checks.due(c.now())
	if due == nil || h.answers.find(due.d, "alice", "secret", true) == nil {
		t.Fatal("nothing is due")
	}
	if _, ok := h.answers.review(due, true, c.now()); !ok {
		t.Fatal("not asked for again")
	}
	if again := h.answers.takeDue(); len(again) != 0 {
		t.Error("asked for twice")
	}
}
