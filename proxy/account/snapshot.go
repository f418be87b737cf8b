package account

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"
)

// verifier checks the password of one account. It lives as long as the name
// keeps its password, over any number of reloads.
type verifier struct {
	// known is the digest of name and password: of a plain password from the
	// start, of a bcrypt hash once that has been verified.
	known atomic.Pointer[digest]
	// hash is the bcrypt hash, nil for a plain password.
	hash []byte
}

// knows reports, in constant time, whether d is the digest of the right password.
func (v *verifier) knows(d *digest) bool {
	known := v.known.Load()
	return known != nil && subtle.ConstantTimeCompare(known[:], d[:]) == 1
}

// record is an account in a snapshot.
type record struct {
	*Account
	verifier *verifier
	origin   Origin
}

// snapshot is the state of a Store at one time. It is immutable but for its
// caches, which have their own synchronisation.
type snapshot struct {
	byName map[string]*record
	list   []*record // in the order of the sources
	// expiring are the records that expire some time, the first to do so first.
	expiring []*record
	// wrong remembers wrong passwords of bcrypt accounts.
	wrong *digestSet
}

// newSnapshot makes the snapshot of accounts, with the verifiers of old (which
// may be nil) where a name keeps its password.
func (s *Store) newSnapshot(accounts []*Account, old *snapshot) (*snapshot, error) {
	snap := &snapshot{
		byName: make(map[string]*record, len(accounts)),
		list:   make([]*record, 0, len(accounts)),
		wrong:  newDigestSet(),
	}
	records := make([]record, len(accounts))
	for i, a := range accounts {
		if !a.HasPassword() {
			return nil, fmt.Errorf("account: %q has no password", a.Name)
		}
		if snap.byName[a.Name] != nil {
			return nil, fmt.Errorf("account: %q is both in the accounts file and in the list", a.Name)
		}
		r := &records[i]
		r.Account = a
		r.verifier = s.verifierOf(a, old)
		snap.byName[a.Name] = r
		snap.list = append(snap.list, r)
		if !a.Expires.IsZero() {
			snap.expiring = append(snap.expiring, r)
		}
	}
	slices.SortFunc(snap.expiring, byExpiry)
	return snap, nil
}

// byExpiry is the order of snapshot.expiring.
func byExpiry(a, b *record) int {
	return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.Name, b.Name))
}

func (s *Store) verifierOf(a *Account, old *snapshot) *verifier {
	if old != nil {
		if r := old.byName[a.Name]; r != nil && r.password.equal(a.password) {
			return r.verifier
		}
	}
	v := &verifier{}
	if a.password.bcrypt {
		v.hash = []byte(*a.password.text)
		return v
	}
	d := s.digest(a.Name, *a.password.text)
	v.known.Store(&d)
	return v
}

// decoy returns the record whose work an unknown name is charged, the same one
// for each try, or nil if there are no accounts. Every record is as likely, so
// unknown names are the mix of plain and bcrypt that known ones are.
func (snap *snapshot) decoy(seed maphash.Seed, name string) *record {
	if len(snap.list) == 0 {
		return nil
	}
	return snap.list[maphash.String(seed, name)%uint64(len(snap.list))]
}

// expiredBetween returns the records that expired after from and not after to.
func (snap *snapshot) expiredBetween(from, to time.Time) []*record {
	after := func(t time.Time) int {
		i, _ := slices.BinarySearchFunc(snap.expiring, t, func(r *record, t time.Time) int {
			if r.Expires.After(t) {
				return 1
			}
			return -1
		})
		return i
	}
	first, last := after(from), after(to)
	return snap.expiring[first:max(first, last)]
}

// Change is what a reload did.
type Change struct {
	// Added, Removed and Modified count accounts.
	Added, Removed, Modified int
	// Ended are the names, sorted, whose open connections must end now: of
	// accounts that were removed, and of changed ones that are disabled or
	// expired or have another password.
	Ended []string
	// Narrowed are the names, sorted, of accounts that go on but whose networks
	// or number of addresses changed: those of their connections must end that
	// would not be let in now. It has none of Ended.
	Narrowed []string
}

// changeTo compares snap with next, as of now.
func (snap *snapshot) changeTo(next *snapshot, now time.Time) Change {
	var c Change
	for _, r := range next.list {
		c.note(snap.byName[r.Name], r, now)
	}
	for _, r := range snap.list {
		if next.byName[r.Name] == nil {
			c.note(r, nil, now)
		}
	}
	c.sort()
	return c
}

// note adds what became of one account; nil is none.
func (c *Change) note(was, is *record, now time.Time) {
	switch {
	case was == nil && is == nil:
	case was == nil:
		c.Added++
	case is == nil:
		c.Removed++
		c.Ended = append(c.Ended, was.Name)
	case !is.equal(was.Account):
		c.Modified++
		switch {
		case is.Disabled || is.Expired(now) || is.verifier != was.verifier:
			c.Ended = append(c.Ended, is.Name)
		case was.narrowed(is.Account):
			c.Narrowed = append(c.Narrowed, is.Name)
		}
	}
}

func (c *Change) sort() {
	slices.Sort(c.Ended)
	slices.Sort(c.Narrowed)
}
