package vendor

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// sessionLogins make {session} and nothing else.
func sessionLogins(t testing.TB, rule string, c LoginConfig) *Logins {
	t.Helper()
	c.Preset = preset(t, "username: \"{session}\"\npassword: \"{password}\"\nsession: "+rule+"\n")
	return logins(t, c)
}

func sessionID(l *Logins, account, session string) string {
	id, _ := l.Make(account, Params{Session: session})
	return id
}

func TestSessionCharsets(t *testing.T) {
	tests := []struct {
		rule, charset string
		length        int
	}{
		{"{charset: alnum, length: 8}", "alnum", 8},
		{"{charset: alnum, length: 1}", "alnum", 1},
		{"{charset: alnum, length: 64}", "alnum", 64},
		{"{charset: lower, length: 12}", "lower", 12},
		{"{charset: digits, length: 10}", "digits", 10},
		{"{charset: hex, length: 32}", "hex", 32},
		{"{charset: hex, length: 64}", "hex", 64},
	}
	for _, tt := range tests {
		l := sessionLogins(t, tt.rule, LoginConfig{Login: "acme", Password: "p"})
		charset := charsets[tt.charset]
		count := make(map[rune]int)
		const n = 4000
		for i := range n {
			id := sessionID(l, "alice", strconv.Itoa(i))
			if len(id) != tt.length {
				t.Fatalf("%s makes %q of %d characters", tt.rule, id, len(id))
			}
			if tt.length == 64 && id[:32] == id[32:] {
				t.Fatalf("%s makes %q, which repeats itself", tt.rule, id)
			}
			for _, c := range id {
				count[c]++
			}
		}
		if len(count) != len(charset) {
			t.Errorf("%s uses %d characters of %d", tt.rule, len(count), len(charset))
		}
		// Six standard deviations of a fair draw.
		mean := float64(n*tt.length) / float64(len(charset))
		for c, got := range count {
			if d := float64(got) - mean; d*d > 36*mean || !strings.ContainsRune(charset, c) {
				t.Errorf("%s: %q stands there %d times, want about %.0f", tt.rule, c, got, mean)
			}
		}
	}
}

func TestSessionNumbers(t *testing.T) {
	for _, r := range []struct{ min, max uint64 }{{10000, 999999999}, {1, 2}, {0, 9}, {7, 1e18}} {
		l := sessionLogins(t, fmt.Sprintf("{min: %d, max: %d}", r.min, r.max), LoginConfig{Login: "acme", Password: "p"})
		low, high := 0, 0
		for i := range 2000 {
			id := sessionID(l, "alice", strconv.Itoa(i))
			n, err := strconv.ParseUint(id, 10, 64)
			if err != nil || n < r.min || n > r.max || strconv.FormatUint(n, 10) != id {
				t.Fatalf("%v makes %q", r, id)
			}
			if n-r.min < (r.max-r.min+1)/2 {
				low++
			} else {
				high++
			}
		}
		if low < 850 || high < 850 {
			t.Errorf("%v: %d in the lower half, %d in the upper", r, low, high)
		}
	}
}

// The id depends on the operator's key, the account and the session, and on nothing that
// differs between relays.
func TestSessionIDs(t *testing.T) {
	const rule = "{charset: lower, length: 20}"
	acme := LoginConfig{Login: "acme", Password: "p"}
	base := sessionID(sessionLogins(t, rule, acme), "alice", "a1")
	if again := sessionID(sessionLogins(t, rule, acme), "alice", "a1"); again != base {
		t.Errorf("another relay makes %q, not %q", again, base)
	}
	keyed := LoginConfig{Login: "acme", Password: "p", SessionKey: []byte("k")}
	other := keyed
	other.Login, other.Password = "b", "q"
	if a, b := sessionID(sessionLogins(t, rule, keyed), "alice", "a1"), sessionID(sessionLogins(t, rule, other), "alice", "a1"); a != b || a == base {
		t.Errorf("a SESSION_KEY makes %q and %q at two vendors, and %q without", a, b, base)
	}
	seen := map[string]string{base: "the first"}
	for name, id := range map[string]string{
		"another account":           sessionID(sessionLogins(t, rule, acme), "bob", "a1"),
		"another session":           sessionID(sessionLogins(t, rule, acme), "alice", "a2"),
		"the account's case":        sessionID(sessionLogins(t, rule, acme), "Alice", "a1"),
		"account and session moved": sessionID(sessionLogins(t, rule, acme), "alicea", "1"),
		"another password":          sessionID(sessionLogins(t, rule, LoginConfig{Login: "acme", Password: "q"}), "alice", "a1"),
		"another login":             sessionID(sessionLogins(t, rule, LoginConfig{Login: "acm", Password: "p"}), "alice", "a1"),
		"a password in a template":  sessionID(sessionLogins(t, rule, LoginConfig{Login: "acme", PasswordTemplate: "secret"}), "alice", "a1"),
		"another password there":    sessionID(sessionLogins(t, rule, LoginConfig{Login: "acme", PasswordTemplate: "secret2"}), "alice", "a1"),
	} {
		if same, ok := seen[id]; ok {
			t.Errorf("%s has the id of %s", name, same)
		}
		seen[id] = name
		if strings.Contains(id, "a1") && strings.Contains(id, "alice") {
			t.Errorf("%s shows the customer: %q", name, id)
		}
	}
}

