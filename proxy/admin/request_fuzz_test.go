package admin

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// FuzzRequest: no spelling of a path, a method or a header gets past the guard without the token, and no request makes the server fail.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /api/v1/upstreams HTTP/1.1\r\nHost: a\r\n\r\n", "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /metrics/../debug/pprof/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /%64ebug/pprof/heap HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET //debug/pprof/goroutine?debug=2 HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://x/api/v1/accounts/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n\r\n",
		"DELETE /api/v1/accounts/%2e%2e%2freload HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\n\r\n", "GET /healthz\\..\\api/v1/accounts HTTP/1.1\r\nHost: a\r\n\r\n",
		"PUT /api/v1/accounts/a HTTP/1.1\r\nHost: a\r\nAuthorization: Basic eDp5\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"HEAD /readyz%00 HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		r.RemoteAddr = "127.0.0.1:5"
		// What is guarded tells that it was reached.
		reached := func() { t.Errorf("%s %s was served", r.Method, r.RequestURI) }
		h := newHandler(Config{
			Gatherer: NewRegistry("", ""), Ready: func() []string { return nil },
			Reload: func() error { reached(); return nil }, Drain: func() { reached() },
			Accounts: fakeAccounts{
				exists: func(string) (bool, error) { reached(); return false, nil },
				get:    func(string) (AccountRow, error) { reached(); return AccountRow{}, nil },
				list:   func(AccountQuery) (AccountPage, error) { reached(); return AccountPage{}, nil },
				write: func(context.Context, AccountWrite) (AccountRow, bool, error) {
					reached()
					return AccountRow{}, false, nil
				},
				remove: func(string, Precondition) error { reached(); return nil },
			},
		}, newGuard("the token of this test", "127.0.0.1"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		_, open := map[string]bool{"/": true, "/healthz": true, "/readyz": true, "/metrics": true}[r.URL.Path]
		if w.Code < 300 != (open && w.Code == http.StatusOK) || w.Code >= 500 || w.Code/100 == 3 {
			t.Errorf("%s %s: %d %.200q", r.Method, r.RequestURI, w.Code, w.Body)
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
}
