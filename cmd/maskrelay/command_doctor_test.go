package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"maskrelay/proxy/account"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// ward is a gateway, a target behind it, and an environment that knows both.
type ward struct {
	vendor *upstreamtest.Vendor
	target *upstreamtest.Judge
	vars   map[string]string
}

const (
	wardUser     = "customer-77aa"
	wardPassword = "Vend0r-Passw0rd"
)

func startWard(t *testing.T) *ward {
	t.Helper()
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Username: wardUser, Password: wardPassword})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	j, err := upstreamtest.StartJudge(upstreamtest.JudgeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return &ward{vendor: v, target: j, vars: map[string]string{
		"UPSTREAM": v.URL(), "ALLOW_PORTS": "*", "ALLOW_PRIVATE": "true",
		"LISTEN": nobodyListens(t), "ADMIN_LISTEN": nobodyListens(t),
	}}
}

// doctor runs the command with some variables changed, and reads its JSON back.
func (w *ward) doctor(t *testing.T, change map[string]string, args ...string) (ending, doctorReport) {
	t.Helper()
	vars := maps.Clone(w.vars)
	maps.Copy(vars, change)
	args = append([]string{"doctor", "--json", "--target", w.target.URL() + "/"}, args...)
	got := runWith(environ(goodEnv(), vars), "", args...)
	var r doctorReport
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil && got.code != exitConfig {
		t.Fatalf("exit code %d: %v:\n%s%s", got.code, err, got.stdout, got.stderr)
	}
	return got, r
}

// hop is the first of a name, in a part of a kind.
func (r *doctorReport) hop(kind, name string) doctorHop {
	for _, p := range r.Parts {
		for _, h := range p.Hops {
			if p.Kind == kind && h.Hop == name {
				return h
			}
		}
	}
	return doctorHop{}
}

// answering is a listener that answers every connection's first bytes with one text, as a relay does.
func answering(t *testing.T, text string) (addr string, heard <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			var all string
			for !strings.Contains(all, "\r\n\r\n") {
				n, err := c.Read(buf)
				if all += string(buf[:n]); err != nil {
					break
				}
			}
			said <- all
			_, _ = c.Write([]byte(text))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String(), said
}

func relayReply(status int) string {
	return fmt.Sprintf("HTTP/1.1 %d Text\r\nProxy-Status: Proxy; error=http_request_denied\r\nContent-Length: 0\r\n\r\n", status)
}

func TestDoctorHealthy(t *testing.T) {
	w := startWard(t)
	relay, heard := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	got, r := w.doctor(t, map[string]string{"LISTEN": relay}, "--user", "alice")
	if got.code != 0 || !r.OK || !strings.HasPrefix(r.Summary, "all is fine: ") || got.stderr != "" {
		t.Fatalf("%+v %s", got, r.Summary)
	}
	if h := r.hop("relay", "exchange"); h.Result != upstream.HopOK {
		t.Errorf("exchange: %+v", h)
	}
	if asked := <-heard; !strings.HasPrefix(asked, "GET "+w.target.URL()+"/ HTTP/1.1\r\n") || !strings.Contains(asked, "\r\nProxy-Authorization: Basic YWxpY2U6YWxpY2VzZWNyZXQ=\r\n") {
		t.Errorf("the relay was asked %q", asked)
	}
	got, _ = w.doctor(t, nil)
	if got.code != 0 {
		t.Errorf("without --user: %+v", got)
	}
}

// TestDoctorProxyHeader: from an address that balancers have, the relay requires a PROXY header.
func TestDoctorProxyHeader(t *testing.T) {
	w := startWard(t)
	for from, want := range map[string]string{"127.0.0.0/8": "PROXY TCP4 127.0.0.1 127.0.0.1 ", "10.0.0.0/8": "GET "} {
		relay, heard := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		if got, _ := w.doctor(t, map[string]string{"LISTEN": relay, "PROXY_PROTOCOL_FROM": from}, "--user", "alice"); got.code != 0 {
			t.Errorf("%+v", got)
		}
		if asked := <-heard; !strings.HasPrefix(asked, want) {
			t.Errorf("with PROXY_PROTOCOL_FROM=%s the relay was asked %q", from, asked)
		}
	}
}

