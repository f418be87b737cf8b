package account

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const example = `accounts:
  - name: alice                 # a comment
    password: $2a$04$dHl2mmimwvsD9gkgAvL6Je31e.nTTSuarwd8OnW7yYI2gJo1OxUMO
    max_conns: 2000
    conn_rate: 200.5
    conn_burst: 400
    bandwidth: 10MB
    quota: 50GB
    quota_period: monthly
    max_ips: 3
    weight: 5
    expires: 2026-12-31T00:00:00Z
    allow_from: [203.0.113.77/24, "2001:db8::1", ::ffff:198.51.100.0/120]
    pool: oxy
    pools: [smart, "eu.1"]
    disabled: false
  - name: bob
    password: 'pass: "word", #1'
    bandwidth: 0
    quota: 0
    quota_period: lifetime
    disabled: true
`

func TestParseFile(t *testing.T) {
	accounts, err := ParseFile("a.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	alice := hashed("alice")
	alice.MaxConns, alice.ConnRate, alice.ConnBurst = 2000, 200.5, 400
	alice.Bandwidth = 10_000_000
	alice.Quota, alice.QuotaPeriod, alice.MaxIPs, alice.Weight = 50_000_000_000, Monthly, 3, 5
	alice.Pool, alice.Pools = "oxy", []string{"smart", "eu.1"}
	alice.Expires = time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)
	for _, s := range []string{"203.0.113.0/24", "2001:db8::1/128", "198.51.100.0/24"} {
		alice.AllowFrom = append(alice.AllowFrom, netip.MustParsePrefix(s))
	}
	bob := plain("bob", `pass: "word", #1`)
	bob.Disabled, bob.QuotaPeriod = true, Lifetime
	for i, want := range []*Account{alice, bob} {
		if i >= len(accounts) || !accounts[i].equal(want) {
			t.Fatalf("got %+v, want %+v as number %d", accounts, want, i)
		}
	}
	if len(accounts) != 2 {
		t.Errorf("%d accounts, want 2", len(accounts))
	}
}

