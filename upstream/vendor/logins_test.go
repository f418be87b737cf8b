package vendor

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// preset is a preset of a test's own; indented lines are taken as they are.
func preset(t testing.TB, text string) *Preset {
	t.Helper()
	p, err := parsePreset("presets/test.yaml", []byte("name: test\ntitle: Test\ngateway: {host: gw.test.example, http: 8000, socks5: 8001}\ngrammar: {in: username}\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func logins(t testing.TB, c LoginConfig) *Logins {
	t.Helper()
	l, err := NewLogins(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// params are of a string that a customer might write.
func params(t testing.TB, s string) Params {
	t.Helper()
	p, fault := ParseParams(s)
	if fault != nil {
		t.Fatalf("%s: %v", s, fault)
	}
	return p
}

const richPreset = `
login_prefix: "pre-"
username: "pre-{login}{?country:-cc-{country}}{?state:-st-{state}}{?city:-city-{city}}{?zip:-zip-{zip}}{?session:-s-{session}{?ttl:-t-{ttl}}}"
password: "{password}"
fields:
  country: {case: upper, aliases: {gb: uk}}
  state: {lookup: us_names, words: "+", country_prefix: "_", excludes: [zip]}
  city: {case: title, words: "", needs_in: {us: [state]}}
  zip: {digits: true, max_length: 5, countries: [us, de]}
session: {charset: alnum, length: 8}
ttl: {units: [{unit: s, max: 59, suffix: s}, {unit: m, max: 59, suffix: m}, {unit: h, min: 2, max: 168, suffix: h}]}
`

func TestMake(t *testing.T) {
	l := logins(t, LoginConfig{Preset: preset(t, richPreset), Login: "pre-acme", Password: "hunter2"})
	tests := []struct{ in, want string }{
		{"", `pre-acme`},
		{"pool-oxy", `pre-acme`},
		{"country-gb", `pre-acme-cc-UK`},
		{"country-uk-city-milton_keynes", `pre-acme-cc-UK-city-MiltonKeynes`},
		{"city-paris", `pre-acme-city-Paris`},
		{"country-us-state-ny", `pre-acme-cc-US-st-us_new\+york`},
		{"country-us-state-newyork-city-new_york", `pre-acme-cc-US-st-us_new\+york-city-NewYork`},
		{"country-de-state-bayern", `pre-acme-cc-DE-st-de_bayern`},
		{"country-us-zip-12345", `pre-acme-cc-US-zip-12345`},
		{"session-x", `pre-acme-s-[0-9A-Za-z]{8}`},
		{"session-x-ttl-30s", `pre-acme-s-[0-9A-Za-z]{8}-t-30s`},
		{"session-x-ttl-60s", `pre-acme-s-[0-9A-Za-z]{8}-t-1m`},
		{"session-x-ttl-120m", `pre-acme-s-[0-9A-Za-z]{8}-t-2h`},
		{"session-x-ttl-7d", `pre-acme-s-[0-9A-Za-z]{8}-t-168h`},
	}
	for _, tt := range tests {
		p := params(t, tt.in)
		if fault := l.Fault(p); fault != nil {
			t.Errorf("%s: %v", tt.in, fault)
			continue
		}
		username, password := l.Make("alice", p)
		if !regexp.MustCompile("^"+tt.want+"$").MatchString(username) || password != "hunter2" {
			t.Errorf("%s makes %q and %q, want %q and the password", tt.in, username, password, tt.want)
		}
	}
	if want := []Key{Country, State, City, Zip, Session, TTL}; !slices.Equal(l.Keys(), want) {
		t.Errorf("it serves %v, want %v", l.Keys(), want)
	}
}

func TestLoginFaults(t *testing.T) {
	invalid := func(k Key) Fault { return Fault{Kind: Invalid, Key: k} }
	unavailable := func(k Key) Fault { return Fault{Kind: Unavailable, Key: k} }
	needs := func(k, o Key) Fault { return Fault{Needs, k, o} }
	excludes := func(k, o Key) Fault { return Fault{Excludes, k, o} }
	codes := preset(t, `
username: "{login}{?state:{country}{state}}"
password: "{password}"
fields: {country: {}, state: {lookup: us_codes}}`)
	names := preset(t, `
username: "{login}{?country:_{country}}"
password: "{password}"
fields: {country: {lookup: country_names, case: keep, words: "", aliases: {cz: Czechia}}}`)
	tests := []struct {
		name     string
		preset   *Preset
		username string
		in       string
		want     Fault
	}{
		{"fixed credentials", nil, "", "country-us", unavailable(Country)},
		{"fixed credentials, a session", nil, "", "session-x-ttl-5m", unavailable(Session)},
		{"not in the template", preset(t, richPreset), "", "asn-1", unavailable(ASN)},
		{"only in a condition", nil, "x{?country:-de}", "country-us", unavailable(Country)},
		{"dropped without another", nil, "x{?city:{country}{city}}", "country-us", needs(Country, City)},
		{"dropped with another", nil, "x{?session:{session}}{!session:{country}}", "country-us-session-x", excludes(Country, Session)},
		{"dropped without two others", nil, "x{?city:{?zip:{country}}}{city}{zip}", "country-us", needs(Country, City)},
		{"dropped whatever the others", nil, "x{?zip:{!zip:{country}}}", "country-us", unavailable(Country)},
		{"conditional need", preset(t, richPreset), "", "country-us-city-albany", needs(City, State)},
		{"excluded", preset(t, richPreset), "", "country-us-state-ny-zip-12345", excludes(State, Zip)},
		{"a prefix needs the country", preset(t, richPreset), "", "state-ny", needs(State, Country)},
		{"a list of countries needs one", preset(t, richPreset), "", "zip-12345", needs(Zip, Country)},
		{"not in this country", preset(t, richPreset), "", "country-fr-zip-12345", unavailable(Zip)},
		{"not digits", preset(t, richPreset), "", "country-us-zip-a2345", invalid(Zip)},
		{"too long", preset(t, richPreset), "", "country-us-zip-123456", invalid(Zip)},
		{"no state of the US", preset(t, richPreset), "", "country-us-state-bayern", invalid(State)},
		{"codes of the US only", codes, "", "country-de-state-bayern", invalid(State)},
		{"a code that is a country's", codes, "", "country-de-state-de", invalid(State)},
		{"country alone not sent", codes, "", "country-de", needs(Country, State)},
		{"between two units", preset(t, richPreset), "", "session-x-ttl-90s", invalid(TTL)},
		{"below a unit's least", preset(t, richPreset), "", "session-x-ttl-1h", invalid(TTL)},
		{"over the most", preset(t, richPreset), "", "session-x-ttl-169h", invalid(TTL)},
		{"no whole minutes", nil, "x{session}{ttl_minutes}", "session-x-ttl-90s", invalid(TTL)},
		{"no whole hours", nil, "x{session}{ttl_minutes}{ttl_hours}", "session-x-ttl-90m", invalid(TTL)},
		{"over the preset's most in another unit", preset(t, richPreset), "x{session}{ttl_hours}", "session-x-ttl-169h", invalid(TTL)},
	}
	known := knownFaults()
	for _, tt := range tests {
		l := logins(t, LoginConfig{Preset: tt.preset, Login: "acme", Password: "hunter2", UsernameTemplate: tt.username})
		fault := l.Fault(params(t, tt.in))
		if fault == nil || *fault != tt.want {
			t.Errorf("%s: %s is %v, want %v", tt.name, tt.in, fault, &tt.want)
		} else if !known[*fault] {
			t.Errorf("%s: %+v is not in the closed set", tt.name, *fault)
		}
	}
	l := logins(t, LoginConfig{Preset: names, Login: "acme"})
	for in, want := range map[string]string{"country-us": "acme_UnitedStates", "country-cz": "acme_Czechia", "country-ba": "acme_BosniaandHerzegovina"} {
		if username, _ := l.Make("alice", params(t, in)); username != want {
			t.Errorf("%s makes %q, want %q", in, username, want)
		}
	}
}

// Params that no ParseParams made cannot cut a login either.
func TestForcedValues(t *testing.T) {
	l := logins(t, LoginConfig{Preset: preset(t, richPreset), Login: "acme", Password: "p"})
	for _, evil := range []string{"x-s-evil", "x__y", "_x", "x:y", "x\x00y", "x{login}", "X", "m\u00fc", "x;y,z+w.v"} {
		for i, p := range []Params{{Country: evil}, {Country: "fr", State: evil}, {City: evil}, {Country: "us", Zip: evil}} {
			if i == 2 && strings.Trim(evil, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" {
				continue // a city may be anything that is canonical
			}
			if i != 1 && l.Fault(p) == nil {
				t.Errorf("%+v has no fault", p)
			}
			username, _ := l.Make("alice", p)
			rest := strings.TrimPrefix(username, "pre-acme")
			for _, cut := range []string{"-cc-", "-st-", "-city-", "-zip-", "FR", "fr_", "US"} {
				rest = strings.Replace(rest, cut, "", 1)
			}
			if strings.ContainsFunc(rest, func(r rune) bool { return r != '+' && (r > 0x7f || !isWord(byte(r))) }) || strings.Contains(rest, "++") || strings.Contains(rest, "__") {
				t.Errorf("%+v makes %q", p, username)
			}
		}
	}
}

// What Fault lets through is in the login, for every template and every set of keys.
func TestNothingIsDropped(t *testing.T) {
	given := Params{Country: "us", State: "utah", City: "provo", Zip: "84601", ASN: "7922", Session: "mine", TTL: 4321 * time.Second}
	marks := [vendorKeys]string{"<us>", "<utah>", "<provo>", "<84601>", "<7922>", "", "<4321>"}
	templates := []string{
		"{login}{?country:<{country}>}{?city:<{city}>{?zip:<{zip}>}}{!city:{?asn:<{asn}>}}",
		"{?session:#{session}#{?ttl:<{ttl_seconds}>}}{!session:<{country}>}",
		"{?country:{?state:{?city:<{country}><{state}><{city}>}}}",
		"{?zip:{!asn:<{zip}>}}{?asn:{!zip:<{asn}>}}<{country}>",
	}
	for _, template := range templates {
		l := logins(t, LoginConfig{Login: "acme", Password: "p", PasswordTemplate: template})
		served := 0
		for set := range keySet(1 << vendorKeys) {
			p := subset(given, set)
			if l.Fault(p) != nil {
				continue
			}
			served++
			_, password := l.Make("alice", p)
			for i := range vendorKeys {
				if set.has(i) && !strings.Contains(password, marks[i]) || i == iSession && set.has(i) && strings.Count(password, "#") != 2 {
					t.Errorf("%s: %s is not in %q", template, keyNames[i], password)
				}
			}
		}
		if served < 2 {
			t.Errorf("%s serves nothing", template)
		}
	}
}

// subset keeps the keys of set.
func subset(p Params, set keySet) Params {
	for i, v := range []*string{&p.Country, &p.State, &p.City, &p.Zip, &p.ASN, &p.Session} {
		if !set.has(i) {
			*v = ""
		}
	}
	if !set.has(iTTL) {
		p.TTL = 0
	}
	return p
}

func TestLoginsRefuseCredentials(t *testing.T) {
	tests := []struct {
		name     string
		config   LoginConfig
		pos      int
		password bool
	}{
		{"a colon in the login", LoginConfig{Login: "hunter:2"}, 1, false},
		{"a control byte in the login", LoginConfig{Login: "hunter\n2", UsernameTemplate: "xx{login}"}, 3, false},
		{"a control byte in the password", LoginConfig{Login: "x", Password: "hunter\x002"}, 1, true},
		{"a colon in a password that stands in the username", LoginConfig{Login: "x", Password: "hunter:2", UsernameTemplate: "{?city:{password}}"}, 8, false},
		{"a broken template", LoginConfig{Login: "x", PasswordTemplate: "hunter2{"}, 8, true},
	}
	for _, tt := range tests {
		_, err := NewLogins(tt.config)
		var te *TemplateError
		if !errors.As(err, &te) || te.Pos != tt.pos || te.Password != tt.password {
			t.Errorf("%s: %v", tt.name, err)
		} else if strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: the error shows it: %v", tt.name, err)
		}
	}
	for _, c := range []LoginConfig{{Login: "acme", Password: "a:b c%\u00e4"}, {}, {Password: "p"}} {
		if _, err := NewLogins(c); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// A vendor who knows the host by its address gets no login, and so can take no wishes
// but a port's.
func TestNoLogin(t *testing.T) {
	l := logins(t, LoginConfig{Preset: preset(t, richPreset+"session_ports: {from: 100, to: 109}\n"), Password: "p"})
	if u, p := l.Make("alice", Params{}); u != "" || p != "" {
		t.Errorf("the login is %q and %q", u, p)
	}
	if fault := l.Fault(Params{Country: "us"}); fault == nil || *fault != (Fault{Kind: Unavailable, Key: Country}) {
		t.Errorf("a country: %v", fault)
	}
	if fault := l.Fault(Params{Session: "x"}); fault != nil {
		t.Errorf("a session: %v", fault)
	}
	own := logins(t, LoginConfig{UsernameTemplate: "fixed{?country:-{country}}", PasswordTemplate: "secret"})
	if u, p := own.Make("alice", Params{Country: "us"}); u != "fixed-us" || p != "secret" {
		t.Errorf("a template without {login} makes %q and %q", u, p)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c := LoginConfig{Login: "hunter1", Password: "hunter2", SessionKey: []byte("hunter3"), PasswordTemplate: "hunter4{password}"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{c, &c, logins(t, c)} {
			if s := fmt.Sprintf(format, v); strings.Contains(s, "hunter") {
				t.Errorf("%s of %T shows a secret: %s", format, v, s)
			}
		}
	}
}

func TestLoginsAreConcurrent(t *testing.T) {
	l := logins(t, LoginConfig{Preset: preset(t, richPreset), Login: "acme", Password: "p"})
	p := params(t, "country-us-session-x-ttl-10m")
	want, _ := l.Make("alice", p)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if got, _ := l.Make("alice", p); got != want || l.Fault(p) != nil {
					t.Errorf("it is %q, was %q", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkMake(b *testing.B) {
	p, err := Load("oxylabs")
	if err != nil {
		b.Fatal(err)
	}
	l := logins(b, LoginConfig{Preset: p, Login: "acme", Password: "hunter2"})
	for _, in := range []string{"", "country-us", "country-us-session-a1b2", "country-us-state-new_york-city-albany-session-a1b2-ttl-10m"} {
		wish := params(b, in)
		b.Run("fault/"+in, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if fault := l.Fault(wish); fault != nil {
					b.Fatal(fault)
				}
			}
		})
		b.Run("make/"+in, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Make("alice", wish)
			}
		})
	}
}

func BenchmarkMakeParallel(b *testing.B) {
	l := logins(b, LoginConfig{Preset: preset(b, richPreset), Login: "acme", Password: "hunter2"})
	wish := params(b, "country-us-session-a1b2")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Make("alice", wish)
		}
	})
}
