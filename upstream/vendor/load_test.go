package vendor

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestEveryPresetLoads(t *testing.T) {
	names := Names()
	if !slices.IsSorted(names) || !slices.Contains(names, Generic) {
		t.Errorf("the names are %v", names)
	}
	for _, name := range names {
		p, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.Name != name || p.Spec().Name != name {
			t.Errorf("the preset %s calls itself %s", name, p.Name)
		}
		if again, err := Load(strings.ToUpper(name)); err != nil || again != p {
			t.Errorf("%s is loaded twice: %v", name, err)
		}
	}
}

func TestLoadUnknown(t *testing.T) {
	tests := []struct{ name, want string }{
		{"oxilabs", "did you mean oxylabs?"},
		{"OxyLab", "did you mean oxylabs?"},
		{"oxy", "did you mean oxylabs?"},
		{"genric", "did you mean generic?"},
		{"something-else-altogether", "there are "},
		{"x", "there are "},
		{strings.Repeat("a", 100000), "aaa...\""},
		{"a\nb", `"a\nb"`},
		{"../presets/oxylabs", "unknown preset"},
	}
	for _, tt := range tests {
		p, err := Load(tt.name)
		if p != nil || !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 400 {
			t.Errorf("Load(%.40q) is %v, %v; want %s", tt.name, p, err, tt.want)
		}
	}
}

