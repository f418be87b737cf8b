package proxy

import (
	"sync"
	"sync/atomic"

	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/usage"
)

// maxIdentities bounds the identities that are shared of customers who have no account,
// maxAccountIdentities those of accounts, of which a hook may know any number; beyond it
// all are forgotten, and those that are still in use live on where they are used.
const (
	maxIdentities        = 16 << 10
	maxAccountIdentities = 256 << 10
)

// maxSharedLabel is the longest label under which an identity is shared, in bytes: a
// passthrough's login that nobody has checked may be 4 KB long, and there may be many.
const maxSharedLabel = 512

// identity is who a customer is and what caps he has. All exchanges of one customer
// share it, so that a tunnel holds a pointer and not the customer's strings. Safe for
// concurrent use.
type identity struct {
	name          string // for the log and metrics; empty in open mode
	key           string // of caps, tunnels and pooled connections
	authorization string // passthrough: the customer's own, for the gateway
	caps          limit.Caps
	account       *account.Account // that the caps were taken from; nil = none
	counted       atomic.Pointer[usage.Counter]
}

// nobody is the identity of exchanges that were refused before anybody was known.
var nobody = &identity{}

// usage returns the counter of the customer's bytes. Of a passthrough's it must not be
// asked for before bytes move: by then a vendor has accepted the login.
func (w *identity) usage(m *usage.Meter) *usage.Counter {
	if u := w.counted.Load(); u != nil {
		return u
	}
	u := m.Of(w.key)
	w.counted.Store(u)
	return u
}

// weight is the customer's among those who want the slots of a full relay.
func (w *identity) weight() int {
	if w.account == nil {
		return 1
	}
	return max(w.account.Weight, 1)
}

// identities are the identities that exchanges share: by account name, or, where there
// are no accounts, by the passthrough's login or the client's address. The zero value
// is ready. Safe for concurrent use.
type identities struct {
	mu    sync.RWMutex // guards known
	known map[string]*identity
}

// of returns the identity that is known by label, if its caps were taken from a.
func (s *identities) of(label string, a *account.Account) *identity {
	s.mu.RLock()
	who := s.known[label]
	s.mu.RUnlock()
	if who == nil || who.account != a {
		return nil
	}
	return who
}

// ofHeader is of for a passthrough's header, which is looked up without a copy of it.
func (s *identities) ofHeader(header []byte) *identity {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.known[string(header)]
}

// keep makes who known by label, in the place of another, unless the label is too long,
// and returns it.
func (s *identities) keep(label string, who *identity) *identity {
	if who.account == nil && len(label) > maxSharedLabel {
		return who
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	most := maxIdentities
	if who.account != nil {
		most = maxAccountIdentities
	}
	if s.known == nil || len(s.known) >= most && s.known[label] == nil {
		s.known = make(map[string]*identity)
	}
	s.known[label] = who
	return who
}

// forget drops all: accounts have changed.
func (s *identities) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = nil
}
