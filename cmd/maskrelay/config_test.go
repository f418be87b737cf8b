package main

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/proxy/capacity"
	"maskrelay/proxy/fleet"
)

func TestLoadConfigDefaults(t *testing.T) {
	c, err := LoadConfig(environ(goodEnv(), nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"Listen", c.Listen, Listeners{{":8080", ""}}},
		{"TLSListen", c.TLS.TLSListen, Listeners(nil)},
		{"AdminListen", c.Admin.AdminListen, Address("127.0.0.1:9090")},
		{"Mode", c.Auth.Mode, AuthAccounts},
		{"Balance", c.Balance, RoundRobin},
		{"MaxConns", c.MaxConns, 0},
		{"User", c.User, UserConfig{MaxIPsWindow: 10 * time.Minute, UserQuotaPeriod: QuotaLifetime}},
		{"Health", c.Health, HealthConfig{10 * time.Second, ""}},
		{"Timeouts", c.Timeouts, TimeoutConfig{10 * time.Second, 5 * time.Second, 30 * time.Second, 10 * time.Minute}},
		{"Drain", c.Drain, DrainConfig{15 * time.Second, 10 * time.Minute}},
		{"Targets", c.Targets, TargetConfig{AllowPorts: Ports{List: []uint16{80, 443}}}},
		{"Brand", string(c.Brand), "Proxy"},
		{"Log", c.Log, LogConfig{"info", LogJSON, true}},
		{"Gateways", len(c.Gateways), 1},
		{"Accounts", c.Accounts.Len(), 2},
		{"Guess", c.Guess, GuessConfig{60, 300}},
		{"QueueTimeout", c.QueueTimeout, time.Duration(0)},
		{"Fleet", c.Fleet, (*fleet.Config)(nil)},
		{"Down", c.Redis.Down, DownLocalShare},
		{"hook's TLS", c.Hook.TLS, (*tls.Config)(nil)},
		{"Warnings", len(c.Warnings()), 0},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("%s = %v, want %v", f.name, f.got, f.want)
		}
	}
	if c.Policy == nil {
		t.Error("no policy was built")
	}
}

