package redisaccounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"maskrelay/proxy/account"
)

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

func parsed(t testing.TB, text string) []*account.Account {
	t.Helper()
	accounts, err := account.ParseFile("accounts.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return accounts
}

// counts is what Import returns.
type counts struct{ added, changed, unchanged, removed int }

func imported(t testing.TB, s *Store, text string, replace bool) counts {
	t.Helper()
	var c counts
	var err error
	c.added, c.changed, c.unchanged, c.removed, err = Import(t.Context(), s, parsed(t, text), replace)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func compared(t testing.TB, s *Store, text string, replace bool) counts {
	t.Helper()
	var c counts
	var err error
	c.added, c.changed, c.unchanged, c.removed, err = Compare(t.Context(), s, parsed(t, text), replace)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func exported(t testing.TB, s *Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := Export(t.Context(), s, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestImport(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	alice := "  - {name: alice, password: " + testHash + ", max_conns: 5}\n"
	bob := "  - {name: bob, password: sesame, quota: 50GB}\n"
	carl := "  - {name: carl, password: sesame, disabled: true}\n"
	steps := []struct {
		name, text string
		replace    bool
		want       counts
	}{
		{"new", "accounts:\n" + alice + bob, false, counts{added: 2}},
		{"the same again", "accounts:\n" + alice + bob, false, counts{unchanged: 2}},
		{"one changed", "accounts:\n" + strings.Replace(alice, "5", "6", 1) + bob, false, counts{changed: 1, unchanged: 1}},
		{"another password", "accounts:\n" + strings.Replace(bob, "sesame", "open", 1), false, counts{changed: 1}},
		{"others stay", "accounts:\n" + carl, false, counts{added: 1}},
		{"others go", "accounts:\n" + carl, true, counts{unchanged: 1, removed: 2}},
		{"all go", "accounts: []\n", true, counts{removed: 1}},
		{"nothing", "accounts: []\n", true, counts{}},
	}
	for _, step := range steps {
		before := exported(t, s)
		if got := compared(t, s, step.text, step.replace); got != step.want || exported(t, s) != before {
			t.Errorf("%s: compared: %+v, want %+v and nothing written", step.name, got, step.want)
		}
		if got := imported(t, s, step.text, step.replace); got != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
		if e, err := s.Get(t.Context(), "bob"); err == nil && bytes.Contains(e.Data, []byte("sesame")) {
			t.Errorf("%s: the password is stored: %s", step.name, e.Data)
		}
	}
	if text := exported(t, s); text != "accounts: []\n" {
		t.Errorf("in the end there is %s", text)
	}
}

func TestImportErrors(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	mustPut(t, s, "alice", 1)
	run := func(accounts ...*account.Account) error {
		_, _, _, _, err := Import(t.Context(), s, accounts, false)
		return err
	}
	bare, err := account.ParseJSON("bare", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := run(bare); err == nil || !strings.Contains(err.Error(), `"bare" has no password`) {
		t.Errorf("without a password: %v", err)
	}
	long := parsed(t, "accounts: [{name: long, password: "+strings.Repeat("sesame", 13)+"}]")
	if err := run(long...); err == nil || !strings.Contains(err.Error(), `"long"`) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("with a password that cannot be hashed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, _, err := Import(ctx, s, parsed(t, "accounts: [{name: a, password: b}]"), false); !errors.Is(err, context.Canceled) {
		t.Errorf("at the end of its context: %v", err)
	}
	server.Kill(t)
	if err := run(); err == nil {
		t.Error("without Redis: no error")
	}
}

// Whoever changes an account during an import is not undone.
func TestImportLeavesOthersTheirChanges(t *testing.T) {
	t.Parallel()
	s, _ := stored(t)
	version := mustPut(t, s, "alice", 1)
	transfer := transfer{ctx: t.Context(), store: s, was: map[string]Entry{"alice": {Name: "alice", Version: version, Data: record("alice", 1)}}}
	mustPut(t, s, "alice", 2)
	writes := []write{{"alice", record("alice", 3), version}, {"bob", record("bob", 3), MustNotExist}}
	if err := transfer.write(writes); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(transfer.overtaken) != "[alice]" || transfer.added != 1 || transfer.changed != 0 {
		t.Errorf("%+v", transfer)
	}
	e, err := s.Get(t.Context(), "alice")
	if err != nil || !bytes.Equal(e.Data, record("alice", 2)) {
		t.Errorf("alice is %s, %v", e.Data, err)
	}
}

// What is exported is read back as the same accounts.
func TestExport(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	text := `accounts:
- name: zoe
  password: ` + testHash + `
  max_conns: 2000
  conn_rate: 0.0000001
  conn_burst: 400
  bandwidth: 1025
  quota: 50GiB
  quota_period: monthly
  max_ips: 3
  weight: 5
  expires: 2026-12-31T01:00:00+01:00
  allow_from: [203.0.113.77/24, "2001:db8::1"]
  pool: oxy
  pools: ["7", "true", "null", eu.1]
  disabled: true
- {name: "007", password: 'pass: "word", #1'}
- {name: "true", password: x, conn_rate: 200.5, expires: 2026-12-31T00:00:00.5Z}
- {name: "1e3", password: x, conn_rate: 1000000000}
`
	imported(t, s, text, false)
	file := exported(t, s)
	if strings.Contains(file, "#1") || strings.Index(file, "007") > strings.Index(file, "zoe") {
		t.Errorf("exported:\n%s", file)
	}
	back := parsed(t, file)
	if len(back) != 4 {
		t.Fatalf("%d accounts in\n%s", len(back), file)
	}
	for _, a := range back {
		e, err := s.Get(t.Context(), a.Name)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := a.StoredJSON(); err != nil || !bytes.Equal(data, e.Data) {
			t.Errorf("%s comes back as %s, %v", e.Data, data, err)
		}
	}
	if got := imported(t, s, file, true); got != (counts{unchanged: 4}) {
		t.Errorf("imported again: %+v", got)
	}
	other := New(opened(t, server))
	if again := exported(t, other); again != file {
		t.Errorf("exported again:\n%s", again)
	}
}

func TestExportErrors(t *testing.T) {
	t.Parallel()
	s, server := stored(t)
	mustPut(t, s, "alice", 1)
	for name, data := range map[string]string{"bad": `{"password":"sesame",}`, "bare": `{"name":"bare"}`} {
		if _, err := s.Put(t.Context(), name, []byte(data), AnyVersion); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	err := Export(t.Context(), s, &b)
	if err == nil || !strings.Contains(err.Error(), `"bad": account: not valid JSON`) ||
		!strings.Contains(err.Error(), `"bare": it has no password`) || strings.Contains(err.Error(), "sesame") {
		t.Errorf("bad records: %v", err)
	}
	if got := parsed(t, b.String()); len(got) != 1 || got[0].Name != "alice" {
		t.Errorf("the good ones are %v", got)
	}
	if err := Export(t.Context(), s, full{}); !errors.Is(err, errDisk) {
		t.Errorf("a full disk: %v", err)
	}
	server.Kill(t)
	if err := Export(t.Context(), s, &b); err == nil {
		t.Error("without Redis: no error")
	}
}

var errDisk = errors.New("disk full")

// full is a writer that has no room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errDisk }
