package account

import (
	"context"
	"errors"
	"testing"
)

// Until the source has answered once nobody can say that a name is none of its accounts.
// What the relay has itself is served all the while.
func TestSourceNeverRead(t *testing.T) {
	tests := []struct {
		name     string
		list     []*Account
		starting bool
	}{
		{"no other accounts", nil, true},
		{"others from the environment", []*Account{plain("bob", "x")}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			source := newFakeSource()
			source.set("alice", 1)
			source.fail(errors.New("no answer"))
			watchFed(t, source, StoreConfig{List: test.list}, func(w *watched) {
				if w.Starting() != test.starting {
					t.Errorf("starting is %t", w.Starting())
				}
				if _, known, err := w.Known("alice", "x"); known || err != nil {
					t.Errorf("alice at once: known %t, %v", known, err)
				}
				if _, err := w.Authenticate(context.Background(), "alice", "x"); !errors.Is(err, ErrBusy) {
					t.Errorf("alice: %v", err)
				}
				for _, a := range test.list {
					if _, err := w.Authenticate(context.Background(), a.Name, "x"); err != nil {
						t.Errorf("%s: %v", a.Name, err)
					}
					if _, err := w.Authenticate(context.Background(), a.Name, "y"); !errors.Is(err, ErrRefused) {
						t.Errorf("%s with a wrong password: %v", a.Name, err)
					}
				}
				w.wantOne() // of the trouble
				source.fail(nil)
				w.wantOne()
				if w.Starting() {
					t.Error("starting with alice's account read")
				}
				if _, err := w.Authenticate(context.Background(), "nobody", "x"); !errors.Is(err, ErrRefused) {
					t.Errorf("nobody: %v", err)
				}
				source.fail(errors.New("no answer"))
				w.wantOne() // what was read holds
				if _, err := w.Authenticate(context.Background(), "nobody", "x"); !errors.Is(err, ErrRefused) {
					t.Errorf("nobody when the source is lost: %v", err)
				}
			})
		})
	}
}
