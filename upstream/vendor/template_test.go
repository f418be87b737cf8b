package vendor

import (
	"strings"
	"testing"
	"time"
)

func TestTemplates(t *testing.T) {
	all := Params{Country: "us", State: "new_york", City: "albany", Zip: "12207", ASN: "7922", Session: "a1", TTL: 2 * time.Hour}
	tests := []struct {
		name, in string
		params   Params
		want     string
	}{
		{"text", "user-1", all, "user-1"},
		{"values", "{login}.{password}.{country}.{state}.{city}.{zip}.{asn}", all, "LOGIN.PASS.us.new_york.albany.12207.7922"},
		{"units", "{ttl_seconds} {ttl_minutes} {ttl_hours} {ttl}", all, "7200 120 2 7200"},
		{"not given", "[{country}{state}{city}{zip}{asn}{session}{ttl}{ttl_hours}]", Params{}, "[]"},
		{"conditions", "{login}{?country:-cc-{country}}{!country:-any}", all, "LOGIN-cc-us"},
		{"conditions that fail", "{login}{?country:-cc-{country}}{!country:-any}", Params{}, "LOGIN-any"},
		{"nested", "{?country:c{?city:-{city}{!zip:!}{?zip:-{zip}}}}", all, "c-albany-12207"},
		{"nested, cut in the middle", "{?country:c{?city:-{city}}}", Params{City: "x"}, ""},
		{"ttl alone", "{?ttl:{ttl_minutes}m}", all, "120m"},
		{"braces", "{{log}}", all, "{log}"},
		{"braces around a value", "{{{login}}}", all, "{LOGIN}"},
		{"a brace in a condition", "{?country:{{{country}}", all, "{us"},
		{"a brace after a condition", "{?country:x}}}", all, "x}"},
		{"eight deep", strings.Repeat("{?city:", 8) + "x" + strings.Repeat("}", 8), all, "x"},
		{"bytes above ASCII", "\u00e4{city}\xff", all, "\u00e4albany\xff"},
	}
	for _, tt := range tests {
		l, err := NewLogins(LoginConfig{Login: "LOGIN", Password: "PASS", UsernameTemplate: tt.in, PasswordTemplate: tt.in})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		username, password := l.Make("alice", tt.params)
		if username != tt.want || password != tt.want {
			t.Errorf("%s: %q makes %q and %q, want %q", tt.name, tt.in, username, password, tt.want)
		}
	}
}

func TestTemplateErrors(t *testing.T) {
	tests := []struct {
		in      string
		pos     int
		problem string
	}{
		{"{", 1, "never closed"},
		{"abc{", 4, "never closed"},
		{"abc{login", 4, "never closed"},
		{"{?country:x", 1, "never closed"},
		{"{?country:{?city:x}", 1, "never closed"},
		{"{?country:{?city:x", 11, "never closed"},
		{"{?country", 1, "never closed"},
		{"{?", 1, "never closed"},
		{"x}", 2, "closes nothing"},
		{"{login}}", 8, "closes nothing"},
		{"{?country:x}}", 13, "closes nothing"},
		{"{}", 1, "unknown field"},
		{"{Login}", 1, "did you mean login?"},
		{"{sesion}", 1, "did you mean session?"},
		{"x{hunter2secret}", 2, "there are country, state"},
		{"{pool}", 1, "unknown field"},
		{"{ttl_days}", 1, "unknown field"},
		{"{?login:x}", 1, "unknown key"},
		{"{!ttl_minutes:x}", 1, "unknown key"},
		{"{?contry:x}", 1, "did you mean country?"},
		{"{?:x}", 1, "unknown key"},
		{"{?country:}", 1, "nothing after"},
		{"{?country}", 10, "is written {?key:...}"},
		{"{country:x}", 9, "'}' is missing"},
		{"{country{city}}", 9, "'}' is missing"},
		{strings.Repeat("{?city:", 9) + "x" + strings.Repeat("}", 9), 57, "deeper than 8"},
		{"ab\x00", 3, "control character"},
		{"{?city:\x7f}", 8, "control character"},
		{strings.Repeat("x", 1025), 1025, "longer than 1024"},
	}
	for _, tt := range tests {
		for _, password := range []bool{false, true} {
			tree, err := parseTemplate(tt.in, password)
			if err == nil || tree != nil {
				t.Errorf("%q is a template", tt.in)
				continue
			}
			if err.Pos != tt.pos || !strings.Contains(err.Problem, tt.problem) || err.Password != password {
				t.Errorf("%q: %v, want position %d and %q", tt.in, err, tt.pos, tt.problem)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: the error shows it: %v", tt.in, err)
			}
		}
	}
	if _, err := parseTemplate("", true); err == nil || !strings.Contains(err.Problem, "empty") {
		t.Errorf("an empty template: %v", err)
	}
	if _, err := parseTemplate("a:b", false); err == nil || err.Pos != 2 {
		t.Errorf("a colon in a username: %v", err)
	}
	if _, err := parseTemplate("a:b", true); err != nil {
		t.Errorf("a colon in a password: %v", err)
	}
}

// A template is an error that points into it, or a tree that is written and read back as
// it is, and renders whatever is given.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"customer-{login}{?country:-cc-{country}}{?session:-sessid-{session}{?ttl:-sesstime-{ttl_minutes}}}",
		"{{}}", "{{{login}}}", "{?city:{?zip:x}}}}", "{!country:any}", "{ttl}", "{?country:{{}", "}", "{?", "{login", "a:b", "\x00", "{?city:}",
	} {
		f.Add(seed)
	}
	// Loaded now, so that no input looks interesting for being the first.
	if _, err := Load(Generic); err != nil {
		f.Fatal(err)
	}
	given := Params{Country: "us", State: "utah", City: "a_b", Zip: "84101", ASN: "1", Session: "s", TTL: time.Hour}
	f.Fuzz(func(t *testing.T, s string) {
		for _, password := range []bool{false, true} {
			tree, err := parseTemplate(s, password)
			if err != nil {
				if tree != nil || err.Pos < 1 || err.Pos > len(s)+1 || err.Problem == "" || err.Password != password {
					t.Fatalf("%q: %+v", s, err)
				}
				continue
			}
			written := formatTemplate(tree)
			again, err := parseTemplate(written, password)
			if err != nil {
				// Writing cannot make a template longer than what it was read from.
				t.Fatalf("%q is written %q, which is none: %v", s, written, err)
			}
			if twice := formatTemplate(again); twice != written {
				t.Fatalf("%q is written %q, then %q", s, written, twice)
			}
		}
		l, err := NewLogins(LoginConfig{Login: "L", Password: "P", PasswordTemplate: s})
		if s == "" || err != nil {
			return
		}
		for _, p := range []Params{{}, given, {Country: "us"}, {Session: "s", TTL: time.Minute}} {
			_, password := l.Make("alice", p)
			if strings.ContainsFunc(password, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Fatalf("%q makes a control character: %q", s, password)
			}
		}
	})
}
