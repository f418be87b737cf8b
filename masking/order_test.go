package masking

import (
	"cmp"
	"net/http"
	"strings"
	"testing"
)

// FuzzCompareCanonical holds it to the standard library's form of a name.
func FuzzCompareCanonical(f *testing.F) {
	for _, pair := range [][2]string{
		{"host", "Host"}, {"X-a-B", "X-A-B"}, {"x--y", "X--Y"}, {"Accept", "Accept-Encoding"}, {"b", "A"}, {"-x", "-X"}, {"te", "Via"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, spelled, other string) {
		if !isToken(spelled) || !isToken(other) {
			t.Skip()
		}
		name := http.CanonicalHeaderKey(other)
		want := strings.Compare(http.CanonicalHeaderKey(spelled), name)
		if got := CompareCanonical(spelled, name); got != want {
			t.Errorf("%q, %q: %d, want %d", spelled, name, got, want)
		}
		if got := cmp.Compare(CompareCanonical(spelled, []byte(name)), 0); got != want {
			t.Errorf("%q, bytes of %q: %d, want %d", spelled, name, got, want)
		}
	})
}