func TestLoadConfigEverything(t *testing.T) {
	cert, key := testCertificate(t)
	c, err := LoadConfig(environ(nil, map[string]string{
		"LISTEN": "127.0.0.1:8080@default, [::1]:8080@gold", "TLS_LISTEN": ":8443", "TLS_CERT_FILE": cert, "TLS_KEY_FILE": key,
		"PROXY_PROTOCOL_FROM": "10.0.0.7/8,2001:db8::/32", "ADMIN_LISTEN": ":9090", "ADMIN_TOKEN": "0123456789abcdef",
		"AUTH": "accounts", "ACCOUNTS": "alice:secret:20", "ALLOW_FROM": "203.0.113.9,::ffff:10.1.0.0/112",
		"UPSTREAMS_0_URL": "http://gw0.vendor.example:7777", "UPSTREAMS_0_USERNAME": "u@x", "UPSTREAMS_0_PASSWORD": "p:%@ w",
		"UPSTREAMS_0_NAME": "first", "UPSTREAMS_0_WEIGHT": "3", "UPSTREAMS_0_MAX_CONNS": "900", "UPSTREAMS_0_VENDOR": "generic",
		"UPSTREAMS_1_URL": "https://gw1.vendor.example:443", "UPSTREAMS_1_CA_FILE": cert, "UPSTREAMS_1_POOL": "gold", "UPSTREAMS_1_WARM": "4",
		"SESSION_KEY": "0123456789abcdef", "HEALTH_INTERVAL": "30s", "HEALTH_TARGET": "target.example:443",
		"BALANCE": "least_conn", "MAX_CONNS": "5000", "USER_MAX_CONNS": "100", "USER_CONN_RATE": "2.5", "USER_CONN_BURST": "10",
		"USER_BANDWIDTH": "2.5MB", "SOURCE_ADDRS": " ::ffff:127.0.0.1", "HEADER_TIMEOUT": "1s", "DIAL_TIMEOUT": "2s", "CONNECT_TIMEOUT": "3s", "IDLE_TIMEOUT": "24h",
		"DRAIN_GRACE": "0s", "DRAIN_TIMEOUT": "0s",
		"ALLOW_PORTS": "443, 8443,443", "DENY_HOSTS": "Bad.example., *.worse.example,192.0.2.1", "ALLOW_PRIVATE": "true",
		"BRAND": "Acme Proxy", "VENDOR_MARKS": "supervendor", "STRIP_REQUEST_HEADERS": "X-Foo-*", "STRIP_RESPONSE_HEADERS": "X-Bar",
		"LOG_LEVEL": "debug", "LOG_FORMAT": "console", "LOG_TARGETS": "false",
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"Listen", c.Listen, Listeners{{"127.0.0.1:8080", "default"}, {"[::1]:8080", "gold"}}},
		{"TLS", c.TLS, TLSConfig{Listeners{{":8443", ""}}, cert, key}},
		{"ProxyFrom", c.ProxyFrom, Prefixes{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}},
		{"Admin", c.Admin, AdminConfig{":9090", "0123456789abcdef"}},
		{"AllowFrom", c.Auth.AllowFrom, Prefixes{netip.MustParsePrefix("203.0.113.9/32"), netip.MustParsePrefix("10.1.0.0/16")}},
		{"Balance", c.Balance, LeastConn},
		{"MaxConns", c.MaxConns, 5000},
		{"User", c.User, UserConfig{100, 2.5, 10, 2_500_000, 0, 10 * time.Minute, 0, QuotaLifetime}},
		{"Health", c.Health, HealthConfig{30 * time.Second, "target.example:443"}},
		{"SessionKey", c.SessionKey.Reveal(), "0123456789abcdef"},
		{"Timeouts", c.Timeouts, TimeoutConfig{time.Second, 2 * time.Second, 3 * time.Second, 24 * time.Hour}},
		{"Drain", c.Drain, DrainConfig{}},
		{"Targets", c.Targets, TargetConfig{Ports{List: []uint16{443, 8443}}, HostPatterns{"bad.example", "*.worse.example", "192.0.2.1"}, true}},
		{"Brand", string(c.Brand), "Acme Proxy"},
		{"Masking", c.Masking, MaskingConfig{"Acme Proxy", Strings{"supervendor"}, Strings{"X-Foo-*"}, Strings{"X-Bar"}}},
		{"Log", c.Log, LogConfig{"debug", LogConsole, false}},
		{"Gateways", fmt.Sprint(c.Gateways), "[http://***@gw0.vendor.example:7777 https://gw1.vendor.example:443]"},
		{"first gateway", fmt.Sprint(c.Gateways[0].Name, c.Gateways[0].Weight, c.Gateways[0].MaxConns), "first3 900"},
		{"second gateway", fmt.Sprint(c.Gateways[1].Name, c.Gateways[1].Weight, c.Gateways[1].MaxConns, c.Gateways[1].Pool, c.Gateways[1].Warm), "gw1.vendor.example1 0gold4"},
		{"Sources", c.Sources, SourceAddrs{netip.MustParseAddr("127.0.0.1")}},
		{"Shape", c.Shape(), capacity.Shape{Gateways: 2, Pairs: 2, TLS: true}},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("%s = %v, want %v", f.name, f.got, f.want)
		}
	}
}

// TestEmptyMeansDefault: `X=` is what compose files make of an unset ${X}. For the two listeners it is "none".
func TestEmptyMeansDefault(t *testing.T) {
	cert, key := testCertificate(t)
	vars := map[string]string{"TLS_LISTEN": ":8443", "TLS_CERT_FILE": cert, "TLS_KEY_FILE": key}
	for _, f := range fields(&Config{}, "") {
		if _, set := vars[f.name]; !set && goodEnv()[f.name] == "" {
			vars[f.name] = ""
		}
	}
	vars["SESSION_KEY"] = ""
	vars["UPSTREAMS_0_URL"] = ""
	c, err := LoadConfig(environ(goodEnv(), vars))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != nil || c.Admin.AdminListen != "" {
		t.Errorf("Listen %q, AdminListen %q: empty is none", c.Listen, c.Admin.AdminListen)
	}
	if c.Timeouts.Idle != 10*time.Minute || c.Auth.Mode != AuthAccounts || !c.Log.LogTargets {
		t.Errorf("defaults are lost: %+v %+v %+v", c.Timeouts, c.Auth.Mode, c.Log)
	}
}

