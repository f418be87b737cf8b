package upstream

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

func TestParseGatewayCredentials(t *testing.T) {
	tests := map[string]struct {
		config GatewayConfig
		want   string // username:password
	}{
		"none":                    {GatewayConfig{URL: "http://gw.example:1"}, ""},
		"plain":                   {GatewayConfig{URL: "http://user:pass@gw.example:1"}, "user:pass"},
		"escaped":                 {GatewayConfig{URL: "http://us%20er:p%40s%3As%25@gw.example:1"}, "us er:p@s:s%"},
		"raw colon and at":        {GatewayConfig{URL: "http://user:p@s:s@gw.example:1"}, "user:p@s:s"},
		"raw percent":             {GatewayConfig{URL: "http://user:100%sure@gw.example:1"}, "user:100%sure"},
		"raw space":               {GatewayConfig{URL: "http://user:two words@gw.example:1"}, "user:two words"},
		"raw slash and hash":      {GatewayConfig{URL: "http://user:a/b#c?d@gw.example:1"}, "user:a/b#c?d"},
		"password apart":          {GatewayConfig{URL: "http://gw.example:1", Username: "user", Password: "p%40:@ x"}, "user:p%40:@ x"},
		"only password apart":     {GatewayConfig{URL: "http://user@gw.example:1", Password: "p4ss"}, "user:p4ss"},
		"only username apart":     {GatewayConfig{URL: "http://user:pass@gw.example:1", Username: "u2"}, "u2:pass"},
		"apart wins":              {GatewayConfig{URL: "http://a:b@gw.example:1", Username: "c", Password: "d"}, "c:d"},
		"no password":             {GatewayConfig{URL: "http://token@gw.example:1"}, "token:"},
		"UTF-8":                   {GatewayConfig{URL: "http://user:pässwörd@gw.example:1"}, "user:pässwörd"},
		"vendor's session syntax": {GatewayConfig{URL: "http://customer-x-cc-us;cr.xx+y,z:p_country-us@gw.example:1"}, "customer-x-cc-us;cr.xx+y,z:p_country-us"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g, err := ParseGateway(test.config)
			must(t, err)
			want := ""
			if test.want != "" {
				want = "Basic " + base64.StdEncoding.EncodeToString([]byte(test.want))
			}
			if got := g.authorization(); got != want {
				t.Errorf("authorization %q, want %q", got, want)
			}
			if g.HasCredentials() != (test.want != "") {
				t.Errorf("HasCredentials %t", g.HasCredentials())
			}
			for _, s := range g.Secrets() {
				if strings.Contains(g.String(), s) {
					t.Errorf("String shows a secret: %s", g)
				}
			}
		})
	}
}

func TestParseGatewayForms(t *testing.T) {
	tests := map[string]struct{ url, want, name string }{
		"name":           {"http://gw.example:7777", "http://gw.example:7777", "gw.example"},
		"upper scheme":   {"HTTP://gw.example:7777/", "http://gw.example:7777", "gw.example"},
		"IPv4":           {"https://192.0.2.1:1", "https://192.0.2.1:1", "192.0.2.1"},
		"IPv6":           {"http://[2001:db8::1]:1", "http://[2001:db8::1]:1", "2001:db8::1"},
		"with login":     {"http://u:p@gw.example:7777", "http://***@gw.example:7777", "gw.example"},
		"direct":         {"direct://", "direct://", "direct"},
		"SOCKS5":         {"socks5://u:p@gw.example:1080", "socks5://***@gw.example:1080", "gw.example"},
		"SOCKS5h":        {"socks5h://gw.example:1080", "socks5://gw.example:1080", "gw.example"},
		"single label":   {"http://squid:3128", "http://squid:3128", "squid"},
		"underscore":     {"http://my_squid:3128", "http://my_squid:3128", "my_squid"},
		"at in password": {"http://u:p@x@gw.example:1", "http://***@gw.example:1", "gw.example"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g, err := ParseGateway(GatewayConfig{URL: test.url})
			must(t, err)
			if g.String() != test.want || g.Name != test.name || g.Weight != 1 {
				t.Errorf("%s called %s, weight %d; want %s called %s", g, g.Name, g.Weight, test.want, test.name)
			}
		})
	}
}

