package vendor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Letters that lower-casing turns into ASCII are no letters of a value.
func TestForeignLettersAreNoValues(t *testing.T) {
	const kelvin, longS, dotless = "\u212a", "\u017f", "\u0131"
	for _, params := range []string{
		"country-" + kelvin + "r", "country-U" + kelvin, "country-u" + longS, "country-" + dotless + "t",
		"state-new_yor" + kelvin, "city-" + longS + "eattle", "zip-12" + kelvin, "asn-a" + longS + "1",
		"country-us-session-a" + longS, "session-a-ttl-10m-pool-" + kelvin,
	} {
		if p, fault := ParseParams(params); fault == nil {
			t.Errorf("%q is taken as %q", params, p)
		}
	}
}

// Who knows an account and its session must not be able to work out the vendor's id: where
// the secret is the username's template, that keys the hash.
func TestSessionKeyIsNeverKnown(t *testing.T) {
	id := func(c LoginConfig) string {
		l, err := NewLogins(c)
		if err != nil {
			t.Fatal(err)
		}
		username, _ := l.Make("alice", Params{Session: "a"})
		_, session, _ := strings.Cut(username, "-s-")
		return session
	}
	one, other := id(LoginConfig{UsernameTemplate: "key1{?session:-s-{session}}"}), id(LoginConfig{UsernameTemplate: "key2{?session:-s-{session}}"})
	if one == other || len(one) != 16 {
		t.Errorf("%q with one secret, %q with another", one, other)
	}
	literal := LoginConfig{Login: "bob", UsernameTemplate: "{login}{?session:-s-{session}}", PasswordTemplate: "one{?country:{country}}"}
	one = id(literal)
	literal.PasswordTemplate = "two{?country:{country}}"
	if other = id(literal); one == other {
		t.Errorf("%q with both passwords", one)
	}
}

// {{login}} is how other programs write a field; here it would be sent as text.
func TestFieldsInDoubleBraces(t *testing.T) {
	for template, pos := range map[string]int{
		"customer-{{login}}":                        10,
		"{login}{?country:-cc-{{country}}}":         22,
		"{login}-{{ session }}":                     9,
		"{login}{{?country:-cc-{country}}}":         8,
		"{login}{?session:{?ttl:-t-{{ttl_hours}}}}": 27,
	} {
		_, err := NewLogins(LoginConfig{Login: "bob", UsernameTemplate: template})
		var wrong *TemplateError
		if !errors.As(err, &wrong) || wrong.Pos != pos || !strings.Contains(wrong.Problem, "one brace") {
			t.Errorf("%s: %v, want position %d", template, err, pos)
		}
	}
	for template, want := range map[string]string{
		"{login}-{{x}}": "bob-{x}", "{{{login}}}": "{bob}", "{{-{login}-}}": "{-bob-}", "{login}{{": "bob{", "{login}}}": "bob}",
	} {
		l, err := NewLogins(LoginConfig{Login: "bob", UsernameTemplate: template})
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		if got, _ := l.Make("", Params{}); got != want {
			t.Errorf("%s: %q, want %q", template, got, want)
		}
	}
}

// Nothing that a program prints by mistake shows a secret.
func TestPrintingShowsNoSecret(t *testing.T) {
	const secret = "hunter2secret"
	c := LoginConfig{Login: secret, Password: secret, UsernameTemplate: secret + "{login}", PasswordTemplate: secret + "{password}", SessionKey: []byte(secret)}
	l, err := NewLogins(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{c, &c, l, []any{c, l}, struct{ C LoginConfig }{c}, struct{ L *Logins }{l}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			out := fmt.Sprintf(verb, v)
			for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret)), fmt.Sprintf("%#v", []byte(secret))} {
				if strings.Contains(out, form) {
					t.Errorf("%s of %T shows it", verb, v)
				}
			}
		}
	}
}
