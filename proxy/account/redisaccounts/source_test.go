package redisaccounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/account"
)

func TestRelaysServeWhatIsInRedis(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	fill(t, s, 3)
	w, _ := relay(t, server, account.StoreConfig{})
	if w.Len() != 3 || !w.serves("a00001", 2) {
		t.Fatalf("%d accounts at the start", w.Len())
	}
	if a, err := w.Authenticate(t.Context(), "a00001", "x"); err != nil || a.Name != "a00001" {
		t.Errorf("authenticate: %v", err)
	}
	version := mustPut(t, s, "a00001", 50)
	eventually(t, "the change", func() bool { return w.serves("a00001", 50) })
	if origin, ok := w.Origin("a00001"); !ok || origin != (account.Origin{Source: "redis", Version: version}) {
		t.Errorf("origin is %+v", origin)
	}
	mustPut(t, s, "zoe", 1)
	eventually(t, "the new one", func() bool { return w.serves("zoe", 1) })
	if err := s.Delete(t.Context(), "a00000", AnyVersion); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of a deleted one", func() bool {
		_, ok := w.Lookup("a00000")
		return !ok
	})
	eventually(t, "its connections to be ended", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.changes, func(c account.Change) bool {
			return c.Removed == 1 && slices.Equal(c.Ended, []string{"a00000"})
		})
	})
	if _, err := w.Status(); err != nil || len(w.wrong()) > 0 {
		t.Errorf("trouble: %v %v", err, w.wrong())
	}
}

// Without a message relays look by themselves.
func TestRelaysLookWithoutBeingTold(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	w, _ := relay(t, server, account.StoreConfig{})
	if _, err := s.write(t.Context(), []write{{"alice", record("alice", 5), AnyVersion}}, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "alice", func() bool { return w.serves("alice", 5) })
}

// With a message nobody waits for the next look.
func TestMessageIsActedOnAtOnce(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	client := opened(t, server)
	src := Source(New(client), client)
	done := make(chan struct{})
	ctx, stop := contextOf(t)
	go func() { defer close(done); client.Run(ctx) }()
	defer func() { stop(); <-done }()
	deadline := time.After(20 * time.Second)
	for n := 1; ; n++ { // the subscription takes its time
		mustPut(t, s, "alice", n)
		select {
		case <-src.Nudges():
			return
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatal("no nudge")
		}
	}
}

func TestStartWithoutRedis(t *testing.T) {
	t.Parallel()
	server := lab.StartRedis(t)
	server.Kill(t)
	list, err := account.ParseList("bob:secret:7")
	if err != nil {
		t.Fatal(err)
	}
	w, _ := relay(t, server, account.StoreConfig{List: list})
	if !w.serves("bob", 7) || w.Len() != 1 {
		t.Fatal("the list is not served")
	}
	eventually(t, "the trouble to be told", func() bool { return len(w.wrong()) > 0 })
	if text := w.wrong()[0]; !strings.Contains(text, "accounts in redis: ") {
		t.Errorf("told %q", text)
	}
	server.Restart(t)
	mustPut(t, New(opened(t, server)), "alice", 5)
	eventually(t, "alice", func() bool { return w.serves("alice", 5) && w.serves("bob", 7) })
	if _, err := w.Status(); err != nil {
		t.Errorf("still in trouble: %v", err)
	}
	if n := len(w.wrong()); n != 1 {
		t.Errorf("told %d times: %v", n, w.wrong())
	}
}

