package soak

import (
	"strings"
	"testing"
)

// TestVendorLogins: the login of a tunnel with a number is right in one way only.
func TestVendorLogins(t *testing.T) {
	const session = "-sessid-abcdefgh01234567"
	none, country, both := spec{ID: 0}, spec{ID: 6}, spec{ID: 30}
	for _, tc := range []struct {
		s                            spec
		username, password, wantSess string
		good                         bool
	}{
		{none, vendorUser, vendorPassword, "", true},
		{country, vendorUser + "-cc-us", vendorPassword, "", true},
		{both, vendorUser + "-cc-de" + session, vendorPassword, "abcdefgh01234567", true},
		{none, vendorUser, "another", "", false},
		{none, vendorUser + "-cc-us", vendorPassword, "", false},
		{country, vendorUser, vendorPassword, "", false},
		{country, vendorUser + "-cc-de", vendorPassword, "", false},
		{country, vendorUser + "-cc-us" + session, vendorPassword, "", false},
		{both, vendorUser + "-cc-de", vendorPassword, "", false},
		{both, vendorUser + "-cc-de-sessid-" + both.session(), vendorPassword, "", false},
		{both, vendorUser + "-cc-de" + session + "-x", vendorPassword, "", false},
	} {
		got, bad := vendorLogin(tc.username, tc.password, tc.s)
		if got != tc.wantSess || (bad == "") != tc.good {
			t.Errorf("%d with %q: session %q, %q", tc.s.ID, tc.username, got, bad)
		}
	}
	for _, s := range []spec{none, country, both, {ID: 32}, {ID: 35}} {
		if name := s.username("a"); strings.Count(name, "-") != 2*strings.Count(name, "-country-")+2*strings.Count(name, "-session-")+2*strings.Count(name, "-pool-") {
			t.Errorf("%d is asked for by %q", s.ID, name)
		}
	}
}

// TestWishVerdicts: a session that changes, one that two customers share, and a vendor of another pool are found.
func TestWishVerdicts(t *testing.T) {
	entryOf := func(id uint64, account, vendor, session string) *entry {
		return &entry{spec: spec{ID: id}, customer: &report{Account: account}, vendors: []report{{Side: vendor, Session: session}}}
	}
	l := newLedger()
	for _, tc := range []struct {
		e    *entry
		want string // "" = nothing is wrong
	}{
		{entryOf(18, "alice", steadyVendor, "one"), ""},
		{entryOf(24, "alice", killedVendor, "one"), ""},
		{entryOf(54, "alice", steadyVendor, "two"), ""},
		{entryOf(18, "bob", steadyVendor, "three"), ""},
		{entryOf(18, "alice", steadyVendor, "four"), "was one"},
		{entryOf(54, "bob", steadyVendor, "two"), "is that of"},
	} {
		if got := l.sessionLocked(tc.e); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%d of %s: %q, want %q", tc.e.spec.ID, tc.e.customer.Account, got, tc.want)
		}
	}
	for id, pools := range map[uint64]map[string]bool{
		0: {steadyVendor: true, killedVendor: true}, 2: {socksVendor: true}, 5: {secureVendor: true},
	} {
		for _, vendor := range []string{steadyVendor, killedVendor, socksVendor, secureVendor} {
			if why := entryOf(id, "alice", vendor, "").misplaced(); (why == "") != pools[vendor] {
				t.Errorf("%d at %s: %q", id, vendor, why)
			}
		}
	}
}
