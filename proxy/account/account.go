package account

import (
	"net/netip"
	"slices"
	"time"
)

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
	// Expires is the moment from which the account is no longer served; the
	// zero time is never.
	Expires time.Time
	// AllowFrom are the networks that the customer may connect from, in
	// canonical form; empty is any.
	AllowFrom []netip.Prefix
	// Disabled reports whether the operator has switched the account off.
	Disabled bool

	password *secret
}

// String returns the name.
func (a *Account) String() string { return a.Name }

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
func (a *Account) equal(b *Account) bool {
	return a.Name == b.Name && a.MaxConns == b.MaxConns && a.ConnRate == b.ConnRate &&
		a.ConnBurst == b.ConnBurst && a.Bandwidth == b.Bandwidth && a.Expires.Equal(b.Expires) && a.Disabled == b.Disabled &&
		slices.Equal(a.AllowFrom, b.AllowFrom) && a.password.equal(b.password)
}
