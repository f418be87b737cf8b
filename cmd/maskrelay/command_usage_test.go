package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/admin"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/usage"
	"maskrelay/proxy/usage/redisusage"
)

// usageStandIn is a relay's API that answers with status and body; asked gets each request.
func usageStandIn(t *testing.T, status int, body string, asked chan<- *http.Request) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

const usageAnswer = `{"usage":[
	{"account":"bob","sent":1,"received":999,"connections":2,"from":"2026-11-01T00:00:00Z","to":"2026-11-21T08:00:00Z"},
	{"account":"alice","sent":1234567,"received":98765432101,"connections":12345,"from":"2026-11-01T00:00:00Z","to":"2026-11-21T08:00:01Z"}]}`

func TestUsageOfARelay(t *testing.T) {
	t.Setenv("http_proxy", "http://192.0.2.1:1") // must not be used
	asked := make(chan *http.Request, 1)
	env := environ(nil, map[string]string{"ADMIN_LISTEN": usageStandIn(t, 200, usageAnswer, asked), "ADMIN_TOKEN": "geheim", "MAX_CONNS": "not read"})
	for _, c := range []struct{ format, want string }{
		{"table", `ACCOUNT        SENT  RECEIVED  TOGETHER  CONNECTIONS
alice       1.23 MB   98.8 GB   98.8 GB        12345
bob             1 B     999 B   1.00 KB            2
(2 in all)  1.23 MB   98.8 GB   98.8 GB        12347

From 2026-11-01T00:00:00Z to 2026-11-21T08:00:01Z.
`},
		{"csv", `account,sent,received,connections,from,to
alice,1234567,98765432101,12345,2026-11-01T00:00:00Z,2026-11-21T08:00:01Z
bob,1,999,2,2026-11-01T00:00:00Z,2026-11-21T08:00:00Z
`},
	} {
		got := runWith(env, "", "usage", "--since", "2026-11-01", "--format", c.format)
		if got != (ending{0, c.want, ""}) {
			t.Errorf("%s: got %+v", c.format, got)
		}
		r := <-asked
		want := url.Values{"since": {"2026-11-01T00:00:00Z"}, "format": {"json"}}
		if r.URL.Path != "/api/v1/usage" || r.URL.RawQuery != want.Encode() || r.Header.Get("Authorization") != "Bearer geheim" {
			t.Errorf("asked %s with %q", r.URL, r.Header)
		}
	}
}

func TestUsageInJSON(t *testing.T) {
	asked := make(chan *http.Request, 1)
	env := environ(nil, one("ADMIN_LISTEN", usageStandIn(t, 200, usageAnswer, asked)))
	got := runWith(env, "", "usage", "--account", "a&b", "--since", "2026-11-01T01:00:00+01:00", "--format", "json")
	var out struct {
		Since time.Time
		Usage []usageRow
		Total map[string]int64
	}
	if err := json.Unmarshal([]byte(got.stdout), &out); err != nil || got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v: %v", got, err)
	}
	if len(out.Usage) != 2 || out.Usage[0].Account != "alice" || out.Usage[0].Received != 98765432101 || out.Since.Format(time.RFC3339) != "2026-11-01T00:00:00Z" ||
		fmt.Sprint(out.Total) != "map[connections:12347 received:98765433100 sent:1234568]" {
		t.Errorf("got %s", got.stdout)
	}
	r := <-asked
	if account := r.URL.Query().Get("account"); account != "a&b" || r.Header.Get("Authorization") != "" {
		t.Errorf("asked for account %q with %q", account, r.Header)
	}
}