// Each of the files has one thing wrong, at the line that the error says.
func TestBrokenPresets(t *testing.T) {
	const good = `name: test
title: Test
gateway: {host: gw.test.example, http: 8000}
grammar: {in: username}
username: "{login}{?session:-{session}}"
password: "{password}"
session: {charset: lower, length: 8}
`
	tests := []struct {
		name     string
		old, new string // in good; an empty old appends
		line     string
		want     string
	}{
		{"nothing", good, "", ":1:", "empty"},
		{"not YAML", "title: Test", "title: [", ":", ""},
		{"unknown key", "", "titel: x\n", ":8:", "unknown field"},
		{"unknown key further down", "http: 8000", "htpt: 8000", ":3:", "unknown field"},
		{"key twice", "", "name: test\n", ":8:", "already defined"},
		{"wrong type", "http: 8000", "http: many", ":3:", ""},
		{"two documents", "", "---\nname: x\n", ":", "more than one document"},
		{"another name", "name: test", "name: toast", ":1:", "not the file's name"},
		{"no title", "title: Test", "title: \"\"", ":2:", "title: is missing"},
		{"no host", "host: gw.test.example", "host: \"\"", ":3:", "gateway.host: is missing"},
		{"no port", "http: 8000", "http: 0", ":3:", "has no port"},
		{"session ports", "", "session_ports: {from: 2, to: 1}\n", ":8:", "not a range"},
		{"session ports from 0", "", "session_ports: {to: 1}\n", ":8:", "not a range"},
		{"login prefix", "", "login_prefix: user-\n", ":8:", "does not begin with it"},
		{"template", "{login}{", "{logn}{", ":5:", "position 1: unknown field; did you mean login?"},
		{"no template", "{password}", "", ":6:", "the template is empty"},
		{"field that no template names", "", "fields:\n  city: {}\n", ":9:", "no template names it"},
		{"field that is none", "", "fields:\n  ttl: {}\n", ":9:", "is not country"},
		{"field missing", "{login}{", "{login}{country}{", ":", "fields.country: is missing"},
		{"no session", "session: {charset: lower, length: 8}", "", ":", "session: is missing"},
		{"charset", "charset: lower", "charset: upper", ":7:", "is not alnum"},
		{"length 0", "length: 8", "length: 0", ":7:", "between 1 and 64"},
		{"length 65", "length: 8", "length: 65", ":7:", "between 1 and 64"},
		{"charset and range", "length: 8", "min: 1, max: 9", ":7:", "has a charset"},
		{"empty range", "charset: lower, length: 8", "min: 9, max: 9", ":7:", "no range"},
		{"no ttl", "{session}", "{session}{ttl}", ":", "ttl: is missing"},
		{"ttl without units", "", "ttl: {default: 1m}\n", ":8:", "units: is missing"},
		{"ttl unit", "", "ttl:\n  units:\n    - {unit: w, max: 1}\n", ":10:", "no unit"},
		{"ttl without max", "", "ttl:\n  units:\n    - {unit: m}\n", ":10:", "no unit"},
		{"ttl too long", "", "ttl:\n  units:\n    - {unit: d, max: 31}\n", ":10:", "no unit"},
		{"grammar", "in: username", "in: host", ":4:", "not username or password"},
		{"grammar's keys", "in: username", "in: username, keys: {pool: x}", ":4:", "no key"},
		{"status missing", "", "classify:\n  - {cause: auth}\n", ":9:", "status is no number"},
		{"status a word", "", "classify:\n  - {status: some, cause: auth}\n", ":9:", "status is no number"},
		{"status 99", "", "classify:\n  - {status: [407, 99], cause: auth}\n", ":9:", "status is none"},
		{"cause", "", "classify:\n  - {status: 407, cause: auth}\n  - {status: 407, cause: oath}\n", ":10:", "unknown cause"},
		{"no cause", "", "classify:\n  - {status: 407}\n", ":9:", "unknown cause"},
		{"match without header", "", "classify:\n  - {status: 407, match: x, cause: auth}\n", ":9:", "match without a header"},
		{"every answer", "", "classify:\n  - {status: any, cause: auth}\n", ":9:", "matches every answer"},
		{"rule's header", "", "classify:\n  - {status: 407, header: \"X Y\", cause: auth}\n", ":9:", "cannot match"},
		{"advice's cause", "", "advice:\n  oath: x\n", ":9:", "unknown cause"},
		{"header", "", "headers:\n  - X-A-*\n  - \"X: b\"\n", ":10:", "no header's name"},
		{"mark", "", "marks:\n  - abc\n", ":9:", "shorter than 4"},
		{"example", "", "examples:\n  - {params: country-xx}\n", ":9:", "country"},
	}
	if _, err := parsePreset("presets/test.yaml", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		text := good + tt.new
		if tt.old != "" {
			text = strings.Replace(good, tt.old, tt.new, 1)
		}
		p, err := parsePreset("presets/test.yaml", []byte(text))
		if p != nil || err == nil {
			t.Errorf("%s: it is taken", tt.name)
			continue
		}
		if !strings.HasPrefix(err.Error(), "vendor: presets/test.yaml"+tt.line) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want line %s and %q", tt.name, err, tt.line, tt.want)
		}
	}
}

func TestBrokenSpellings(t *testing.T) {
	tests := []struct{ spelling, want string }{
		{"{lookup: names}", "unknown lookup"},
		{"{case: camel}", "unknown case"},
		{"{max_length: -1}", "negative"},
		{"{needs: [pool]}", "none that vendors know"},
		{"{excludes: [region]}", "none that vendors know"},
		{"{needs: [city]}", "contradict"},
		{"{excludes: [city]}", "contradict"},
		{"{needs: [zip], excludes: [zip]}", "contradict"},
		{"{countries: [uk]}", "no country"},
		{"{needs_in: {xx: [zip]}}", "no country"},
		{"{needs_in: {us: [xx]}}", "none that vendors know"},
	}
	for _, tt := range tests {
		text := "name: test\ntitle: Test\ngateway: {host: gw.test.example, http: 8000}\ngrammar: {in: username}\n" +
			"username: \"{login}{city}\"\npassword: \"{password}\"\nfields:\n  city: " + tt.spelling + "\n"
		_, err := parsePreset("presets/test.yaml", []byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), "vendor: presets/test.yaml:8: fields.city: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.spelling, err, tt.want)
		}
	}
}
