package vendor_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"maskrelay/upstream/vendor"
)

// sessionForms are what the vendors take for a session's id, exactly.
var sessionForms = map[string]string{
	"brightdata":   "[0-9a-z]{12}",
	"oxylabs":      "[0-9A-Za-z]{10}",
	"decodo":       "[0-9A-Za-z]{12}",
	"iproyal":      "[0-9A-Za-z]{8}",
	"soax":         "[0-9a-z]{12}",
	"netnut":       "[1-9][0-9]{4,8}",
	"webshare":     "[1-9][0-9]{6,9}",
	"packetstream": "[0-9a-z]{10}",
	"geonode":      "[0-9a-z]{12}",
	"dataimpulse":  "[0-9a-z]{12}",
	"evomi":        "[0-9A-Za-z]{10}",
	"massive":      "[0-9a-z]{16}",
	"nimble":       "[0-9a-z]{16}",
	"infatica":     "[0-9a-z]{10}",
}

// sessionOf is the session's id in the login of an account.
func sessionOf(t testing.TB, l *vendor.Logins, r reader, account string, p vendor.Params) string {
	t.Helper()
	got, err := r.read(l.Make(account, p))
	if err != nil {
		t.Fatal(err)
	}
	return got[r.session]
}

// TestSessions holds ten thousand accounts with the same session to ids of the vendor's form,
// the same on every relay, and no two the same where the vendor's ids are many enough.
func TestSessions(t *testing.T) {
	const accounts = 10_000
	for _, preset := range vendors(t) {
		form, known := sessionForms[preset.Name]
		if !known {
			continue // kept by port
		}
		t.Run(preset.Name, func(t *testing.T) {
			t.Parallel()
			exact := regexp.MustCompile("^" + form + "$")
			r := readers[preset.Name]
			config := vendor.LoginConfig{Preset: preset, Login: ownLogin, Password: ownPassword}
			one, other := newLogins(t, config), newLogins(t, config)
			params := vendor.Params{Country: "us", Session: "cart"}
			seen := make(map[string]int, accounts)
			twins := 0
			for i := range accounts {
				account := fmt.Sprintf("customer%d", i)
				id := sessionOf(t, one, r, account, params)
				if !exact.MatchString(id) {
					t.Fatalf("id %q", id)
				}
				if i%10 == 0 {
					if again := sessionOf(t, other, r, account, params); again != id {
						t.Fatalf("%s on another relay: %q, %q", account, id, again)
					}
				}
				if _, taken := seen[id]; taken {
					twins++
				}
				seen[id] = i
			}
			// A thousand million numbers hold ten thousand draws without a twin nineteen times in twenty.
			if numbers := strings.HasPrefix(form, "[1-9]"); twins > 1 || twins == 1 && !numbers {
				t.Errorf("%d accounts share an id with another", twins)
			}
		})
	}
}

// TestSessionsDifferBetweenAccountsAndNames has names that differ by little.
func TestSessionsDifferBetweenAccountsAndNames(t *testing.T) {
	for _, preset := range vendors(t) {
		if _, known := sessionForms[preset.Name]; !known {
			continue
		}
		t.Run(preset.Name, func(t *testing.T) {
			t.Parallel()
			r := readers[preset.Name]
			l := newLogins(t, vendor.LoginConfig{Preset: preset, Login: ownLogin, Password: ownPassword})
			for i := range 1000 {
				name := fmt.Sprintf("s%d", i)
				a := sessionOf(t, l, r, "alice", vendor.Params{Country: "us", Session: name})
				b := sessionOf(t, l, r, "bob", vendor.Params{Country: "us", Session: name})
				c := sessionOf(t, l, r, "alice", vendor.Params{Country: "us", Session: name + "_"})
				if a == b || a == c {
					t.Fatalf("%s: %q, %q, %q", name, a, b, c)
				}
			}
		})
	}
}

// TestSessionsMoveWithThePlace holds Evomi, whose sessions keep their first exit, to a new id for a new place, and others to the same.
func TestSessionsMoveWithThePlace(t *testing.T) {
	for name := range sessionForms {
		r := readers[name]
		l := newLogins(t, vendor.LoginConfig{Preset: load(t, name), Login: ownLogin, Password: ownPassword})
		us := sessionOf(t, l, r, "alice", vendor.Params{Country: "us", Session: "cart"})
		de := sessionOf(t, l, r, "alice", vendor.Params{Country: "de", Session: "cart"})
		if moved := us != de; moved != (name == "evomi") {
			t.Errorf("%s: %q and %q", name, us, de)
		}
	}
}

// TestSessionPorts holds the vendors that keep a session by port to their range, all of it.
func TestSessionPorts(t *testing.T) {
	for name, ports := range map[string]struct{ from, to uint16 }{"infatica": {10001, 10999}, "proxyempire": {9059, 9158}, "froxy": {9001, 9199}} {
		config := vendor.LoginConfig{Preset: load(t, name), Login: ownLogin, Password: ownPassword}
		one, other := newLogins(t, config), newLogins(t, config)
		hit := map[uint16]bool{}
		for i := range 20_000 {
			p := vendor.Params{Country: "us", Session: fmt.Sprintf("s%d", i)}
			port, ok := one.Port("alice", p)
			again, _ := other.Port("alice", p)
			if !ok || port != again || port < ports.from || port > ports.to {
				t.Fatalf("%s: port %d and %d, %v", name, port, again, ok)
			}
			hit[port] = true
		}
		if len(hit) != int(ports.to-ports.from)+1 {
			t.Errorf("%s: %d ports of %d are used", name, len(hit), ports.to-ports.from+1)
		}
		if _, ok := one.Port("alice", vendor.Params{Country: "us"}); ok {
			t.Errorf("%s: a port without a session", name)
		}
	}
	for name := range sessionForms {
		l := newLogins(t, vendor.LoginConfig{Preset: load(t, name), Login: ownLogin, Password: ownPassword})
		if _, ok := l.Port("alice", vendor.Params{Session: "a"}); ok != (name == "infatica") {
			t.Errorf("%s: a port for a session", name)
		}
	}
}