// TestDoctorExplainsTheRelay: each refusal of the relay's means what this environment knows.
func TestDoctorExplainsTheRelay(t *testing.T) {
	w := startWard(t)
	accounts := writeFile(t, `accounts:
  - {name: off, password: secretsecret, disabled: true}
  - {name: old, password: secretsecret, expires: 2020-01-01T00:00:00Z}
  - {name: far, password: secretsecret, allow_from: [203.0.113.0/24]}
  - {name: two, password: secretsecret, max_conns: 2}
`)
	for name, test := range map[string]struct {
		user   string
		answer string
		vendor upstreamtest.Behaviour
		vars   map[string]string
		cause  string
		do     string
	}{
		"not running":       {"two", "", nil, nil, "not_running", "maskrelay serve"},
		"other accounts":    {"two", relayReply(407), nil, nil, "auth_failed", "SIGHUP"},
		"quota":             {"two", relayReply(402), nil, nil, "quota_used", "maskrelay usage"},
		"over the cap":      {"two", relayReply(429), nil, nil, "cap", "max_conns"},
		"disabled":          {"off", relayReply(403), nil, nil, "account_disabled", "disabled"},
		"expired":           {"old", relayReply(403), nil, nil, "account_expired", "expires"},
		"from elsewhere":    {"far", relayReply(403), nil, nil, "client_denied", "account's allow_from|add this host"},
		"all from there":    {"two", relayReply(403), nil, map[string]string{"ALLOW_FROM": "203.0.113.0/24"}, "client_denied", "add this host"},
		"target":            {"two", relayReply(403), nil, map[string]string{"ALLOW_PRIVATE": "false"}, "target_denied", "policy"},
		"no reason":         {"two", relayReply(403), nil, nil, "forbidden", "restart"},
		"parameters":        {"two", relayReply(400), nil, nil, "bad_request", "hop parameters"},
		"as before":         {"two-country-us", relayReply(400), nil, nil, "bad_parameters", "hop parameters"},
		"full":              {"two", relayReply(503), nil, nil, "relay_full", "maskrelay_connections_limit"},
		"no gateway":        {"two", relayReply(503), upstreamtest.Loud(407, "NO"), nil, "no_upstream", "cure the gateway"},
		"it alone fails":    {"two", relayReply(502), nil, nil, "upstream_failed", "the relay's log"},
		"all fail":          {"two", relayReply(502), upstreamtest.Loud(407, "NO"), nil, "upstream_failed", "cure the gateway"},
		"slow":              {"two", relayReply(504), nil, nil, "upstream_timeout", "slow"},
		"another server":    {"two", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", nil, nil, "", ""}, // of a plain request it may be the target's word
		"no HTTP":           {"two", "SSH-2.0-x\r\n", nil, nil, "closed", "speaks no HTTP"},
		"closes":            {"two", " ", nil, nil, "closed", "speaks no HTTP"},
		"closes a balancer": {"two", " ", nil, map[string]string{"PROXY_PROTOCOL_FROM": "10.0.0.0/8"}, "closed", "PROXY_PROTOCOL_FROM"},
	} {
		t.Run(name, func(t *testing.T) {
			w.vendor.SetBehaviour(test.vendor)
			vars := map[string]string{"ACCOUNTS": "-", "ACCOUNTS_FILE": accounts}
			maps.Copy(vars, test.vars)
			if test.answer != "" {
				vars["LISTEN"], _ = answering(t, test.answer)
			}
			got, r := w.doctor(t, vars, "--user", test.user)
			relay := r.part("relay")
			h := relay.failed()
			if test.cause == "" {
				if h != nil {
					t.Errorf("%+v", relay)
				}
				return
			}
			do, _, _ := strings.Cut(test.do, "|")
			if got.code != exitFailed || h == nil || h.Cause != test.cause || !strings.Contains(h.Remedy+h.Detail, do) || h.Remedy == "" {
				t.Errorf("exit code %d, %+v, want %s, %s", got.code, h, test.cause, test.do)
			}
			if got.stderr == "" || strings.Contains(got.stdout, "secretsecret") {
				t.Errorf("stderr %q, or a password in %s", got.stderr, got.stdout)
			}
		})
	}
}

func TestDoctorCustomer(t *testing.T) {
	w := startWard(t)
	hash, err := account.Hash("right-password")
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"ACCOUNTS": "-", "ACCOUNTS_FILE": writeFile(t, "accounts:\n  - {name: alice, password: secretsecret}\n  - {name: hashed, password: "+hash+"}\n  - {name: off, password: x1x2x3, disabled: true}\n")}
	right, wrong := writeFile(t, "right-password\n"), writeFile(t, "wrong-password\n")
	for name, test := range map[string]struct {
		args   []string
		hop    string
		result upstream.HopResult
		detail string
		remedy string
	}{
		"plain":            {[]string{"--user", "alice"}, "password", upstream.HopOK, "account's", ""},
		"hash":             {[]string{"--user", "hashed"}, "password", upstream.HopSkipped, "is a hash: give --password-file", ""},
		"hash, right":      {[]string{"--user", "hashed", "--password-file", right}, "password", upstream.HopOK, "account's", ""},
		"hash, wrong":      {[]string{"--user", "hashed", "--password-file", wrong}, "password", upstream.HopFailed, "not the account's", "customer's password"},
		"unknown":          {[]string{"--user", "alcie"}, "account", upstream.HopFailed, "no such account", "there is alice"},
		"disabled":         {[]string{"--user", "off"}, "account", upstream.HopFailed, "disabled", "take disabled"},
		"bad parameters":   {[]string{"--user", "alice-country-us-country-de"}, "parameters", upstream.HopFailed, "twice", "leave one"},
		"no pairs":         {[]string{"--user", "alice-country-us-state-new-york"}, "parameters", upstream.HopFailed, "", "as in alice-country-us"},
		"bad value":        {[]string{"--user", "alice-country-us-session-a-ttl-10"}, "parameters", upstream.HopFailed, "ttl", "as 30m"},
		"nobody can":       {[]string{"--user", "alice-country-us"}, "parameters", upstream.HopFailed, "country", "maskrelay vendors"},
		"a pool not his":   {[]string{"--user", "alice-pool-gold"}, "parameters", upstream.HopFailed, "may not choose", "pools"},
		"the default pool": {[]string{"--user", "alice-pool-default"}, "parameters", upstream.HopOK, "understood", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := w.doctor(t, vars, test.args...)
			h := r.hop("customer", test.hop)
			if h.Result != test.result || !strings.Contains(h.Detail, test.detail) || !strings.Contains(h.Remedy, test.remedy) {
				t.Errorf("%+v, want %s, %s, %s", h, test.result, test.detail, test.remedy)
			}
		})
	}
	his := doctorCustomer{account: &account.Account{Pool: "oxy", Pools: []string{"smart"}}}
	for pool, want := range map[string]string{"": "oxy", "oxy": "oxy", "smart": "smart", "default": "oxy"} {
		his.params.Pool = pool
		if got := his.poolName(); got != want || his.mayChoosePool() != (pool == "" || pool == want) {
			t.Errorf("with the parameter %q the pool is %s, want %s", pool, got, want)
		}
	}
	if _, r := w.doctor(t, vars, "--user", "hashed"); r.hop("relay", "exchange").Result != upstream.HopSkipped || !r.OK {
		t.Errorf("a hash: %+v", r.part("relay"))
	}
	if _, r := w.doctor(t, vars); r.hop("relay", "exchange").Detail != "no --user" || r.part("customer") != nil {
		t.Errorf("nobody: %+v", r.Parts)
	}
}

