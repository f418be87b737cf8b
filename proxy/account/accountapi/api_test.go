package accountapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/proxy/account"
	"maskrelay/proxy/account/redisaccounts"
	"maskrelay/proxy/admin"
)

const accountsPath = "/api/v1/accounts"

// The life of an account, as an operator's panel leads it.
func TestLifeOfAnAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, account.StoreConfig{})
	const path = accountsPath + "/alice"
	r.must(404, "GET", path, "")
	created := r.must(201, "POST", accountsPath, `{"name":"alice","password":"sesame","max_conns":2000}`)
	if created.header.Get("Location") != path {
		t.Errorf("Location: %q", created.header.Get("Location"))
	}
	tag := created.header.Get("ETag")
	version := created.object(t)["version"]
	if tag != fmt.Sprintf("%q", version) || strings.Contains(created.body, "password") {
		t.Errorf("created: ETag %s, %s", tag, created.body)
	}
	eventually(t, "alice to be served", func() bool {
		a, err := r.accounts.Authenticate(t.Context(), "alice", "sesame")
		return err == nil && a.MaxConns == 2000
	})
	got := r.must(200, "GET", path, "")
	if got.header.Get("ETag") != tag || got.object(t)["source"] != "redis" || got.object(t)["max_conns"] != 2000.0 {
		t.Errorf("got: %s %s", got.header.Get("ETag"), got.body)
	}
	hashed := r.stored("alice")
	if strings.Contains(hashed, "sesame") || !strings.Contains(hashed, `"password":"$2a$`) {
		t.Fatalf("stored: %s", hashed)
	}
	patched := r.must(200, "PATCH", path, `{"quota":"50GB","max_conns":null}`, "Content-Type", "application/merge-patch+json", "If-Match", tag)
	if patched.header.Get("ETag") == tag || patched.object(t)["quota"] != "50GB" || patched.object(t)["max_conns"] != nil {
		t.Errorf("patched: %s", patched.body)
	}
	r.must(412, "PATCH", path, `{"weight":5}`, "If-Match", tag) // another has written meanwhile
	put := r.must(200, "PUT", path, `{"weight":5}`, "If-Match", patched.header.Get("ETag"))
	if o := put.object(t); o["weight"] != 5.0 || o["quota"] != nil {
		t.Errorf("put: %s", put.body)
	}
	password := func(stored string) string { return strings.Split(stored, `"`)[7] }
	if was, is := password(hashed), password(r.stored("alice")); was != is {
		t.Errorf("the password was %s and is %s", was, is)
	}
	r.must(200, "PATCH", path, `{"password":"sesame"}`)
	if was, is := password(hashed), password(r.stored("alice")); was != is {
		t.Errorf("the same password has another hash, which ends its connections")
	}
	r.must(200, "PATCH", path, `{"password":"hunter2"}`)
	eventually(t, "the new password", func() bool {
		_, err := r.accounts.Authenticate(t.Context(), "alice", "hunter2")
		return err == nil
	})
	if _, err := r.accounts.Authenticate(t.Context(), "alice", "sesame"); !errors.Is(err, account.ErrRefused) {
		t.Errorf("the old password: %v", err)
	}
	r.must(412, "DELETE", path, "", "If-Match", tag)
	if gone := r.must(204, "DELETE", path, "", "If-Match", "*"); gone.body != "" {
		t.Errorf("deleted: %q", gone.body)
	}
	r.must(404, "DELETE", path, "")
	r.must(404, "GET", path, "")
	eventually(t, "alice to be gone", func() bool {
		_, ok := r.accounts.Lookup("alice")
		return !ok
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "accounts.yaml")
	if err := os.WriteFile(file, []byte("accounts: [{name: fred, password: p}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := account.ParseList("lisa:secret")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, account.StoreConfig{File: file, List: list})
	r.must(201, "POST", accountsPath, `{"name":"alice","password":"`+hash+`"}`)
	if _, err := r.store.Put(t.Context(), "broken", []byte(`{"password":"sesame",}`), redisaccounts.AnyVersion); err != nil {
		t.Fatal(err)
	}
	const alice, bob = accountsPath + "/alice", accountsPath + "/bob"
	with := func(field string) string { return `{"name":"bob","password":"sesame",` + field + `}` }
	tests := []struct {
		name, request, body string
		headers             []string
		status              int
		want                string
	}{
		{"exists", "POST " + accountsPath, `{"name":"alice","password":"x"}`, nil, 409, "exists already"},
		{"in the file", "POST " + accountsPath, `{"name":"fred","password":"x"}`, nil, 409, "is in the accounts file"},
		{"in the file, put", "PUT " + accountsPath + "/fred", `{"password":"x"}`, nil, 409, "is in the accounts file"},
		{"in the file, delete", "DELETE " + accountsPath + "/fred", ``, nil, 409, "is in the accounts file"},
		{"in the environment", "PATCH " + accountsPath + "/lisa", `{}`, nil, 409, "is in the environment"},
		{"no name", "POST " + accountsPath, `{"password":"x"}`, nil, 422, "name: is missing"},
		{"no password", "POST " + accountsPath, `{"name":"bob"}`, nil, 422, "password: is missing"},
		{"no password, put", "PUT " + bob, `{}`, nil, 422, "password: is missing"},
		{"long password", "PUT " + bob, `{"password":"` + strings.Repeat("sesame", 13) + `"}`, nil, 422, "password: has 78 bytes, more than bcrypt's 72"},
		{"many problems", "POST " + accountsPath, with(`"weight":-1,"sesame":1,"max_conns":"5"`), nil, 422,
			"unknown key; known are name, password, max_conns, conn_rate, conn_burst, bandwidth, quota, quota_period, max_ips, weight, expires, allow_from, pool, pools, disabled; " +
				"max_conns: must be a whole number from 0 to 2147483647; weight: must be a whole number from 0 to 1000"},
		{"key twice", "POST " + accountsPath, with(`"name":"bob"`), nil, 422, "name is given twice"},
		{"bad pool", "POST " + accountsPath, with(`"pool":"a-b"`), nil, 422, "pool: must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.', and '-' is none of them"},
		{"unknown pool", "POST " + accountsPath, with(`"pool":"oxi"`), nil, 422, `pool "oxi": no gateway is in it; there are default, oxy`},
		{"unknown pool, put", "PUT " + bob, `{"password":"x","pools":["oxy","smart"]}`, nil, 422, `pools "smart": no gateway is in it`},
		{"unknown pool, patch", "PATCH " + alice, `{"pool":"oxi"}`, nil, 422, `pool "oxi": no gateway is in it`},
		{"an object that was read", "PUT " + alice, `{"connections":5}`, nil, 422, "unknown key"},
		{"no object", "PUT " + alice, `[]`, nil, 422, "must be a JSON object"},
		{"other name", "PUT " + alice, `{"name":"bob","password":"x"}`, nil, 422, "name: is that of another account"},
		{"other name, patch", "PATCH " + alice, `{"name":"bob"}`, nil, 422, "name: is that of another account"},
		{"password away", "PATCH " + alice, `{"password":null}`, nil, 422, "password: cannot be removed"},
		{"bad name", "PUT " + accountsPath + "/us-country-de", `{"password":"x"}`, nil, 422, `name: must not have the segment`},
		{"bad name, spaces", "PUT " + accountsPath + "/a%20b", `{"password":"x"}`, nil, 422, "name: must be 1 to 64"},
		{"bad name, patch", "PATCH " + accountsPath + "/a%20b", `{}`, nil, 404, "no such account"},
		{"bad name, get", "GET " + accountsPath + "/a%20b", ``, nil, 404, "no such account"},
		{"bad name, delete", "DELETE " + accountsPath + "/a%20b", ``, nil, 404, "no such account"},
		{"patch of nobody", "PATCH " + bob, `{}`, []string{"If-Match", "*"}, 404, "no such account"},
		{"delete of nobody", "DELETE " + bob, ``, nil, 404, "no such account"},
		{"put only new", "PUT " + alice, `{"password":"x"}`, []string{"If-None-Match", "*"}, 412, "another version"},
		{"put only old", "PUT " + bob, `{"password":"x"}`, []string{"If-Match", "*"}, 412, "another version"},
		{"put of a version", "PUT " + bob, `{"password":"x"}`, []string{"If-Match", `"5"`}, 412, "another version"},
		{"weak version", "PATCH " + alice, `{}`, []string{"If-Match", `W/"5"`}, 412, "another version"},
		{"version without quotes", "PATCH " + alice, `{}`, []string{"If-Match", `5`}, 400, "If-Match must be"},
		{"broken, get", "GET " + accountsPath + "/broken", ``, nil, 503, "not valid"},
		{"broken, patch", "PATCH " + accountsPath + "/broken", `{}`, nil, 422, "can only be replaced; not valid JSON"},
		{"not JSON", "PUT " + bob, `{`, nil, 400, "not JSON"},
		{"form", "PUT " + bob, `a=b`, []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "application/json"},
		{"merge patch to put", "PUT " + bob, `{}`, []string{"Content-Type", "application/merge-patch+json"}, 415, "application/json"},
		{"too large", "PUT " + bob, `{"name":"` + strings.Repeat("a", 70_000) + `"}`, nil, 413, "at most 65536 bytes"},
		{"by a foreign page", "DELETE " + alice, ``, []string{"Origin", "https://evil.example"}, 403, "foreign origin"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, path, _ := strings.Cut(tt.request, " ")
			got := r.do(method, path, tt.body, tt.headers...)
			if text, _ := got.object(t)["error"].(string); got.status != tt.status || !strings.Contains(text, tt.want) {
				t.Errorf("got %d %s, want %d with %q", got.status, got.body, tt.status, tt.want)
			}
			if strings.Contains(got.body, "sesame") {
				t.Error("the answer has a password")
			}
		})
	}
	if _, err := r.store.Get(t.Context(), "bob"); !errors.Is(err, redisaccounts.ErrNotFound) {
		t.Errorf("bob was written: %v", err)
	}
	r.must(200, "PUT", accountsPath+"/broken", `{"password":"`+hash+`"}`)
	r.must(201, "PUT", bob, `{"password":"`+hash+`"}`, "If-None-Match", "*")
}

// Panels that change one account at a time lose none of their changes.
func TestPatchesAddUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, account.StoreConfig{})
	r.must(201, "POST", accountsPath, `{"name":"alice","password":"`+hash+`"}`)
	fields := []string{`"max_conns":7`, `"weight":7`, `"max_ips":7`, `"quota":"7GB"`}
	var running sync.WaitGroup
	for _, field := range fields {
		running.Go(func() {
			for range 5 {
				if got := r.do("PATCH", accountsPath+"/alice", "{"+field+"}"); got.status != 200 && got.status != 503 {
					t.Errorf("%d %s", got.status, got.body)
				}
			}
		})
	}
	running.Wait()
	for _, field := range fields {
		if text := r.stored("alice"); !strings.Contains(text, field) {
			t.Errorf("%s is lost: %s", field, text)
		}
	}
	// Each reads and then writes what it has read, plus one.
	var lost sync.Mutex
	done := 0
	for range 4 {
		running.Go(func() {
			for tries := 0; tries < 200; tries++ {
				got := r.do("GET", accountsPath+"/alice", "")
				n, _ := got.object(t)["conn_burst"].(float64)
				answer := r.do("PATCH", accountsPath+"/alice", `{"conn_burst":`+strconv.Itoa(int(n)+1)+`}`, "If-Match", got.header.Get("ETag"))
				if answer.status == 200 {
					lost.Lock()
					done++
					lost.Unlock()
				}
			}
		})
	}
	running.Wait()
	if text := r.stored("alice"); !strings.Contains(text, `"conn_burst":`+strconv.Itoa(done)+`,`) {
		t.Errorf("after %d changes: %s", done, text)
	}
}

