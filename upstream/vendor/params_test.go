package vendor

import (
	"strings"
	"testing"
	"time"
)

func TestParseParams(t *testing.T) {
	tests := []struct {
		in   string
		want Params
	}{
		{"", Params{}},
		{"country-us", Params{Country: "us"}},
		{"country-US", Params{Country: "us"}},
		{"country-uk", Params{Country: "gb"}},
		{"country-UK", Params{Country: "gb"}},
		{"country-us-state-New_York-city-newyork", Params{Country: "us", State: "new_york", City: "newyork"}},
		{"city-a1_b2_c3", Params{City: "a1_b2_c3"}},
		{"city-" + strings.Repeat("x", 64), Params{City: strings.Repeat("x", 64)}},
		{"zip-SW1A1AA", Params{Zip: "sw1a1aa"}},
		{"zip-07", Params{Zip: "07"}},
		{"asn-7922", Params{ASN: "7922"}},
		{"asn-AS7922", Params{ASN: "7922"}},
		{"asn-as007", Params{ASN: "7"}},
		{"asn-4294967295", Params{ASN: "4294967295"}},
		{"session-aB_9", Params{Session: "aB_9"}},
		{"session-" + strings.Repeat("_", 64), Params{Session: strings.Repeat("_", 64)}},
		{"session-x-ttl-30s", Params{Session: "x", TTL: 30 * time.Second}},
		{"ttl-10m-session-x", Params{Session: "x", TTL: 10 * time.Minute}},
		{"ttl-1h30m-session-x", Params{Session: "x", TTL: 90 * time.Minute}},
		{"ttl-1.5h-session-x", Params{Session: "x", TTL: 90 * time.Minute}},
		{"ttl-60000ms-session-x", Params{Session: "x", TTL: time.Minute}},
		{"ttl-7d-session-x", Params{Session: "x", TTL: 7 * 24 * time.Hour}},
		{"ttl-30d-session-x", Params{Session: "x", TTL: 30 * 24 * time.Hour}},
		{"ttl-720h-session-x", Params{Session: "x", TTL: 30 * 24 * time.Hour}},
		{"pool-oxy.2_A", Params{Pool: "oxy.2_A"}},
		{"pool-p-country-de-session-s-zip-10115-state-berlin-city-berlin-asn-3320-ttl-1s", Params{
			Country: "de", State: "berlin", City: "berlin", Zip: "10115", ASN: "3320", Session: "s", TTL: time.Second, Pool: "p"}},
	}
	for _, tt := range tests {
		got, fault := ParseParams(tt.in)
		if fault != nil || got != tt.want {
			t.Errorf("ParseParams(%q) is %+v, %v; want %+v", tt.in, got, fault, tt.want)
		}
		if again, fault := ParseParams(got.String()); fault != nil || again != got {
			t.Errorf("%q: %q reads as %+v, %v", tt.in, got.String(), again, fault)
		}
	}
}

func TestParseParamsFaults(t *testing.T) {
	malformed := Fault{Kind: Malformed}
	invalid := func(k Key) Fault { return Fault{Kind: Invalid, Key: k} }
	tests := []struct {
		in   string
		want Fault
	}{
		{"-", malformed},
		{"us", malformed},
		{"Country-us", malformed},
		{"country-us-", malformed},
		{"country-us-x", malformed},
		{"country-us-region-x", malformed},
		{"country-us--city-x", malformed},
		{"country", invalid(Country)},
		{"country-", invalid(Country)},
		{"country-us-session", invalid(Session)},
		{"country-us-session-", invalid(Session)},
		{"country-us-country-us", Fault{Kind: Twice, Key: Country}},
		{"pool-a-session-x-pool-a", Fault{Kind: Twice, Key: Pool}},
		{"country-xx", invalid(Country)},
		{"country-eu", invalid(Country)},
		{"country-usa", invalid(Country)},
		{"country-u", invalid(Country)},
		{"country-\u0131n", invalid(Country)},
		{"country-u\x00", invalid(Country)},
		{"state-new york", invalid(State)},
		{"state-new+york", invalid(State)},
		{"state-new__york", invalid(State)},
		{"state-_x", invalid(State)},
		{"state-x_", invalid(State)},
		{"state-_", invalid(State)},
		{"state-m\u00fcnchen", invalid(State)},
		{"city-a;sessid.b", invalid(City)},
		{"city-a:b", invalid(City)},
		{"city-a,b", invalid(City)},
		{"city-a.b", invalid(City)},
		{"city-{login}", invalid(City)},
		{"city-" + strings.Repeat("x", 65), invalid(City)},
		{"zip-1", invalid(Zip)},
		{"zip-12345678901", invalid(Zip)},
		{"zip-12_45", invalid(Zip)},
		{"asn-0", invalid(ASN)},
		{"asn-as", invalid(ASN)},
		{"asn-as0", invalid(ASN)},
		{"asn-4294967296", invalid(ASN)},
		{"asn-00000000001", invalid(ASN)},
		{"asn-+1", invalid(ASN)},
		{"asn-as-1", invalid(ASN)},
		{"session-" + strings.Repeat("x", 65), invalid(Session)},
		{"session-a.b", invalid(Session)},
		{"ttl-10-session-x", invalid(TTL)},
		{"ttl-0-session-x", invalid(TTL)},
		{"ttl-0s-session-x", invalid(TTL)},
		{"ttl-500ms-session-x", invalid(TTL)},
		{"ttl-1500ms-session-x", invalid(TTL)},
		{"ttl-31d-session-x", invalid(TTL)},
		{"ttl-721h-session-x", invalid(TTL)},
		{"ttl-d-session-x", invalid(TTL)},
		{"ttl-1.5d-session-x", invalid(TTL)},
		{"ttl-+5m-session-x", invalid(TTL)},
		{"ttl-.5h-session-x", invalid(TTL)},
		{"ttl-10M-session-x", invalid(TTL)},
		{"ttl-99999999999999999h-session-x", invalid(TTL)},
		{"ttl-10m", Fault{Kind: Needs, Key: TTL, Other: Session}},
		{"pool-a:b", invalid(Pool)},
		{"pool-" + strings.Repeat("x", 33), invalid(Pool)},
	}
	known := knownFaults()
	for _, tt := range tests {
		got, fault := ParseParams(tt.in)
		if fault == nil || *fault != tt.want || got != (Params{}) {
			t.Errorf("ParseParams(%q) is %+v, %v; want the fault %+v", tt.in, got, fault, tt.want)
			continue
		}
		if !known[*fault] {
			t.Errorf("ParseParams(%q): %+v is not in the closed set", tt.in, *fault)
		}
	}
}

