package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/proxy/account"
)

func TestAccountsUsage(t *testing.T) {
	const see, seeImport, seeExport = "\nmaskrelay: see `maskrelay accounts --help`\n", "\nmaskrelay: see `maskrelay accounts import --help`\n", "\nmaskrelay: see `maskrelay accounts export --help`\n"
	good := writeFile(t, "accounts: []\n")
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"which", nil, nil, "maskrelay: accounts: import or export?" + see},
		{"unknown", nil, []string{"exprot"}, `maskrelay: unknown command "exprot"; did you mean export?` + see},
		{"no file", nil, []string{"import"}, "maskrelay: accounts import: takes one accounts file, not 0" + seeImport},
		{"force of nothing", nil, []string{"export", "--force"}, "maskrelay: --force: has no effect without --output" + seeExport},
		{"output nowhere", nil, []string{"export", "-o", ""}, "maskrelay: --output: empty" + seeExport},
		{"file missing", nil, []string{"import", "/nowhere/a.yaml"}, "/nowhere/a.yaml: no such file or directory\n"},
		{"no Redis to import to", environ(nil, nil), []string{"import", good}, "MASKRELAY_REDIS_URL: missing; it is where the accounts are\n"},
		{"no Redis to export from", environ(nil, one("REDIS_URL_FILE", "/nowhere/r")), []string{"export"}, "MASKRELAY_REDIS_URL_FILE: open /nowhere/r: no such file or directory\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := runWith(c.env, "", append([]string{"accounts"}, c.args...)...); got != (ending{exitConfig, "", c.want}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestAccountsImportOfABadFile: everything that is wrong is told, with its place, and Redis is not even looked for.
func TestAccountsImportOfABadFile(t *testing.T) {
	bad := writeFile(t, "accounts:\n  - name: alice\n    pasword: PLANTED\n  - name: \"no good\"\n    password: PLANTED\n")
	got := runWith(environ(nil, one("REDIS_URL", "redis://"+nobodyListens(t))), "", "accounts", "import", bad)
	if got.code != exitConfig || got.stdout != "" || strings.Count(got.stderr, "\n") != 3 || strings.Contains(got.stderr, "PLANTED") {
		t.Errorf("got %+v", got)
	}
	for line := range strings.Lines(got.stderr) {
		if !strings.HasPrefix(line, bad+":") {
			t.Errorf("line %q", line)
		}
	}
}

func TestAccountsWithoutRedis(t *testing.T) {
	env := environ(nil, one("REDIS_URL", "redis://:geheim@"+nobodyListens(t)))
	out := filepath.Join(t.TempDir(), "accounts.yaml")
	for _, args := range [][]string{{"import", writeFile(t, "accounts: []\n")}, {"export"}, {"export", "-o", out}} {
		got := runWith(env, "", append([]string{"accounts"}, args...)...)
		if got.code != exitFailed || got.stdout != "" || !strings.HasPrefix(got.stderr, "maskrelay: accounts: ") || strings.Contains(got.stderr, "geheim") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestAccountsThereAndBack: a file's accounts come back from Redis as they went, but for plain passwords, which are hashes then.
func TestAccountsThereAndBack(t *testing.T) {
	env := environ(nil, map[string]string{"REDIS_URL": lab.StartRedis(t).URL(), "UPSTREAM_FILE": "/not/read"})
	file := writeFile(t, "accounts:\n  - {name: bob, password: bobsecret, quota: 50GB, quota_period: monthly, max_ips: 3}\n  - {name: alice, password: alicesecret, max_conns: 7}\n")
	less := writeFile(t, "accounts:\n  - {name: bob, password: bobsecret, quota: 60GB}\n")
	out := filepath.Join(t.TempDir(), "accounts.yaml")
	for _, step := range []struct {
		args []string
		want ending
	}{
		{[]string{"import", file, "--dry-run"}, ending{0, "2 added, 0 changed, 0 unchanged, 0 removed: nothing was written\n", ""}},
		{[]string{"export"}, ending{0, "accounts: []\n", ""}},
		{[]string{"import", file}, ending{0, "2 added, 0 changed, 0 unchanged, 0 removed: done\n", ""}},
		{[]string{"import", file}, ending{0, "0 added, 0 changed, 2 unchanged, 0 removed: done\n", ""}},
		{[]string{"export", "-o", out}, ending{0, "", ""}},
		{[]string{"export", "-o", out}, ending{1, "", "maskrelay: accounts: " + out + " is there already; --force overwrites it\n"}},
		{[]string{"import", less, "--replace", "--dry-run"}, ending{0, "0 added, 1 changed, 0 unchanged, 1 removed: nothing was written\n", ""}},
		{[]string{"import", less}, ending{0, "0 added, 1 changed, 0 unchanged, 0 removed: done\n", ""}},
		{[]string{"import", out, "--replace"}, ending{0, "0 added, 1 changed, 1 unchanged, 0 removed: done\n", ""}},
		{[]string{"export", "-o", out, "--force"}, ending{0, "", ""}},
	} {
		if got := runWith(env, "", append([]string{"accounts"}, step.args...)...); got != step.want {
			t.Fatalf("%v: got %+v", step.args, got)
		}
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	wantNone(t, "the file", checkAccounts(t, out), []string{"bobsecret", "alicesecret"})
	if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// checkAccounts is the exported file's text, whose accounts are to be those of TestAccountsThereAndBack.
func checkAccounts(t *testing.T, path string) string {
	t.Helper()
	store, err := account.NewStore(account.StoreConfig{File: path})
	if err != nil {
		t.Fatal(err)
	}
	for name, password := range map[string]string{"alice": "alicesecret", "bob": "bobsecret"} {
		if _, err := store.Authenticate(t.Context(), name, password); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bob, _ := store.Lookup("bob")
	if store.Len() != 2 || bob.Quota != 50_000_000_000 || bob.QuotaPeriod != account.Monthly || bob.MaxIPs != 3 {
		t.Errorf("bob is %+v of %d", bob, store.Len())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestWriteNew: a failure leaves what was there, and nothing else.
func TestWriteNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	text := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	broken := errors.New("broken")
	half := func(w io.Writer) error { return errors.Join(text("half")(w), broken) }
	late := func(w io.Writer) error {
		return errors.Join(text("new")(w), os.WriteFile(path, []byte("meanwhile"), 0o600))
	}
	for _, step := range []struct {
		name  string
		force bool
		write func(io.Writer) error
		ok    bool
		want  string
	}{
		{"fails", false, half, false, ""},
		{"another comes meanwhile", false, late, false, "meanwhile"},
		{"is there", false, text("new"), false, "meanwhile"},
		{"fails over another", true, half, false, "meanwhile"},
		{"over another", true, text("new"), true, "new"},
	} {
		if err := writeNew(path, step.force, step.write); (err == nil) != step.ok {
			t.Errorf("%s: %v", step.name, err)
		}
		if data, err := os.ReadFile(path); string(data) != step.want || (err != nil && step.want != "") {
			t.Errorf("%s: the file has %q, %v", step.name, data, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := writeNew(filepath.Join(dir, "no", "out"), false, text("x")); err == nil {
		t.Error("a directory that does not exist")
	}
}