// TestLoadConfigErrors has one case for every way to be wrong, with the exact text.
func TestLoadConfigErrors(t *testing.T) {
	for _, c := range errorCases(t) {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadConfig(environ(goodEnv(), c.vars))
			if err == nil {
				t.Fatal("no error")
			}
			var want []string
			for _, line := range c.want {
				want = append(want, envPrefix+line)
			}
			if got := err.Error(); got != strings.Join(want, "\n") {
				t.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
			}
		})
	}
}

type errorCase struct {
	name string
	vars map[string]string // over goodEnv
	want []string          // lines, without envPrefix
}

func one(name, value string) map[string]string { return map[string]string{name: value} }

func errorCases(t testing.TB) []errorCase {
	cases := []errorCase{
		{"nothing at all", map[string]string{"UPSTREAM": "-", "ACCOUNTS": "-"}, []string{
			"AUTH: accounts needs MASKRELAY_ACCOUNTS_FILE, MASKRELAY_ACCOUNTS or MASKRELAY_ACCOUNTS_REDIS",
			"UPSTREAM: missing; write the vendor's gateway as http://user:password@host:port"}},
		{"several at once", map[string]string{"IDLE_TIMEOUT": "10", "MAX_CONNS": "x", "AUTH": "none", "BALANCE": "best"}, []string{
			`AUTH: "none" is not one of accounts, hook, passthrough, open`,
			`BALANCE: "best" is not one of round_robin, least_conn, ip_hash, user_hash`,
			`MAX_CONNS: "x" is not a whole number from 0 to 2147483647`,
			`IDLE_TIMEOUT: "10" is not a duration; write 10s or 10m`}},
		{"several in one list", one("LISTEN", "80,:99999,:8081"), []string{
			`LISTEN: "80" is not an address; write :8080 or 127.0.0.1:8080`,
			`LISTEN: ":99999": the port is not between 0 and 65535`}},
		{"several in the gateways", map[string]string{"UPSTREAM": "-",
			"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_WEIGHT": "x", "UPSTREAMS_1_URL": "ftp://b.example:1", "UPSTREAMS_1_MAX_CONNS": "y"}, []string{
			`UPSTREAMS_0_WEIGHT: "x" is not a whole number from 0 to 2147483647`,
			`UPSTREAMS_1_MAX_CONNS: "y" is not a whole number from 0 to 2147483647`,
			`UPSTREAMS_1_URL: the scheme is not http, https, socks5 or direct`}},
	}
	return slices.Concat(cases, valueErrors(), bandwidthAndSourceErrors(), crossErrors(), upstreamErrors(), fleetErrors(t), hookErrors(t))
}