func TestListOfManyAccounts(t *testing.T) {
	t.Parallel()
	lab.Need(t, "redis-server")
	list, err := account.ParseList("a09999x:secret:3")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, account.StoreConfig{List: list})
	var accounts []*account.Account
	for i := range 10_000 {
		a, err := account.ParseJSON(fmt.Sprintf("a%05d", i), []byte(`{"password":"`+hash+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, a)
	}
	if _, _, _, _, err := redisaccounts.Import(t.Context(), r.store, accounts, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all accounts", func() bool { return r.accounts.Len() == 10_001 })
	names := func(query string) (got []string, next string) {
		t.Helper()
		o := r.must(200, "GET", accountsPath+query, "").object(t)
		for _, one := range o["accounts"].([]any) {
			got = append(got, one.(map[string]any)["name"].(string))
		}
		return got, o["next"].(string)
	}
	first, next := names("")
	if len(first) != 100 || first[0] != "a00000" || next != "a00099" {
		t.Errorf("the first page has %d from %s, next %q", len(first), first[0], next)
	}
	var all []string
	pages := 0
	for cursor := ""; ; pages++ {
		page, next := names("?limit=1000&cursor=" + cursor)
		all = append(all, page...)
		if cursor = next; cursor == "" {
			break
		}
	}
	for i := range all[1:] {
		if all[i] >= all[i+1] {
			t.Fatalf("%s comes before %s", all[i], all[i+1])
		}
	}
	if len(all) != 10_001 || pages != 10 {
		t.Errorf("%d names on %d more pages", len(all), pages)
	}
	if got, next := names("?prefix=a09999"); fmt.Sprint(got) != "[a09999 a09999x]" || next != "" {
		t.Errorf("prefix: %v, next %q", got, next)
	}
	if got, next := names("?prefix=a0999&limit=1&cursor=a09991"); fmt.Sprint(got) != "[a09992]" || next != "a09992" {
		t.Errorf("prefix and cursor: %v, next %q", got, next)
	}
	if got, _ := names("?prefix=nobody"); len(got) != 0 {
		t.Errorf("nobody: %v", got)
	}
	if o := r.must(200, "GET", accountsPath+"/a09999x", "").object(t); o["source"] != "environment" || o["version"] != nil {
		t.Errorf("of the list: %v", o)
	}
}

// Without Redis accounts are shown, with what they do, and cannot be changed.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	list, err := account.ParseList("alice:sesame:3,bob:sesame")
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := account.NewStore(account.StoreConfig{List: list})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t}
	used := int64(7)
	r.serve(admin.Config{
		Accounts: New(Config{Accounts: accounts}),
		AccountStatus: func(name string) admin.AccountStatus {
			status := admin.AccountStatus{Connections: 2, ConnectionsLimit: 3, Sent: 10, Received: 20}
			if name == "alice" {
				status.QuotaUsed = &used
			}
			return status
		},
	})
	if got := r.must(200, "GET", accountsPath+"/alice", ""); got.body !=
		`{"name":"alice","max_conns":3,"connections":2,"connections_limit":3,"sent":10,"received":20,"quota_used":7,"source":"environment"}` ||
		got.header.Get("ETag") != "" {
		t.Errorf("alice: %s, ETag %q", got.body, got.header.Get("ETag"))
	}
	if got := r.must(200, "GET", accountsPath+"?prefix=b", ""); got.body !=
		`{"accounts":[{"name":"bob","connections":2,"connections_limit":3,"sent":10,"received":20,"source":"environment"}],"next":""}` {
		t.Errorf("list: %s", got.body)
	}
	r.must(404, "GET", accountsPath+"/nobody", "")
	for _, request := range []string{"POST " + accountsPath, "PUT " + accountsPath + "/alice", "PATCH " + accountsPath + "/alice", "DELETE " + accountsPath + "/alice"} {
		method, path, _ := strings.Cut(request, " ")
		got := r.must(405, method, path, `{}`)
		if got.header.Get("Allow") != "GET, HEAD" || !strings.Contains(got.body, "MASKRELAY_ACCOUNTS_REDIS") {
			t.Errorf("%s: Allow %q, %s", request, got.header.Get("Allow"), got.body)
		}
	}
	api := New(Config{Accounts: accounts})
	if _, _, err := api.Write(t.Context(), admin.AccountWrite{Name: "alice"}); err == nil {
		t.Error("written")
	}
	if err := api.Delete(t.Context(), "alice", admin.Precondition{}); err == nil {
		t.Error("deleted")
	}
}

