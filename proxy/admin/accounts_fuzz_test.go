package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

// FuzzWriteAccount: whatever is sent, the answer is ours and in JSON.
func FuzzWriteAccount(f *testing.F) {
	for _, seed := range []string{`{}`, `{"name":"a"}`, `[`, "\x00", `{"a":{"b":[1,2,{}]}}`} {
		f.Add("PUT", "a", `"5"`, []byte(seed))
	}
	f.Add("PATCH", "%2e%2e/", `W/"`, []byte(`null`))
	config := Config{Gatherer: NewRegistry("", ""), Accounts: fakeAccounts{
		write: func(_ context.Context, w AccountWrite) (AccountRow, bool, error) {
			if !json.Valid(w.Body) {
				return AccountRow{}, false, errors.New("not JSON")
			}
			return AccountRow{Name: w.Name, Object: w.Body, Source: "redis"}, false, nil
		},
	}}
	h := newHandler(config, newGuard("", "127.0.0.1"))
	f.Fuzz(func(t *testing.T, method, name, match string, body []byte) {
		fuzzWrite(t, h, fuzzed{method, name, match, body})
	})
}

// fuzzed is one request of FuzzWriteAccount.
type fuzzed struct {
	method, name, match string
	body                []byte
}

func fuzzWrite(t *testing.T, h http.Handler, f fuzzed) {
	u, err := url.Parse("http://localhost/api/v1/accounts/" + f.name)
	if err != nil {
		return
	}
	r := httptest.NewRequest(http.MethodPut, "/", bytes.NewReader(f.body))
	r.URL, r.Host, r.RemoteAddr = u, "localhost", "127.0.0.1:5"
	if f.method == http.MethodPatch || f.method == http.MethodPost {
		r.Method = f.method
	}
	r.Header.Set("Content-Type", "application/json")
	if f.match != "" {
		r.Header["If-Match"] = []string{f.match}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code == http.StatusInternalServerError || !json.Valid(w.Body.Bytes()) {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