func valueErrors() []errorCase {
	return []errorCase{
		{"pool without gateway", one("LISTEN", ":7777@oxy"), []string{`LISTEN: :7777@oxy: no gateway is in the pool oxy; write ADDR@POOL with one of default`}},
		{"pool's name", one("LISTEN", ":7777@a-b"), []string{`LISTEN: ":7777@a-b": the pool's name "a-b" has other characters than letters, digits, '_' and '.'`}},
		{"no pool's name", one("LISTEN", ":7777@"), []string{`LISTEN: ":7777@": the pool's name is not 1 to 32 characters long`}},
		{"HEALTH_INTERVAL", one("HEALTH_INTERVAL", "500ms"), []string{`HEALTH_INTERVAL: 500ms is not between 1s and 1h`}},
		{"HEALTH_TARGET", one("HEALTH_TARGET", "https://a.example/"), []string{`HEALTH_TARGET: "https://a.example/" is not host:port; write target.example:443`}},
		{"HEALTH_TARGET's port", one("HEALTH_TARGET", "a.example:0"), []string{`HEALTH_TARGET: "a.example:0": the port is not between 1 and 65535`}},
		{"SESSION_KEY", one("SESSION_KEY", "short"), []string{`SESSION_KEY: shorter than 16 bytes; take the output of: openssl rand -hex 32`}},
		{"empty element", one("LISTEN", ":8080,"), []string{`LISTEN: element 2 of the list is empty`}},
		{"host of LISTEN", one("LISTEN", "http://x:80"), []string{`LISTEN: "http://x:80" is not an address; write :8080 or 127.0.0.1:8080`}},
		{"wildcard star", one("LISTEN", "*:80"), []string{`LISTEN: "*:80": the host is neither a name nor an address`}},
		{"ADMIN_LISTEN", one("ADMIN_LISTEN", "9090"), []string{`ADMIN_LISTEN: "9090" is not an address; write :8080 or 127.0.0.1:8080`}},
		{"ADMIN_TOKEN", one("ADMIN_TOKEN", "two words"), []string{`ADMIN_TOKEN: holds spaces, control bytes or letters beyond ASCII`}},
		{"BALANCE", one("BALANCE", "random"), []string{`BALANCE: "random" is not one of round_robin, least_conn, ip_hash, user_hash`}},
		{"LOG_LEVEL", one("LOG_LEVEL", "loud"), []string{`LOG_LEVEL: "loud" is not one of debug, info, warn, error`}},
		{"LOG_FORMAT", one("LOG_FORMAT", "xml"), []string{`LOG_FORMAT: "xml" is not one of json, console`}},
		{"LOG_TARGETS", one("LOG_TARGETS", "yes"), []string{`LOG_TARGETS: "yes" is neither true nor false`}},
		{"PROXY_PROTOCOL_FROM", one("PROXY_PROTOCOL_FROM", "10.0.0.0/33"), []string{`PROXY_PROTOCOL_FROM: "10.0.0.0/33" is not a network; write 203.0.113.0/24 or 2001:db8::/32`}},
		{"ALLOW_FROM", one("ALLOW_FROM", "example.com"), []string{`ALLOW_FROM: "example.com" is not a network; write 203.0.113.0/24 or 2001:db8::/32`}},
		{"MAX_CONNS below 0", one("MAX_CONNS", "-1"), []string{`MAX_CONNS: "-1" is not a whole number from 0 to 2147483647`}},
		{"MAX_CONNS too big", one("MAX_CONNS", "2147483648"), []string{`MAX_CONNS: "2147483648" is not a whole number from 0 to 2147483647`}},
		{"USER_MAX_CONNS", one("USER_MAX_CONNS", "-2"), []string{`USER_MAX_CONNS: "-2" is not a whole number from 0 to 2147483647`}},
		{"USER_CONN_BURST below 0", one("USER_CONN_BURST", "-3"), []string{`USER_CONN_BURST: "-3" is not a whole number from 0 to 2147483647`}},
		{"USER_CONN_RATE no number", one("USER_CONN_RATE", "fast"), []string{`USER_CONN_RATE: "fast" is not a number`}},
		{"USER_CONN_RATE NaN", one("USER_CONN_RATE", "NaN"), []string{`USER_CONN_RATE: NaN is not between 0 and 1000000`}},
		{"USER_CONN_RATE infinite", one("USER_CONN_RATE", "Inf"), []string{`USER_CONN_RATE: +Inf is not between 0 and 1000000`}},
		{"USER_CONN_RATE below 0", one("USER_CONN_RATE", "-0.5"), []string{`USER_CONN_RATE: -0.5 is not between 0 and 1000000`}},
		{"HEADER_TIMEOUT zero", one("HEADER_TIMEOUT", "0s"), []string{`HEADER_TIMEOUT: 0s is not above 0 and at most 24h`}},
		{"DIAL_TIMEOUT below 0", one("DIAL_TIMEOUT", "-1s"), []string{`DIAL_TIMEOUT: -1s is not above 0 and at most 24h`}},
		{"CONNECT_TIMEOUT", one("CONNECT_TIMEOUT", "25h"), []string{`CONNECT_TIMEOUT: 25h is not above 0 and at most 24h`}},
		{"IDLE_TIMEOUT", one("IDLE_TIMEOUT", "ten"), []string{`IDLE_TIMEOUT: "ten" is not a duration; write 10s or 10m`}},
		{"DRAIN_GRACE", one("DRAIN_GRACE", "-1s"), []string{`DRAIN_GRACE: -1s is below 0`}},
		{"DRAIN_TIMEOUT", one("DRAIN_TIMEOUT", "-1m"), []string{`DRAIN_TIMEOUT: -1m is below 0`}},
		{"ALLOW_PORTS zero", one("ALLOW_PORTS", "0"), []string{`ALLOW_PORTS: "0" is not a port between 1 and 65535; write 80,443 or * alone`}},
		{"ALLOW_PORTS star and more", one("ALLOW_PORTS", "80,*"), []string{`ALLOW_PORTS: "*" is not a port between 1 and 65535; write 80,443 or * alone`}},
		{"DENY_HOSTS", one("DENY_HOSTS", "http://x"), []string{`DENY_HOSTS: "http://x" is not a name; write example.com, *.example.com or an address (xn-- for letters beyond ASCII)`}},
		{"ALLOW_PRIVATE", one("ALLOW_PRIVATE", "2"), []string{`ALLOW_PRIVATE: "2" is neither true nor false`}},
	}
}

