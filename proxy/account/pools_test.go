package account

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// manyPools are n names of pools with commas between.
func manyPools(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("p", i)
	}
	return strings.Join(names, ",")
}

func TestCheckPool(t *testing.T) {
	for _, name := range []string{"default", "oxy", "Eu.1_b", "7", ".", strings.Repeat("x", 32), "pool"} {
		if err := CheckPool(name); err != nil {
			t.Errorf("CheckPool(%q) is %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"":                      "account: pool must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.'",
		strings.Repeat("x", 33): "account: pool must be 1 to 32",
		"a-b":                   "and '-' is none of them",
		"a b":                   "and ' ' is none of them",
		"a\n":                   `and '\n' is none of them`,
		"pöl":                   "and 'ö' is none of them",
		"a\xff":                 "is none of them",
		"a@b":                   "and '@' is none of them",
	} {
		if err := CheckPool(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckPool(%q) is %v, want %s", name, err, want)
		}
	}
}

// TestPoolsAreTerms: an account with another pool is another one, and yet no connection need end.
func TestPoolsAreTerms(t *testing.T) {
	was := mustParseJSON(t, "a", `{"pool":"oxy","pools":["b","c"]}`)
	for _, data := range []string{`{}`, `{"pool":"oxy"}`, `{"pool":"b","pools":["b","c"]}`, `{"pool":"oxy","pools":["b"]}`} {
		is := mustParseJSON(t, "a", data)
		if was.equal(is) || was.sameTerms(is) || was.narrowed(is) {
			t.Errorf("%s: equal %v, same terms %v, narrowed %v", data, was.equal(is), was.sameTerms(is), was.narrowed(is))
		}
	}
}

// hasGateways is a check that knows the pools default and oxy.
func hasGateways(a *Account) error {
	var problems []string
	if a.Pool != "" && a.Pool != "oxy" && a.Pool != "default" {
		problems = append(problems, fmt.Sprintf("pool %q: no gateway is in it; there are default, oxy", a.Pool))
	}
	for _, pool := range a.Pools {
		if pool != "oxy" && pool != "default" {
			problems = append(problems, fmt.Sprintf("pools %q: no gateway is in it; there are default, oxy", pool))
		}
	}
	if a.MaxConns == 13 {
		problems = append(problems, "unlucky")
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(problems, "\n"))
}

func TestCheckOfAFile(t *testing.T) {
	file := t.TempDir() + "/a.yaml"
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("accounts:\n- {name: a, password: sesame, pool: oxy, pools: [default]}\n- {name: b, password: sesame}\n")
	s, err := NewStore(StoreConfig{File: file, Check: hasGateways})
	if err != nil {
		t.Fatal(err)
	}
	write("accounts:\n- name: a\n  password: sesame\n  pool: oxi\n  pools: [oxy, smart]\n- name: b\n  password: sesame\n  max_conns: 13\n- {name: c, password: sesame, pool: x-}\n")
	_, err = s.Reload()
	want := strings.Join([]string{
		`:4:9: pool "oxi": no gateway is in it; there are default, oxy`,
		`:5:10: pools "smart": no gateway is in it; there are default, oxy`,
		`:6:9: unlucky`,
		`:9:37: pool: must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.', and '-' is none of them`,
	}, "\n"+file)
	if err == nil || err.Error() != file+want {
		t.Errorf("Reload is\n%v\nwant\n%s", err, file+want)
	}
	if a, ok := s.Lookup("a"); !ok || a.Pool != "oxy" || s.Len() != 2 {
		t.Errorf("a bad file was taken: %v", a)
	}
	if _, err := NewStore(StoreConfig{File: file, Check: hasGateways}); err == nil {
		t.Error("a bad file was taken at the start")
	}
	if accounts, err := ParseFile(file, []byte("accounts: [{name: a, password: x, pool: oxi}]")); err != nil || len(accounts) != 1 {
		t.Errorf("without a check: %v", err)
	}
}

func TestCheckOfAList(t *testing.T) {
	odd, bad := plain("odd", "x"), plain("bad", "sesame")
	odd.MaxConns, bad.Pool = 13, "oxi"
	_, err := NewStore(StoreConfig{List: []*Account{plain("good", "x"), odd, bad}, Check: hasGateways})
	wantError(t, err, `account: "odd": unlucky`, `account: "bad": pool "oxi": no gateway is in it; there are default, oxy`)
}

// TestCheckOfASource: a record that is refused leaves the account as it was.
func TestCheckOfASource(t *testing.T) {
	source := newFakeSource()
	record := func(pool string) []byte { return []byte(fmt.Sprintf(`{"password":%q,"pool":%q}`, cheapHash, pool)) }
	source.put("alice", record("oxy"))
	source.put("bob", record("oxi"))
	watchFed(t, source, StoreConfig{Check: hasGateways}, func(w *watched) {
		if w.Len() != 1 {
			t.Fatalf("%d accounts at the start", w.Len())
		}
		if r := w.wantOne(); r.err == nil || !strings.Contains(r.err.Error(), `account "bob" in fake refused: account: pool "oxi": no gateway is in it; there are default, oxy`) {
			t.Errorf("report is %+v", r)
		}
		source.put("alice", record("smart"))
		if r := w.wantOne(); r.err == nil || r.change.any() {
			t.Errorf("report is %+v", r)
		}
		if a, _ := w.Lookup("alice"); a.Pool != "oxy" {
			t.Errorf("alice is in %q", a.Pool)
		}
		source.put("alice", record("default"))
		if r := w.wantOne(); r.err != nil || r.change.Modified != 1 || len(r.change.Ended)+len(r.change.Narrowed) != 0 {
			t.Errorf("another pool: %+v", r)
		}
		source.put("bob", record("oxy"))
		if r := w.wantOne(); r.err != nil || r.change.Added != 1 {
			t.Errorf("report is %+v", r)
		}
	})
}

func TestCheckOfAHook(t *testing.T) {
	s, c := newService(t), newTicks()
	told := ""
	h := newHook(t, HookConfig{URL: s.URL, TTL: time.Minute, Stale: time.Hour, Now: c.now, Check: hasGateways, Trouble: func(err error) { told = err.Error() }})
	s.let("alice:secret", `{"pool":"oxi"}`)
	mustNotAdmit(t, h, "alice", "secret", ErrBusy)
	if want := `the answer is not an account: account: pool "oxi": no gateway is in it; there are default, oxy`; !strings.Contains(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	s.let("alice:secret", `{"pool":"oxy","pools":["default"]}`)
	if a := mustAdmit(t, h, "alice", "secret"); a.Pool != "oxy" || len(a.Pools) != 1 {
		t.Errorf("the account is %s", a.JSON())
	}
	s.let("alice:secret", `{"pool":"smart"}`)
	c.advance(2 * time.Minute)
	if a := mustAdmit(t, h, "alice", "secret"); a.Pool != "oxy" {
		t.Errorf("a bad answer was taken: %s", a.JSON())
	}
}