// hooked are the accounts of a hook, as far as they are known.
type hooked []*account.Account

func (h hooked) Lookup(name string) (*account.Account, bool) {
	for _, a := range h {
		if a.Name == name {
			return a, true
		}
	}
	return nil, false
}

func (h hooked) Range(f func(*account.Account) bool) {
	for _, a := range h {
		if !f(a) {
			return
		}
	}
}

func TestAccountsOfAHook(t *testing.T) {
	t.Parallel()
	api := New(Config{Accounts: hooked{{Name: "bob"}, {Name: "alice", MaxConns: 5}}})
	if !strings.Contains(api.ReadOnly(), "hook") {
		t.Errorf("read only: %q", api.ReadOnly())
	}
	row, err := api.Get(t.Context(), "alice")
	if err != nil || row.Source != "hook" || row.Version != "" || string(row.Object) != `{"name":"alice","max_conns":5}` {
		t.Errorf("%+v, %v", row, err)
	}
	page, err := api.List(t.Context(), admin.AccountQuery{Limit: 1})
	if err != nil || len(page.Accounts) != 1 || page.Accounts[0].Name != "alice" || page.Next != "alice" {
		t.Errorf("%+v, %v", page, err)
	}
	for name, want := range map[string]bool{"alice": true, "asked-elsewhere": true, "bad name": false} {
		if ok, err := api.Exists(t.Context(), name); ok != want || err != nil {
			t.Errorf("%q exists: %v, %v", name, ok, err)
		}
	}
}

