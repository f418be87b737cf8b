package account

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestExpired(t *testing.T) {
	at := time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name    string
		expires time.Time
		now     time.Time
		want    bool
	}{
		{"never", time.Time{}, at, false},
		{"before", at, at.Add(-1), false},
		{"at", at, at, true},
		{"after", at, at.Add(1), true},
		{"other zone", at.In(time.FixedZone("", 3600)), at, true},
	}
	for _, tt := range tests {
		a := &Account{Expires: tt.expires}
		if got := a.Expired(tt.now); got != tt.want {
			t.Errorf("%s: Expired is %v", tt.name, got)
		}
	}
}

func TestAllowsFrom(t *testing.T) {
	nets := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("fe80::/10")}
	tests := []struct {
		addr string
		want bool
	}{
		{"203.0.113.9", true}, {"::ffff:203.0.113.9", true}, {"203.0.114.1", false}, {"2001:db8::1", true},
		{"2001:db9::1", false}, {"fe80::1%eth0", true}, {"::203.0.113.9", false},
	}
	for _, tt := range tests {
		addr := netip.MustParseAddr(tt.addr)
		if got := (&Account{AllowFrom: nets}).AllowsFrom(addr); got != tt.want {
			t.Errorf("AllowsFrom(%s) is %v", tt.addr, got)
		}
		if !(&Account{}).AllowsFrom(addr) {
			t.Errorf("an account without networks refuses %s", tt.addr)
		}
	}
	if (&Account{AllowFrom: nets}).AllowsFrom(netip.Addr{}) {
		t.Error("the invalid address is allowed")
	}
}

func TestAccountsDoNotPrintPasswords(t *testing.T) {
	a := plain("alice", "hunter2")
	values := []any{a, *a, struct{ A *Account }{a}, struct{ a Account }{*a}, []*Account{a}, a.password, *a.password}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, value := range values {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, "hunter2") {
				t.Errorf("%s of %T prints %s", verb, value, text)
			}
		}
	}
}

func TestPlainPassword(t *testing.T) {
	if password, ok := plain("alice", "hunter2").PlainPassword(); !ok || password != "hunter2" {
		t.Errorf("of plain text: %q, %v", password, ok)
	}
	for _, a := range []*Account{hashed("alice"), {Name: "alice"}} {
		if password, ok := a.PlainPassword(); ok || password != "" {
			t.Errorf("of a hash, or none: %q, %v", password, ok)
		}
	}
}

func TestHash(t *testing.T) {
	for _, password := range []string{"", "a\nb", "\x00", strings.Repeat("x", 73)} {
		hash, err := Hash(password)
		if err == nil || hash != "" {
			t.Errorf("Hash(%q) is %q", password, hash)
		} else if password != "" && strings.Contains(err.Error(), password) {
			t.Errorf("the error quotes the password: %v", err)
		}
	}
	for _, password := range []string{"x", "pass word: é", strings.Repeat("x", 72)} {
		hash, err := Hash(password)
		if err != nil {
			t.Fatalf("Hash(%q): %v", password, err)
		}
		if !strings.HasPrefix(hash, "$2a$10$") {
			t.Errorf("Hash(%q) is %q, want cost 10", password, hash)
		}
		s, problem := newSecret(hash)
		if problem != "" || !s.bcrypt {
			t.Errorf("Hash(%q) is no password for the file: %s", password, problem)
		}
	}
}

func TestNewSecret(t *testing.T) {
	tests := []struct {
		name, text string
		bcrypt     bool
		problem    string
	}{
		{"plain", "secret", false, ""},
		{"colon and space", "a: b ", false, ""},
		{"other crypt", "$1$abc", false, ""},
		{"2a", cheapHash, true, ""},
		{"2b", "$2b" + cheapHash[3:], true, ""},
		{"2y", "$2y" + cheapHash[3:], true, ""},
		{"cost 15", "$2a$15" + cheapHash[6:], true, ""},
		{"cost 16", "$2a$16" + cheapHash[6:], false, "cost 16"},
		{"cost 3", "$2a$03" + cheapHash[6:], false, "is none"},
		{"cost 31", "$2a$31" + cheapHash[6:], false, "cost 31"},
		{"cost of letters", "$2a$xx" + cheapHash[6:], false, "is none"},
		{"short", cheapHash[:59], false, "is none"},
		{"long", cheapHash + "x", false, "is none"},
		{"foreign byte", cheapHash[:40] + "!" + cheapHash[41:], false, "is none"},
		{"prefix only", "$2a$", false, "is none"},
		{"empty", "", false, "empty"},
		{"control", "a\tb", false, "control"},
		{"longest", strings.Repeat("x", 1024), false, ""},
		{"too long", strings.Repeat("x", 1025), false, "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, problem := newSecret(tt.text)
			if (problem == "") != (tt.problem == "") || !strings.Contains(problem, tt.problem) {
				t.Fatalf("problem is %q, want %q", problem, tt.problem)
			}
			if (s == nil) != (problem != "") {
				t.Fatal("want either a secret or a problem")
			}
			if s != nil && (*s.text != tt.text || s.bcrypt != tt.bcrypt) {
				t.Errorf("bcrypt is %v, want %v", s.bcrypt, tt.bcrypt)
			}
		})
	}
}

// A Store compares passwords: an account without one is never taken up.
func TestSnapshotWantsPasswords(t *testing.T) {
	s := newStore(t, StoreConfig{})
	_, err := s.newSnapshot([]*Account{plain("alice", "x"), {Name: "bob"}}, nil)
	wantError(t, err, `"bob" has no password`)
}