func knownFaults() map[Fault]bool {
	known := make(map[Fault]bool)
	for _, f := range Faults() {
		known[f] = true
	}
	return known
}

// The sentences go to customers: one each, short, no two the same, nothing but keys in
// them that differs.
func TestFaults(t *testing.T) {
	said := make(map[string]Fault)
	for _, f := range Faults() {
		s := f.Error()
		if other, ok := said[s]; ok {
			t.Errorf("%+v and %+v both say %q", f, other, s)
		}
		said[s] = f
		if !strings.HasPrefix(s, "The ") || strings.Index(s, ".") != len(s)-1 || len(s) > 80 || strings.Contains(s, "  ") {
			t.Errorf("%+v: %q is not one short sentence", f, s)
		}
		for _, k := range []Key{f.Key, f.Other} {
			if k != "" && !strings.Contains(s, " "+string(k)) {
				t.Errorf("%+v: %q does not name %s", f, s, k)
			}
		}
	}
}

func TestEveryCountryHasAName(t *testing.T) {
	n := 0
	for _, name := range countryNames {
		if name == "" {
			continue
		}
		n++
		if !all(name, func(c byte) bool { return isAlnum(c) || c == '_' }) || !('A' <= name[0] && name[0] <= 'Z') {
			t.Errorf("%q is no name that a login can hold", name)
		}
	}
	if n != 249 {
		t.Errorf("%d countries, want the 249 of ISO 3166-1", n)
	}
	for _, code := range []string{"", "u", "USA", "US", "xk", "eu", "uk", "zz", "u1", "\xff\xff"} {
		if isCountry(code) {
			t.Errorf("%q is a country", code)
		}
	}
}

func TestUSStates(t *testing.T) {
	names := make(map[string]bool)
	for written, s := range usStates {
		names[s.name] = true
		if again := usStates[s.code]; again != s {
			t.Errorf("%s is %v and %v", written, s, again)
		}
	}
	if len(names) != 56 { // 50 states, DC, 5 territories
		t.Errorf("%d states, want 56", len(names))
	}
	for _, written := range []string{"ny", "new_york", "newyork"} {
		if s := usStates[written]; s != (usState{"ny", "new_york"}) {
			t.Errorf("%s is %v", written, s)
		}
	}
}

// Whatever a customer writes, what is taken has a canonical form that reads the same,
// and none of a vendor's separators but single '_' between words.
func FuzzParams(f *testing.F) {
	for _, seed := range []string{
		"", "country-us", "country-uk-state-new_york-city-newyork", "session-a1-ttl-1h30m-pool-oxy.1", "asn-as07-zip-07102",
		"country-us-country-us", "city-a;sessid.b", "ttl-1.5h-session-x", "city-a__b", "country-\u0131n", "state-\u212a", "-", "ttl-10m",
	} {
		f.Add(seed)
	}
	known := knownFaults()
	f.Fuzz(func(t *testing.T, s string) {
		p, fault := ParseParams(s)
		if fault != nil {
			if !known[*fault] || p != (Params{}) {
				t.Fatalf("%q: %+v with %+v", s, *fault, p)
			}
			return
		}
		again, fault := ParseParams(p.String())
		if fault != nil || again != p {
			t.Fatalf("%q is %+v, but %q is %+v, %v", s, p, p.String(), again, fault)
		}
		for i := range iSession {
			if v := p.at(i); !all(v, func(c byte) bool { return isDigit(c) || isLower(c) || c == '_' }) ||
				strings.Contains("_"+v+"_", "__") && v != "" {
				t.Fatalf("%q: %s is %q", s, keyNames[i], v)
			}
		}
		if !all(p.Session, isWord) || p.TTL < 0 || p.TTL > maxTTL || p.TTL%time.Second != 0 {
			t.Fatalf("%q is %+v", s, p)
		}
	})
}

func BenchmarkParseParams(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, fault := ParseParams("country-us-state-new_york-city-albany-session-a1b2c3-ttl-10m"); fault != nil {
			b.Fatal(fault)
		}
	}
}