// TestDoctorModes are those in which the relay itself knows no accounts.
func TestDoctorModes(t *testing.T) {
	w := startWard(t)
	relay, heard := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	password := writeFile(t, wardPassword)
	open := map[string]string{"AUTH": "open", "ALLOW_FROM": "127.0.0.0/8", "ACCOUNTS": "-", "LISTEN": relay}
	if got, r := w.doctor(t, open); got.code != 0 || r.hop("relay", "exchange").Result != upstream.HopOK {
		t.Errorf("open: %+v", got)
	}
	if asked := <-heard; strings.Contains(asked, "Authorization") {
		t.Errorf("open: the relay was asked %q", asked)
	}
	pass := map[string]string{"AUTH": "passthrough", "ACCOUNTS": "-", "LISTEN": relay, "UPSTREAM": "http://" + w.vendor.Addr()}
	got, r := w.doctor(t, pass, "--user", wardUser, "--password-file", password)
	if got.code != 0 || r.User != "" || strings.Contains(got.stdout, wardUser) {
		t.Errorf("passthrough: %+v", got)
	}
	<-heard
	if got, r = w.doctor(t, pass, "--user", wardUser, "--password-file", writeFile(t, "nonsense")); got.code != exitFailed || r.hop("gateway", "request").Cause != "auth" {
		t.Errorf("passthrough, wrong: %+v", got)
	}
	<-heard
	hook := map[string]string{"AUTH": "hook", "AUTH_URL": "http://127.0.0.1:1/", "ACCOUNTS": "-", "LISTEN": relay}
	if got, r = w.doctor(t, hook, "--user", "eve"); got.code != 0 || r.hop("relay", "exchange").Result != upstream.HopSkipped {
		t.Errorf("hook: %+v", got)
	}
}

