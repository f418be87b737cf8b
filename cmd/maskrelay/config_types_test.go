package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestSecretNeverShows(t *testing.T) {
	s := struct{ S Secret }{"geheim"}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %s %q", s, s, s, s.S), string(data)} {
		if strings.Contains(text, "geheim") || !strings.Contains(text, redacted) {
			t.Errorf("printed as %s", text)
		}
	}
	if s.S.Reveal() != "geheim" || Secret("").String() != "" {
		t.Error("Reveal or the zero value is wrong")
	}
}

// TestTypesRoundTrip: what a variable says, parsed and printed, is in normal form and stays so.
func TestTypesRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name     string
		value    encoding.TextUnmarshaler
		in, want string
	}{
		{"listeners", &Listeners{}, " :80 , [::1]:0@oxy,localhost:9", ":80,[::1]:0@oxy,localhost:9"},
		{"networks", &Prefixes{}, "10.1.2.3/8,::1,::ffff:192.0.2.1,::ffff:192.0.2.0/120,2001:db8::1/32", "10.0.0.0/8,::1/128,192.0.2.1/32,192.0.2.0/24,2001:db8::/32"},
		{"ports", &Ports{}, "443,80,443", "80,443"},
		{"all ports", &Ports{}, " * ", "*"},
		{"hosts", &HostPatterns{}, "A.example.,*.B.example,[::1],192.0.2.1,a_b.example", "a.example,*.b.example,::1,192.0.2.1,a_b.example"},
		{"sources", &SourceAddrs{}, "127.0.0.1, ::FFFF:127.0.0.2,2001:DB8::0:7", "127.0.0.1,127.0.0.2,2001:db8::7"},
		{"bandwidth", new(Bandwidth), "1000KB", "1MB"},
		{"no bandwidth", new(Bandwidth), "0KB", "0"},
		{"words", &Strings{}, "a , b c", "a,b c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				if err := c.value.UnmarshalText([]byte(c.in)); err != nil {
					t.Fatal(err)
				}
				// The values, not pointers to them, are what String is defined on.
				got := fmt.Sprint(deref(c.value))
				if got != c.want {
					t.Fatalf("got %s, want %s", got, c.want)
				}
				c.in = got
			}
		})
	}
}

func deref(v any) any {
	switch v := v.(type) {
	case *Listeners:
		return *v
	case *Prefixes:
		return *v
	case *Ports:
		return *v
	case *HostPatterns:
		return *v
	case *SourceAddrs:
		return *v
	case *Bandwidth:
		return *v
	case *Strings:
		return *v
	}
	return nil
}

func TestTypesRefuse(t *testing.T) {
	for _, c := range []struct {
		name  string
		value encoding.TextUnmarshaler
		in    string
	}{
		{"address without port", new(Address), "127.0.0.1"},
		{"address with a named port", new(Address), ":http"},
		{"address with a negative port", new(Address), ":-1"},
		{"bare IPv6", new(Address), "::1:80"},
		{"zone", &Prefixes{}, "fe80::1%eth0"},
		{"prefix with a zone", &Prefixes{}, "fe80::%eth0/64"},
		{"nothing between commas", &Strings{}, "a,,b"},
		{"too many", &Strings{}, strings.Repeat("a,", maxList) + "a"},
		{"star within a name", &HostPatterns{}, "a.*.example"},
		{"star alone", &HostPatterns{}, "*"},
		{"star and dot", &HostPatterns{}, "*."},
		{"empty label", &HostPatterns{}, "a..example"},
		{"label too long", &HostPatterns{}, strings.Repeat("a", 64) + ".example"},
		{"name too long", &HostPatterns{}, strings.Repeat("a.", 127) + "example"},
		{"letters beyond ASCII", &HostPatterns{}, "bücher.example"},
		{"host with a port", &HostPatterns{}, "a.example:80"},
		{"port out of range", &Ports{}, "65536"},
		{"port range", &Ports{}, "80-90"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.value.UnmarshalText([]byte(c.in)); err == nil {
				t.Errorf("%q is accepted", c.in)
			}
		})
	}
}

func TestAddressConflicts(t *testing.T) {
	for _, c := range []struct {
		a, b Address
		want bool
	}{
		{":80", ":80", true},
		{":80", ":81", false},
		{":0", ":0", false},
		{":80", "127.0.0.1:80", true},
		{":80", "[::1]:80", true},
		{"[::]:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"0.0.0.0:80", "[::1]:80", false},
		{"0.0.0.0:80", "[::]:80", true},
		{"0.0.0.0:80", "localhost:80", true},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"127.0.0.1:80", "[::1]:80", false},
		{"LocalHost:80", "localhost:80", true},
	} {
		if c.a.conflicts(c.b) != c.want || c.b.conflicts(c.a) != c.want {
			t.Errorf("%s and %s: want conflict %v both ways", c.a, c.b, c.want)
		}
	}
}

func TestAddressLoopback(t *testing.T) {
	for a, want := range map[Address]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		":1": false, "0.0.0.0:1": false, "10.0.0.1:1": false, "relay.example:1": false,
	} {
		if a.loopback() != want {
			t.Errorf("%s: loopback is not %v", a, want)
		}
	}
}
