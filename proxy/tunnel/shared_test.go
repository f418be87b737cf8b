package tunnel

import (
	"testing"
	"time"
)

// Either direction has a rate of its own, and tells its own demand.
func TestSharedDirections(t *testing.T) {
	s := NewShared(1000)
	s.Set(1000, 0)
	if sent, received := s.Rates(); sent != 1000 || received != 0 {
		t.Fatalf("the rates are %d and %d", sent, received)
	}
	if owed := s.Owe(false, 1<<30); owed != 0 {
		t.Errorf("a direction without a limit owes %v", owed)
	}
	if owed := s.Owe(true, minQuantum+500); owed < 300*time.Millisecond || owed > 500*time.Millisecond {
		t.Errorf("half a second's bytes beyond the burst owe %v", owed)
	}
	sent, received := s.Demand()
	if sent.Moved != minQuantum+500 || !sent.Starved || sent.Owed < 250*time.Millisecond || sent.Owed > 500*time.Millisecond {
		t.Errorf("sent %+v", sent)
	}
	if received != (Demand{}) {
		t.Errorf("received %+v without a limit", received)
	}
	if sent, _ = s.Demand(); sent.Moved != 0 || !sent.Starved {
		t.Errorf("%+v while a debt is paid off", sent)
	}
	s.Set(1<<40, 1<<40)
	if sent, _ = s.Demand(); sent.Starved {
		t.Error("starved with nothing owed")
	}
}

// What is left of a debt follows the rate, and later debts do not lengthen it.
func TestSharedDebtsFollowTheRate(t *testing.T) {
	const second = 1 << 20
	s := NewShared(second)
	now := time.Now()
	s.take(upward, second/4, now) // more than the burst
	first, place := s.take(upward, second, now)
	s.take(upward, 8*second, now)
	near := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want-20*time.Millisecond || got > want+20*time.Millisecond {
			t.Errorf("%s: %v, want about %v", what, got, want)
		}
	}
	near("at once", s.left(upward, place, now), first)
	near("half a second later", s.left(upward, place, now.Add(first/2)), first-first/2)
	s.Set(4*second, second)
	near("four times the rate", s.left(upward, place, now), first/4)
	s.Set(second/2, second)
	near("half the rate", s.left(upward, place, now), 2*first)
	near("paid off", s.left(upward, place, now.Add(3*first)), 0)
	s.Set(0, 0)
	near("no limit", s.left(upward, place, now), 0)
}
