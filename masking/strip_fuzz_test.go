package masking

import (
	"errors"
	"strings"
	"testing"
)

// FuzzStripList: an entry is refused by its name, or names every spelling of a field and nothing else. What a policy does with it is
// the same for all three of its sides, and FuzzPolicyHeaders' business.
func FuzzStripList(f *testing.F) {
	for _, seed := range []string{"X-Foo", "x-foo-*", "*", "", "X_Foo*", "Cookie", "a*b", "X Foo", "X-Foo-**", strings.Repeat("a", 129), "\x00", "Host", "-*", "zq"} {
		f.Add(seed, "X-Foo-Bar")
	}
	f.Add("x.foo", "X_FOO")
	f.Fuzz(func(t *testing.T, entry, name string) {
		if err := ValidateStrip([]string{"X-Good", entry}); err != nil {
			if !errors.Is(err, ErrPattern) || strings.Contains(err.Error(), "X-Good") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: %v", entry, err)
			}
			return
		}
		set := newNameSet(hopByHop)
		before := newNameSet(hopByHop)
		set.add(entry)
		bare, isPrefix := strings.CutSuffix(entry, "*")
		for _, field := range []string{bare, strings.ToUpper(bare), strings.ReplaceAll(bare, "-", "_"), bare + name, name} {
			folded := fold(nil, field)
			named := asField(field) == asField(bare) || isPrefix && strings.HasPrefix(asField(field), asField(bare))
			if got := set.has(folded); got != (named || before.has(folded)) {
				t.Errorf("%q names %q: %v", entry, field, got)
			}
		}
	})
}

// asField is a second writing of what names are compared by.
func asField(s string) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case !strings.Contains("abcdefghijklmnopqrstuvwxyz0123456789", string(rune(c))):
			b[i] = '-'
		}
	}
	return string(b)
}
