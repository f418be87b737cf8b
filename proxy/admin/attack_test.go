package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// whoAsks serves a request of a stranger to a server that listens everywhere.
func whoAsks(h http.Handler, remote, authorization string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/api/v1/drain", nil)
	r.RemoteAddr, r.Host = remote, "droplet.example"
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Who guesses is sent away unseen; others, and who is on the host, are not.
func TestTokenGuesses(t *testing.T) {
	t.Parallel()
	g := newGuard("right", "0.0.0.0")
	now := time.Unix(1e9, 0)
	g.guesses.now = func() time.Time { return now }
	h := newHandler(Config{Token: "right", Gatherer: NewRegistry("", ""), Drain: func() {}}, g)
	want := func(remote, authorization string, status int) {
		t.Helper()
		if w := whoAsks(h, remote, authorization); w.Code != status || (w.Header().Get("Retry-After") != "") != (status == 429) {
			t.Errorf("%s, %q: %d %v, want %d", remote, authorization, w.Code, w.Header(), status)
		}
	}
	for range 3 * maxGuesses {
		want("203.0.113.9:1", "", 401) // who shows none does not guess
	}
	for i := range 2 * maxGuesses {
		status := 401
		if i >= maxGuesses {
			status = 429
		}
		want(fmt.Sprintf("203.0.113.9:%d", i), "Bearer wrong", status)
		want(fmt.Sprintf("[2001:db8::%x]:1", i), "Bearer wrong", status) // one /64
		want("127.0.0.1:1", "Bearer wrong", 401)
		want("[::ffff:127.0.0.1]:1", "Bearer wrong", 401)
	}
	want("203.0.113.9:1", "Bearer right", 429)
	want("203.0.113.8:1", "Bearer right", 202)
	want("[2001:db8:0:1::1]:1", "Bearer right", 202)
	want("127.0.0.1:1", "Bearer right", 202)
	now = now.Add(guessPeriod)
	want("203.0.113.9:1", "Bearer right", 202)
	want("203.0.113.9:1", "Bearer wrong", 401)
}

// Any number of guessers takes bounded memory, and drives out those whose time is over first.
func TestGuessersAreBounded(t *testing.T) {
	t.Parallel()
	g := newGuesses()
	now := time.Unix(1e9, 0)
	g.now = func() time.Time { return now }
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 2 * maxGuessers {
		now = now.Add(time.Millisecond)
		g.wrong(address(i))
		if len(g.by) > maxGuessers {
			t.Fatalf("%d addresses are remembered", len(g.by))
		}
	}
	for range maxGuesses {
		g.wrong(address(2*maxGuessers - 1))
	}
	if !g.tooMany(address(2*maxGuessers-1)) || g.tooMany(address(0)) {
		t.Error("the wrong ones were forgotten")
	}
	now = now.Add(guessPeriod)
	g.wrong(address(1 << 20))
	g.wrong(address(1<<20 + 1))
	if n := len(g.by); n > 2 {
		t.Errorf("%d addresses are remembered after their time", n)
	}
}

// The token is compared as a whole, once and by the same function, however much of what was
// given is right: only hashes of one length ever meet.
func TestTokenIsComparedAlike(t *testing.T) {
	t.Parallel()
	const token = "a-token-of-some-length"
	g := newGuard(token, "0.0.0.0")
	calls := 0
	g.compare = func(a, b []byte) int {
		calls++
		if len(a) != sha256.Size || len(b) != sha256.Size {
			t.Errorf("%d bytes are compared with %d", len(a), len(b))
		}
		return subtle.ConstantTimeCompare(a, b)
	}
	var given []string
	for i := range len(token) + 1 {
		given = append(given, "Bearer "+token[:i], "Basic "+token[:i], token[:i])
	}
	given = append(given, "", " ", "Bearer", "Bearer "+token+"x", "Bearer "+strings.Repeat("x", 10_000), "bearer "+token)
	for _, one := range given {
		calls = 0
		scheme, rest, _ := strings.Cut(one, " ")
		if got := g.tokenOK(one); got != (strings.EqualFold(scheme, "Bearer") && rest == token) {
			t.Errorf("%q: %t", one, got)
		}
		if calls != 1 {
			t.Errorf("%q: %d comparisons", one, calls)
		}
	}
	if fmt.Sprintf("%p", newGuard(token, "").compare) != fmt.Sprintf("%p", subtle.ConstantTimeCompare) {
		t.Error("the comparison is not the one of constant time")
	}
}

// namesOnly is an AccountAPI that notes the names that it is asked for.
type namesOnly struct {
	AccountAPI
	asked []string
}

func (*namesOnly) ReadOnly() string { return "" }

func (a *namesOnly) Get(_ context.Context, name string) (AccountRow, error) {
	a.asked = append(a.asked, name)
	return AccountRow{Name: name, Object: []byte("{}")}, nil
}

// No spelling of a path reaches anything but what it says, and nothing that is guarded
// without the token.
func TestPathsAreWhatTheySay(t *testing.T) {
	t.Parallel()
	api := &namesOnly{}
	config := Config{
		Token: "right", Gatherer: NewRegistry("", ""), Accounts: api, Drain: func() {}, Reload: func() error { return nil },
		Upstreams: func() any { return []string{} },
	}
	h := newHandler(config, newGuard("right", "0.0.0.0"))
	get := func(path, authorization string) int {
		r := httptest.NewRequest(http.MethodGet, "http://droplet.example"+path, nil)
		r.RemoteAddr = "203.0.113.9:1"
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Header().Get("Location") != "" {
			t.Errorf("%s: redirected", path)
		}
		return w.Code
	}
	deep := "/api/v1/accounts/"
	for _, path := range []string{
		"/%68ealthz", "/healthz%00", "/healthz/", "/healthz/.", "/./healthz", "//healthz", "/%2fhealthz", "/healthz%2f", "/x/../healthz", "/x/%2e%2e/healthz",
		"/x/%252e%252e/healthz", "/x\\..\\healthz", "/..%5chealthz", "/%5chealthz", "/healthz;x", "/HEALTHZ", "/healthz%20",
		"/debug/pprof", "/debug%2fpprof%2f", "/debug/pprof/%63mdline", "/debug/pprof/../../healthz", "/debug/pprof/../pprof/heap", "/debug/pprof/heap/..",
		"/debug/pprof/etc/passwd", "/debug/pprof/..%2f..%2f..%2fetc%2fpasswd", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
		"/api/v1/%75pstreams", "/api/v1/accounts/{name}/x", "/api/v1/accounts/%7Bname%7D/x", "/api/v1//upstreams", "/api/v1/upstreams/",
		deep + "../upstreams", deep + "a/../../upstreams", deep + "a/../connections", deep + "%00", deep + "a%00", deep + "a%0a", deep + "%1b%5b31m", deep + "%ff",
		deep + "%e2%80%a8", deep + strings.Repeat("x", maxName+1), deep + "a/", deep + "/", deep + "a//connections",
	} {
		if got := get(path, "Bearer right"); got != http.StatusNotFound {
			t.Errorf("%.80s: %d", path, got)
		}
	}
	if len(api.asked) > 0 {
		t.Errorf("asked for %q", api.asked)
	}
	// What is a name stays one, and goes nowhere else.
	for path, name := range map[string]string{
		"a": "a", "..": "..", "%2e%2e": "..", "%252e%252e": "%2e%2e", "..%2fupstreams": "../upstreams", "%5c..%5cx": `\..\x`, "a%2fconnections": "a/connections",
	} {
		api.asked = nil
		if got := get(deep+path, ""); got != http.StatusUnauthorized || len(api.asked) > 0 {
			t.Errorf("%s without the token: %d, asked for %q", path, got, api.asked)
		}
		if got := get(deep+path, "Bearer right"); got != http.StatusOK || len(api.asked) != 1 || api.asked[0] != name {
			t.Errorf("%s: %d, asked for %q, want %q", path, got, api.asked, name)
		}
	}
}
