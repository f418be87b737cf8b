package redisaccounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/proxy/account"
)

func TestPutGetDelete(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	ctx := t.Context()
	if _, err := s.Get(ctx, "alice"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("get of nobody: %v", err)
	}
	first, err := s.Put(ctx, "alice", record("alice", 1), MustNotExist)
	if err != nil || first <= 1 {
		t.Fatalf("put: %d, %v", first, err)
	}
	got, err := s.Get(ctx, "alice")
	if err != nil || got.Name != "alice" || got.Version != first || string(got.Data) != string(record("alice", 1)) {
		t.Fatalf("get: %+v, %v", got, err)
	}
	second, err := s.Put(ctx, "alice", record("alice", 2), first)
	if err != nil || second <= first {
		t.Fatalf("put over version %d: %d, %v", first, second, err)
	}
	if again := mustPut(t, s, "alice", 2); again != second {
		t.Errorf("the same record has version %d, then %d", second, again)
	}
	if err := s.Delete(ctx, "alice", second); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "alice"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("get of a deleted one: %v", err)
	}
	third, err := s.Put(ctx, "alice", record("alice", 1), MustNotExist)
	if err != nil || third <= second {
		t.Fatalf("put after a deletion: %d, %v", third, err)
	}
}

func TestWritesWantTheirVersion(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	version := mustPut(t, s, "alice", 1)
	put := func(name string, ifVersion int64) error {
		_, err := s.Put(t.Context(), name, record(name, 9), ifVersion)
		return err
	}
	remove := func(name string, ifVersion int64) error { return s.Delete(t.Context(), name, ifVersion) }
	tests := []struct {
		name      string
		do        func(string, int64) error
		account   string
		ifVersion int64
		want      error
	}{
		{"create over one", put, "alice", MustNotExist, ErrConflict},
		{"change with an old version", put, "alice", version - 1, ErrConflict},
		{"change with a version to come", put, "alice", version + 1, ErrConflict},
		{"change of nobody", put, "bob", version, ErrNotFound},
		{"delete with an old version", remove, "alice", version - 1, ErrConflict},
		{"delete of nobody", remove, "bob", AnyVersion, ErrNotFound},
		{"delete of nobody's version", remove, "bob", version, ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(tt.account, tt.ifVersion); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if e, err := s.Get(t.Context(), "alice"); err != nil || e.Version != version {
		t.Errorf("alice is %+v, %v", e, err)
	}
}

func TestPutRefusesWhatIsNoRecord(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	for name, data := range map[string]string{
		"bad name": "{}", "country": "{}", "": "{}", "alice": "", "bob": strings.Repeat("x", MaxData+1),
	} {
		if _, err := s.Put(t.Context(), name, []byte(data), AnyVersion); err == nil {
			t.Errorf("%q with %d bytes was taken", name, len(data))
		}
	}
	if _, _, _, err := s.Since(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// Of writers who read before they write none undoes another's work.
func TestNoUpdateIsLost(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	mustPut(t, s, "alice", 1)
	const writers, each = 8, 25
	var conflicts atomic.Int64
	var running sync.WaitGroup
	for range writers {
		other := New(opened(t, server))
		running.Go(func() {
			for done := 0; done < each; {
				e, err := other.Get(t.Context(), "alice")
				if err != nil {
					t.Error(err)
					return
				}
				a, err := account.ParseJSON("alice", e.Data)
				if err != nil {
					t.Error(err)
					return
				}
				switch _, err = other.Put(t.Context(), "alice", record("alice", a.MaxConns+1), e.Version); {
				case err == nil:
					done++
				case errors.Is(err, ErrConflict):
					conflicts.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	e, err := s.Get(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.Itoa(1 + writers*each); !strings.Contains(string(e.Data), `"max_conns":`+want) {
		t.Errorf("after %d changes: %s", writers*each, e.Data)
	}
	if conflicts.Load() == 0 {
		t.Log("there was no conflict: the writers never met")
	}
}

// One writer of many creates; the others learn it.
func TestOneCreates(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	var created, refused atomic.Int64
	var running sync.WaitGroup
	for i := range 16 {
		running.Go(func() {
			switch _, err := s.Put(t.Context(), "alice", record("alice", i+1), MustNotExist); {
			case err == nil:
				created.Add(1)
			case errors.Is(err, ErrConflict):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	running.Wait()
	if created.Load() != 1 || refused.Load() != 15 {
		t.Errorf("%d created, %d refused", created.Load(), refused.Load())
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	fill(t, s, 1234)
	for i := range 600 { // more than a page of deleted ones in a row
		if err := s.Delete(t.Context(), fmt.Sprintf("a%05d", i), AnyVersion); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{1, 7, 500, 5000} {
		var names []string
		pages := 0
		for cursor := ""; ; {
			entries, next, err := s.List(t.Context(), cursor, n)
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) > n || next != "" && len(entries) == 0 {
				t.Fatalf("a page of %d has %d, next %q", n, len(entries), next)
			}
			for _, e := range entries {
				names = append(names, e.Name)
			}
			pages++
			if cursor = next; cursor == "" || n == 1 && pages == 50 {
				break
			}
		}
		slices.Sort(names)
		if len(slices.Compact(names)) != len(names) || n > 1 && (len(names) != 634 || names[0] != "a00600") {
			t.Errorf("pages of %d: %d names", n, len(names))
		}
	}
	for _, cursor := range []string{"x", "-1", "1.5"} {
		if _, _, err := s.List(t.Context(), cursor, 10); err == nil {
			t.Errorf("cursor %q was taken", cursor)
		}
	}
}

// A page is bounded by its bytes, too, and a record that fills one comes all the same.
func TestListOfLargeRecords(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	large := []byte(`{"x":"` + strings.Repeat("x", MaxData-20) + `"}`)
	for i := range 40 {
		if _, err := s.Put(t.Context(), fmt.Sprintf("a%d", i), large, MustNotExist); err != nil {
			t.Fatal(err)
		}
	}
	entries, next, err := s.List(t.Context(), "", 500)
	if err != nil || next == "" || len(entries) > pageBytes/len(large)+1 {
		t.Fatalf("%d entries, next %q, %v", len(entries), next, err)
	}
	all, _, _, err := s.Since(t.Context(), 0)
	if err != nil || len(all) != 40 {
		t.Fatalf("%d of 40, %v", len(all), err)
	}
}

func TestSince(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	fill(t, s, 1200)
	all, at, whole, err := s.Since(t.Context(), 0)
	if err != nil || len(all) != 1200 || !whole {
		t.Fatalf("%d entries, whole %v, %v", len(all), whole, err)
	}
	if none, same, whole, err := s.Since(t.Context(), at); err != nil || len(none) != 0 || same != at || whole {
		t.Fatalf("nothing happened: %d entries, to %d from %d, whole %v, %v", len(none), same, at, whole, err)
	}
	mustPut(t, s, "a00007", 99)
	mustPut(t, s, "b", 1)
	if err := s.Delete(t.Context(), "a00008", AnyVersion); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "a00007", 100)
	some, to, whole, err := s.Since(t.Context(), at)
	if err != nil || whole || to <= at {
		t.Fatalf("to %d, whole %v, %v", to, whole, err)
	}
	var told []string
	for _, e := range some {
		told = append(told, e.Name+" "+strconv.FormatBool(e.Data != nil))
	}
	if got := strings.Join(told, ", "); got != "b true, a00008 false, a00007 true" {
		t.Errorf("told %s", got)
	}
	if some, _, whole, err = s.Since(t.Context(), to+1); err != nil || !whole || len(some) < 1200 {
		t.Errorf("from a version to come: %d entries, whole %v, %v", len(some), whole, err)
	}
}

// Whoever was away while deletions were forgotten gets everything.
func TestDeletionsAreForgotten(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	mustPut(t, s, "alice", 1)
	mustPut(t, s, "bob", 1)
	_, at, _, err := s.Since(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "bob", AnyVersion); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-keepGone - time.Minute).UnixMilli()
	server.Do(t, "ZADD", s.keys[3], strconv.FormatInt(old, 10), "bob")
	mustPut(t, s, "alice", 2)
	entries, to, whole, err := s.Since(t.Context(), at)
	if err != nil || !whole || len(entries) != 1 || entries[0].Name != "alice" {
		t.Fatalf("%+v, whole %v, %v", entries, whole, err)
	}
	if left := server.Do(t, "ZRANGE", s.keys[1], "0", "-1"); fmt.Sprint(left) != "[alice]" {
		t.Errorf("versions are left of %v", left)
	}
	mustPut(t, s, "carl", 1)
	if entries, _, whole, err = s.Since(t.Context(), to); err != nil || whole || len(entries) != 1 {
		t.Errorf("then %+v, whole %v, %v", entries, whole, err)
	}
}

// A reader sees all accounts that stay, whatever writers do while it reads page by page.
func TestReadersAmongWriters(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	fill(t, s, 2000)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	other := New(opened(t, server))
	running.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprintf("a%05d", i%2000)
			if i%2000 >= 1000 { // of the later half each is deleted and put back
				_ = other.Delete(ctx, name, AnyVersion)
			}
			_, _ = other.Put(ctx, name, record(name, i%7+1), AnyVersion)
		}
	})
	for range 20 {
		entries, _, whole, err := s.Since(t.Context(), 0)
		if err != nil || !whole {
			t.Errorf("whole %v, %v", whole, err)
			break
		}
		names := map[string]bool{}
		for _, e := range entries {
			if names[e.Name] {
				t.Errorf("%s comes twice", e.Name)
			}
			names[e.Name] = e.Data != nil
		}
		missing := 0
		for i := range 2000 {
			if !names[fmt.Sprintf("a%05d", i)] {
				missing++
			}
		}
		if missing > 1 { // the one that is deleted now
			t.Errorf("%d accounts are missing", missing)
		}
	}
	stop()
	running.Wait()
}

// However fast accounts are written, and whatever Redis forgets, no version comes twice: a
// reader would take another record for the one that it knows.
func TestVersionsAreNewAfterALoss(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	fill(t, s, 2000)
	_, last, _, err := s.Since(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	server.Do(t, "FLUSHALL")
	if version := mustPut(t, s, "alice", 1); version <= last {
		t.Errorf("version %d comes after %d", version, last)
	}
}

// What somebody wrote by hand, without a version, can be read, changed and deleted.
func TestRecordsByHand(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	server.Do(t, "HSET", s.keys[0], "alice", "nonsense", "bob", "more")
	e, err := s.Get(t.Context(), "alice")
	if err != nil || string(e.Data) != "nonsense" || e.Version != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := s.Put(t.Context(), "alice", record("alice", 1), e.Version); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "bob", AnyVersion); err != nil {
		t.Error(err)
	}
}

// Without an answer every call ends, and says so.
func TestSilentRedis(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	mustPut(t, s, "alice", 1)
	server.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.Put(ctx, "alice", record("alice", 2), AnyVersion); err == nil || errors.Is(err, ErrConflict) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Get(ctx, "alice"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	server.Thaw(t)
	eventually(t, "Redis answers again", func() bool {
		_, err := s.Get(t.Context(), "alice")
		return err == nil
	})
}

// A write whose answer was lost is made again without undoing or repeating anything.
func TestRepeatedWriteIsOne(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	data := record("alice", 1)
	version, err := s.Put(t.Context(), "alice", data, MustNotExist)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer, err := put.Run(ctx, s.redis, s.keys, "1", "", keepGone.Milliseconds(), maxGone, maxAccounts, 0,
		"alice", MustNotExist, string(data), "bob", AnyVersion, "").Slice()
	if err != nil || fmt.Sprint(answer) != fmt.Sprintf("[same %d same 0]", version) {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	mustPut(t, s, "alice", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer, err := put.Run(ctx, s.redis, s.keys, "", "", 1000, 10, 2, 0,
		"bob", "0", "x", "carl", "0", "x", "alice", "-1", "y", "alice", "-1", "", "dora", "0", "x").Slice()
	if err != nil {
		t.Fatal(err)
	}
	var verdicts []string
	for i := 0; i < len(answer); i += 2 {
		verdicts = append(verdicts, fmt.Sprint(answer[i]))
	}
	if got := strings.Join(verdicts, " "); got != "done full done done done" {
		t.Errorf("verdicts are %s", got)
	}
}