func bandwidthAndSourceErrors() []errorCase {
	return []errorCase{
		{"USER_BANDWIDTH no size", one("USER_BANDWIDTH", "fast"), []string{`USER_BANDWIDTH: "fast" is not a size; write 10MB (powers of 1000), 10MiB or a number of bytes`}},
		{"USER_BANDWIDTH bits", one("USER_BANDWIDTH", "10Mb"), []string{`USER_BANDWIDTH: "10Mb" is not a size; write 10MB (powers of 1000), 10MiB or a number of bytes`}},
		{"USER_BANDWIDTH below 0", one("USER_BANDWIDTH", "-1MB"), []string{`USER_BANDWIDTH: "-1MB" is not a size; write 10MB (powers of 1000), 10MiB or a number of bytes`}},
		{"USER_BANDWIDTH too low", one("USER_BANDWIDTH", "10"), []string{`USER_BANDWIDTH: "10" is below 1KB a second, at which nothing useful passes; is the unit missing?`}},
		{"USER_BANDWIDTH too high", one("USER_BANDWIDTH", "2TB"), []string{`USER_BANDWIDTH: "2TB" is above 1TB a second`}},
		{"SOURCE_ADDRS", one("SOURCE_ADDRS", "127.0.0.1:80,localhost,10.0.0.0/8"), []string{
			`SOURCE_ADDRS: "127.0.0.1:80" is not an address; write 203.0.113.7 or 2001:db8::7, without a port`,
			`SOURCE_ADDRS: "localhost" is not an address; write 203.0.113.7 or 2001:db8::7, without a port`,
			`SOURCE_ADDRS: "10.0.0.0/8" is not an address; write 203.0.113.7 or 2001:db8::7, without a port`}},
		{"SOURCE_ADDRS twice", one("SOURCE_ADDRS", "127.0.0.1,::1,::ffff:127.0.0.1"), []string{`SOURCE_ADDRS: "127.0.0.1" is there twice`}},
		{"SOURCE_ADDRS unfit", one("SOURCE_ADDRS", "fe80::1%lo,::ffff:127.0.0.1%lo,0.0.0.0,::,224.0.0.1,ff02::1,255.255.255.255,fe80::1"), []string{
			`SOURCE_ADDRS: "fe80::1%lo": zones are not supported`,
			`SOURCE_ADDRS: "::ffff:127.0.0.1%lo": zones are not supported`,
			`SOURCE_ADDRS: "0.0.0.0" means any address; leave the variable out for that`,
			`SOURCE_ADDRS: "::" means any address; leave the variable out for that`,
			`SOURCE_ADDRS: "224.0.0.1" is a multicast address`,
			`SOURCE_ADDRS: "ff02::1" is a multicast address`,
			`SOURCE_ADDRS: "255.255.255.255" is the broadcast address`,
			`SOURCE_ADDRS: "fe80::1" is link-local, which needs a zone; zones are not supported`}},
		{"SOURCE_ADDRS not here", one("SOURCE_ADDRS", "127.0.0.1,198.51.100.1,198.51.100.2"), []string{
			`SOURCE_ADDRS: "198.51.100.1" cannot be bound; is it an address of this host? ` + syscall.EADDRNOTAVAIL.Error(),
			`SOURCE_ADDRS: "198.51.100.2" cannot be bound; is it an address of this host? ` + syscall.EADDRNOTAVAIL.Error()}},
	}
}

