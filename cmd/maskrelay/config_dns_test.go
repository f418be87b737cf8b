package main

import "testing"

func TestNameServer(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "192.0.2.53": "192.0.2.53:53", "2001:db8::53": "[2001:db8::53]:53", "127.0.0.1:5353": "127.0.0.1:5353", "[::1]:5353": "[::1]:5353",
	} {
		var s NameServer
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("%q is %q, %v", text, s, err)
		}
	}
	for _, text := range []string{"dns.example", "dns.example:53", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:70000", "0.0.0.0", "[::]:53", "224.0.0.251:5353", "[::1]"} {
		var s NameServer
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %q", text, s)
		}
	}
}