func TestDoctorPolicy(t *testing.T) {
	w := startWard(t)
	for name, test := range map[string]struct {
		vars   map[string]string
		target string
		want   []string
	}{
		"fine":    {nil, "tcp://127.0.0.1:25", nil},
		"port":    {map[string]string{"ALLOW_PORTS": "80,443"}, "tcp://127.0.0.1:25", []string{"port 25: MASKRELAY_ALLOW_PORTS"}},
		"private": {map[string]string{"ALLOW_PRIVATE": "false"}, "http://127.0.0.1/", []string{"MASKRELAY_ALLOW_PRIVATE"}},
		"host":    {map[string]string{"DENY_HOSTS": "*.shop.example"}, "https://www.shop.example/", []string{"MASKRELAY_DENY_HOSTS"}},
		"all":     {map[string]string{"DENY_HOSTS": "127.0.0.1", "ALLOW_PRIVATE": "false", "ALLOW_PORTS": "80"}, "https://127.0.0.1/", []string{"ALLOW_PORTS", "DENY_HOSTS", "ALLOW_PRIVATE"}},
	} {
		w.vendor.SetBehaviour(upstreamtest.CloseBeforeReply())
		_, r := w.doctor(t, test.vars, "--target", test.target)
		part := r.part("target")
		if len(test.want) == 0 && part.failed() != nil || len(test.want) > 0 && len(part.Hops) != len(test.want) {
			t.Fatalf("%s: %+v", name, part)
		}
		for i, want := range test.want {
			if h := part.Hops[i]; h.Result != upstream.HopFailed || !strings.Contains(h.Detail, want) || !strings.Contains(h.Remedy, "MASKRELAY_") {
				t.Errorf("%s: %+v, want %s", name, h, want)
			}
		}
	}
}

func TestDoctorUsage(t *testing.T) {
	w := startWard(t)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"gateway":            {[]string{"--gateway", "nix"}, `--gateway: no gateway is called "nix"; there are 127.0.0.1`},
		"target":             {[]string{"--target", "example.com"}, "--target: not a URL"},
		"target's scheme":    {[]string{"--target", "ftp://example.com"}, "--target: the scheme"},
		"target's login":     {[]string{"--target", "https://u:secretpw@example.com"}, "--target: a target takes no credentials"},
		"target without":     {[]string{"--target", "tcp://example.com"}, "--target: the host or the port"},
		"relay":              {[]string{"--relay", "8080"}, "--relay: not an address"},
		"timeout":            {[]string{"--timeout", "0s"}, "--timeout: is not positive"},
		"password in it":     {[]string{"--user", "alice:secretpw"}, "--user: a username has no colon"},
		"user":               {[]string{"--user", "al ice"}, "--user: account: name must be"},
		"password, no user":  {[]string{"--password-file", writeFile(t, "x")}, "--password-file: needs --user"},
		"no password file":   {[]string{"--user", "alice", "--password-file", filepath.Join(t.TempDir(), "none")}, "--password-file: open"},
		"empty":              {[]string{"--user", "alice", "--password-file", writeFile(t, "\n")}, "--password-file: no password"},
		"long":               {[]string{"--user", "alice", "--password-file", writeFile(t, strings.Repeat("x", 5000))}, "--password-file: more than"},
		"nothing from stdin": {[]string{"--user", "alice", "--password-file", "-"}, "--password-file: no password on standard input"},
	} {
		got, _ := w.doctor(t, nil, test.args...)
		if got.code != exitConfig || !strings.HasPrefix(got.stderr, test.want) || strings.Contains(got.stderr, "secretpw") || got.stdout != "" {
			t.Errorf("%s: %+v, want %q", name, got, test.want)
		}
	}
	if got, _ := w.doctor(t, map[string]string{"UPSTREAM": "nonsense"}); got.code != exitConfig || !strings.HasPrefix(got.stderr, "MASKRELAY_UPSTREAM: ") {
		t.Errorf("bad configuration: %+v", got)
	}
}

