package account

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestHookHeadersQuestion(t *testing.T) {
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	h := newHook(t, HookConfig{URL: s.URL + "/auth.php?key=1%262", Style: StyleHeaders})
	ctx := WithListener(WithClient(t.Context(), netip.MustParseAddr("2001:db8::1")), ":8080")
	if _, err := h.Authenticate(ctx, "alice", "p&ä =#"); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodGet || got.URL.Path != "/auth.php" || got.ContentLength != 0 || got.Header.Get("Content-Type") != "" {
		t.Errorf("the request is %s %s, %d bytes", got.Method, got.URL, got.ContentLength)
	}
	want := map[string]string{
		"key": "1&2", "user": "alice", "pass": "p&ä =#", "client_addr": "[2001:db8::1]:0", "local_addr": ":8080",
		"service": "http", "sps": "0", "target": "",
	}
	query := got.URL.Query()
	for key, value := range want {
		if v, ok := query[key]; !ok || len(v) != 1 || v[0] != value {
			t.Errorf("%s is %q, want %q", key, v, value)
		}
	}
	if len(query) != len(want) {
		t.Errorf("the query is %v", query)
	}
	mustAdmit(t, newHook(t, HookConfig{URL: s.URL, Style: StyleHeaders}), "bob", "x")
	if got.URL.RawQuery != "user=bob&pass=x&client_addr=&local_addr=&service=http&sps=0&target=" {
		t.Errorf("without anything: %s", got.URL.RawQuery)
	}
}

func TestHookHeadersAnswers(t *testing.T) {
	tests := []struct {
		name   string
		status int
		fields string // "name: value", separated by |
		want   *Account
		err    error
		text   string
	}{
		{"nothing said", 204, "", &Account{}, nil, ""},
		{"all", 204, "userconns: 1000|userqps: 20|userTotalRate: 10000000|userrate: 5000|upstream:|outgoing: ",
			&Account{MaxConns: 1000, ConnRate: 20, Bandwidth: 10_000_000}, nil, ""},
		{"rate of a connection", 204, "UserRate: 3000|userTotalRate: 0", &Account{Bandwidth: 3000}, nil, ""},
		{"zeros", 204, "userconns: 0|userqps: 0|userrate: 0", &Account{}, nil, ""},
		{"fraction", 204, "userqps: 0.5", &Account{ConnRate: 0.5}, nil, ""},
		{"of addresses", 204, "ipconns: 2000|iprate: 8000|ipqps: 1|portTotalRate: 1", &Account{}, nil, ""},
		{"200", 200, "userconns: 5", nil, ErrRefused, ""},
		{"400", 400, "", nil, ErrRefused, ""},
		{"401", 401, "", nil, ErrRefused, ""},
		{"403", 403, "", nil, ErrRefused, ""},
		{"407", 407, "", nil, ErrRefused, ""},
		{"302", 302, "Location: /login", nil, ErrBusy, "redirects are not followed"},
		{"404", 404, "", nil, ErrBusy, "is the URL right?"},
		{"429", 429, "", nil, ErrBusy, "status 429"},
		{"500", 500, "", nil, ErrBusy, "status 500"},
		{"upstream", 204, "upstream: http://sesame:3500?parent-type=tcp", nil, ErrBusy, "the answer's upstream is not empty; an account cannot bring a gateway of its own"},
		{"pool", 204, "pool: oxy|Pools: smart, eu.1|pools: ,default", &Account{Pool: "oxy", Pools: []string{"smart", "eu.1", "default"}}, nil, ""},
		{"no pool", 204, "pool: |pools: ", &Account{}, nil, ""},
		{"numbers are names of pools", 204, "pool: 1|pools: 1.5", &Account{Pool: "1", Pools: []string{"1.5"}}, nil, ""},
		{"bad pool", 204, "pool: sesame-", nil, ErrBusy, "the answer's pool must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.', and '-' is none of them"},
		{"two pools", 204, "pool: a|pool: b", nil, ErrBusy, "the answer's pool is given twice"},
		{"bad pools", 204, "pools: a,sesame sesame", nil, ErrBusy, "the answer's pools: must be 1 to 32"},
		{"pools twice", 204, "pools: a,b|pools: a", nil, ErrBusy, "the answer's pools: is there twice"},
		{"many pools", 204, "pools: " + manyPools(65), nil, ErrBusy, "the answer's pools: must name at most 64 pools"},
		{"outgoing", 204, "outgoing: 192.0.2.1", nil, ErrBusy, "the answer's outgoing is not empty"},
		{"words", 204, "userconns: sesame", nil, ErrBusy, "the answer's userconns must be a whole number"},
		{"negative", 204, "userconns: -1", nil, ErrBusy, "the answer's userconns must be"},
		{"too slow", 204, "userrate: 10", nil, ErrBusy, "the answer's userrate is below 1KB a second"},
		{"twice", 204, "userconns: 1|userconns: 2", nil, ErrBusy, "the answer's userconns is given twice"},
		{"two problems", 204, "userqps: x|userrate: x", nil, ErrBusy, "the answer's userrate is not a size"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for field := range strings.SplitSeq(tt.fields, "|") {
					if name, value, ok := strings.Cut(field, ":"); ok {
						w.Header().Add(name, strings.TrimSpace(value))
					}
				}
				w.WriteHeader(tt.status)
				if tt.status != http.StatusNoContent {
					_, _ = io.WriteString(w, "sesame")
				}
			}))
			defer s.Close()
			told := ""
			h := newHook(t, HookConfig{URL: s.URL, Style: StyleHeaders, Trouble: func(err error) { told = err.Error() }})
			a, err := h.Authenticate(t.Context(), "alice", "secret")
			if !errors.Is(err, tt.err) || (a == nil) != (tt.want == nil) {
				t.Fatalf("Authenticate is %v, %v, want %v", a, err, tt.err)
			}
			if tt.want != nil {
				tt.want.Name = "alice"
				if !a.equal(tt.want) {
					t.Errorf("the account is %s, want %s", a.JSON(), tt.want.JSON())
				}
			}
			if !strings.Contains(told, tt.text) || (told == "") != (tt.text == "") || strings.Contains(told, "sesame") {
				t.Errorf("told %q, want %q", told, tt.text)
			}
		})
	}
}
