package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"testing"
	"time"

	"maskrelay/proxy/account"
)

// hookEnv is AUTH=hook over goodEnv, with more.
func hookEnv(more map[string]string) map[string]string {
	vars := map[string]string{"ACCOUNTS": "-", "AUTH": "hook", "AUTH_URL": "https://panel.example/auth"}
	for name, value := range more {
		vars[name] = value
	}
	return vars
}

func hookErrors(t testing.TB) []errorCase {
	cert, key := testCertificate(t)
	return []errorCase{
		{"hook without a URL", hookEnv(one("AUTH_URL", "-")), []string{`AUTH_URL: missing; AUTH=hook asks it who a customer is`}},
		{"hook with accounts", hookEnv(map[string]string{"ACCOUNTS": "a:b", "ACCOUNTS_FILE": "/a", "ACCOUNTS_REDIS": "true", "REDIS_URL": "redis://r"}), []string{
			`ACCOUNTS: has no effect with AUTH=hook; leave it out`,
			`ACCOUNTS_FILE: has no effect with AUTH=hook; leave it out`,
			`ACCOUNTS_REDIS: has no effect with AUTH=hook; leave it out`}},
		{"hook's variables without it", map[string]string{"AUTH_URL": "x", "AUTH_TTL": "60s", "AUTH_TOKEN": "geheim", "AUTH_CA_FILE": "/ca", "AUTH_CONCURRENCY": "0"}, []string{
			`AUTH_URL: has no effect with AUTH=accounts; leave it out`,
			`AUTH_TTL: has no effect with AUTH=accounts; leave it out`,
			`AUTH_CONCURRENCY: has no effect with AUTH=accounts; leave it out`,
			`AUTH_TOKEN: has no effect with AUTH=accounts; leave it out`,
			`AUTH_CA_FILE: has no effect with AUTH=accounts; leave it out`}},
		{"AUTH unknown is no second error", map[string]string{"AUTH": "hok", "AUTH_URL": "https://panel.example"}, []string{
			`AUTH: "hok" is not one of accounts, hook, passthrough, open`}},
		{"AUTH_URL no URL", hookEnv(one("AUTH_URL", "https://geheim:geheim@panel.example:x/")), []string{`AUTH_URL: not a URL; write https://host:port/path`}},
		{"AUTH_URL scheme", hookEnv(one("AUTH_URL", "panel.example:80")), []string{`AUTH_URL: the scheme is not http or https`}},
		{"AUTH_URL host", hookEnv(one("AUTH_URL", "https:///auth")), []string{`AUTH_URL: the host is missing; write https://host:port/path`}},
		{"AUTH_URL fragment", hookEnv(one("AUTH_URL", "https://panel.example/#geheim")), []string{`AUTH_URL: what stands behind # is never sent; write a # of a password as %23`}},
		{"AUTH_URL port", hookEnv(one("AUTH_URL", "https://panel.example:99999/")), []string{`AUTH_URL: the port is not between 1 and 65535`}},
		{"AUTH_STYLE", hookEnv(one("AUTH_STYLE", "xml")), []string{`AUTH_STYLE: "xml" is not one of json, headers`}},
		{"hook's times", hookEnv(map[string]string{"AUTH_TTL": "0s", "AUTH_NEGATIVE_TTL": "-1s", "AUTH_STALE": "48h", "AUTH_TIMEOUT": "1m"}), []string{
			`AUTH_TTL: 0s is not above 0 and at most 24h`,
			`AUTH_NEGATIVE_TTL: -1s is not between 0s and 24h`,
			`AUTH_STALE: 48h is not between 0s and 24h`,
			`AUTH_TIMEOUT: 1m is not above 0 and at most 30s`}},
		{"AUTH_TTL no time", hookEnv(one("AUTH_TTL", "60")), []string{`AUTH_TTL: "60" is not a duration; write 10s or 10m`}},
		{"AUTH_CONCURRENCY", hookEnv(one("AUTH_CONCURRENCY", "0")), []string{`AUTH_CONCURRENCY: 0 is not between 2 and 10000`}},
		{"AUTH_TOKEN", hookEnv(one("AUTH_TOKEN", "two words")), []string{`AUTH_TOKEN: holds spaces, control bytes or letters beyond ASCII`}},
		{"AUTH_TOKEN beside a password", hookEnv(map[string]string{"AUTH_URL": "https://u:geheim@panel.example", "AUTH_TOKEN": "t"}), []string{
			`AUTH_TOKEN: MASKRELAY_AUTH_URL holds credentials too; keep one of the two`}},
		{"certificate without key", hookEnv(one("AUTH_CERT_FILE", cert)), []string{`AUTH_KEY_FILE: MASKRELAY_AUTH_CERT_FILE needs it`}},
		{"key without certificate", hookEnv(one("AUTH_KEY_FILE", key)), []string{`AUTH_CERT_FILE: MASKRELAY_AUTH_KEY_FILE needs it`}},
		{"certificate missing", hookEnv(map[string]string{"AUTH_CERT_FILE": "/nowhere/c", "AUTH_KEY_FILE": key}), []string{
			`AUTH_CERT_FILE: open /nowhere/c: no such file or directory`}},
		{"key of another kind", hookEnv(map[string]string{"AUTH_CERT_FILE": cert, "AUTH_KEY_FILE": cert}), []string{
			`AUTH_CERT_FILE: with MASKRELAY_AUTH_KEY_FILE: tls: found a certificate rather than a key in the PEM for the private key`}},
		{"roots missing", hookEnv(one("AUTH_CA_FILE", "/nowhere/ca")), []string{`AUTH_CA_FILE: open /nowhere/ca: no such file or directory`}},
		{"roots none", hookEnv(one("AUTH_CA_FILE", key)), []string{`AUTH_CA_FILE: ` + key + ` holds no certificate`}},
		{"certificates in plain text", hookEnv(map[string]string{"AUTH_URL": "http://panel", "AUTH_CERT_FILE": cert, "AUTH_KEY_FILE": key, "AUTH_CA_FILE": cert}), []string{
			`AUTH_CERT_FILE: has no effect without https in MASKRELAY_AUTH_URL; leave it out`,
			`AUTH_KEY_FILE: has no effect without https in MASKRELAY_AUTH_URL; leave it out`,
			`AUTH_CA_FILE: has no effect without https in MASKRELAY_AUTH_URL; leave it out`}},
	}
}

