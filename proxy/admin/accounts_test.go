package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeAccounts is an AccountAPI of functions; what is not given panics.
type fakeAccounts struct {
	readOnly string
	exists   func(name string) (bool, error)
	get      func(name string) (AccountRow, error)
	list     func(q AccountQuery) (AccountPage, error)
	write    func(ctx context.Context, w AccountWrite) (AccountRow, bool, error)
	remove   func(name string, only Precondition) error
}

func (f fakeAccounts) ReadOnly() string                                 { return f.readOnly }
func (f fakeAccounts) Exists(_ context.Context, n string) (bool, error) { return f.exists(n) }
func (f fakeAccounts) Get(_ context.Context, n string) (AccountRow, error) {
	return f.get(n)
}
func (f fakeAccounts) List(_ context.Context, q AccountQuery) (AccountPage, error) {
	return f.list(q)
}
func (f fakeAccounts) Write(ctx context.Context, w AccountWrite) (AccountRow, bool, error) {
	return f.write(ctx, w)
}
func (f fakeAccounts) Delete(_ context.Context, n string, only Precondition) error {
	return f.remove(n, only)
}

// request writes one with a body of JSON.
func request(line, body string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", line)
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String() + "\r\n" + body
}

const jsonType = "Content-Type: application/json"

func TestAccountErrorsAsStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err    error
		status int
		text   string
	}{
		{ErrNoAccount, 404, "no such account"},
		{fmt.Errorf("find: %w", ErrNoAccount), 404, "no such account"},
		{ErrAccountExists, 409, "the account exists already"},
		{&ConflictError{"it is in the file"}, 409, "it is in the file"},
		{ErrPrecondition, 412, "the account has another version; read it again"},
		{&InvalidError{[]string{"one", "two"}}, 422, "one; two"},
		{errors.New("no answer from Redis in time"), 503, "no answer from Redis in time"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			addr := start(t, Config{
				Accounts: fakeAccounts{
					exists: func(string) (bool, error) { return false, tt.err },
					get:    func(string) (AccountRow, error) { return AccountRow{}, tt.err },
					list:   func(AccountQuery) (AccountPage, error) { return AccountPage{}, tt.err },
					write:  func(context.Context, AccountWrite) (AccountRow, bool, error) { return AccountRow{}, false, tt.err },
					remove: func(string, Precondition) error { return tt.err },
				},
				CloseConnections: func(context.Context, string) (int, error) { return 0, nil },
			})
			body, err := json.Marshal(map[string]string{"error": tt.text})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []string{
				request("GET /api/v1/accounts", ""), request("GET /api/v1/accounts/a", ""),
				request("POST /api/v1/accounts", "{}", jsonType), request("PUT /api/v1/accounts/a", "{}", jsonType),
				request("PATCH /api/v1/accounts/a", "{}", jsonType), request("DELETE /api/v1/accounts/a", ""),
				request("DELETE /api/v1/accounts/a/connections", ""),
			} {
				if got := raw(t, addr, r); got.status != tt.status || got.body != string(body)+"\n" {
					t.Errorf("%.40q: %d %s", r, got.status, got.body)
				}
			}
		})
	}
}

func TestAccountRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{ // which is never asked
		Accounts: fakeAccounts{},
		Usage:    func(context.Context, string, time.Time) ([]UsageRow, error) { panic("asked") },
	})
	tests := []struct {
		name, request string
		status        int
		want          string
	}{
		{"limit zero", request("GET /api/v1/accounts?limit=0", ""), 400, "limit: a number from 1 to 1000"},
		{"limit large", request("GET /api/v1/accounts?limit=1001", ""), 400, "limit: a number from 1 to 1000"},
		{"limit nonsense", request("GET /api/v1/accounts?limit=ten", ""), 400, "limit: a number from 1 to 1000"},
		{"limit twice", request("GET /api/v1/accounts?limit=1&limit=2", ""), 400, "each once at the most"},
		{"unknown parameter", request("GET /api/v1/accounts?prefx=a", ""), 400, "the parameters are limit, cursor, prefix"},
		{"malformed query", request("GET /api/v1/accounts?prefix=%zz", ""), 400, "the query is malformed"},
		{"no content type", request("POST /api/v1/accounts", "{}"), 415, "must be application/json"},
		{"other content type", request("PUT /api/v1/accounts/a", "{}", "Content-Type: text/plain"), 415, "must be application/json"},
		{"other charset", request("PUT /api/v1/accounts/a", "{}", jsonType+"; charset=latin1"), 415, "must be application/json"},
		{"patch of another kind", request("PATCH /api/v1/accounts/a", "[]", "Content-Type: application/json-patch+json"), 415, "or application/merge-patch+json"},
		{"no body", request("POST /api/v1/accounts", "", jsonType), 400, "the body is not JSON"},
		{"two values", request("POST /api/v1/accounts", "{}{}", jsonType), 400, "the body is not JSON"},
		{"binary", request("POST /api/v1/accounts", "\x00\xff", jsonType), 400, "the body is not JSON"},
		{"deep", request("POST /api/v1/accounts", strings.Repeat("[", 20_000), jsonType), 400, "the body is not JSON"},
		{"large", request("POST /api/v1/accounts", strings.Repeat(" ", maxBody+1), jsonType), 413, "at most 65536 bytes"},
		{"bad chunk", "POST /api/v1/accounts HTTP/1.1\r\nHost: localhost\r\n" + jsonType + "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "did not arrive"},
		{"if-match", request("PUT /api/v1/accounts/a", "{}", jsonType, "If-Match: 5"), 400, "If-Match must be"},
		{"if-match half quoted", request("DELETE /api/v1/accounts/a", "", `If-Match: "5`), 400, "If-Match must be"},
		{"if-none-match of a version", request("PUT /api/v1/accounts/a", "{}", jsonType, `If-None-Match: "5"`), 400, "If-None-Match must be"},
		{"method", request("POST /api/v1/accounts/a", "{}", jsonType), 405, "method not allowed"},
		{"no name", request("GET /api/v1/accounts/", ""), 404, "no such endpoint"},
		{"slash behind", request("GET /api/v1/accounts/a/", ""), 404, "no such endpoint"},
		{"something below", request("GET /api/v1/accounts/a/b", ""), 404, "no such endpoint"},
		{"no function", request("DELETE /api/v1/accounts/a/connections", ""), 404, "no such endpoint"},
		{"double slash", request("GET /api/v1//accounts", ""), 404, "no such endpoint"},
		{"since", request("GET /api/v1/usage?since=yesterday", ""), 400, "since: a time such as"},
		{"since to come", request("GET /api/v1/usage?since=-5h", ""), 400, "since: a time such as"},
		{"format", request("GET /api/v1/usage?format=xml", ""), 400, "format: json or csv"},
		{"usage parameter", request("GET /api/v1/usage?user=a", ""), 400, "the parameters are account, since, format"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := raw(t, addr, tt.request)
			var body map[string]string
			if err := json.Unmarshal([]byte(got.body), &body); err != nil {
				t.Fatalf("%d %q: %v", got.status, got.body, err)
			}
			if got.status != tt.status || !strings.Contains(body["error"], tt.want) {
				t.Errorf("got %d %s, want %d with %q", got.status, got.body, tt.status, tt.want)
			}
			if strings.HasPrefix(tt.request, "PATCH") && got.header.Get("Accept-Patch") != "application/json, application/merge-patch+json" {
				t.Errorf("Accept-Patch: %q", got.header.Get("Accept-Patch"))
			}
		})
	}
	if got := raw(t, addr, request("POST /api/v1/accounts/a", "")); got.header.Get("Allow") != "GET, HEAD, PUT, PATCH, DELETE" {
		t.Errorf("Allow: %q", got.header.Get("Allow"))
	}
}

