package account

import (
	"strings"
	"testing"
)

func TestSplitFile(t *testing.T) {
	tests := []struct {
		name, in string
		items    int
		want     []part
	}{
		{"one part", "accounts:\n- a\n- b\n", 2, []part{{"accounts:\n- a\n- b\n", 0}}},
		{"two parts", "# x\n\naccounts: # y\n  - a\n    b\n  - c\n  # d\n  - e", 2,
			[]part{{"# x\n\naccounts: # y\n  - a\n    b\n  - c\n  # d\n", 0}, {"accounts:\n  - e", 6}}},
		{"nested lists", "accounts:\n- a:\n  - b\n  - c\n- d\n", 1,
			[]part{{"accounts:\n- a:\n  - b\n  - c\n", 0}, {"accounts:\n- d\n", 3}}},
		{"dash alone", "accounts:\n-\n  a\n-\n  b\n", 1, []part{{"accounts:\n-\n  a\n", 0}, {"accounts:\n-\n  b\n", 2}}},
		{"crlf", "accounts:\r\n- a\r\n- b\r\n", 1, []part{{"accounts:\r\n- a\r\n", 0}, {"accounts:\n- b\r\n", 1}}},
		{"empty", "", 1, []part{{"", 0}}},
	}
	for _, whole := range []string{
		"accounts: [a,\n b]\n", "other:\n- a\n- b\n", "accounts:\n- a\n---\n- b\n", "accounts:\n- a\n...\n- b\n",
		"accounts:\n- a\n%X\n- b\n", "accounts:\n- a\r- b\n- c\n", "accounts:\n  a: b\n- c\n- d\n", "accounts:#\n- a\n- b\n",
	} {
		tests = append(tests, struct {
			name, in string
			items    int
			want     []part
		}{"whole " + whole, whole, 1, []part{{whole, 0}}})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := splitFile(tt.in, tt.items)
			if len(got) != len(tt.want) {
				t.Fatalf("%d parts %+v, want %d", len(got), got, len(tt.want))
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("part %d is %+v, want %+v", i, got[i], tt.want[i])
				}
			}
		})
	}
}

// FuzzParseFile checks that no file makes the parser fail other than by an
// error with a place, that what it takes is valid, and that cutting a file up
// changes nothing that was well-formed.
func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{
		example, "", "accounts: []", "accounts:\n- {name: a, password: b}\n- {name: a, password: c}\n",
		"accounts:\n- name: a\n  password: \"\\x41\\q\"\n", "accounts: &a [*a]", "? a\n: b", "accounts:\n- |\n  x\n", "%YAML 1.2\n---\naccounts: []\n",
		"accounts:\n  - name: a\n    password: b\n    allow_from: ['::/0', 1.2.3.4]\n    expires: 2026-12-31T00:00:00Z\n", "a: b: c", "[[[[", "!!x y", "accounts:\n- name: a\n  password: >-\n   x\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		accounts, err := ParseFile("a.yaml", []byte(text))
		if err != nil {
			if accounts != nil {
				t.Fatal("accounts came with an error")
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "a.yaml:") {
					t.Fatalf("error without a place: %q", line)
				}
			}
			return
		}
		checkParsed(t, accounts)
		parts, err := collect("a.yaml", parseParts(splitFile(strings.TrimPrefix(text, "\uFEFF"), 1), nil))
		if err != nil {
			t.Fatalf("in parts: %v", err)
		}
		wantAccounts(t, parts, accounts)
	})
}
