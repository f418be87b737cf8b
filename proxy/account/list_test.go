package account

import (
	"strings"
	"testing"
)

func TestParseList(t *testing.T) {
	accounts, err := ParseList(" alice:secret:2000, bob:hunter2 ,carol:" + cheapHash + ":0\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []*Account{plain("alice", "secret"), plain("bob", "hunter2"), hashed("carol")}
	want[0].MaxConns = 2000
	if len(accounts) != len(want) {
		t.Fatalf("%d accounts, want %d", len(accounts), len(want))
	}
	for i := range want {
		if !accounts[i].equal(want[i]) {
			t.Errorf("account %d is %+v", i, accounts[i])
		}
	}
	for _, empty := range []string{"", " \n"} {
		if accounts, err := ParseList(empty); err != nil || len(accounts) != 0 {
			t.Errorf("ParseList(%q) is %v, %v", empty, accounts, err)
		}
	}
}

func TestParseListErrors(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"no password", "alice", []string{"entry 1: must be name:password"}},
		{"empty password", "alice:", []string{"entry 1: password must not be empty"}},
		{"too many fields", "alice:sesame:pass:5", []string{"entry 1: must be name:password"}},
		{"trailing comma", "alice:x,", []string{"entry 2: is empty"}},
		{"bad name", "al ice:sesame", []string{"entry 1: name must be"}},
		{"reserved segment", "alice-pool:sesame", []string{`"pool"`}},
		{"bad hash", "alice:$2a$10$sesame", []string{"bcrypt"}},
		{"duplicate", "alice:x,bob:y,alice:sesame", []string{`entry 3: name "alice" is already that of entry 1`}},
		{"max not a number", "alice:x:sesame", []string{"entry 1: max connections must be a whole number"}},
		{"max negative", "alice:x:-1", []string{"whole number"}},
		{"max with zeros", "alice:x:010", []string{"whole number"}},
		{"max too large", "alice:x:2147483648", []string{"whole number"}},
		{"max empty", "alice:x:", []string{"whole number"}},
		{"all at once", "alice,b b:sesame,carol:x:y,dave:ok", []string{"entry 1:", "entry 2:", "entry 3:"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			accounts, err := ParseList(tt.in)
			if accounts != nil {
				t.Error("accounts came with the error")
			}
			wantError(t, err, tt.want...)
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error quotes a password: %v", err)
			}
			if got := len(strings.Split(err.Error(), "\n")); got != len(tt.want) {
				t.Errorf("%d errors, want %d: %v", got, len(tt.want), err)
			}
		})
	}
}

func FuzzParseList(f *testing.F) {
	for _, seed := range []string{"", "alice:secret:2000,bob:hunter2", "a:b:", ",", "::", "a:" + cheapHash, " a:b , c:d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		accounts, err := ParseList(s)
		if err != nil && accounts != nil {
			t.Fatal("accounts came with an error")
		}
		checkParsed(t, accounts)
	})
}

// checkParsed checks what holds for every account that was parsed.
func checkParsed(t *testing.T, accounts []*Account) {
	t.Helper()
	names := make(map[string]bool)
	for _, a := range accounts {
		if err := CheckName(a.Name); err != nil || names[a.Name] {
			t.Fatalf("bad or repeated name %q: %v", a.Name, err)
		}
		names[a.Name] = true
		if _, problem := newSecret(*a.password.text); problem != "" {
			t.Fatalf("bad password: %s", problem)
		}
		if a.MaxConns < 0 || a.ConnBurst < 0 || !(a.ConnRate >= 0 && a.ConnRate <= maxRate) {
			t.Fatalf("bad caps: %+v", a)
		}
		for _, p := range a.AllowFrom {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
				t.Fatalf("bad network %v", p)
			}
		}
	}
}