// Without Redis what is served can be read, and writes say why they fail.
func TestOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t, account.StoreConfig{})
	tag := r.must(201, "POST", accountsPath, `{"name":"alice","password":"`+hash+`"}`).header.Get("ETag")
	eventually(t, "alice to be served", func() bool {
		_, ok := r.accounts.Lookup("alice")
		return ok
	})
	r.redis.Kill(t)
	if got := r.must(200, "GET", accountsPath+"/alice", ""); got.header.Get("ETag") != tag {
		t.Errorf("ETag %q, was %q", got.header.Get("ETag"), tag)
	}
	for _, request := range []string{"PUT " + accountsPath + "/alice", "PATCH " + accountsPath + "/alice", "DELETE " + accountsPath + "/alice", "GET " + accountsPath + "/bob"} {
		method, path, _ := strings.Cut(request, " ")
		if got := r.must(503, method, path, `{}`); !strings.Contains(got.body, "redisaccounts: ") || strings.Contains(got.body, r.redis.Addr) {
			t.Errorf("%s: %s", request, got.body)
		}
	}
	r.must(503, "POST", accountsPath, `{"name":"bob","password":"`+hash+`"}`)
	api := New(Config{Accounts: r.accounts, Store: r.store})
	if ok, err := api.Exists(t.Context(), "bob"); !ok || err != nil {
		t.Errorf("bob may exist: %v, %v", ok, err)
	}
	r.redis.Restart(t)
	if got := r.must(503, "POST", accountsPath, `{"name":"bob","password":"`+hash+`"}`); !strings.Contains(got.body, "import them again") {
		t.Errorf("into an empty Redis: %s", got.body)
	}
}

