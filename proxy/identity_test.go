package proxy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/usage"
)

func TestIdentitiesAreShared(t *testing.T) {
	old, changed := &account.Account{Name: "alice"}, &account.Account{Name: "alice", MaxConns: 5}
	var s identities
	if s.of("alice", old) != nil {
		t.Error("known from the start")
	}
	first := s.keep("alice", &identity{name: "alice", account: old})
	if s.of("alice", old) != first {
		t.Error("not shared")
	}
	if s.of("alice", changed) != nil {
		t.Error("the caps of an account that has changed are still in use")
	}
	s.keep("alice", &identity{name: "alice", account: changed, caps: limit.Caps{MaxConns: 5}})
	if got := s.of("alice", changed); got == nil || got.caps.MaxConns != 5 || s.of("alice", old) != nil {
		t.Error("the new account is not known")
	}
	s.forget()
	if s.of("alice", changed) != nil {
		t.Error("known after all were forgotten")
	}
}

// Names that nobody has checked do not fill the memory, nor do those that a hook takes.
func TestIdentitiesAreBounded(t *testing.T) {
	var s identities
	for i := range 3 * maxIdentities {
		s.keep(fmt.Sprint(i), &identity{})
		if n := len(s.known); n > maxIdentities {
			t.Fatalf("%d are known", n)
		}
	}
	s.forget()
	a := &account.Account{}
	for i := range maxIdentities + 10 {
		s.keep(fmt.Sprint(i), &identity{account: a})
	}
	if n := len(s.known); n != maxIdentities+10 {
		t.Errorf("%d accounts are known, want all", n)
	}
	for i := range maxAccountIdentities {
		s.keep(fmt.Sprint(i), &identity{account: a})
	}
	if n := len(s.known); n != maxAccountIdentities {
		t.Errorf("%d accounts are known, want %d", n, maxAccountIdentities)
	}
	s.keep("7", &identity{account: a}) // in the place of another
	s.keep("one more", &identity{account: a})
	if n := len(s.known); n != 1 {
		t.Errorf("%d accounts are known after one too many", n)
	}
}

// All exchanges of a customer book on the same counters, also after a reload.
func TestUsageIsOnePerName(t *testing.T) {
	meter := usage.NewMeter()
	m := newMetrics(meter)
	before, after := &identity{key: "alice"}, &identity{key: "alice"}
	var moves sync.WaitGroup
	for _, who := range []*identity{before, after, before, after} {
		moves.Go(func() {
			for range 1000 {
				m.moved(who.usage(meter), true, 1)
			}
		})
	}
	moves.Wait()
	if n, _, _ := meter.Of("alice").Totals(); n != 4000 {
		t.Errorf("%d bytes booked, want 4000", n)
	}
}

// Logins that nobody has checked must not fill the memory: long ones are not shared.
func TestLongLabelsAreNotKept(t *testing.T) {
	var s identities
	for n, want := range map[int]bool{maxSharedLabel: true, maxSharedLabel + 1: false} {
		label := strings.Repeat("x", n)
		who := &identity{name: "somebody"}
		if s.keep(label, who) != who {
			t.Errorf("%d bytes: another identity", n)
		}
		if got := s.of(label, nil) == who; got != want {
			t.Errorf("%d bytes: shared %t, want %t", n, got, want)
		}
	}
}
