package fleet_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
)

// ear keeps what it hears.
type ear struct {
	mu    sync.Mutex
	heard []string
}

func (e *ear) hear(body string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, body)
}

func (e *ear) has(body string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.heard, body)
}

// reaches publishes until the ear has heard: a subscription that is being made hears nothing yet.
func (r *relay) reaches(t *testing.T, kind, body string, ears ...*ear) {
	t.Helper()
	lab.Wait(t, patience, "message "+body, func() bool {
		if err := r.Publish(roomy(t), kind, body); err != nil {
			t.Log(err)
		}
		return !slices.ContainsFunc(ears, func(e *ear) bool { return !e.has(body) })
	})
}

func listening(t *testing.T, url, kind string) (*relay, *ear) {
	t.Helper()
	e := &ear{}
	r := open(t, fleet.Config{URL: url}, func(r *relay) { r.Subscribe(kind, e.hear) })
	r.told(t, true)
	return r, e
}

func TestMessagesReachEveryRelay(t *testing.T) {
	server := lab.StartRedis(t)
	a, earA := listening(t, server.URL(), "close")
	_, earB := listening(t, server.URL(), "close")
	_, deaf := listening(t, server.URL(), "accounts")
	body := strings.Repeat("ü\x00", 1000)
	a.reaches(t, "close", body, earA, earB)
	if deaf.has(body) {
		t.Error("a message reached those who listen to another kind")
	}
}

func TestMessagesOfOneRelayKeepTheirOrder(t *testing.T) {
	r, e := listening(t, lab.StartRedis(t).URL(), "close")
	r.reaches(t, "close", "first", e)
	for _, body := range []string{"1", "2", "3"} {
		if err := r.Publish(roomy(t), "close", body); err != nil {
			t.Fatal(err)
		}
	}
	lab.Wait(t, patience, "the last message", func() bool { return e.has("3") })
	e.mu.Lock()
	defer e.mu.Unlock()
	if got := e.heard[len(e.heard)-3:]; !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Errorf("heard %q", got)
	}
}

func TestMessagesAfterARestart(t *testing.T) {
	server := lab.StartRedis(t)
	r, e := listening(t, server.URL(), "close")
	r.reaches(t, "close", "before", e)
	server.Kill(t)
	r.told(t, false)
	server.Restart(t)
	r.told(t, true)
	r.reaches(t, "close", "after", e)
}

// Redis ends a subscriber that reads too slowly: what was said meanwhile is lost, although Redis never was.
func TestBrokenSubscriptionIsMadeAnewAndTold(t *testing.T) {
	server := lab.StartRedis(t)
	r, e := listening(t, server.URL(), "close")
	r.reaches(t, "close", "before", e)
	before := r.returned.Load()
	server.Do(t, "CLIENT", "KILL", "TYPE", "pubsub")
	r.returns(t, before)
	r.reaches(t, "close", "after", e)
}

// A subscription lives on through silence that is longer than its patience.
func TestSilentSubscriptionIsKept(t *testing.T) {
	server := lab.StartRedis(t)
	r, e := listening(t, server.URL(), "close")
	r.reaches(t, "close", "before", e)
	subscriber := func() string {
		return server.Do(t, "CLIENT", "LIST", "TYPE", "pubsub")[0]
	}
	id, _, _ := strings.Cut(subscriber(), " ")
	lab.Wait(t, patience, "a sign of life", func() bool { return strings.Contains(subscriber(), "cmd=ping") })
	r.reaches(t, "close", "after", e)
	if now, _, _ := strings.Cut(subscriber(), " "); now != id || r.returned.Load() != 0 {
		t.Errorf("subscriber %s became %s, told %d times", id, now, r.returned.Load())
	}
}

func TestPublishRefuses(t *testing.T) {
	r := start(t, lab.StartRedis(t).URL())
	for _, tc := range []struct{ kind, body string }{{"", "x"}, {"Close", "x"}, {"a b", "x"}, {"close", strings.Repeat("x", 64<<10+1)}} {
		if r.Publish(t.Context(), tc.kind, tc.body) == nil {
			t.Errorf("%q with %d bytes was taken", tc.kind, len(tc.body))
		}
	}
	if err := r.Publish(roomy(t), "close", strings.Repeat("x", 64<<10)); err != nil {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a subscription to no kind was taken")
		}
	}()
	r.Subscribe("no kind", func(string) {})
}

func TestWarnings(t *testing.T) {
	good, evicts := lab.StartRedis(t), lab.StartRedis(t, "--maxmemory-policy", "allkeys-lru")
	good.AddUser(t, "nobus", "hunter2", "~*", "resetchannels", "+@all")
	evicts.AddUser(t, "noinfo", "hunter2", "~*", "&*", "+@all", "-info")
	cases := []struct {
		name, url, want string
	}{
		{"nothing", good.URL(), ""},
		{"throws keys away", evicts.URL(), "noeviction"},
		{"not to be asked", evicts.UserURL("noinfo", "hunter2"), ""},
		{"no channels", good.UserURL("nobus", "hunter2"), "no messages from the other relays: the Redis user lacks a permission"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := listening(t, tc.url, "close")
			if tc.want != "" {
				lab.Wait(t, patience, "a warning", func() bool { return len(r.Warnings(roomy(t))) > 0 })
			}
			got := strings.Join(r.Warnings(roomy(t)), "\n")
			if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("warnings %q, want %q", got, tc.want)
			}
		})
	}
}

// Whatever Run does when ctx ends, it ends.
func TestRunEndsWhileRedisIsFrozen(t *testing.T) {
	server := lab.StartRedis(t)
	r, e := listening(t, server.URL(), "close")
	r.reaches(t, "close", "before", e)
	server.Freeze(t)
	ended := make(chan struct{})
	go func() { r.stop(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("Run goes on")
		server.Thaw(t)
		<-ended
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if r.Publish(ctx, "close", "x") == nil {
		t.Error("a frozen server took a message")
	}
	server.Thaw(t)
}
