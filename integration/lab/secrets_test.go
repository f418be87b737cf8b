package lab

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recorder is a test whose failures are looked at instead of counted, and whose end is called.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool     { return false }
func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func TestSecretsOf(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	yaml := file("accounts.yaml", "accounts:\n  - name: a\n    password: plain-in-file\n  - {name: b, password: \"quoted, in file\"}\n  - password: '$2a$10$hash'\n")
	got := SecretsOf([]string{
		"PATH=/not-a-secret", "MASKRELAY_BRAND=not-a-secret", "MASKRELAY_UPSTREAM=http://login:of%40the-vendor@gw.example:1",
		"MASKRELAY_UPSTREAMS_3_PASSWORD=of-the-third", "MASKRELAY_UPSTREAMS_4_URL=socks5://x:of-the-fourth@h:1", "MASKRELAY_ADMIN_TOKEN_FILE=" + file("token", "of-the-admin\n"),
		"MASKRELAY_ACCOUNTS=alice:of-alice-1:5,bob:of-bob-22", "MASKRELAY_ACCOUNTS_FILE=" + yaml, "MASKRELAY_REDIS_URL=redis://:of-redis-9@h:1/0",
		"MASKRELAY_SESSION_KEY=k", "MASKRELAY_AUTH_TOKEN=of-the\"hook", "MASKRELAY_WEBHOOK_SECRET=of-the-webhook", "MASKRELAY_UPSTREAM_FILE=/none",
	})
	for _, want := range []string{
		"of@the-vendor", "of%40the-vendor", "of-the-third", "of-the-fourth", "of-the-admin", "of-alice-1", "of-bob-22", "plain-in-file", "quoted, in file", "$2a$10$hash",
		"of-redis-9", `of-the"hook`, `of-the\"hook`, "of-the-webhook",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, s := range got {
		if len(s) < minSecret || strings.Contains(s, "not-a-secret") {
			t.Errorf("%q is no secret", s)
		}
	}
}

// What a process writes is searched at its end without anyone asking for it.
func TestPlantedSecretsAreFound(t *testing.T) {
	const secret = "planted:secret?of the test"
	pair := base64.StdEncoding.EncodeToString([]byte("alice:" + secret))
	const env = "MASKRELAY_ADMIN_TOKEN=" + secret
	for _, tc := range []struct {
		name, out, env string
		args           []string
		found          bool
	}{
		{"as it is", `{"message":"login ` + secret + `"}`, env, nil, true},
		{"on standard error", secret, env, []string{"2"}, true},
		{"a Basic login", "Proxy-Authorization: Basic " + pair, env, nil, true},
		{"escaped", "/x?p=" + url.QueryEscape(secret), env, nil, true},
		{"nothing", "an innocent log", env, nil, false},
		{"another's process", secret, "TOKEN=" + secret, nil, false},
		{"too short to tell from chance", "x", "MASKRELAY_ADMIN_TOKEN=x", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &recorder{TB: t}
			cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `if [ "${0}" = 2 ]; then exec >&2; fi; printf '%s' "$OUT"`}, tc.args...)...)
			cmd.Env = []string{"OUT=" + tc.out, tc.env}
			p := Start(r, "process", cmd)
			<-p.Done()
			r.end()
			if found := len(r.errors) > 0; found != tc.found {
				t.Errorf("found %q, want any: %v", r.errors, tc.found)
			}
		})
	}
}

// So are a relay's pages, the guarded ones too.
func TestSecretsOnPagesAreFound(t *testing.T) {
	const secret = "secret-of-the-page"
	for _, leaking := range append(slices.Clone(shown), "") {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.URL.RequestURI() == leaking && q.Header.Get("Authorization") == "Bearer the-admin-token" {
				_, _ = w.Write([]byte(secret))
			}
		}))
		r := &recorder{TB: t}
		cmd := exec.CommandContext(t.Context(), "sleep", "60")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MASKRELAY_SESSION_KEY=" + secret}
		relay := &Relay{Admin: strings.TrimPrefix(server.URL, "http://"), token: "the-admin-token", Process: Start(r, "relay", cmd)}
		relay.searchPages(r)
		if found := len(r.errors) > 0; found != (leaking != "") {
			t.Errorf("%q: found %q", leaking, r.errors)
		}
		r.end()
		server.Close()
	}
}
