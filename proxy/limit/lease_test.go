package limit

import (
	"errors"
	"testing"
)

func TestLeaseOfTheCallersOwn(t *testing.T) {
	m := NewMemory()
	var l Lease
	l.Release() // holds nothing
	for range 3 {
		if err := m.AcquireNow(&l, "alice", Caps{MaxConns: 1}); err != nil {
			t.Fatal(err)
		}
		var other Lease
		var over *ExceededError
		if err := m.AcquireNow(&other, "alice", Caps{MaxConns: 1}); !errors.As(err, &over) {
			t.Fatalf("got %v, want a refusal", err)
		}
		other.Release()
		if n := m.InUse("alice"); n != 1 {
			t.Fatalf("%d in use, want 1", n)
		}
		l.Release()
		l.Release()
		if n := m.InUse("alice"); n != 0 {
			t.Fatalf("%d in use after the release, want 0", n)
		}
	}
}

func TestLeaseMoves(t *testing.T) {
	m := NewMemory()
	var from, to Lease
	if err := m.AcquireNow(&from, "alice", Caps{}); err != nil {
		t.Fatal(err)
	}
	from.MoveTo(&to)
	from.Release()
	if n := m.InUse("alice"); n != 1 {
		t.Fatalf("%d in use after the old owner's release, want 1", n)
	}
	from.MoveTo(&to) // has nothing any more
	var nobody *Lease
	nobody.MoveTo(&to)
	to.Release()
	to.Release()
	if n := m.InUse("alice"); n != 0 {
		t.Errorf("%d in use after the new owner's release, want 0", n)
	}
}
