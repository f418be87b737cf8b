package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// dtoFamily keeps the tests' gatherers short.
type dtoFamily = dto.MetricFamily

func TestGuard(t *testing.T) {
	t.Parallel()
	const get, post = "GET /debug/pprof/cmdline", "POST /api/v1/drain"
	local := http.Header{}
	tests := []struct {
		name    string
		token   string
		listen  string
		request string
		remote  string
		host    string
		header  http.Header
		status  int
	}{
		{name: "loopback", request: get, remote: "127.0.0.1:5", host: "127.0.0.1:9090", header: local, status: 200},
		{name: "loopback 6", request: get, remote: "[::1]:5", host: "[::1]:9090", status: 200},
		{name: "loopback 6 without port", request: get, remote: "[::1]:5", host: "[::1]", status: 200},
		{name: "mapped loopback", request: get, remote: "[::ffff:127.0.0.1]:5", host: "localhost", status: 200},
		{name: "stranger", request: get, remote: "203.0.113.9:5", host: "localhost", status: 403},
		{name: "stranger who claims", request: get, remote: "203.0.113.9:5", host: "localhost",
			header: http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Real-Ip": {"127.0.0.1"}}, status: 403},
		{name: "nonsense peer", request: get, remote: "@", host: "localhost", status: 403},
		{name: "rebound name", request: get, remote: "127.0.0.1:5", host: "evil.example:9090", status: 403},
		{name: "no host", request: get, remote: "127.0.0.1:5", host: "", status: 403},
		{name: "name that begins like loopback", request: get, remote: "127.0.0.1:5", host: "127.0.0.1.evil.example", status: 403},
		{name: "listen host", listen: "admin.internal", request: get, remote: "127.0.0.1:5", host: "admin.internal:9090", status: 200},
		{name: "unspecified listen host", listen: "0.0.0.0", request: get, remote: "127.0.0.1:5", host: "0.0.0.0:9090", status: 403},
		{name: "command", request: post, remote: "127.0.0.1:5", host: "localhost:9090", status: 202},
		{name: "command from own page", request: post, remote: "127.0.0.1:5", host: "localhost:9090",
			header: http.Header{"Origin": {"http://localhost:9090"}}, status: 202},
		{name: "command from foreign page", request: post, remote: "127.0.0.1:5", host: "localhost:9090",
			header: http.Header{"Origin": {"https://evil.example"}}, status: 403},
		{name: "command from null origin", request: post, remote: "127.0.0.1:5", host: "localhost:9090",
			header: http.Header{"Origin": {"null"}}, status: 403},
		{name: "command across sites", request: post, remote: "127.0.0.1:5", host: "localhost:9090",
			header: http.Header{"Sec-Fetch-Site": {"cross-site"}}, status: 403},
		{name: "command by a stranger", request: post, remote: "203.0.113.9:5", host: "localhost", status: 403},
		{name: "token", token: "s3cret", listen: "0.0.0.0", request: get, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"Bearer s3cret"}}, status: 200},
		{name: "token, lower-case scheme", token: "s3cret", listen: "0.0.0.0", request: post, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"bearer s3cret"}}, status: 202},
		{name: "wrong token", token: "s3cret", listen: "0.0.0.0", request: get, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"Bearer s3cre"}}, status: 401},
		{name: "wrong scheme", token: "s3cret", listen: "0.0.0.0", request: get, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"Basic s3cret"}}, status: 401},
		{name: "token, rebound name on loopback", token: "s3cret", request: get, remote: "127.0.0.1:5", host: "evil.example:9090",
			header: http.Header{"Authorization": {"Bearer s3cret"}}, status: 403},
		{name: "token, listener called localhost", token: "s3cret", listen: "localhost", request: get, remote: "127.0.0.1:5", host: "evil.example",
			header: http.Header{"Authorization": {"Bearer s3cret"}}, status: 403},
		{name: "token, own page elsewhere", token: "s3cret", listen: "0.0.0.0", request: post, remote: "203.0.113.9:5", host: "droplet.example:9090",
			header: http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"https://Droplet.example:9090"}, "Sec-Fetch-Site": {"same-origin"}}, status: 202},
		{name: "token, foreign origin", token: "s3cret", listen: "0.0.0.0", request: post, remote: "203.0.113.9:5", host: "droplet.example:9090",
			header: http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"https://evil.example"}}, status: 403},
		{name: "token, other port of the same host", token: "s3cret", listen: "0.0.0.0", request: get, remote: "203.0.113.9:5", host: "droplet.example:9090",
			header: http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"http://droplet.example"}}, status: 403},
		{name: "token, two origins", token: "s3cret", listen: "0.0.0.0", request: get, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"http://droplet.example", "http://evil.example"}}, status: 403},
		{name: "token, odd origin", token: "s3cret", listen: "0.0.0.0", request: get, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"file://droplet.example"}}, status: 403},
		{name: "token, two authorizations", token: "s3cret", listen: "0.0.0.0", request: get, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"Bearer s3cret", "Bearer x"}}, status: 401},
		{name: "reading for a foreign page", request: get, remote: "127.0.0.1:5", host: "localhost:9090",
			header: http.Header{"Origin": {"https://evil.example"}}, status: 403},
		{name: "reading for a sister site", request: get, remote: "127.0.0.1:5", host: "localhost:9090",
			header: http.Header{"Sec-Fetch-Site": {"same-site"}}, status: 403},
		{name: "typed into a browser", request: get, remote: "127.0.0.1:5", host: "localhost:9090",
			header: http.Header{"Sec-Fetch-Site": {"none"}}, status: 200},
		{name: "no token from loopback", token: "s3cret", request: get, remote: "127.0.0.1:5", host: "localhost", status: 401},
		{name: "token in the query", token: "s3cret", request: get + "?token=s3cret", remote: "127.0.0.1:5", host: "localhost", status: 401},
		{name: "empty token when none is set", request: get, remote: "203.0.113.9:5", host: "localhost",
			header: http.Header{"Authorization": {"Bearer "}}, status: 403},
		{name: "token with a foreign origin", token: "s3cret", request: post, remote: "203.0.113.9:5", host: "droplet.example",
			header: http.Header{"Authorization": {"Bearer s3cret"}, "Origin": {"https://evil.example"}}, status: 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			drained := false
			listen := tt.listen
			if listen == "" {
				listen = "127.0.0.1"
			}
			config := Config{Token: tt.token, Gatherer: NewRegistry("", ""), Drain: func() { drained = true }}
			h := newHandler(config, newGuard(tt.token, listen))
			method, target, _ := strings.Cut(tt.request, " ")
			r := httptest.NewRequest(method, target, nil)
			r.RemoteAddr, r.Host = tt.remote, tt.host
			if tt.header != nil {
				r.Header = tt.header.Clone()
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, tt.status)
			}
			if drained != (w.Code == 202) {
				t.Errorf("drained: %v with status %d", drained, w.Code)
			}
			if w.Code == 401 && !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") {
				t.Error("401 without a challenge")
			}
			if tt.token != "" && strings.Contains(w.Body.String(), tt.token) {
				t.Error("the token is in the reply")
			}
		})
	}
}

func TestProbesNeedNoToken(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{Token: "s3cret"})
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/"} {
		if got := raw(t, addr, "GET "+path+" HTTP/1.0\r\n\r\n"); got.status != 200 {
			t.Errorf("%s: %d", path, got.status)
		}
	}
	if got := raw(t, addr, "GET /debug/pprof/ HTTP/1.0\r\nHost: localhost\r\n\r\n"); got.status != 401 {
		t.Errorf("pprof: %d", got.status)
	}
}
