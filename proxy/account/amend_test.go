package account

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAmendedIsAsMadeAnew: whatever is put and taken, in whatever order, the snapshot is
// the one that the same accounts would have given at once.
func TestAmendedIsAsMadeAnew(t *testing.T) {
	s := newStore(t, StoreConfig{})
	random := rand.New(rand.NewPCG(1, 2))
	is := map[string]*Account{}
	snap, err := s.newSnapshot(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for round := range 300 {
		var put []*record
		var gone, names []string
		for range random.IntN(6) {
			name := fmt.Sprintf("a%d", random.IntN(40))
			if slices.Contains(names, name) {
				continue
			}
			names = append(names, name)
			if random.IntN(3) == 0 {
				gone = append(gone, name)
				delete(is, name)
				continue
			}
			a := hashed(name)
			a.MaxConns = random.IntN(3)
			if random.IntN(2) == 0 {
				a.Expires = base.Add(time.Duration(random.IntN(20)) * time.Hour)
			}
			is[name] = a
			put = append(put, &record{Account: a, verifier: s.verifierOf(a, snap)})
		}
		old, before := snap, len(snap.list)
		snap = snap.amended(put, gone)
		checkSnapshot(t, snap, is)
		if len(old.list) != before {
			t.Fatalf("round %d: the old snapshot was changed", round)
		}
		whole, part := old.changeTo(snap, base), old.changeOf(snap, names, base)
		if fmt.Sprint(whole) != fmt.Sprint(part) {
			t.Fatalf("round %d: the change is %+v, by its names %+v", round, whole, part)
		}
	}
}

// checkSnapshot checks that snap is of these accounts.
func checkSnapshot(t *testing.T, snap *snapshot, want map[string]*Account) {
	t.Helper()
	if len(snap.byName) != len(want) || len(snap.list) != len(want) {
		t.Fatalf("%d by name and %d in the list, want %d", len(snap.byName), len(snap.list), len(want))
	}
	expiring := 0
	for _, r := range snap.list {
		if want[r.Name] != r.Account || snap.byName[r.Name] != r {
			t.Fatalf("%s is not as it was put", r.Name)
		}
		if !r.Expires.IsZero() {
			expiring++
		}
	}
	if len(snap.expiring) != expiring || !slices.IsSortedFunc(snap.expiring, byExpiry) {
		t.Fatalf("%d of %d expire, in order: %v", len(snap.expiring), expiring, slices.IsSortedFunc(snap.expiring, byExpiry))
	}
	for _, r := range snap.expiring {
		if snap.byName[r.Name] != r {
			t.Fatalf("%s expires and is not there", r.Name)
		}
	}
}

// BenchmarkOneChange is what one changed account costs a Store of many.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("accounts=%d", n), func(b *testing.B) {
			source := newFakeSource()
			for i := range n {
				source.set(fmt.Sprintf("a%06d", i), 1)
			}
			s, err := NewStore(StoreConfig{Source: source})
			if err != nil || s.Len() != n {
				b.Fatal(s.Len(), err)
			}
			changes := 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				source.set(fmt.Sprintf("a%06d", i%n), i+2)
				s.fetch(b.Context(), func(c Change, _ error) { changes += c.Modified })
			}
			if changes == 0 {
				b.Error("nothing changed")
			}
		})
	}
}

// BenchmarkWholeSource is what a start costs.
func BenchmarkWholeSource(b *testing.B) {
	source := newFakeSource()
	for i := range 10_000 {
		source.set(fmt.Sprintf("a%06d", i), 1)
	}
	b.ReportAllocs()
	for b.Loop() {
		if s, err := NewStore(StoreConfig{Source: source}); err != nil || s.Len() != 10_000 {
			b.Fatal(err)
		}
	}
}

func TestJoinByNameIsBounded(t *testing.T) {
	errs := map[string]error{}
	for i := range maxProblems + 50 {
		name := fmt.Sprintf("a%04d", i)
		errs[name] = fmt.Errorf("%s is bad", name)
	}
	lines := strings.Split(joinByName(errs).Error(), "\n")
	if len(lines) != maxProblems+1 || lines[0] != "a0000 is bad" || lines[maxProblems] != "account: and 50 more" {
		t.Errorf("%d lines, from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}
}
