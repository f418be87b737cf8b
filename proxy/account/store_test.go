package account

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// clock is a time that tests move.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

// write replaces the file at path by renaming, as careful writers do.
func write(t *testing.T, path, text string) {
	t.Helper()
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

func yamlOf(accounts ...string) string {
	if len(accounts) == 0 {
		return "accounts: []\n"
	}
	return "accounts:\n- {" + strings.Join(accounts, "}\n- {") + "}\n"
}

func newStore(t *testing.T, config StoreConfig) *Store {
	t.Helper()
	s, err := NewStore(config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fileStore returns a Store of a file with that text, and the file's path.
func fileStore(t *testing.T, text string, now func() time.Time) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "accounts.yaml")
	write(t, path, text)
	return newStore(t, StoreConfig{File: path, Now: now}), path
}

func mustAuthenticate(t *testing.T, s *Store, name, password string) *Account {
	t.Helper()
	a, err := s.Authenticate(t.Context(), name, password)
	if err != nil || a == nil || a.Name != name {
		t.Fatalf("Authenticate(%q) is %v, %v", name, a, err)
	}
	return a
}

func mustRefuse(t *testing.T, s *Store, name, password string) {
	t.Helper()
	if a, err := s.Authenticate(t.Context(), name, password); !errors.Is(err, ErrRefused) || a != nil {
		t.Fatalf("Authenticate(%q) is %v, %v, want ErrRefused", name, a, err)
	}
}

func TestStoreSources(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accounts.yaml")
	write(t, path, yamlOf("name: alice, password: secret", "name: bob, password: "+cheapHash))
	carol := plain("carol", "x:y z")
	s := newStore(t, StoreConfig{File: path, List: []*Account{carol}})
	if s.Len() != 3 {
		t.Errorf("Len is %d", s.Len())
	}
	mustAuthenticate(t, s, "alice", "secret")
	mustAuthenticate(t, s, "bob", "hunter2")
	if a := mustAuthenticate(t, s, "carol", "x:y z"); a != carol {
		t.Error("carol is a copy")
	}
	for _, wrong := range [][2]string{
		{"alice", "Secret"}, {"alice", ""}, {"alice", "secret\x00"}, {"bob", "hunter3"}, {"bob", cheapHash},
		{"Alice", "secret"}, {"dave", "secret"}, {"", ""}, {"alice\x00secret", ""},
	} {
		mustRefuse(t, s, wrong[0], wrong[1])
	}
	var names []string
	s.Range(func(a *Account) bool {
		names = append(names, a.Name)
		return len(names) < 2
	})
	if !slices.Equal(names, []string{"alice", "bob"}) {
		t.Errorf("Range gave %v before it was stopped", names)
	}
	if a, ok := s.Lookup("bob"); !ok || a.Name != "bob" {
		t.Errorf("Lookup(bob) is %v, %v", a, ok)
	}
	if a, ok := s.Lookup("dave"); ok || a != nil {
		t.Errorf("Lookup(dave) is %v, %v", a, ok)
	}
}

func TestStoreErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "accounts.yaml")
	write(t, path, yamlOf("name: alice, password: secret"))
	tests := []struct {
		name   string
		config StoreConfig
		want   string
	}{
		{"in both", StoreConfig{File: path, List: []*Account{plain("alice", "x")}}, `"alice" is both`},
		{"missing", StoreConfig{File: dir + "/none"}, dir + "/none: no such file"},
		{"a directory", StoreConfig{File: dir}, dir + ": not a regular file"},
		{"a device", StoreConfig{File: "/dev/zero"}, "/dev/zero: not a regular file"},
		{"nil", StoreConfig{List: []*Account{nil}}, "not parsed"},
		{"made by hand", StoreConfig{List: []*Account{{Name: "x"}}}, "not parsed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewStore(tt.config)
			if s != nil {
				t.Error("a Store came with the error")
			}
			wantError(t, err, tt.want)
		})
	}
	if _, err := NewStore(StoreConfig{File: dir + "/none"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error %v hides that the file does not exist", err)
	}
}

func TestEmptyStoreRefuses(t *testing.T) {
	mustRefuse(t, newStore(t, StoreConfig{}), "alice", "secret")
}