// TestUsageOfTheAPI: the command and the API speak the same.
func TestUsageOfTheAPI(t *testing.T) {
	since := time.Now().UTC().Add(-48 * time.Hour).Truncate(time.Second)
	server, err := admin.New(admin.Config{
		Listen: "127.0.0.1:0", Token: "geheim", Gatherer: admin.NewRegistry("", ""),
		Usage: func(_ context.Context, account string, from time.Time) ([]admin.UsageRow, error) {
			if account == "bad" {
				return nil, errors.New("the ledger is away")
			}
			return []admin.UsageRow{{Account: account + "?", Sent: 1, Received: 2, Connections: 3, From: from, To: from}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	env := environ(nil, map[string]string{"ADMIN_LISTEN": server.Addr().String(), "ADMIN_TOKEN": "geheim"})
	stamp := since.Format(time.RFC3339)
	got := runWith(env, "", "usage", "--account", "a b", "--since", stamp, "--format", "csv")
	if want := "account,sent,received,connections,from,to\na b?,1,2,3," + stamp + "," + stamp + "\n"; got != (ending{0, want, ""}) {
		t.Errorf("got %+v", got)
	}
	got = runWith(env, "", "usage", "--account", "bad")
	if want := "maskrelay: usage: the relay at " + server.Addr().String() + ": 503 Service Unavailable: the ledger is away\n"; got != (ending{1, "", want}) {
		t.Errorf("got %+v", got)
	}
	env = environ(nil, one("ADMIN_LISTEN", server.Addr().String()))
	if got := runWith(env, "", "usage"); got.code != 1 || !strings.HasSuffix(got.stderr, ": 401 Unauthorized: a bearer token is needed; is MASKRELAY_ADMIN_TOKEN the relay's?\n") {
		t.Errorf("without the token: %+v", got)
	}
}

// TestUsageRefusals: a relay that answers is not gone round, whatever it says, and nothing of it reaches the terminal raw.
func TestUsageRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"no token", 401, `{"error":"a bearer token is needed"}`, "401 Unauthorized: a bearer token is needed; is MASKRELAY_ADMIN_TOKEN the relay's?"},
		{"ledger down", 503, `{"error":"Redis\u001b[31m is down"}`, "503 Service Unavailable: Redis\\x1b[31m is down"},
		{"another program", 404, "no", "404 Not Found"},
		{"redirect is not followed", 302, "", "302 Found"},
		{"no JSON", 200, "<html>", "the answer is no usage: invalid character '<' looking for beginning of value"},
		{"other JSON", 200, `{"accounts":[]}`, "the answer is no usage"},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := make(chan *http.Request, 1)
			address := usageStandIn(t, c.status, c.body, asked)
			env := environ(nil, map[string]string{"ADMIN_LISTEN": address, "USAGE_FILE": "/nowhere/u"})
			want := ending{1, "", "maskrelay: usage: the relay at " + address + ": " + c.want + "\n"}
			if got := runWith(env, "", "usage"); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestUsageFlags(t *testing.T) {
	const see = "\nmaskrelay: see `maskrelay usage --help`\n"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"all", []string{"--account", "", "--since", "soon", "--format", "xml"}, "maskrelay: --account: not a name of 1 to 256 bytes; " +
			`--since: "soon" is not a time; write 24h, 7d, 2026-11-01 or 2026-11-01T12:00:00Z; --format: "xml" is not one of table, csv, json` + see},
		{"ahead", []string{"--since", "2999-01-01"}, `maskrelay: --since: "2999-01-01" lies ahead` + see},
		{"argument", []string{"alice"}, `maskrelay: unknown command "alice" for "maskrelay usage"` + see},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := runWith(nil, "", append([]string{"usage"}, c.args...)...); got != (ending{exitConfig, "", c.want}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestUsageVariables(t *testing.T) {
	env := environ(nil, map[string]string{"ADMIN_LISTEN": "x", "REDIS_URL": "http://:geheim@h", "ADMIN_TOKEN_FILE": "/nowhere/t", "UPSTREAM_FILE": "/not/read"})
	got := runWith(env, "", "usage")
	want := `MASKRELAY_ADMIN_TOKEN_FILE: open /nowhere/t: no such file or directory
MASKRELAY_ADMIN_LISTEN: "x" is not an address; write :8080 or 127.0.0.1:8080
MASKRELAY_REDIS_URL: not a URL of a Redis; write redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path
`
	if got != (ending{exitConfig, "", want}) {
		t.Errorf("got %+v", got)
	}
}

func TestUsageNobodyToAsk(t *testing.T) {
	closed := nobodyListens(t)
	missing := filepath.Join(t.TempDir(), "usage.db")
	for _, c := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"neither relay nor ledger", one("ADMIN_LISTEN", closed), "maskrelay: usage: no relay could be asked (dial tcp " + closed + ": connect: connection refused), and " +
			"neither MASKRELAY_REDIS_URL nor MASKRELAY_USAGE_FILE names a ledger\n"},
		{"no admin server", one("ADMIN_LISTEN", ""), "maskrelay: usage: no relay could be asked (MASKRELAY_ADMIN_LISTEN is empty), and " +
			"neither MASKRELAY_REDIS_URL nor MASKRELAY_USAGE_FILE names a ledger\n"},
		{"no file yet", map[string]string{"ADMIN_LISTEN": "", "USAGE_FILE": missing}, "maskrelay: usage: no relay could be asked (MASKRELAY_ADMIN_LISTEN is empty), and " +
			"MASKRELAY_USAGE_FILE: stat " + missing + ": no such file or directory\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := runWith(environ(nil, c.vars), "", "usage"); got != (ending{1, "", c.want}) {
				t.Errorf("got %+v", got)
			}
		})
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("asking made the file")
	}
	redis := map[string]string{"ADMIN_LISTEN": "", "REDIS_URL": "redis://:geheim@" + closed}
	if got := runWith(environ(nil, redis), "", "usage"); got.code != 1 || strings.Contains(got.stderr, "geheim") || !strings.HasPrefix(got.stderr, "maskrelay: usage: ") {
		t.Errorf("Redis is not there: %+v", got)
	}
}