func crossErrors() []errorCase {
	none := func(more map[string]string) map[string]string {
		more["ACCOUNTS"] = "-"
		return more
	}
	return []errorCase{
		{"burst without rate", one("USER_CONN_BURST", "5"), []string{`USER_CONN_BURST: a burst needs MASKRELAY_USER_CONN_RATE`}},
		{"no listener", one("LISTEN", ""), []string{`LISTEN: empty, and so is MASKRELAY_TLS_LISTEN; the relay needs an address`}},
		{"LISTEN twice", one("LISTEN", "127.0.0.1:80,127.0.0.1:80"), []string{`LISTEN: 127.0.0.1:80 is taken by 127.0.0.1:80 in MASKRELAY_LISTEN`}},
		{"LISTEN and ADMIN_LISTEN", one("LISTEN", ":9090"), []string{`ADMIN_LISTEN: 127.0.0.1:9090 is taken by :9090 in MASKRELAY_LISTEN`}},
		{"TLS without files", one("TLS_LISTEN", ":8443"), []string{
			`TLS_CERT_FILE: MASKRELAY_TLS_LISTEN needs it`, `TLS_KEY_FILE: MASKRELAY_TLS_LISTEN needs it`}},
		{"TLS file without TLS", one("TLS_KEY_FILE", "/k"), []string{`TLS_KEY_FILE: set without MASKRELAY_TLS_LISTEN`}},
		{"TLS files missing", map[string]string{"TLS_LISTEN": ":8443", "TLS_CERT_FILE": "/nowhere/c", "TLS_KEY_FILE": "/nowhere/k"}, []string{
			`TLS_CERT_FILE: open /nowhere/c: no such file or directory`, `TLS_KEY_FILE: open /nowhere/k: no such file or directory`}},
		{"TLS files no PEM", map[string]string{"TLS_LISTEN": ":8443", "TLS_CERT_FILE": "/dev/null", "TLS_KEY_FILE": "/dev/null"}, []string{
			`TLS_CERT_FILE: with MASKRELAY_TLS_KEY_FILE: tls: failed to find any PEM data in certificate input`}},
		{"accounts without any", one("ACCOUNTS", "-"), []string{`AUTH: accounts needs MASKRELAY_ACCOUNTS_FILE, MASKRELAY_ACCOUNTS or MASKRELAY_ACCOUNTS_REDIS`}},
		{"open without networks", none(map[string]string{"AUTH": "open"}), []string{`ALLOW_FROM: AUTH=open needs the networks of the clients`}},
		{"open to the world", none(map[string]string{"AUTH": "open", "ALLOW_FROM": "10.0.0.0/8,0.0.0.0/0"}), []string{
			`ALLOW_FROM: with AUTH=open it must not hold the whole Internet`}},
		{"open to the world of IPv6", none(map[string]string{"AUTH": "open", "ALLOW_FROM": "10.0.0.0/8,::/0"}), []string{
			`ALLOW_FROM: with AUTH=open it must not hold the whole Internet`}},
		{"open with accounts", map[string]string{"AUTH": "open", "ALLOW_FROM": "10.0.0.0/8"}, []string{`ACCOUNTS: has no effect with AUTH=open; leave it out`}},
		{"open with an accounts file", none(map[string]string{"AUTH": "open", "ALLOW_FROM": "10.0.0.0/8", "ACCOUNTS_FILE": "/a"}), []string{
			`ACCOUNTS_FILE: has no effect with AUTH=open; leave it out`}},
		{"sources and direct", map[string]string{"SOURCE_ADDRS": "127.0.0.1", "UPSTREAM": "direct://"}, []string{
			`UPSTREAM: direct:// has no gateway for the connections of MASKRELAY_SOURCE_ADDRS; leave one out`}},
		{"sources of the other family", map[string]string{"SOURCE_ADDRS": "127.0.0.1", "UPSTREAM": "http://[::1]:80"}, []string{
			`SOURCE_ADDRS: none is of the family of gateway [::1]:80`}},
		{"passthrough direct", none(map[string]string{"AUTH": "passthrough", "UPSTREAM": "direct://"}), []string{
			`UPSTREAM: direct:// has no vendor that could check what AUTH=passthrough passes on`}},
		{"passthrough with credentials", none(map[string]string{"AUTH": "passthrough"}), []string{
			`UPSTREAM: the gateway has credentials, but AUTH=passthrough sends the customer's own; leave one out`}},
	}
}