func TestSessionsOfAccountsDiffer(t *testing.T) {
	l := sessionLogins(t, "{charset: alnum, length: 8}", LoginConfig{Login: "acme", Password: "p"})
	seen := make(map[string]int)
	for i := range 10000 {
		id := sessionID(l, "customer"+strconv.Itoa(i), "1")
		if other, ok := seen[id]; ok {
			t.Fatalf("customers %d and %d have the session %s", i, other, id)
		}
		seen[id] = i
	}
}

func TestSessionGeo(t *testing.T) {
	places := []string{
		"session-x", "country-us-session-x", "country-gb-session-x", "country-us-state-ny-session-x", "country-us-city-ny-session-x",
		"country-us-zip-ny-session-x", "country-us-asn-1-session-x", "asn-1-session-x", "zip-11-session-x",
	}
	for _, geo := range []bool{false, true} {
		l := logins(t, LoginConfig{Login: "a", Password: "p", Preset: preset(t, fmt.Sprintf(`
username: "{session}"
password: "{country}{state}{city}{zip}{asn}"
fields: {country: {}, state: {}, city: {}, zip: {}, asn: {}}
session: {charset: lower, length: 12, geo: %v}`, geo))})
		ids := make(map[string]bool)
		for _, in := range places {
			id, _ := l.Make("alice", params(t, in))
			ids[id] = true
			if later, _ := l.Make("alice", params(t, in+"-pool-oxy-ttl-5m")); later != id {
				t.Errorf("geo %v: pool and ttl change the session of %s", geo, in)
			}
		}
		if want := map[bool]int{false: 1, true: len(places)}[geo]; len(ids) != want {
			t.Errorf("geo %v: %d ids for %d places, want %d", geo, len(ids), len(places), want)
		}
	}
}

func TestSessionPorts(t *testing.T) {
	const text = "username: \"{login}\"\npassword: \"{password};{country}\"\nfields: {country: {}}\nsession_ports: {from: 10000, to: 10099}\n"
	l := logins(t, LoginConfig{Preset: preset(t, text), Login: "acme", Password: "p"})
	if fault := l.Fault(params(t, "session-x-country-us")); fault != nil {
		t.Errorf("a session that is a port: %v", fault)
	}
	if fault := l.Fault(params(t, "session-x-ttl-5m")); fault == nil || *fault != (Fault{Kind: Unavailable, Key: TTL}) {
		t.Errorf("a ttl that nothing carries: %v", fault)
	}
	if port, ok := l.Port("alice", params(t, "country-us")); ok || port != 0 {
		t.Errorf("without a session the port is %d, %v", port, ok)
	}
	count := make(map[uint16]int)
	for i := range 5000 {
		p := Params{Session: strconv.Itoa(i)}
		port, ok := l.Port("alice", p)
		if again, _ := l.Port("alice", p); !ok || port < 10000 || port > 10099 || again != port {
			t.Fatalf("the port is %d, %v, then %d", port, ok, again)
		}
		count[port]++
	}
	for port, n := range count {
		if n < 10 || n > 100 { // 50 is the mean, 7 the deviation
			t.Errorf("port %d has %d sessions of 5000", port, n)
		}
	}
	if len(count) != 100 {
		t.Errorf("%d ports are used, want 100", len(count))
	}
	whole := logins(t, LoginConfig{Preset: preset(t, strings.ReplaceAll(text, "10000, to: 10099", "1, to: 65535")), Login: "acme"})
	if port, ok := whole.Port("alice", Params{Session: "x"}); !ok || port == 0 {
		t.Errorf("of all ports it is %d, %v", port, ok)
	}
	if _, ok := logins(t, LoginConfig{Login: "a"}).Port("alice", Params{Session: "x"}); ok {
		t.Error("a vendor without session ports has one")
	}
}