func TestParseGatewayErrors(t *testing.T) {
	const secret = "hunter2secret"
	empty := filepath.Join(t.TempDir(), "empty.pem")
	must(t, os.WriteFile(empty, []byte("nothing"), 0o600))
	tests := map[string]struct {
		config GatewayConfig
		want   string
	}{
		"no URL":            {GatewayConfig{URL: "gw.example:1"}, "not a URL"},
		"scheme":            {GatewayConfig{URL: "ftp://u:" + secret + "@gw.example:1"}, "the scheme"},
		"no port":           {GatewayConfig{URL: "http://u:" + secret + "@gw.example"}, "the port is missing"},
		"list format":       {GatewayConfig{URL: "http://gw.example:80:u:" + secret}, "user:password@host:port"},
		"port 0":            {GatewayConfig{URL: "http://gw.example:0"}, "the port is not"},
		"port 65536":        {GatewayConfig{URL: "http://gw.example:65536"}, "the port is not"},
		"path":              {GatewayConfig{URL: "http://u:" + secret + "@gw.example:1/x"}, "no path"},
		"query":             {GatewayConfig{URL: "http://gw.example:1?x"}, "no path"},
		"bad host":          {GatewayConfig{URL: "http://gw example:1"}, "neither a name"},
		"empty host":        {GatewayConfig{URL: "http://:1"}, "neither a name"},
		"zone":              {GatewayConfig{URL: "http://[fe80::1%25eth0]:1"}, "neither a name"},
		"control byte":      {GatewayConfig{URL: "http://gw.example:1", Username: "u", Password: secret + "\r\nX: y"}, "control byte"},
		"colon in username": {GatewayConfig{URL: "http://gw.example:1", Username: "a:b", Password: secret}, "colon"},
		"password alone":    {GatewayConfig{URL: "http://gw.example:1", Password: secret}, "without a username"},
		"direct with host":  {GatewayConfig{URL: "direct://x"}, "takes no host"},
		"direct with login": {GatewayConfig{URL: "direct://", Username: "u", Password: secret}, "no credentials"},
		"weight over 1000":  {GatewayConfig{URL: "http://gw.example:1", Weight: 1001}, "weight 1001"},
		"no host":           {GatewayConfig{URL: "http://u:" + secret + "@"}, "the host is missing"},
		"nothing":           {GatewayConfig{}, "the host is missing"},
		"unknown vendor":    {GatewayConfig{URL: "http://u:" + secret + "@gw.example:1", Vendor: "oxilabs"}, "unknown preset"},
		"pool with a dash":  {GatewayConfig{URL: "http://gw.example:1", Pool: "oxy-lab"}, "the pool's name"},
		"long pool":         {GatewayConfig{URL: "http://gw.example:1", Pool: strings.Repeat("x", 33)}, "32 characters"},
		"negative warm":     {GatewayConfig{URL: "https://gw.example:1", Warm: -1}, "-1 is not between 0 and 1000"},
		"much warm":         {GatewayConfig{URL: "https://gw.example:1", Warm: 1001}, "1001 is not between 0 and 1000"},
		"warm http":         {GatewayConfig{URL: "http://gw.example:1", Warm: 1}, "https:// gateways only"},
		"warm direct":       {GatewayConfig{URL: Direct, Warm: 1}, "no connections ready"},
		"template alone":    {GatewayConfig{URL: "http://gw.example:1", Password: "{password}-" + secret}, "without a username"},
		"SOCKS5, long name": {GatewayConfig{URL: "socks5://gw.example:1", Username: strings.Repeat("u", 256), Password: secret}, "255 bytes"},
		"SOCKS5, long":      {GatewayConfig{URL: "socks5://gw.example:1", Username: "u", Password: strings.Repeat(secret, 30)}, "255 bytes"},
		"SOCKS5, CA":        {GatewayConfig{URL: "socks5://gw.example:1", CAFile: empty}, "https://"},
		"weight":            {GatewayConfig{URL: "http://gw.example:1", Weight: -1}, "weight"},
		"max conns":         {GatewayConfig{URL: "http://gw.example:1", MaxConns: -1}, "negative"},
		"CA on http":        {GatewayConfig{URL: "http://gw.example:1", CAFile: empty}, "https://"},
		"CA missing":        {GatewayConfig{URL: "https://gw.example:1", CAFile: empty + "x"}, "CA file"},
		"CA empty":          {GatewayConfig{URL: "https://gw.example:1", CAFile: empty}, "no certificate"},
		"name not UTF-8":    {GatewayConfig{URL: "http://gw.example:1", Name: "caf\xe9"}, "the name"},
		"name":              {GatewayConfig{URL: "http://gw.example:1", Name: "a b"}, "the name"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseGateway(test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestParseGatewayPools(t *testing.T) {
	for pool, want := range map[string]string{"": DefaultPool, "oxy": "oxy", "A_1.b": "A_1.b", strings.Repeat("x", 32): strings.Repeat("x", 32)} {
		for _, url := range []string{"http://gw.example:1", Direct} {
			g, err := ParseGateway(GatewayConfig{URL: url, Pool: pool})
			must(t, err)
			if g.Pool != want || g.Vendor == nil || g.Vendor.Name != vendor.Generic {
				t.Errorf("%s, pool %q: %q, vendor %v", url, pool, g.Pool, g.Vendor)
			}
		}
	}
}

// With SOCKS5, 255 bytes are not too many.
func TestParseGatewaySOCKS5Credentials(t *testing.T) {
	g, err := ParseGateway(GatewayConfig{URL: "socks5://gw.example:1", Username: "u", Password: strings.Repeat("p", 255)})
	must(t, err)
	if g.Scheme != SchemeSOCKS5 || !g.HasCredentials() {
		t.Errorf("%s", g)
	}
}

func TestSecrets(t *testing.T) {
	g := gatewayOf(t, "", "http://user:hunter2@gw.example:1")
	token := strings.TrimPrefix(g.authorization(), "Basic ")
	if got := g.Secrets(); !slices.Equal(got, []string{token, "hunter2"}) {
		t.Errorf("secrets %q", got)
	}
	if got := gatewayOf(t, "", "http://user@gw.example:1").Secrets(); len(got) != 1 {
		t.Errorf("without a password: %q", got)
	}
	for _, url := range []string{"http://gw.example:1", Direct} {
		if got := gatewayOf(t, "", url).Secrets(); len(got) != 0 {
			t.Errorf("%s: %q", url, got)
		}
	}
}

func TestParseGatewayLoadsRoots(t *testing.T) {
	ca, err := upstreamtest.NewCA()
	must(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(file, ca.PEM(), 0o600))
	g, err := ParseGateway(GatewayConfig{URL: "https://gw.example:1", CAFile: file})
	must(t, err)
	if g.roots == nil || g.roots.Equal(ca.Pool()) == false {
		t.Error("the roots are not the file's")
	}
}