func TestExists(t *testing.T) {
	t.Parallel()
	r := newRig(t, account.StoreConfig{})
	api := New(Config{Accounts: r.accounts, Store: r.store})
	r.must(201, "POST", accountsPath, `{"name":"alice","password":"`+hash+`"}`)
	for name, want := range map[string]bool{"alice": true, "bob": false, "b b": false} {
		if ok, err := api.Exists(t.Context(), name); ok != want || err != nil {
			t.Errorf("%q exists: %v, %v", name, ok, err)
		}
	}
}

// TestPools: an account gets a pool, another one, and none.
func TestPools(t *testing.T) {
	t.Parallel()
	r := newRig(t, account.StoreConfig{})
	const path = accountsPath + "/carl"
	for _, step := range []struct{ method, body, pool, pools string }{
		{"PUT", `{"password":"` + hash + `","pool":"oxy","pools":["default","oxy"]}`, `"oxy"`, `["default","oxy"]`},
		{"PATCH", `{"pool":"default"}`, `"default"`, `["default","oxy"]`},
		{"PATCH", `{"pools":["oxy"]}`, `"default"`, `["oxy"]`},
		{"PATCH", `{"pool":null,"pools":null}`, `null`, `null`},
	} {
		for _, got := range []answer{r.do(step.method, path, step.body), r.do("GET", path, "")} {
			object := got.object(t)
			pool, err := json.Marshal(object["pool"])
			if err != nil {
				t.Fatal(err)
			}
			pools, err := json.Marshal(object["pools"])
			if err != nil {
				t.Fatal(err)
			}
			if got.status/100 != 2 || string(pool) != step.pool || string(pools) != step.pools {
				t.Errorf("%s %s: %d %s", step.method, step.body, got.status, got.body)
			}
		}
	}
}
