package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"maskrelay/proxy/capacity"
)

func TestGatewayMarks(t *testing.T) {
	for _, c := range []struct{ name, url, want, fields string }{
		{"a name", "http://u:p@gw.vendor.example:7777", "gw.vendor.example vendor.example", "X-vendor-*"},
		{"a deep name", "http://u:p@us.Gate.Acmeproxy.co.uk:7777", "acmeproxy.co.uk us.Gate.Acmeproxy.co.uk", "X-acmeproxy-*"},
		{"a name without a dot", "http://squid:3128", "squid:3128", ""},
		{"a public address", "http://192.0.2.7:3128", "192.0.2.7", ""},
		{"a private address", "http://10.0.0.7:3128", "10.0.0.7:3128", ""},
		{"loopback", "http://127.0.0.1:3128", "127.0.0.1:3128", ""},
		{"IPv6 loopback", "http://[::1]:3128", "[::1]:3128", ""},
		{"no gateway", "direct://", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := LoadConfig(environ(goodEnv(), one("UPSTREAM", c.url)))
			if err != nil {
				t.Fatal(err)
			}
			marks, fields := cfg.gatewayMarks()
			if got := strings.Join(marks, " "); got != c.want {
				t.Errorf("marks %q, want %q", got, c.want)
			}
			if got := strings.Join(fields, " "); got != c.fields {
				t.Errorf("fields %q, want %q", got, c.fields)
			}
		})
	}
}

// TestPolicyKnowsTheGateways: a response header that names the gateway does not reach a customer.
func TestPolicyKnowsTheGateways(t *testing.T) {
	cfg, err := LoadConfig(environ(goodEnv(), map[string]string{"VENDOR_MARKS": "SuperVendor", "STRIP_RESPONSE_HEADERS": "X-Mine-*"}))
	if err != nil {
		t.Fatal(err)
	}
	h := map[string][]string{
		"X-Served": {"gw.vendor.example"}, "X-Who": {"supervendor 2"}, "X-Mine-Too": {"1"}, "X-Vendor-Session": {"1"}, "Etag": {"kept"},
	}
	cfg.Policy.Response(h)
	if len(h) != 1 || h["Etag"] == nil {
		t.Errorf("left over: %v", h)
	}
}

// TestMaskingErrorsNameTheirVariable: the words are the masking package's, the blame is ours.
func TestMaskingErrorsNameTheirVariable(t *testing.T) {
	for name, value := range map[string]string{
		"BRAND": `say "hi"`, "VENDOR_MARKS": "ab", "STRIP_REQUEST_HEADERS": "X Foo", "STRIP_RESPONSE_HEADERS": "X:Foo",
	} {
		_, err := LoadConfig(environ(goodEnv(), one(name, value)))
		if err == nil || !strings.HasPrefix(err.Error(), envPrefix+name+": ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

func TestShape(t *testing.T) {
	for _, c := range []struct {
		name, sources string
		urls          []string
		want          capacity.Shape
	}{
		{"two logins at one address", "", []string{"http://a:b@x.example:1", "http://c:d@x.example:1"}, capacity.Shape{Gateways: 1, Pairs: 1}},
		{"two ports", "", []string{"http://x.example:1", "http://x.example:2"}, capacity.Shape{Gateways: 2, Pairs: 2}},
		{"direct only", "", []string{"direct://"}, capacity.Shape{}},
		{"TLS gateway", "", []string{"http://x.example:1", "https://x.example:2"}, capacity.Shape{Gateways: 2, Pairs: 2, TLS: true}},
		{"sources", "127.0.0.1,127.0.0.2,::1", []string{"http://x.example:1", "http://[::1]:2", "http://127.0.0.3:1"}, capacity.Shape{Gateways: 3, Pairs: 5}},
		{"IPv6 alone", "::1", []string{"http://x.example:1"}, capacity.Shape{Gateways: 1, Pairs: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.sources != "" {
				needAddrs(t, strings.Split(c.sources, ",")...)
			}
			vars := map[string]string{"UPSTREAM": "-", "SOURCE_ADDRS": c.sources}
			for n, url := range c.urls {
				vars[upstreamPrefix(n)+"URL"] = url
				vars[upstreamPrefix(n)+"NAME"] = fmt.Sprint("gw", n)
			}
			cfg, err := LoadConfig(environ(goodEnv(), vars))
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Shape(); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestManyGateways(t *testing.T) {
	vars := map[string]string{"UPSTREAM": "-"}
	for n := range maxUpstreams + 1 {
		vars[upstreamPrefix(n)+"URL"] = fmt.Sprintf("http://gw%d.example:1", n)
	}
	_, err := LoadConfig(environ(goodEnv(), vars))
	if want := "MASKRELAY_UPSTREAMS_1000_URL: more than 1000 gateways"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	delete(vars, "UPSTREAMS_1000_URL")
	cfg, err := LoadConfig(environ(goodEnv(), vars))
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Gateways[999].Host; got != "gw999.example" {
		t.Errorf("the last gateway is %s: numbers are not in order", got)
	}
}

func TestAccountsFile(t *testing.T) {
	good := writeFile(t, "accounts:\n  - name: carol\n    password: carolsecret\n")
	cfg, err := LoadConfig(environ(goodEnv(), one("ACCOUNTS_FILE", good)))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Accounts.Len() != 3 {
		t.Errorf("%d accounts from both sources, want 3", cfg.Accounts.Len())
	}
}

// TestAccountErrors: every line begins with the variable or with file:line, and holds no password.
func TestAccountErrors(t *testing.T) {
	bad := writeFile(t, "accounts:\n  - name: carol\n    pasword: PLANTED\n  - name: \"no good\"\n    password: PLANTED\n")
	for _, c := range []struct {
		name   string
		vars   map[string]string
		begins []string
	}{
		{"file missing", one("ACCOUNTS_FILE", "/nowhere/a.yaml"), []string{envPrefix + "ACCOUNTS_FILE: ", "/nowhere/a.yaml:"}},
		{"file bad", one("ACCOUNTS_FILE", bad), []string{bad + ":"}},
		{"list without password", one("ACCOUNTS", "alice"), []string{envPrefix + "ACCOUNTS: "}},
		{"list with a bad cap", one("ACCOUNTS", "alice:PLANTED:many"), []string{envPrefix + "ACCOUNTS: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadConfig(environ(goodEnv(), c.vars))
			if err == nil {
				t.Fatal("no error")
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !slices.ContainsFunc(c.begins, func(b string) bool { return strings.HasPrefix(line, b) }) || strings.Contains(line, "PLANTED") {
					t.Errorf("line %q", line)
				}
			}
		})
	}
}
