package account

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	good := []string{"a", "alice", "A.b_c-9", "-", "--", "alice-", "countrys-x", "Country-x", "us-states", strings.Repeat("x", 64)}
	for _, name := range good {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%q): %v", name, err)
		}
	}
	bad := []string{
		"", strings.Repeat("x", 65), "a b", "a:b", "a@b", "é", "a\n", "a\x00", "a/b", "a\xff",
		"country", "a-country", "country-a", "a-state-b", "a-city", "a-zip", "a-asn", "a-session", "a-ttl", "a-pool-",
	}
	for _, name := range bad {
		err := CheckName(name)
		if err == nil {
			t.Errorf("CheckName(%q) accepts it", name)
		} else if len(name) > 10 && strings.Contains(err.Error(), name) {
			t.Errorf("CheckName(%q) quotes the name: %v", name, err)
		}
	}
}

func TestSplitUsername(t *testing.T) {
	tests := []struct {
		in   string
		want Username
	}{
		{"alice", Username{"alice", ""}},
		{"", Username{}},
		{"alice-country-us", Username{"alice", "country-us"}},
		{"alice-b-country-us-state-newyork-ttl-10m", Username{"alice-b", "country-us-state-newyork-ttl-10m"}},
		{"alice-zip-zip-1", Username{"alice", "zip-zip-1"}},
		{"alice-session-", Username{"alice", "session-"}},
		{"alice-session", Username{"alice-session", ""}},
		{"-country-us", Username{"", "country-us"}},
		{"country-us", Username{"country-us", ""}},
		{"alice--pool-oxy", Username{"alice-", "pool-oxy"}},
		{"alice-Country-us", Username{"alice-Country-us", ""}},
		{"alice-countryside-x", Username{"alice-countryside-x", ""}},
		{"a\nb", Username{}},
		{"a\x7f", Username{}},
		{strings.Repeat("a", 512), Username{strings.Repeat("a", 512), ""}},
		{strings.Repeat("a", 513), Username{}},
	}
	for _, tt := range tests {
		if got := SplitUsername(tt.in); got != tt.want {
			t.Errorf("SplitUsername(%q) is %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzSplitUsername(f *testing.F) {
	for _, seed := range []string{"alice", "alice-country-us", "-ttl-", "a-b-c-d", "a-zip-zip-1", "a\x00-pool-b", "-country-us"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u := SplitUsername(s)
		if u == (Username{}) {
			if s != "" && len(s) <= maxUsername && !hasControl(s) {
				t.Fatalf("%q was refused", s)
			}
			return
		}
		joined := u.Name
		if u.Params != "" {
			joined += "-" + u.Params
			key, _, found := strings.Cut(u.Params, "-")
			if !found || !isParam(key) {
				t.Fatalf("%q: parameters %q do not begin with a key", s, u.Params)
			}
		}
		if joined != s {
			t.Fatalf("%q was split into %q", s, u)
		}
		if again := SplitUsername(u.Name); again.Params != "" {
			t.Fatalf("%q: the name %q has parameters %q", s, u.Name, again.Params)
		}
		// Every name that an account can have is found with any parameters.
		if CheckName(s) == nil {
			if got := SplitUsername(s + "-country-us"); got != (Username{s, "country-us"}) {
				t.Fatalf("%q with parameters is %q", s, got)
			}
		}
	})
}
