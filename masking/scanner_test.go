package masking

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// scan writes s in pieces that end at cuts.
func scan(m *Marks, encoded bool, s string, cuts ...int) []Leak {
	sc := NewScanner("w", m, encoded)
	from := 0
	for _, to := range append(cuts, len(s)) {
		if n, err := sc.Write([]byte(s[from:to])); n != to-from || err != nil {
			panic(fmt.Sprint(n, err))
		}
		from = to
	}
	return sc.Leaks()
}

func TestScanner(t *testing.T) {
	m := NewMarks("Oxylabs", "alice", "se cret", "50%41", "bob")
	const b64, esc = "w (base64)", "w (url-escaped)"
	for _, c := range []struct {
		name, in string
		want     []Leak
	}{
		{"clean", "nothing here", nil},
		{"plain", "xx oxyLABS", []Leak{{"w", "Oxylabs", 3}}},
		{"twice", "alicealice", []Leak{{"w", "alice", 0}, {"w", "alice", 5}}},
		{"base64, aligned", "." + base64.StdEncoding.EncodeToString([]byte("alice:x")), []Leak{{b64, "alice", 1}}},
		{"base64, one off", base64.StdEncoding.EncodeToString([]byte("xalice:x")), []Leak{{b64, "alice", 2}}},
		{"base64, two off", base64.StdEncoding.EncodeToString([]byte("xyalice:x")), []Leak{{b64, "alice", 3}}},
		{"base64, three off", base64.StdEncoding.EncodeToString([]byte("xyzalice:x")), []Leak{{b64, "alice", 4}}},
		{"base64, as given", base64.RawURLEncoding.EncodeToString([]byte("Oxylabs")), []Leak{{b64, "Oxylabs", 0}}},
		{"base64, lower case", base64.RawURLEncoding.EncodeToString([]byte("oxylabs")), []Leak{{b64, "Oxylabs", 0}}},
		{"base64, of the three letters only at one alignment", base64.StdEncoding.EncodeToString([]byte("bob")), []Leak{{b64, "bob", 0}}},
		{"escaped byte", "x=%61lice", []Leak{{esc, "alice", 2}}},
		{"escaped in the middle, upper hex", "x=al%69c%65!", []Leak{{esc, "alice", 2}}},
		{"escaped upper case", "%4FXYLABS", []Leak{{esc, "Oxylabs", 0}}},
		{"all escaped", "%61%6c%69%63%65", []Leak{{esc, "alice", 0}}},
		{"space as plus", "se+cret", []Leak{{esc, "se cret", 0}}},
		{"space as %20", "se%20cret", []Leak{{esc, "se cret", 0}}},
		{"false escape first", "%zz%6%61lice", []Leak{{esc, "alice", 5}}},
		{"percent before percent", "%%61lice%", []Leak{{esc, "alice", 1}}},
		{"cut escape is text", "al%6", nil},
		{"plain mark with an escape in it", "50%41", []Leak{{"w", "50%41", 0}}},
		{"mark that is escaped itself", "50%2541", []Leak{{esc, "50%41", 0}}},
		{"plain mark after an escape", "%41 alice", []Leak{{"w", "alice", 4}}},
		{"plain mark, escaped neighbour", "%41alice", []Leak{{"w", "alice", 3}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := scan(m, true, c.in); !slices.Equal(got, c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i := range len(c.in) + 1 { // every single cut
				if got := scan(m, true, c.in, i); !slices.Equal(got, c.want) {
					t.Fatalf("cut at %d: got %v, want %v", i, got, c.want)
				}
			}
		})
	}
	// The unescaped reading is still within "xali7" when "ali" ends; the escape before "ali" is no part of it.
	if got := scan(NewMarks("xali7", "ali"), true, "%78ali"); !slices.Equal(got, []Leak{{"w", "ali", 3}}) {
		t.Errorf("mark behind the escape of a longer one: %v", got)
	}
	if got := scan(m, false, "%61lice YWxpY2U= alice"); !slices.Equal(got, []Leak{{"w", "alice", 17}}) {
		t.Errorf("without encodings: %v", got)
	}
}

// TestScannerFindsEveryBase64 hides a mark at random places in random text.
func TestScannerFindsEveryBase64(t *testing.T) {
	m := NewMarks("hunter2?>~")
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		text := []byte(strings.Repeat("x", r.IntN(40)) + "hunter2?>~" + strings.Repeat("y", r.IntN(9)))
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			if s := enc.EncodeToString(text); len(scan(m, true, s)) != 1 {
				t.Fatalf("round %d: %q of %q not found", i, s, text)
			}
		}
		if s := url.QueryEscape(string(text)); len(scan(m, true, s)) != 1 {
			t.Fatalf("round %d: %q not found", i, s)
		}
	}
}

func TestScannerBounds(t *testing.T) {
	m := NewMarks("abc")
	if got := scan(m, true, strings.Repeat("abc", 1000)); len(got) != maxLeaks {
		t.Errorf("%d leaks kept", len(got))
	}
	if got := scan(m, false, strings.Repeat("abc", 1000), 299); len(got) != maxLeaks || got[99].Offset != 297 {
		t.Errorf("%d leaks kept, last %v", len(got), got[len(got)-1])
	}
	s := NewScanner("w", m, true)
	for range 1000 {
		_, _ = s.Write([]byte(strings.Repeat("%61", 100) + "ab%"))
	}
	if n := cap(s.url.recent); n > 16 {
		t.Errorf("room for %d escapes kept for a mark of three bytes", n)
	}
}

func TestLeakString(t *testing.T) {
	for _, c := range []struct {
		leak Leak
		want string
	}{
		{Leak{"customer got", "hunter2", 12}, `customer got: mark "hu"… (7 bytes) at offset 12`},
		{Leak{"x", "", 0}, `x: mark ""… (0 bytes) at offset 0`},
	} {
		if got := c.leak.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