// Redis may go and come back empty: the relays keep what they have, nobody can take a new
// account for all there are, and an import is the truth again.
func TestRedisLosesEverything(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	fill(t, s, 20)
	w, api := relay(t, server, account.StoreConfig{})
	if _, err := api.Put(t.Context(), "zoe", record("zoe", 1), MustNotExist); err != nil {
		t.Fatal(err)
	}
	eventually(t, "zoe", func() bool { return w.serves("zoe", 1) })
	server.Kill(t)
	eventually(t, "the loss to be told", func() bool { return len(w.wrong()) > 0 })
	server.Restart(t)
	if _, err := api.Put(t.Context(), "late", record("late", 1), MustNotExist); !errors.Is(err, ErrLost) {
		t.Errorf("a write into the empty Redis: %v", err)
	}
	eventually(t, "the relay to see it is empty", func() bool {
		_, err := w.Status()
		return errors.Is(err, ErrLost)
	})
	if w.Len() != 21 {
		t.Fatalf("%d of 21 accounts are left", w.Len())
	}
	a, err := account.ParseJSON("zoe", record("zoe", 2))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, _, err := Import(t.Context(), New(opened(t, server)), []*account.Account{a}, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new truth", func() bool { return w.Len() == 1 && w.serves("zoe", 2) })
	if _, err := api.Put(t.Context(), "late", record("late", 1), MustNotExist); err != nil {
		t.Errorf("a write after the import: %v", err)
	}
}

func TestBadRecordIsAloneInIt(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	fill(t, s, 3)
	w, _ := relay(t, server, account.StoreConfig{})
	tests := []struct{ name, data, want string }{
		{"a00000", `nonsense`, "not valid JSON"},
		{"a00001", `{"name":"a00001","password":"plain sesame"}`, "must be a hash"},
		{"a00002", `{"name":"a00001","password":"` + testHash + `"}`, "is that of another account"},
		{"new", `{"name":"new"}`, "password: is missing"},
	}
	for _, tt := range tests {
		if _, err := s.Put(t.Context(), tt.name, []byte(tt.data), AnyVersion); err != nil {
			t.Fatal(err)
		}
		eventually(t, tt.name+" to be told", func() bool {
			return slices.ContainsFunc(w.wrong(), func(text string) bool {
				return strings.Contains(text, `account "`+tt.name+`" in redis refused: `) && strings.Contains(text, tt.want)
			})
		})
	}
	told := len(w.wrong())
	for i := range 3 {
		if name := fmt.Sprintf("a%05d", i); !w.serves(name, i+1) {
			t.Errorf("%s is not as it was", name)
		}
	}
	if _, ok := w.Lookup("new"); ok {
		t.Error("the new one is served")
	}
	if _, err := w.Status(); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("status: %v", err)
	}
	mustPut(t, s, "good", 1) // the rest lives on
	eventually(t, "a good one", func() bool { return w.serves("good", 1) })
	for _, tt := range tests[:3] {
		mustPut(t, s, tt.name, 77)
	}
	if err := s.Delete(t.Context(), "new", AnyVersion); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cure", func() bool {
		_, err := w.Status()
		return err == nil && w.serves("a00000", 77) && w.serves("a00001", 77) && w.serves("a00002", 77)
	})
	if again := len(w.wrong()); again != told {
		t.Errorf("told again: %v", w.wrong()[told:])
	}
}