// Files that say the same as example in other ways.
func TestParseFileForms(t *testing.T) {
	want, err := ParseFile("", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string]string{
		"byte order mark":  "\uFEFF" + example,
		"document start":   "---\n" + example,
		"leading comments": "# ours\n\n---\n# yes\n" + example,
		"crlf":             strings.ReplaceAll(example, "\n", "\r\n"),
		"no indentation":   strings.ReplaceAll(example, "\n  ", "\n"),
		"no last line end": strings.TrimRight(example, "\n"),
		"comment on head":  strings.Replace(example, "accounts:", "accounts: # all", 1),
		"quoted keys":      strings.ReplaceAll(example, "name:", `"name":`),
		"block list":       strings.Replace(example, `[203.0.113.77/24, "2001:db8::1", ::ffff:198.51.100.0/120]`, "\n    - 203.0.113.0/24\n    - 2001:db8::1\n    - ::ffff:198.51.100.0/120", 1),
		"flow": `accounts: [{name: alice, password: ` + cheapHash + `, max_conns: 2000, conn_rate: 200.5, conn_burst: 400, bandwidth: 10000000,
  quota: 50000000000, quota_period: "monthly", max_ips: 3, weight: 5, expires: 2026-12-31T00:00:00Z, allow_from: [203.0.113.0/24, "2001:db8::1", 198.51.100.0/24], pool: oxy, pools: [smart, eu.1]}, {name: bob, password: "pass: \"word\", #1", quota_period: lifetime, disabled: true}]`,
	}
	for name, text := range forms {
		t.Run(name, func(t *testing.T) {
			got, err := ParseFile("a.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			wantAccounts(t, got, want)
		})
	}
	if got, err := ParseFile("", []byte("accounts: []")); err != nil || len(got) != 0 {
		t.Errorf("an empty list gives %v, %v", got, err)
	}
}

func wantAccounts(t *testing.T, got, want []*Account) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d accounts, want %d", len(got), len(want))
	}
	for i := range want {
		if !got[i].equal(want[i]) {
			t.Errorf("account %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestParseFileErrors(t *testing.T) {
	// An account that needs one more line; the line is the fourth, its value
	// stands at column 5 + len(key) + 2.
	with := func(line string) string {
		return "accounts:\n  - name: alice\n    password: sesame\n    " + line + "\n"
	}
	tests := []struct {
		name, in string
		want     []string // one for each line of the error
	}{
		{"empty", "", []string{"a.yaml:1:1: accounts is missing"}},
		{"comments only", "# nothing\n", []string{"accounts is missing"}},
		{"no list", "accounts:\n", []string{"accounts: has no value"}},
		{"null", "accounts: ~\n", []string{"a.yaml:1:11: accounts: has no value"}},
		{"a mapping", "accounts:\n  alice: sesame\n", []string{"accounts: must be a list"}},
		{"scalar root", "sesame\n", []string{"a.yaml:1:1: must begin with the key accounts"}},
		{"list root", "- name: alice\n", []string{"must begin with the key accounts"}},
		{"second document", example + "---\naccounts: []\n", []string{"more than one document"}},
		{"second list", "accounts: []\naccounts: []\n", []string{"a.yaml:2:1: accounts is given twice"}},
		{"other root key", "accounts: []\nsesame: 1\n", []string{"a.yaml:2:1: unknown key; known are accounts"}},
		{"near root key", "account: []\n", []string{`a.yaml:1:1: unknown key "account"; did you mean "accounts"?`, "a.yaml:1:1: accounts is missing"}},
		{"scalar account", "accounts: [sesame]\n", []string{"a.yaml:1:12: account: must be a mapping"}},
		{"null account", "accounts:\n  -\n", []string{"account: has no value"}},
		{"no name", "accounts:\n  - password: sesame\n", []string{"a.yaml:2:5: name is missing"}},
		{"no password", "accounts:\n  - name: alice\n", []string{"password is missing"}},
		{"bad name", "accounts:\n  - name: al ice\n    password: sesame\n", []string{"a.yaml:2:11: name: must be 1 to 64"}},
		{"reserved segment", "accounts:\n  - name: us-state\n    password: sesame\n", []string{`a.yaml:2:11: name: must not have the segment "state"`}},
		{"number as name", "accounts:\n  - name: 123\n    password: sesame\n", []string{"a.yaml:2:11: name: must be a string: put it in quotes"}},
		{"number as password", "accounts:\n  - name: a\n    password: 1234567\n", []string{"a.yaml:3:15: password: must be a string: put it in quotes"}},
		{"empty password", "accounts:\n  - name: a\n    password: ''\n", []string{"a.yaml:3:15: password: must not be empty"}},
		{"null password", "accounts:\n  - name: a\n    password:\n", []string{"password: has no value"}},
		{"bad hash", "accounts:\n  - name: a\n    password: $2a$10$sesame\n", []string{"a.yaml:3:15: password: begins like a bcrypt hash"}},
		{"dear hash", "accounts:\n  - name: a\n    password: $2a$16$" + cheapHash[7:] + "\n", []string{"cost 16"}},
		{"control byte", "accounts:\n  - name: a\n    password: \"sesame\\n\"\n", []string{"a.yaml:3:15: password: must not have control bytes"}},
		{"block password", "accounts:\n  - name: a\n    password: |\n      sesame\n", []string{"password: must be a string on one line"}},
		{"list as password", "accounts:\n  - name: a\n    password: [sesame]\n", []string{"password: must be a string on one line"}},
		{"anchor", "accounts:\n  - name: a\n    password: &p sesame\n", []string{"anchors, aliases and tags are not supported"}},
		{"alias", "accounts:\n  - name: a\n    password: *sesame\n", []string{"anchors, aliases and tags are not supported"}},
		{"tag", "accounts:\n  - name: a\n    password: !!str sesame\n", []string{"anchors, aliases and tags are not supported"}},
		{"merge key", "accounts:\n  - <<: {name: a}\n    password: sesame\n", []string{"a key must be a plain name", "name is missing"}},
		{"unknown key", with("sesame: 1"), []string{"a.yaml:4:5: unknown key; known are name, password"}},
		{"near key", with("max_con: 1"), []string{`a.yaml:4:5: unknown key "max_con"; did you mean "max_conns"?`}},
		{"repeated key", with("name: bob"), []string{"a.yaml:4:5: name is given twice"}},
		{"max_conns string", with("max_conns: '5'"), []string{"a.yaml:4:16: max_conns: must be a whole number"}},
		{"max_conns negative", with("max_conns: -5"), []string{"max_conns: must be a whole number"}},
		{"max_conns float", with("max_conns: 5.5"), []string{"max_conns: must be a whole number"}},
		{"max_conns hex", with("max_conns: 0x10"), []string{"max_conns: must be a whole number"}},
		{"max_conns octal", with("max_conns: 010"), []string{"max_conns: must be a whole number"}},
		{"max_conns large", with("max_conns: 2147483648"), []string{"max_conns: must be a whole number"}},
		{"conn_rate string", with("conn_rate: fast"), []string{"a.yaml:4:16: conn_rate: must be a number"}},
		{"conn_rate negative", with("conn_rate: -0.5"), []string{"conn_rate: must be a number"}},
		{"conn_rate infinite", with("conn_rate: .inf"), []string{"conn_rate: must be a number"}},
		{"conn_rate nan", with("conn_rate: .nan"), []string{"conn_rate: must be a number"}},
		{"conn_rate large", with("conn_rate: 1e10"), []string{"conn_rate: must be a number"}},
		{"conn_burst", with("conn_burst: many"), []string{"a.yaml:4:17: conn_burst: must be a whole number"}},
		{"bandwidth bits", with("bandwidth: 10Mb"), []string{"a.yaml:4:16: bandwidth: is not a size; write 10MB"}},
		{"bandwidth negative", with("bandwidth: -10MB"), []string{"bandwidth: is not a size"}},
		{"bandwidth without a unit", with("bandwidth: 10"), []string{"bandwidth: is below 1KB a second, at which nothing useful passes; is the unit missing?"}},
		{"bandwidth fraction", with("bandwidth: 1.5"), []string{"bandwidth: is below 1KB a second"}},
		{"bandwidth hex", with("bandwidth: 0x100000"), []string{"bandwidth: is not a size"}},
		{"bandwidth exponent", with("bandwidth: 1e6"), []string{"bandwidth: is not a size"}},
		{"bandwidth infinite", with("bandwidth: .inf"), []string{"bandwidth: must be a size such as 10MB"}},
		{"bandwidth huge", with("bandwidth: 2TB"), []string{"bandwidth: is above 1TB a second"}},
		{"bandwidth null", with("bandwidth:"), []string{"bandwidth: has no value"}},
		{"bandwidth list", with("bandwidth: [10MB]"), []string{"bandwidth: must be a size such as 10MB"}},
		{"quota bits", with("quota: 50Gb"), []string{"a.yaml:4:12: quota: is not a size; write 10MB"}},
		{"quota negative", with("quota: -50GB"), []string{"quota: is not a size"}},
		{"quota without a unit", with("quota: 50"), []string{"a.yaml:4:12: quota: is below 1KB, which one request uses up; is the unit missing?"}},
		{"quota huge", with("quota: 1000001TB"), []string{"quota: is above 1000000TB"}},
		{"quota exponent", with("quota: 1e10"), []string{"quota: is not a size"}},
		{"quota null", with("quota:"), []string{"quota: has no value"}},
		{"quota_period other", with("quota_period: weekly"), []string{"a.yaml:4:19: quota_period: must be lifetime or monthly"}},
		{"quota_period capitals", with("quota_period: Monthly"), []string{"quota_period: must be lifetime or monthly"}},
		{"quota_period number", with("quota_period: 30"), []string{"quota_period: must be lifetime or monthly"}},
		{"quota_period null", with("quota_period:"), []string{"quota_period: has no value"}},
		{"max_ips string", with("max_ips: '3'"), []string{"a.yaml:4:14: max_ips: must be a whole number"}},
		{"max_ips negative", with("max_ips: -1"), []string{"max_ips: must be a whole number"}},
		{"weight large", with("weight: 1001"), []string{"a.yaml:4:13: weight: must be a whole number from 0 to 1000"}},
		{"weight negative", with("weight: -1"), []string{"weight: must be a whole number from 0 to 1000"}},
		{"weight fraction", with("weight: 0.5"), []string{"weight: must be a whole number from 0 to 1000"}},
		{"weight null", with("weight:"), []string{"weight: has no value"}},
		{"pool dash", with("pool: o-xy"), []string{"a.yaml:4:11: pool: must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.', and '-' is none of them"}},
		{"pool letter", with("pool: öxy"), []string{"and 'ö' is none of them"}},
		{"pool empty", with("pool: ''"), []string{"pool: must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.'"}},
		{"pool long", with("pool: " + strings.Repeat("x", 33)), []string{"pool: must be 1 to 32"}},
		{"pool number", with("pool: 1"), []string{"a.yaml:4:11: pool: must be a string: put it in quotes"}},
		{"pool list", with("pool: [oxy]"), []string{"pool: must be a string on one line"}},
		{"pool null", with("pool:"), []string{"pool: has no value"}},
		{"pools scalar", with("pools: oxy"), []string{"a.yaml:4:12: pools: must be a list of pools"}},
		{"pools null", with("pools:"), []string{"pools: has no value"}},
		{"pools empty", with("pools: []"), []string{"a.yaml:4:12: pools: must name a pool; leave it out to allow none"}},
		{"pools bad", with("pools: [oxy, a/b, 7, oxy]"), []string{
			"a.yaml:4:18: pools: must be 1 to 32 of the characters", "a.yaml:4:23: pools: must be a string: put it in quotes", "a.yaml:4:26: pools: is there twice"}},
		{"pools block", with("pools:\n      - oxy\n      - a-b\n"), []string{"a.yaml:6:9: pools: must be 1 to 32 of the characters A-Z, a-z, 0-9, '_' and '.', and '-' is none of them"}},
		{"pools many", with("pools: [" + strings.Repeat("a, ", 64) + "b]"), []string{"a.yaml:4:12: pools: must name at most 64 pools"}},
		{"expires", with("expires: soon"), []string{"a.yaml:4:14: expires: must be a time such as"}},
		{"expires date", with("expires: 2026-12-31"), []string{"expires: must be a time such as"}},
		{"expires 31 february", with("expires: 2026-02-31T00:00:00Z"), []string{"expires: must be a time such as"}},
		{"expires year one", with("expires: 0001-01-01T00:00:00Z"), []string{"expires: must be a time such as"}},
		{"allow_from scalar", with("allow_from: 203.0.113.0/24"), []string{"allow_from: must be a list"}},
		{"allow_from empty", with("allow_from: []"), []string{"allow_from: must name a network"}},
		{"allow_from bad", with("allow_from: [203.0.113.0/33, host, 'fe80::1%eth0', '::ffff:0:0/95', 5]"), []string{
			"a.yaml:4:18: allow_from: must be a network", "a.yaml:4:", "a.yaml:4:", "a.yaml:4:", "put it in quotes"}},
		{"disabled string", with("disabled: 'true'"), []string{"a.yaml:4:15: disabled: must be true or false"}},
		{"disabled yes", with("disabled: yes"), []string{"disabled: must be true or false"}},
		{"repeated account", "accounts:\n- {name: a, password: sesame}\n- {name: b, password: sesame}\n- {name: a, password: sesame}\n",
			[]string{`a.yaml:4:10: name: account "a" is already at line 2`}},
		{"syntax", "accounts:\n  - name: \"alice\n    password: sesame\n", []string{"a.yaml:2:11: syntax error: could not find end character"}},
		{"escape", "accounts:\n  - name: a\n    password: \"\\qsesame\"\n", []string{"a.yaml:3:"}},
		{"block header", "accounts:\n  - name: a\n    password: |sesame\n", []string{"a.yaml:3:"}},
		{"not utf-8", "accounts:\n  - name: a\n    password: sesame\xff\n", []string{"a.yaml:3:21: not valid UTF-8"}},
		{"deep", "accounts: " + strings.Repeat("[", 100_000), []string{"nested too deeply"}},
		{"deep dashes", "accounts:\n  " + strings.Repeat("- ", 100_000), []string{"nested too deeply"}},
		{"deep keys", "accounts:\n  " + strings.Repeat("? ", 100_000), []string{"nested too deeply"}},
		{"all at once", "accounts:\n- name: a\n  password: ''\n  pool: x-\n- name: b b\n  quota: 1Gb\n", []string{
			"a.yaml:3:13: password:", "a.yaml:4:9: pool:", "a.yaml:5:3: password is missing", "a.yaml:5:9: name:", "a.yaml:6:10: quota:"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			accounts, err := ParseFile("a.yaml", []byte(tt.in))
			if accounts != nil {
				t.Error("accounts came with the error")
			}
			wantError(t, err, tt.want...)
			for i, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "a.yaml:") || i >= len(tt.want) || !strings.Contains(line, tt.want[i]) {
					t.Errorf("line %d of the error is %q", i, line)
				}
			}
			if strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "1234567") {
				t.Errorf("the error quotes a password: %v", err)
			}
		})
	}
}