// TestDoctorTimeout: a silent gateway and a silent relay take no longer than they may.
func TestDoctorTimeout(t *testing.T) {
	w := startWard(t)
	w.vendor.SetBehaviour(upstreamtest.Silent())
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	got, r := w.doctor(t, map[string]string{"LISTEN": silent.Addr().String()}, "--user", "alice", "--timeout", "900ms")
	if got.code != exitFailed || r.hop("gateway", "request").Cause != "timeout" || r.hop("relay", "exchange").Cause != "timeout" {
		t.Errorf("%+v", got)
	}
	if limit := 10 * time.Second; time.Duration(r.Milliseconds*float64(time.Millisecond)) > limit {
		t.Errorf("it took %v ms", r.Milliseconds)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as Ctrl-C does
	var out strings.Builder
	err = runDoctor(ctx, process{environ: environ(goodEnv(), w.vars), stdout: &out}, doctorFlags{timeout: time.Hour, target: w.target.URL()})
	if err == nil || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("interrupted: %v\n%s", err, out.String())
	}
}

func TestDoctorText(t *testing.T) {
	r := doctorReport{Target: "https://example.com/", Parts: []doctorPart{
		{Kind: "target", Name: "example.com:443", Hops: []doctorHop{{Hop: "policy", Result: upstream.HopOK, Detail: "customers may go there"}}},
		{Kind: "gateway", Name: "g", URL: "http://***@gw:1", Pool: "default", Vendor: "generic", Hops: []doctorHop{
			{Hop: "connect", Result: upstream.HopFailed, Detail: "refused with status 407", Milliseconds: 12.34, Cause: "auth", VendorSays: "407 NO", Remedy: "check it"},
			{Hop: "target", Result: upstream.HopSkipped, Detail: "there is no tunnel"},
		}},
	}}
	r.conclude(time.Second)
	want := `target example.com:443
  ok    policy                        customers may go there
gateway g  (http://***@gw:1, pool default, vendor generic)
  FAIL  connect              12.3 ms  refused with status 407
                                      cause   auth
                                      vendor  407 NO
                                      do      check it
  -     target                        there is no tunnel

FAIL: gateway g: connect failed (auth): check it
`
	var plain, colour strings.Builder
	if err := r.writeText(&plain, false); err != nil || plain.String() != want {
		t.Errorf("%v: got\n%s\nwant\n%s", err, plain.String(), want)
	}
	if err := r.writeText(&colour, true); err != nil || !strings.Contains(colour.String(), "\x1b[1;31mFAIL\x1b[0m") {
		t.Errorf("%v: no colour in\n%q", err, colour.String())
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for name, test := range map[string]struct {
		p    process
		want bool
	}{
		"device":   {process{stdout: null}, true},
		"NO_COLOR": {process{stdout: null, environ: []string{"NO_COLOR=1"}}, false},
		"empty":    {process{stdout: null, environ: []string{"NO_COLOR="}}, true},
		"dumb":     {process{stdout: null, environ: []string{"TERM=dumb"}}, false},
		"pipe":     {process{stdout: &plain}, false},
	} {
		if got := coloured(test.p); got != test.want {
			t.Errorf("%s: coloured is %v", name, got)
		}
	}
}

func TestDoctorListener(t *testing.T) {
	certFile, keyFile := testCertificate(t)
	cfg, err := LoadConfig(environ(goodEnv(), map[string]string{"LISTEN": ":8080", "TLS_LISTEN": "10.0.0.1:8443", "TLS_CERT_FILE": certFile, "TLS_KEY_FILE": keyFile}))
	if err != nil {
		t.Fatal(err)
	}
	for relay, want := range map[string]doctorListener{
		"":                {address: "127.0.0.1:8080", own: true},
		"10.0.0.1:8443":   {address: "10.0.0.1:8443", tls: true, own: true},
		"relay-2:8443":    {address: "relay-2:8443", tls: true},
		"relay-2:1":       {address: "relay-2:1"},
		"127.0.0.1:8080":  {address: "127.0.0.1:8080", own: true},
		"[2001:db8::1]:8": {address: "[2001:db8::1]:8"},
	} {
		if got, err := doctorListenerOf(cfg, relay); err != nil || got != want {
			t.Errorf("--relay %q: %+v %v, want %+v", relay, got, err, want)
		}
	}
	his := doctorCustomer{account: &account.Account{}, home: "oxy"}
	if got := his.poolName(); got != "oxy" {
		t.Errorf("the listener's pool is oxy, the customer's %s", got)
	}
}

func TestDoctorDefaultTarget(t *testing.T) {
	cfg, err := LoadConfig(environ(goodEnv(), nil))
	if err != nil {
		t.Fatal(err)
	}
	if u, at, err := parseDoctorTarget("", cfg); err != nil || u.String() != doctorTarget || at.String() != "example.com:443" {
		t.Errorf("%v %v %v", u, at, err)
	}
}

// secureFiles are a certificate for names and its key, as files.
func secureFiles(t *testing.T, names ...string) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	ca, err := upstreamtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	if pair, err = ca.Server(names...); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile = writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	return pair, certFile, writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}

