package proxy

import (
	"sync"
	"sync/atomic"

	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
)

// maxIdentities bounds the identities that are shared of customers who have no account
// (there are no more of the others than accounts); beyond it all are forgotten, and
// those that are still in use live on where they are used.
const maxIdentities = 16 << 10

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
	counted       atomic.Pointer[usage]
}

// nobody is the identity of exchanges that were refused before anybody was known.
var nobody = &identity{}

// usage returns the counters of the customer's bytes. It must not be asked for before
// bytes move: by then a vendor has accepted a passthrough's login.
func (w *identity) usage(m *metrics) *usage {
	if u := w.counted.Load(); u != nil {
		return u
	}
	u := m.usageOf(w.name)
	w.counted.Store(u)
	return u
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
	if s.known == nil || who.account == nil && len(s.known) >= maxIdentities {
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
