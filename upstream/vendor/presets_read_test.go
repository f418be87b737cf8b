package vendor_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/vendor"
)

// randomParams makes wishes of every kind in their canonical form, also ones that no vendor serves.
func randomParams(r *rand.Rand) vendor.Params {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	text := func(alphabet string, longest int) string {
		b := make([]byte, 1+r.IntN(longest))
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(b)
	}
	const lower = "abcdefghijklmnopqrstuvwxyz0123456789"
	place := func() string {
		return text(lower, 12) + pick("", "_"+text(lower, 12), "_"+text(lower, 9)+"_"+text(lower, 9))
	}
	var p vendor.Params
	if r.IntN(5) > 0 {
		p.Country = pick("us", "us", "us", "gb", "de", "fr", "nl", "nz")
	}
	if r.IntN(2) == 0 {
		p.State = pick("ca", "new_york", "newjersey", "texas", "district_of_columbia", place())
	}
	if r.IntN(2) == 0 {
		p.City = pick("new_york", "los_angeles", "session", "country_us", "zone", "sid", "rotate", place(), place())
	}
	if r.IntN(4) == 0 {
		p.Zip = text(lower, 9) + "0"
	}
	if r.IntN(4) == 0 {
		p.ASN = strconv.Itoa(1 + r.IntN(1<<32-1))
	}
	if r.IntN(2) == 0 {
		p.Session = text(lower+"ABCDEFGHIJKLMNOPQRSTUVWXYZ_", 64)
		if r.IntN(2) == 0 {
			p.TTL = []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}[r.IntN(4)] * time.Duration(1+r.IntN(90))
			p.TTL = min(p.TTL, 30*24*time.Hour)
		}
	}
	return p
}

// TestLoginsReadBack renders random wishes and reads the logins as the vendors do: the same values, and no other key, ever.
func TestLoginsReadBack(t *testing.T) {
	for _, p := range vendors(t) {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			vendorReads, known := readers[p.Name]
			if !known {
				t.Fatal("no reader")
			}
			l := newLogins(t, vendor.LoginConfig{Preset: p, Login: ownLogin, Password: ownPassword})
			r := rand.New(rand.NewPCG(1, 2))
			served := map[vendor.Key]int{}
			for range 6000 {
				params := randomParams(r)
				if back, fault := vendor.ParseParams(params.String()); fault != nil || back != params {
					t.Fatalf("%+v: %v, %+v", params, fault, back)
				}
				if l.Fault(params) == nil {
					readBack(t, vendorReads, l, params)
					count(served, params)
				}
			}
			for _, key := range l.Keys() {
				if served[key] < 20 {
					t.Errorf("%s was served %d times only", key, served[key])
				}
			}
		})
	}
}

func readBack(t *testing.T, r reader, l *vendor.Logins, params vendor.Params) {
	t.Helper()
	username, password := l.Make("alice", params)
	got, err := r.read(username, password)
	if err != nil {
		t.Fatalf("%+v: %v", params, err)
	}
	session, hasSession := got[r.session]
	delete(got, r.session)
	switch {
	case r.session == "":
		if _, ok := l.Port("alice", params); ok != (params.Session != "") {
			t.Fatalf("%+v: a port: %v", params, ok)
		}
	case hasSession != (params.Session != ""):
		t.Fatalf("%+v: session %q", params, session)
	case params.Session != "" && (session == params.Session || len(params.Session) > 4 && strings.Contains(username+password, params.Session)):
		t.Fatalf("%+v: the customer's session in %q and %q", params, username, password)
	}
	if want := r.spell(params); !maps.Equal(got, want) {
		t.Fatalf("%+v: the vendor reads %v from %q and %q, want %v", params, got, username, password, want)
	}
}

func count(served map[vendor.Key]int, p vendor.Params) {
	for key, given := range map[vendor.Key]bool{vendor.Country: p.Country != "", vendor.State: p.State != "", vendor.City: p.City != "",
		vendor.Zip: p.Zip != "", vendor.ASN: p.ASN != "", vendor.Session: p.Session != "", vendor.TTL: p.TTL != 0} {
		if given {
			served[key]++
		}
	}
}

// hostile is what vendors' logins could be cut at, and worse.
var hostile = []string{"x_country_us__", "x__cr", "_x", "x_", "x;cr.xx", "x.y", "x,gb", "x+y", "x:y", "x y", "x\x00", "x\r\n", "ü", "{login}", "{{", "x%2dy", "x@y", "x/y", "\"x", "x=y", "", strings.Repeat("x", 65)}

// TestHostileValuesAreNoParameters has values that would be keys of their own in some vendor's login.
func TestHostileValuesAreNoParameters(t *testing.T) {
	for _, key := range vendor.Keys() {
		for _, value := range append(hostile, "x-zone-other", "x-sid-1", "x-cc-XX", "x-postalcode-1", "-", "--") {
			ours := key == vendor.Session || key == vendor.Pool
			if ours && (value == "x_country_us__" || value == "x__cr" || value == "_x" || value == "x_" || value == "x.y") {
				continue // of these a vendor sees the hash, or nothing
			}
			s := string(key) + "-" + value
			if key == vendor.TTL {
				s = "session-a-" + s
			}
			if p, fault := vendor.ParseParams(s); fault == nil {
				t.Errorf("%q is taken for %+v", s, p)
			}
		}
	}
}

// TestForcedValuesInjectNothing goes past ParseParams: whatever stands in Params is refused by Fault, or rendered without a key that nobody asked for.
func TestForcedValuesInjectNothing(t *testing.T) {
	set := map[vendor.Key]func(*vendor.Params, string){
		vendor.Country: func(p *vendor.Params, v string) { p.Country = v },
		vendor.State:   func(p *vendor.Params, v string) { p.State = v },
		vendor.City:    func(p *vendor.Params, v string) { p.City = v },
		vendor.Zip:     func(p *vendor.Params, v string) { p.Zip = v },
		vendor.ASN:     func(p *vendor.Params, v string) { p.ASN = v },
		vendor.Session: func(p *vendor.Params, v string) { p.Session = v },
	}
	for _, preset := range vendors(t) {
		r := readers[preset.Name]
		l := newLogins(t, vendor.LoginConfig{Preset: preset, Login: ownLogin, Password: ownPassword})
		for key, force := range set {
			for _, value := range append(hostile, "x-zone-other", "x-sid-1", "us-session-1", "x_session-1", "x;sessid.1", "x_s_1") {
				p := vendor.Params{Country: "us", State: "california", City: "los_angeles"}
				switch key {
				case vendor.Zip, vendor.ASN:
					p = vendor.Params{Country: "us"}
				}
				force(&p, value)
				if value == "" || l.Fault(p) != nil {
					continue
				}
				username, password := l.Make("alice", p)
				got, err := r.read(username, password)
				if err != nil {
					t.Errorf("%s, %s %q: %v", preset.Name, key, value, err)
					continue
				}
				delete(got, r.session)
				if want := r.spell(p); !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
					t.Errorf("%s, %s %q: the vendor reads %v from %q and %q", preset.Name, key, value, got, username, password)
				}
			}
		}
	}
}