// The file goes before Redis, whichever came first.
func TestNameInFileAndRedis(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	mustPut(t, s, "alice", 1)
	path := filepath.Join(t.TempDir(), "accounts.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("accounts:\n- {name: bob, password: p, max_conns: 8}\n")
	w, _ := relay(t, server, account.StoreConfig{File: path})
	if !w.serves("alice", 1) || !w.serves("bob", 8) {
		t.Fatal("not both at the start")
	}
	told := func(n int, text string) {
		t.Helper()
		eventually(t, text, func() bool { return len(w.wrong()) == n && strings.Contains(w.wrong()[n-1], text) })
	}
	mustPut(t, s, "bob", 9)
	told(1, `account "bob" in redis refused: the name is also in the accounts file`)
	mustPut(t, s, "bob", 10)
	told(2, `account "bob" in redis refused: the name is also in the accounts file`)
	if !w.serves("bob", 8) {
		t.Error("Redis has changed the file's account")
	}
	write("accounts:\n- {name: bob, password: p, max_conns: 8}\n- {name: alice, password: p, max_conns: 3}\n")
	told(3, `account "alice" in redis refused`)
	if !w.serves("alice", 3) {
		t.Error("the file's alice is not served")
	}
	if origin, _ := w.Origin("alice"); origin.Source != account.FromFile {
		t.Errorf("alice is from %s", origin.Source)
	}
	write("accounts: []\n")
	eventually(t, "Redis's own", func() bool { return w.serves("alice", 1) && w.serves("bob", 10) })
	if _, err := w.Status(); err != nil {
		t.Errorf("status: %v", err)
	}
	if err := s.Delete(t.Context(), "alice", AnyVersion); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only bob", func() bool { return w.Len() == 1 && w.serves("bob", 10) })
}

// What another relay wrote while this one was cut off is there when it returns.
func TestFrozenRedis(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	fill(t, s, 10)
	w, _ := relay(t, server, account.StoreConfig{})
	server.Freeze(t)
	eventually(t, "the trouble to be told", func() bool { return len(w.wrong()) == 1 })
	if w.Len() != 10 {
		t.Errorf("%d accounts are left", w.Len())
	}
	server.Thaw(t)
	eventually(t, "a write", func() bool {
		_, err := s.Put(t.Context(), "alice", record("alice", 5), AnyVersion)
		return err == nil
	})
	eventually(t, "alice", func() bool { return w.serves("alice", 5) && w.Len() == 11 })
}

// Half an import is not the whole.
func TestImportIsSeenWhenItIsDone(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	w, _ := relay(t, server, account.StoreConfig{})
	if _, err := s.write(t.Context(), []write{{"alice", record("alice", 1), MustNotExist}}, true); err != nil {
		t.Fatal(err)
	}
	client := opened(t, server)
	src := Source(New(client), client)
	if u, err := src.Fetch(t.Context(), ""); !errors.Is(err, errUnfinished) {
		t.Fatalf("%+v, %v", u, err)
	}
	a, err := account.ParseJSON("alice", record("alice", 1))
	if err != nil {
		t.Fatal(err)
	}
	_, _, unchanged, _, err := Import(t.Context(), s, []*account.Account{a}, false) // what broke off goes on
	if err != nil || unchanged != 1 {
		t.Fatalf("%d unchanged, %v", unchanged, err)
	}
	eventually(t, "alice", func() bool { return w.serves("alice", 1) })
}

// A key that is gone is not the deletion of all accounts.
func TestRedisLosesAPart(t *testing.T) {
	t.Parallel()
	for i, key := range []string{"data", "versions", "meta"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			s, server := stored(t)
			fill(t, s, 20)
			w, api := relay(t, server, account.StoreConfig{})
			server.Do(t, "DEL", s.keys[i])
			eventually(t, "the loss to be told", func() bool { return len(w.wrong()) > 0 })
			if _, err := api.Put(t.Context(), "zoe", record("zoe", 1), AnyVersion); err == nil {
				t.Error("a write was taken")
			}
			if w.Len() != 20 {
				t.Errorf("%d of 20 accounts are left", w.Len())
			}
			late, _ := relay(t, server, account.StoreConfig{})
			if _, err := late.Status(); err == nil {
				t.Error("a relay that starts says nothing")
			}
			server.Do(t, append([]string{"DEL"}, s.keys...)...)
			if got := imported(t, New(opened(t, server)), "accounts:\n- {name: zoe, password: "+testHash+", max_conns: 3}\n", false); got.added != 1 {
				t.Errorf("imported %+v", got)
			}
			eventually(t, "the new truth", func() bool {
				return w.Len() == 1 && w.serves("zoe", 3) && late.Len() == 1 && late.serves("zoe", 3)
			})
		})
	}
}

func TestFetchRefusesAForeignMark(t *testing.T) {
	t.Parallel()
	_, server := stored(t)
	client := opened(t, server)
	if _, err := Source(New(client), client).Fetch(t.Context(), "nonsense"); err == nil {
		t.Error("taken")
	}
}

// Ten thousand accounts are there at the start, and one change is one account's work.
func TestManyAccounts(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	fill(t, s, 10_000)
	w, _ := relay(t, server, account.StoreConfig{})
	if w.Len() != 10_000 {
		t.Fatalf("%d accounts", w.Len())
	}
	mustPut(t, s, "a05000", 12345)
	eventually(t, "the change", func() bool { return w.serves("a05000", 12345) })
	client := opened(t, server)
	u, err := Source(New(client), client).Fetch(t.Context(), markOf(t, s, w, "a05000"))
	if err != nil || u.Whole || len(u.Records) != 1 {
		t.Errorf("a look after one change brings %d records, %v", len(u.Records), err)
	}
}

// markOf is that of a reader who knows all but the last write, which was name's.
func markOf(t *testing.T, s *Store, w *watched, name string) string {
	t.Helper()
	c, err := s.changes(t.Context(), point{})
	if err != nil {
		t.Fatal(err)
	}
	origin, _ := w.Origin(name)
	return fmt.Sprintf("%d:%d", c.at.first, origin.Version-1)
}
