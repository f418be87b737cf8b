package account

import (
	"net/netip"
	"slices"
	"time"
)

// What [Account.QuotaPeriod] may be.
const (
	// Lifetime is one period without an end.
	Lifetime = "lifetime"
	// Monthly is a calendar month, in UTC.
	Monthly = "monthly"
)

// MaxWeight is the largest [Account.Weight].
const MaxWeight = 1000

// Account is one customer. It is immutable: the Store shares it between all
// connections, and nobody may change it or its slices.
type Account struct {
	// Name keys everything about the customer; see [CheckName].
	Name string
	// MaxConns is the cap on simultaneous connections, 0 for the relay's default.
	MaxConns int
	// ConnRate is the cap on new connections per second, 0 for the relay's default.
	ConnRate float64
	// ConnBurst is how many connections may be opened at once after a quiet
	// time, 0 for the relay's default.
	ConnBurst int
	// Bandwidth is the cap on bytes per second, each way and over all of the
	// customer's connections together, 0 for the relay's default.
	Bandwidth int64
	// Quota is how many bytes the customer may move in a period, both ways
	// together, 0 for the relay's default.
	Quota int64
	// QuotaPeriod is [Lifetime] or [Monthly], or empty for the relay's default.
	QuotaPeriod string
	// MaxIPs is the cap on distinct addresses that the customer connects from
	// within a window, 0 for the relay's default.
	MaxIPs int
	// Weight is the account's share of a full relay beside the others' weights,
	// up to [MaxWeight]; 0 is 1.
	Weight int
	// Expires is the moment from which the account is no longer served; the
	// zero time is never.
	Expires time.Time
	// AllowFrom are the networks that the customer may connect from, in
	// canonical form; empty is any.
	AllowFrom []netip.Prefix
	// Pool is the pool of gateways that serves the customer, empty for the one of the
	// listener that he comes through; see [CheckPool]. Another one is for what he opens
	// from then on.
	Pool string
	// Pools are those that he may choose by the username parameter pool, each once; empty
	// is none but the one that serves him anyway.
	Pools []string
	// Disabled reports whether the operator has switched the account off.
	Disabled bool

	password *secret // nil for one that a hook or an API told without
}

// String returns the name.
func (a *Account) String() string { return a.Name }

// HasPassword reports whether the account has a password of its own to be
// checked against, as all of a Store's have. A [Hook]'s have none.
func (a *Account) HasPassword() bool { return a.password != nil }

// PlainPassword returns the account's password, and reports whether it is known as
// plain text: of a hash nobody knows it. It is a secret, for the eyes of whoever hands it
// to the customer.
func (a *Account) PlainPassword() (password string, ok bool) {
	if a.password == nil || a.password.bcrypt {
		return "", false
	}
	return *a.password.text, true
}

// Expired reports whether the account is no longer served at now.
func (a *Account) Expired(now time.Time) bool {
	return !a.Expires.IsZero() && !now.Before(a.Expires)
}

// AllowsFrom reports whether the customer may connect from addr. An IPv4 address
// in IPv6 form is taken as IPv4, and a zone is ignored; the invalid address is
// allowed only where every address is.
func (a *Account) AllowsFrom(addr netip.Addr) bool {
	if len(a.AllowFrom) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(a.AllowFrom, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// equal reports whether a and b are the same in every respect.
func (a *Account) equal(b *Account) bool { return a.sameTerms(b) && a.password.equal(b.password) }

// sameTerms reports whether a and b differ in their passwords at the most.
func (a *Account) sameTerms(b *Account) bool {
	return a.Name == b.Name && a.MaxConns == b.MaxConns && a.ConnRate == b.ConnRate &&
		a.ConnBurst == b.ConnBurst && a.Bandwidth == b.Bandwidth && a.Quota == b.Quota && a.QuotaPeriod == b.QuotaPeriod &&
		a.Weight == b.Weight && a.Expires.Equal(b.Expires) && a.Pool == b.Pool && slices.Equal(a.Pools, b.Pools) &&
		a.Disabled == b.Disabled && !a.narrowed(b)
}

// narrowed reports whether other addresses may connect under b than under a.
func (a *Account) narrowed(b *Account) bool {
	return a.MaxIPs != b.MaxIPs || !slices.Equal(a.AllowFrom, b.AllowFrom)
}