// TestDoctorTLSListener: the relay must show the very certificate that the environment names before it gets the password.
func TestDoctorTLSListener(t *testing.T) {
	w := startWard(t)
	pair, certFile, keyFile := secureFiles(t, "proxy.shop.example")
	_, otherCert, otherKey := secureFiles(t, "proxy.shop.example")
	site, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, Behaviour: upstreamtest.Status(200, "OK", nil, "hello"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = site.Close() }()
	vars := map[string]string{"LISTEN": "", "TLS_LISTEN": site.Addr(), "TLS_CERT_FILE": certFile, "TLS_KEY_FILE": keyFile}
	if got, r := w.doctor(t, vars, "--user", "alice"); got.code != 0 || r.hop("relay", "tls").Result != upstream.HopOK || r.hop("relay", "exchange").Result != upstream.HopOK {
		t.Errorf("its own: %+v", got)
	}
	asked := len(site.Received())
	vars["TLS_CERT_FILE"], vars["TLS_KEY_FILE"] = otherCert, otherKey
	if got, r := w.doctor(t, vars, "--user", "alice"); got.code != exitFailed || !strings.Contains(r.hop("relay", "tls").Detail, "another certificate") {
		t.Errorf("another: %+v", got)
	}
	if n := len(site.Received()); n != asked || asked == 0 {
		t.Errorf("a stranger received %d bytes, %d before", n, asked)
	}
}

// TestDoctorReadiness: what the relay says of itself explains a 503.
func TestDoctorReadiness(t *testing.T) {
	w := startWard(t)
	for said, want := range map[string]string{"draining": "draining", "no upstream": "not_ready"} {
		relay, _ := answering(t, relayReply(503))
		admin, _ := answering(t, fmt.Sprintf("HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%s", len(said), said))
		_, r := w.doctor(t, map[string]string{"LISTEN": relay, "ADMIN_LISTEN": admin}, "--user", "alice")
		if ready, exchange := r.hop("relay", "ready"), r.hop("relay", "exchange"); ready.Result != upstream.HopFailed || !strings.Contains(ready.Detail, said) || exchange.Cause != want {
			t.Errorf("%s: %+v, %+v", said, ready, exchange)
		}
	}
	admin, _ := answering(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	if _, r := w.doctor(t, map[string]string{"ADMIN_LISTEN": admin}, "--user", "alice"); r.hop("relay", "ready").Result != upstream.HopOK {
		t.Errorf("ready: %+v", r.part("relay"))
	}
}