// book puts the same figures into any ledger.
func book(t *testing.T, l usage.Ledger) {
	t.Helper()
	sums := usage.Sums{Sent: 1500, Received: 2_500_000, Connections: 3}
	batch := usage.Batch{Node: "test", At: time.Now(), Entries: []usage.Entry{{Account: "alice", Seq: 1, Sums: sums}, {Account: "bob", Seq: 1, Sums: sums}}}
	if _, err := l.Book(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
}

const bookedTable = `ACCOUNT        SENT  RECEIVED  TOGETHER  CONNECTIONS
alice       1.50 KB   2.50 MB   2.50 MB            3
bob         1.50 KB   2.50 MB   2.50 MB            3
(2 in all)  3.00 KB   5.00 MB   5.00 MB            6

From `

func TestUsageOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.db")
	ledger, err := usage.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	book(t, ledger)
	env := environ(nil, map[string]string{"ADMIN_LISTEN": nobodyListens(t), "USAGE_FILE": path})
	if got := runWith(env, "", "usage"); got.code != 1 || !strings.Contains(got.stderr, path+" is in use by another process") {
		t.Errorf("while it is open: %+v", got)
	}
	if err := ledger.Close(); err != nil {
		t.Fatal(err)
	}
	if got := runWith(env, "", "usage", "--since", "1h"); got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, bookedTable) {
		t.Errorf("got %+v", got)
	}
	if got := runWith(env, "", "usage", "--account", "bob", "--format", "csv"); strings.Count(got.stdout, "\n") != 2 || !strings.Contains(got.stdout, "\nbob,1500,2500000,3,") {
		t.Errorf("one account: %+v", got)
	}
}

func TestUsageOfAFleet(t *testing.T) {
	server := lab.StartRedis(t)
	client, err := fleet.Open(fleet.Config{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	stop := runFleet(t, client)
	book(t, redisusage.New(client))
	stop()
	env := environ(nil, map[string]string{"ADMIN_LISTEN": nobodyListens(t), "REDIS_URL": server.URL()})
	if got := runWith(env, "", "usage", "--since", "1d"); got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, bookedTable) {
		t.Errorf("got %+v", got)
	}
	server.Freeze(t)
	defer server.Thaw(t)
	if got := runWith(env, "", "usage"); got.code != 1 || !strings.HasSuffix(got.stderr, ", and no answer from Redis in time\n") {
		t.Errorf("with Redis frozen: %+v", got)
	}
}

// runFleet runs the client until it is up; the function that it returns ends it.
func runFleet(t *testing.T, client *fleet.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); client.Run(ctx) }()
	lab.Wait(t, 10*time.Second, "Redis to answer", client.Up)
	return func() {
		cancel()
		<-done
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}