// What is sent arrives as it was sent, and so does what comes back.
func TestAccountRequestsAreHandedOn(t *testing.T) {
	t.Parallel()
	var write AccountWrite
	var query AccountQuery
	var only Precondition
	var name string
	row := AccountRow{Name: "a/b", Object: json.RawMessage(`{}`), Source: "redis", Version: "5"}
	addr := start(t, Config{
		Accounts: fakeAccounts{
			get:  func(n string) (AccountRow, error) { name = n; return row, nil },
			list: func(q AccountQuery) (AccountPage, error) { query = q; return AccountPage{Next: "z"}, nil },
			write: func(_ context.Context, w AccountWrite) (AccountRow, bool, error) {
				write = w
				return row, w.Name == "", nil
			},
			remove: func(n string, p Precondition) error { name, only = n, p; return nil },
			exists: func(n string) (bool, error) { name = n; return true, nil },
		},
		CloseConnections: func(_ context.Context, n string) (int, error) {
			if n == "cut" {
				return 3, errors.New("no answer from Redis in time")
			}
			return 12, nil
		},
	})
	const shown = `{"source":"redis","version":"5"}` + "\n"
	got := raw(t, addr, request("POST /api/v1/accounts", ` {"name":"a"}`, jsonType))
	if got.status != 201 || got.body != shown || got.header.Get("Location") != "/api/v1/accounts/a%2Fb" || got.header.Get("ETag") != `"5"` {
		t.Errorf("POST: %d %s %v", got.status, got.body, got.header)
	}
	if write.Name != "" || string(write.Body) != ` {"name":"a"}` || write.Merge {
		t.Errorf("POST: %+v", write)
	}
	got = raw(t, addr, request("PATCH /api/v1/accounts/a%2Fb", `{}`, "Content-Type: application/merge-patch+json; charset=UTF-8", `If-Match: "1", W/"2"`, `If-Match: "3"`))
	if got.status != 200 || got.body != shown || write.Name != "a/b" || !write.Merge || !slices.Equal(write.Only.Versions, []string{"1", "3"}) {
		t.Errorf("PATCH: %d %s %+v", got.status, got.body, write)
	}
	raw(t, addr, request("PUT /api/v1/accounts/a", `{}`, jsonType, `If-None-Match: *`))
	if write.Merge || !write.Only.Absent || write.Only.Versions != nil {
		t.Errorf("PUT: %+v", write)
	}
	if got = raw(t, addr, request("DELETE /api/v1/accounts/%7Bname%7D", "", "If-Match: *")); got.status != 204 || got.body != "" || name != "{name}" || !only.Present {
		t.Errorf("DELETE: %d %q of %q, %+v", got.status, got.body, name, only)
	}
	if got = raw(t, addr, request("HEAD /api/v1/accounts/a", "")); got.status != 200 || got.body != "" || got.header.Get("ETag") != `"5"` {
		t.Errorf("HEAD: %d %q", got.status, got.body)
	}
	if got = raw(t, addr, request("GET /api/v1/accounts?limit=7&cursor=c&prefix=p", "")); got.body != `{"accounts":[],"next":"z"}`+"\n" || query != (AccountQuery{"p", "c", 7}) {
		t.Errorf("GET: %s, %+v", got.body, query)
	}
	if got = raw(t, addr, request("DELETE /api/v1/accounts/a/connections", "")); got.status != 200 || got.body != `{"closed":12}`+"\n" {
		t.Errorf("connections: %d %s", got.status, got.body)
	}
	if got = raw(t, addr, request("DELETE /api/v1/accounts/cut/connections", "")); got.status != 503 || !strings.Contains(got.body, "3 connections closed here") {
		t.Errorf("connections without a fleet: %d %s", got.status, got.body)
	}
	got = raw(t, addr, request("GET /", ""))
	for _, want := range []string{"/api/v1/accounts (GET, POST)", "/api/v1/accounts/{name} (GET, PUT, PATCH, DELETE)", "/api/v1/accounts/{name}/connections (DELETE)"} {
		if !strings.Contains(got.body, want+"\n") {
			t.Errorf("the index has no %q:\n%s", want, got.body)
		}
	}
}

func TestAccountsAreGuarded(t *testing.T) {
	t.Parallel()
	addr := start(t, Config{
		Token: "t0ken", Accounts: fakeAccounts{},
		CloseConnections: func(context.Context, string) (int, error) { panic("called") },
		Usage:            func(context.Context, string, time.Time) ([]UsageRow, error) { panic("called") },
	})
	for _, line := range []string{
		"GET /api/v1/accounts", "POST /api/v1/accounts", "GET /api/v1/accounts/a", "HEAD /api/v1/accounts/a", "PUT /api/v1/accounts/a",
		"PATCH /api/v1/accounts/a", "DELETE /api/v1/accounts/a", "DELETE /api/v1/accounts/a/connections", "GET /api/v1/usage",
	} {
		if got := raw(t, addr, request(line, "{}", jsonType)); got.status != 401 {
			t.Errorf("%s: %d %s", line, got.status, got.body)
		}
	}
}

// Dear requests are few at a time, and a panic gives its place back.
func TestWritesAreBounded(t *testing.T) {
	t.Parallel()
	entered, release := make(chan bool), make(chan struct{})
	addr := start(t, Config{Accounts: fakeAccounts{
		write: func(ctx context.Context, _ AccountWrite) (AccountRow, bool, error) {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a write without a deadline")
			}
			entered <- true
			<-release
			panic("boom")
		},
	}})
	put := request("PUT /api/v1/accounts/a", "{}", jsonType)
	answers := make(chan int, maxChanges)
	for range maxChanges {
		go func() { answers <- raw(t, addr, put).status }()
		<-entered
	}
	if got := raw(t, addr, put); got.status != 503 || got.header.Get("Retry-After") != "1" {
		t.Errorf("one more: %d %s", got.status, got.body)
	}
	close(release)
	for range maxChanges {
		if status := <-answers; status != 500 {
			t.Errorf("a panic is %d", status)
		}
	}
	go func() { answers <- raw(t, addr, put).status }()
	<-entered
	if status := <-answers; status != 500 {
		t.Errorf("then %d", status)
	}
}