func TestHookConfig(t *testing.T) {
	c, err := LoadConfig(environ(goodEnv(), hookEnv(nil)))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Hook
	got.TLS = nil
	want := HookConfig{"https://panel.example/auth", HookJSON, time.Minute, 10 * time.Second, 10 * time.Minute, 2 * time.Second, 64, "", "", "", "", nil}
	if !reflect.DeepEqual(got, want) || c.Hook.TLS == nil || c.Accounts != nil {
		t.Errorf("defaults: %+v", c.Hook)
	}
	c, err = LoadConfig(environ(goodEnv(), hookEnv(map[string]string{"AUTH_URL": "-", "AUTH_URL_FILE": writeFile(t, "http://u:p@panel:8000/a?b=c\n"), "AUTH_STYLE": "headers",
		"AUTH_TTL": "1s", "AUTH_NEGATIVE_TTL": "0s", "AUTH_STALE": "0s", "AUTH_TIMEOUT": "30s", "AUTH_CONCURRENCY": "10000"})))
	if err != nil {
		t.Fatal(err)
	}
	hook := c.hookConfig()
	if hook.URL != c.Hook.HookURL.Reveal() || hook.Style != account.StyleHeaders || hook.TTL != time.Second || hook.Timeout != 30*time.Second || hook.Concurrency != 10000 {
		t.Errorf("for package account: %+v", hook)
	}
	want = HookConfig{"http://u:p@panel:8000/a?b=c", HookHeaders, time.Second, 0, 0, 30 * time.Second, 10000, "", "", "", "", nil}
	if !reflect.DeepEqual(c.Hook, want) {
		t.Errorf("all set: %+v", c.Hook)
	}
}

// TestHookTLS: the hook is checked against the roots given, and is shown the certificate, a renewed one too.
func TestHookTLS(t *testing.T) {
	shown := make(chan []byte, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		shown <- r.TLS.PeerCertificates[0].Raw
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // one client below goes away
	server.StartTLS()
	defer server.Close()
	ca := writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	cert, key := testCertificate(t)
	c, err := LoadConfig(environ(goodEnv(), hookEnv(map[string]string{"AUTH_URL": server.URL, "AUTH_CA_FILE": ca, "AUTH_CERT_FILE": cert, "AUTH_KEY_FILE": key})))
	if err != nil {
		t.Fatal(err)
	}
	ask := func() []byte {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c.Hook.TLS, DisableKeepAlives: true}}
		res, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return <-shown
	}
	first := ask()
	renewed, renewedKey := testCertificate(t)
	copyFile(t, renewed, cert)
	if !reflect.DeepEqual(ask(), first) {
		t.Error("a certificate that does not fit its key is shown")
	}
	copyFile(t, renewedKey, key)
	second := ask()
	if want := certificateIn(t, renewed); !reflect.DeepEqual(second, want) || reflect.DeepEqual(first, want) {
		t.Error("the renewed certificate is not shown")
	}
	c.Hook.TLS.RootCAs = x509.NewCertPool()
	if res, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: c.Hook.TLS}}).Get(server.URL); err == nil {
		_ = res.Body.Close()
		t.Error("a hook that nobody vouches for is asked")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func certificateIn(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	return block.Bytes
}