func TestReload(t *testing.T) {
	const alice, bob = "name: alice, password: secret", "name: bob, password: x"
	tests := []struct {
		name        string
		before, now []string
		want        Change
	}{
		{"nothing", []string{alice, bob}, []string{alice, bob}, Change{}},
		{"order", []string{alice, bob}, []string{bob, alice}, Change{}},
		{"added", []string{alice}, []string{alice, bob}, Change{Added: 1}},
		{"removed", []string{alice, bob}, []string{alice}, Change{Removed: 1, Ended: []string{"bob"}}},
		{"all removed", []string{bob, alice}, nil, Change{Removed: 2, Ended: []string{"alice", "bob"}}},
		{"caps", []string{alice}, []string{alice + ", max_conns: 5"}, Change{Modified: 1}},
		{"rate", []string{alice}, []string{alice + ", conn_rate: 5"}, Change{Modified: 1}},
		{"burst", []string{alice}, []string{alice + ", conn_burst: 5"}, Change{Modified: 1}},
		{"bandwidth", []string{alice}, []string{alice + ", bandwidth: 10MB"}, Change{Modified: 1}},
		{"networks", []string{alice}, []string{alice + ", allow_from: ['::/0']"}, Change{Modified: 1, Narrowed: []string{"alice"}}},
		{"fewer networks", []string{bob, alice + ", allow_from: [192.0.2.1, 192.0.2.2]"}, []string{bob, alice + ", allow_from: [192.0.2.1]"}, Change{Modified: 1, Narrowed: []string{"alice"}}},
		{"addresses", []string{bob, alice}, []string{bob + ", max_ips: 2", alice + ", max_ips: 1"}, Change{Modified: 2, Narrowed: []string{"alice", "bob"}}},
		{"networks of a disabled one", []string{alice}, []string{alice + ", disabled: true, allow_from: ['::/0']"}, Change{Modified: 1, Ended: []string{"alice"}}},
		{"quota", []string{alice}, []string{alice + ", quota: 50GB"}, Change{Modified: 1}},
		{"quota's period", []string{alice + ", quota: 50GB"}, []string{alice + ", quota: 50GB, quota_period: monthly"}, Change{Modified: 1}},
		{"weight", []string{alice}, []string{alice + ", weight: 5"}, Change{Modified: 1}},
		{"disabled", []string{alice}, []string{alice + ", disabled: true"}, Change{Modified: 1, Ended: []string{"alice"}}},
		{"enabled", []string{alice + ", disabled: true"}, []string{alice}, Change{Modified: 1}},
		{"password", []string{alice}, []string{"name: alice, password: other"}, Change{Modified: 1, Ended: []string{"alice"}}},
		{"expires in the past", []string{alice}, []string{alice + ", expires: 2026-05-31T00:00:00Z"}, Change{Modified: 1, Ended: []string{"alice"}}},
		{"expires later", []string{alice}, []string{alice + ", expires: 2026-06-02T00:00:00Z"}, Change{Modified: 1}},
		{"both", []string{alice}, []string{bob}, Change{Added: 1, Removed: 1, Ended: []string{"alice"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, path := fileStore(t, yamlOf(tt.before...), newClock().now)
			write(t, path, yamlOf(tt.now...))
			change, err := s.Reload()
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(change) != fmt.Sprint(tt.want) {
				t.Errorf("Reload is %+v, want %+v", change, tt.want)
			}
			if s.Len() != len(tt.now) {
				t.Errorf("Len is %d, want %d", s.Len(), len(tt.now))
			}
		})
	}
}

func TestReloadIsWholeOrNotAtAll(t *testing.T) {
	c := newClock()
	s, path := fileStore(t, yamlOf("name: alice, password: secret"), c.now)
	started := c.now()
	c.advance(time.Hour)
	write(t, path, yamlOf("name: bob, password: x", "name: carol, password: ''"))
	change, err := s.Reload()
	wantError(t, err, path+":3:", "password: must not be empty")
	if change.Added+change.Removed+change.Modified+len(change.Ended) != 0 {
		t.Errorf("a failed reload tells a change: %+v", change)
	}
	mustAuthenticate(t, s, "alice", "secret")
	mustRefuse(t, s, "bob", "x")
	if loaded, lastErr := s.Status(); !loaded.Equal(started) || lastErr == nil || lastErr.Error() != err.Error() {
		t.Errorf("Status is %v, %v", loaded, lastErr)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reload(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Reload without the file: %v", err)
	}
	mustAuthenticate(t, s, "alice", "secret")
	write(t, path, yamlOf("name: bob, password: x"))
	if _, err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, s, "alice", "secret")
	mustAuthenticate(t, s, "bob", "x")
	if loaded, lastErr := s.Status(); !loaded.Equal(c.now()) || lastErr != nil {
		t.Errorf("Status is %v, %v", loaded, lastErr)
	}
}

func TestExpiredTellsEachNameOnce(t *testing.T) {
	c := newClock()
	at := func(d time.Duration) string { return ", expires: " + c.now().Add(d).Format(time.RFC3339) }
	const p = ", password: x"
	s, path := fileStore(t, yamlOf(
		"name: past"+p+at(-time.Hour), "name: b"+p+at(2*time.Minute), "name: a"+p+at(2*time.Minute),
		"name: first"+p+at(time.Minute), "name: late"+p+at(time.Hour), "name: never"+p), c.now)
	want := func(names ...string) {
		t.Helper()
		if got := s.Expired(); !slices.Equal(got, names) {
			t.Errorf("Expired is %v, want %v", got, names)
		}
	}
	want()
	c.advance(time.Minute)
	want("first")
	want()
	c.advance(-30 * time.Second) // a clock set back
	want()
	c.advance(30*time.Second + 2*time.Minute)
	want("a", "b")
	// Between two calls two more expire; the reload tells of one, because it
	// was changed as well.
	base := c.now()
	x, y := ", expires: "+base.Add(time.Minute).Format(time.RFC3339), ", expires: "+base.Add(2*time.Minute).Format(time.RFC3339)
	write(t, path, yamlOf("name: x"+p+x, "name: y"+p+x, "name: z"+p+y))
	if _, err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	want()
	c.advance(90 * time.Second)
	write(t, path, yamlOf("name: x"+p+x+", max_conns: 1", "name: y"+p+x, "name: z"+p+y))
	change, err := s.Reload()
	if err != nil || !slices.Equal(change.Ended, []string{"x"}) {
		t.Errorf("Reload is %+v, %v", change, err)
	}
	if _, err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	want("y")
	c.advance(time.Hour)
	want("z")
	want()
}

func TestExpiredAndDisabledStillAuthenticate(t *testing.T) {
	s, _ := fileStore(t, yamlOf("name: a, password: x, disabled: true", "name: b, password: x, expires: 2020-01-01T00:00:00Z"), nil)
	if a := mustAuthenticate(t, s, "a", "x"); !a.Disabled {
		t.Error("a is not disabled")
	}
	if b := mustAuthenticate(t, s, "b", "x"); !b.Expired(time.Now()) {
		t.Error("b is not expired")
	}
}

func TestReadersSeeWholeSnapshots(t *testing.T) {
	one := yamlOf("name: a, password: one", "name: b, password: one")
	two := yamlOf("name: a, password: two", "name: b, password: two")
	s, path := fileStore(t, one, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			write(t, path, []string{two, one}[i%2])
			if _, err := s.Reload(); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		_, one := s.Authenticate(t.Context(), "a", "one")
		if one != nil && !errors.Is(one, ErrRefused) {
			t.Fatal(one)
		}
		if n := s.Len(); n != 2 {
			t.Fatalf("Len is %d", n)
		}
		s.Expired()
		if _, err := s.Status(); err != nil {
			t.Fatal(err)
		}
	}
	mustAuthenticate(t, s, "b", "one")
}

func TestLoadingManyAccounts(t *testing.T) {
	const n = 100_000
	s, _ := fileStore(t, generate(n), nil)
	if s.Len() != n {
		t.Fatalf("Len is %d", s.Len())
	}
	mustAuthenticate(t, s, "customer99999", "secret-99999")
	mustRefuse(t, s, "customer99999", "secret-99998")
	change, err := s.Reload()
	if err != nil || change.Added+change.Removed+change.Modified != 0 {
		t.Errorf("Reload is %+v, %v", change, err)
	}
}