func upstreamErrors() []errorCase {
	with := func(vars map[string]string) map[string]string {
		vars["UPSTREAM"] = "-"
		return vars
	}
	return []errorCase{
		{"both kinds", one("UPSTREAMS_0_URL", "http://a.example:1"), []string{`UPSTREAM: MASKRELAY_UPSTREAMS_0_URL is set too; keep one of the two`}},
		{"gap", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_2_URL": "http://b.example:1"}), []string{
			`UPSTREAMS_1_URL: missing; gateways are numbered from 0 without gaps, and UPSTREAMS_2 is set`}},
		{"begins at 1", with(map[string]string{"UPSTREAMS_1_URL": "http://a.example:1"}), []string{
			`UPSTREAMS_0_URL: missing; gateways are numbered from 0 without gaps, and UPSTREAMS_1 is set`}},
		{"without URL", with(map[string]string{"UPSTREAMS_0_NAME": "a"}), []string{
			`UPSTREAMS_0_URL: missing; write the vendor's gateway as http://user:password@host:port`}},
		{"same name", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_1_URL": "http://a.example:2"}), []string{
			`UPSTREAMS_1_NAME: "a.example" is the name of UPSTREAMS_0 already; give each gateway its own`}},
		{"same name behind a broken gateway", with(map[string]string{"UPSTREAMS_0_URL": "ftp://b.example:1", "UPSTREAMS_1_URL": "http://a.example:1", "UPSTREAMS_2_URL": "http://a.example:2"}), []string{
			`UPSTREAMS_0_URL: the scheme is not http, https, socks5 or direct`,
			`UPSTREAMS_2_NAME: "a.example" is the name of UPSTREAMS_1 already; give each gateway its own`}},
		{"weight", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_WEIGHT": "0"}), []string{
			`UPSTREAMS_0_WEIGHT: 0 is not between 1 and 1000`}},
		{"max conns", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_MAX_CONNS": "-1"}), []string{
			`UPSTREAMS_0_MAX_CONNS: "-1" is not a whole number from 0 to 2147483647`}},
		{"vendor", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_VENDOR": "oxilabs"}), []string{
			`UPSTREAMS_0_VENDOR: unknown preset "oxilabs"; did you mean oxylabs?`}},
		{"pool", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_POOL": "oxy-1"}), []string{
			`UPSTREAMS_0_POOL: the pool's name "oxy-1" has other characters than letters, digits, '_' and '.'`}},
		{"pool of a listener", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_POOL": "oxy-1", "LISTEN": ":8080@oxy"}), []string{
			`UPSTREAMS_0_POOL: the pool's name "oxy-1" has other characters than letters, digits, '_' and '.'`}},
		{"templates", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_USERNAME": "c-{login}", "UPSTREAMS_0_PASSWORD": "p}"}), []string{
			`UPSTREAMS_0_PASSWORD: password template, position 2: '}' closes nothing; a literal brace is written '}}'`}},
		{"CA file", with(map[string]string{"UPSTREAMS_0_URL": "https://a.example:1", "UPSTREAMS_0_CA_FILE": "/nowhere/ca"}), []string{
			`UPSTREAMS_0_CA_FILE: open /nowhere/ca: no such file or directory`}},
		{"CA file without TLS", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_CA_FILE": "/dev/null"}), []string{
			`UPSTREAMS_0_CA_FILE: a CA file is for https:// gateways`}},
		{"CA file without a certificate", with(map[string]string{"UPSTREAMS_0_URL": "https://a.example:1", "UPSTREAMS_0_CA_FILE": "/dev/null"}), []string{
			`UPSTREAMS_0_CA_FILE: CA file: no certificate in /dev/null`}},
		{"warm without TLS", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_WARM": "5"}), []string{
			`UPSTREAMS_0_WARM: connections are kept ready for https:// gateways only`}},
		{"much warm", with(map[string]string{"UPSTREAMS_0_URL": "https://a.example:1", "UPSTREAMS_0_WARM": "5000"}), []string{
			`UPSTREAMS_0_WARM: 5000 is not between 0 and 1000`}},
		{"warm beyond the limit", with(map[string]string{"UPSTREAMS_0_URL": "https://a.example:1", "UPSTREAMS_0_WARM": "5", "UPSTREAMS_0_MAX_CONNS": "3"}), []string{
			`UPSTREAMS_0_WARM: 5 connections kept ready are more than the limit of 3`}},
		{"vendor of direct", with(map[string]string{"UPSTREAMS_0_URL": "direct://", "UPSTREAMS_0_VENDOR": "oxylabs"}), []string{
			`UPSTREAMS_0_VENDOR: direct:// takes no vendor`}},
		{"password alone", with(map[string]string{"UPSTREAMS_0_URL": "http://a.example:1", "UPSTREAMS_0_PASSWORD": "geheim"}), []string{
			`UPSTREAMS_0_PASSWORD: a password without a username`}},
		{"template without a login", with(map[string]string{"UPSTREAMS_0_URL": "http://L:p@a.example:1", "UPSTREAMS_0_USERNAME": "{country}"}), []string{
			`UPSTREAMS_0_USERNAME: the template makes no login for customers who ask for nothing; write {login} or words of its own into it`}},
	}
}
