package account

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrRefused means an unknown name or a wrong password: the caller cannot
	// tell which, and neither can the customer. It is a 407.
	ErrRefused = errors.New("account: refused")
	// ErrBusy means that the credentials were not verified, because too many
	// verifications wait, because the context ended, because a hook could not be
	// asked or understood, or because the [Source] that may have the account has
	// never answered. It is a 503, and the same credentials may be tried again.
	ErrBusy = errors.New("account: too busy to verify")
)

// Authenticate returns the account of name if password is its password. name is
// without parameters; see [SplitUsername]. The account may be disabled or
// expired, or barred from the customer's address: that is for the caller to
// look at, and is no reason for a 407.
//
// The error is [ErrRefused], or wraps [ErrBusy] and, if that was the reason,
// ctx's. An unknown name costs what a known one costs. A password is
// compared with a bcrypt hash once: the right one is remembered until it
// changes, wrong ones (some 64,000 of them) until the next reload. A comparison
// waits for a worker as long as ctx lets it, and once begun it is not
// interrupted.
func (s *Store) Authenticate(ctx context.Context, name, password string) (*Account, error) {
	if s.unheardOf(name) {
		return nil, fmt.Errorf("%w: the accounts in %s have not been read yet", ErrBusy, s.feed.source.Name())
	}
	q, r, verdict := s.look(name, password)
	if verdict == unverified {
		ok, err := s.flights.do(ctx, flightKey{q.snap, q.d}, func() (bool, bool) { return s.verify(q), true })
		if err != nil {
			return nil, err
		}
		if ok && q.known {
			verdict = right
		}
	}
	if verdict != right {
		return nil, ErrRefused
	}
	return r.Account, nil
}

// unheardOf reports that nobody can say yet whether there is an account of that name.
func (s *Store) unheardOf(name string) bool {
	return s.unread.Load() && s.current.Load().byName[name] == nil
}

// Known is Authenticate for callers that must not wait. known is false if only
// Authenticate can tell, by a bcrypt comparison or an error. The error is ErrRefused.
func (s *Store) Known(name, password string) (a *Account, known bool, err error) {
	if s.unheardOf(name) {
		return nil, false, nil
	}
	_, r, verdict := s.look(name, password)
	switch verdict {
	case unverified:
		return nil, false, nil
	case right:
		return r.Account, true, nil
	default:
		return nil, true, ErrRefused
	}
}

// verdict is what is known of a name and a password.
type verdict int

const (
	wrong      verdict = iota
	right              // the name is known and the password its own
	unverified         // nobody has compared them yet
)

// look finds the record whose verifier judges name and password, and what can be
// said without a bcrypt comparison.
func (s *Store) look(name, password string) (question, *record, verdict) {
	snap := s.current.Load()
	d := s.digest(name, password)
	r, decoy := snap.byName[name], snap.decoy(s.seed, name)
	known := r != nil
	if !known {
		r = decoy
	}
	if r == nil {
		return question{}, nil, wrong
	}
	// An unknown name's digest is never the one that its decoy's verifier knows.
	ok := r.verifier.knows(&d)
	if !ok && r.verifier.hash != nil && !snap.wrong.has(d) {
		return question{snap, r.verifier, d, password, known}, r, unverified
	}
	if ok && known {
		return question{}, r, right
	}
	return question{}, r, wrong
}

// question is whether a password is that of a verifier's hash.
type question struct {
	snap     *snapshot
	verifier *verifier
	d        digest
	password string
	known    bool // the name is one of the snapshot's
}

// verify compares the password with the hash and remembers the outcome. For an
// unknown name that is always that it was wrong.
func (s *Store) verify(q question) bool {
	// A flight may have landed between the caller's look and its own take-off.
	if q.verifier.knows(&q.d) {
		return true
	}
	if q.snap.wrong.has(q.d) {
		return false
	}
	if s.compare(q.verifier.hash, []byte(q.password)) == nil && q.known {
		q.verifier.known.Store(&q.d)
		return true
	}
	q.snap.wrong.add(q.d)
	return false
}
