package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// adminStandIn answers /readyz with a status; its address is what ADMIN_LISTEN would be.
func adminStandIn(t *testing.T, status int, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   ending
	}{
		{"ready", 200, `{"ready":true}`, ending{0, "ready\n", ""}},
		{"draining", 503, "{\"ready\":false,\"reasons\":[\"draining\"]}\n", ending{1, "", "maskrelay: health: 503 Service Unavailable: {\"ready\":false,\"reasons\":[\"draining\"]}\n"}},
		{"redirect is not followed", 302, "", ending{1, "", "maskrelay: health: 302 Found\n"}},
		{"another program", 404, "no", ending{1, "", "maskrelay: health: 404 Not Found: no\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("http_proxy", "http://192.0.2.1:1") // must not be used
			env := environ(nil, map[string]string{"ADMIN_LISTEN": adminStandIn(t, c.status, c.body), "MAX_CONNS": "not read"})
			if got := runWith(env, "", "health"); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestHealthWildcard: a relay that listens everywhere is asked on loopback.
func TestHealthWildcard(t *testing.T) {
	_, port, err := net.SplitHostPort(adminStandIn(t, 200, ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, listen := range []string{":" + port, "0.0.0.0:" + port} {
		if got := runWith(environ(nil, one("ADMIN_LISTEN", listen)), "", "health"); got.code != 0 {
			t.Errorf("%s: %+v", listen, got)
		}
	}
}

func TestAdminAddress(t *testing.T) {
	for _, c := range []struct {
		name, set, want, err string
	}{
		{"default", "-", "127.0.0.1:9090", ""},
		{"all of IPv6", "[::]:1", "[::1]:1", ""},
		{"one address", "10.0.0.1:2", "10.0.0.1:2", ""},
		{"off", "", "", "MASKRELAY_ADMIN_LISTEN: empty, so the relay has no admin server to ask"},
		{"bad", "x", "", `MASKRELAY_ADMIN_LISTEN: "x" is not an address; write :8080 or 127.0.0.1:8080`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := adminAddress(environ(nil, one("ADMIN_LISTEN", c.set)))
			if got != c.want || (err == nil) != (c.err == "") || (err != nil && err.Error() != c.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestHealthNobodyThere(t *testing.T) {
	got := runWith(environ(nil, one("ADMIN_LISTEN", nobodyListens(t))), "", "health")
	if got.code != 1 || !strings.HasPrefix(got.stderr, "maskrelay: health: ") || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("got %+v", got)
	}
}

// TestHealthDeadline: a relay that accepts and says nothing does not hold the check.
func TestHealthDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 1)
	defer cancel()
	if err := askReady(ctx, l.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
