package main

import (
	"strings"
	"testing"
)

func TestPublicAddr(t *testing.T) {
	for in, want := range map[string][2]string{
		"proxy.example.com":      {"proxy.example.com", ""},
		"proxy.example.com:7777": {"proxy.example.com", "7777"},
		"proxy":                  {"proxy", ""},
		"203.0.113.7":            {"203.0.113.7", ""},
		"203.0.113.7:1":          {"203.0.113.7", "1"},
		"2001:db8::7":            {"2001:db8::7", ""},
		"[2001:db8::7]":          {"2001:db8::7", ""},
		"[2001:db8::7]:8080":     {"2001:db8::7", "8080"},
	} {
		c, err := LoadConfig(environ(goodEnv(), one("PUBLIC_ADDR", in)))
		if err != nil || string(c.Public) != in {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if host, port, err := splitPublic(in); host != want[0] || port != want[1] || err != nil {
			t.Errorf("%q is %q and %q, %v", in, host, port, err)
		}
	}
}

func TestPublicAddrErrors(t *testing.T) {
	const write = "; write proxy.example.com or proxy.example.com:8080"
	for in, want := range map[string]string{
		"http://proxy.example.com": "has a scheme, a login or a path" + write,
		"u:hunter2@proxy.example":  "has a scheme, a login or a path" + write,
		"proxy.example.com:0":      `"proxy.example.com:0": the port is not between 1 and 65535`,
		"proxy.example.com:":       `"proxy.example.com:": the port is not between 1 and 65535`,
		"proxy.example.com:http":   `"proxy.example.com:http": the port is not between 1 and 65535`,
		":8080":                    `":8080": the host is neither a name nor an address that customers could use` + write,
		"0.0.0.0:8080":             "the host is neither",
		"[::]:8080":                "the host is neither",
		"::":                       "the host is neither",
		"[proxy]:80":               "the host is neither",
		"fe80::1%eth0":             "the host is neither",
		"203.0.113":                "the host is neither",
		"*:8080":                   "the host is neither",
		"two words":                "the host is neither",
		"a:b:c":                    `"a:b:c" is not a host with a port` + write,
		"[::1":                     "is not a host with a port",
		strings.Repeat("a.", 200):  "the host is neither",
	} {
		_, err := LoadConfig(environ(goodEnv(), one("PUBLIC_ADDR", in)))
		if err == nil || !strings.HasPrefix(err.Error(), "MASKRELAY_PUBLIC_ADDR: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}