func TestParseFileNamesABoundedNumberOfProblems(t *testing.T) {
	text := "accounts:\n" + strings.Repeat("- {name: a, password: x, pool: y-}\n", 1000)
	_, err := ParseFile("a.yaml", []byte(text))
	wantError(t, err, "a.yaml:2:", "and 900 more problems")
	if lines := strings.Count(err.Error(), "\n") + 1; lines != maxProblems+1 {
		t.Errorf("%d lines, want %d", lines, maxProblems+1)
	}
}

// generate returns a file of n accounts.
func generate(n int) string {
	var b strings.Builder
	b.WriteString("# generated\naccounts:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - name: customer%d\n    password: secret-%d\n    max_conns: %d\n    allow_from: [203.0.113.0/24]\n", i, i, i%100)
	}
	return b.String()
}

func TestParseLargeFile(t *testing.T) {
	const n = 3*itemsPerPart + 17
	accounts, err := ParseFile("a.yaml", []byte(generate(n)))
	if err != nil {
		t.Fatal(err)
	}
	if len(accounts) != n {
		t.Fatalf("%d accounts, want %d", len(accounts), n)
	}
	for i, a := range accounts {
		if a.Name != fmt.Sprint("customer", i) || a.MaxConns != i%100 {
			t.Fatalf("account %d is %+v", i, a)
		}
	}
	// The lines of problems far into the file: account i begins at line 3 + 4i.
	text := strings.Replace(generate(n), "customer700\n", "customer1\n", 1)
	text = strings.Replace(text, "secret-600", "''", 1)
	text = strings.Replace(text, "secret-300", `"sesame`, 1)
	_, err = ParseFile("a.yaml", []byte(text))
	wantError(t, err, "a.yaml:1204:15: syntax error", "a.yaml:2404:15: password: must not be empty",
		`a.yaml:2803:11: name: account "customer1" is already at line 7`)
}

func BenchmarkParseFile(b *testing.B) {
	data := []byte(generate(100_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFile("a.yaml", data); err != nil {
			b.Fatal(err)
		}
	}
}
