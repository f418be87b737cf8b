package masking

import (
	"encoding/base64"
	"slices"
	"strings"
	"sync"
)

// minBase64 is the shortest base64 form worth looking for: fewer characters stand in random text by chance.
const minBase64 = 4

// Marks is a set of strings that are found without regard to ASCII case. It is immutable and safe for concurrent use. Building one
// costs far more than searching (about 100 KB and a millisecond for a hundred marks), so build it once.
type Marks struct {
	words    []string // as given, then those that hide a mark within them
	hiding   int      // index of the first of those
	longest  int
	hasSpace bool
	plain    *automaton
	encoded  func() *encodedMarks
}

// encodedMarks are the base64 forms of a set; owners names the mark of each.
type encodedMarks struct {
	forms  []string
	owners []int
	auto   *automaton
}

// NewMarks returns the set of marks. Empty strings are ignored; of two that differ only in case the first counts.
func NewMarks(marks ...string) *Marks { return newMarks(marks, nil) }

// newMarks also takes words that hold a mark at their end and are innocent.
func newMarks(marks, innocent []string) *Marks {
	m := &Marks{}
	for _, w := range marks {
		if w != "" {
			m.words = append(m.words, w)
			m.longest = max(m.longest, len(w))
			m.hasSpace = m.hasSpace || strings.Contains(w, " ")
		}
	}
	m.hiding = len(m.words)
	m.words = append(m.words, innocent...)
	m.plain = newAutomaton(m.words, true, func(i int) bool { return i >= m.hiding })
	m.encoded = sync.OnceValue(m.encode)
	return m
}

// With returns a new set of the marks of m and more. m itself stays as it is.
func (m *Marks) With(more ...string) *Marks {
	return newMarks(slices.Concat(m.words[:m.hiding], more), m.words[m.hiding:])
}

// Find returns the mark that ends first in b, as it was given to NewMarks, and where it begins. Of several that end at the same
// byte it is the longest.
func (m *Marks) Find(b []byte) (mark string, offset int, found bool) {
	word, end := find(m.plain, b)
	if word < 0 {
		return "", 0, false
	}
	mark = m.words[word]
	return mark, end - len(mark), true
}

// Pending returns how many bytes at the end of b could be the beginning of a mark that what follows completes. A reader that
// holds back so many lets no part of a mark pass that it can still find.
func (m *Marks) Pending(b []byte) int {
	longest := 0
	for _, w := range m.words[:m.hiding] {
		for n := min(len(w)-1, len(b)); n > longest; n-- {
			if strings.EqualFold(string(b[len(b)-n:]), w[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}

// in reports whether s holds a mark.
func (m *Marks) in(s string) bool {
	word, _ := find(m.plain, s)
	return word >= 0
}

func (m *Marks) encode() *encodedMarks {
	e := &encodedMarks{}
	for i, w := range m.words[:m.hiding] {
		for _, spelling := range []string{w, strings.ToLower(w)} {
			for _, f := range base64Forms(spelling) {
				if !slices.Contains(e.forms[max(0, len(e.forms)-12):], f) {
					e.forms, e.owners = append(e.forms, f), append(e.owners, i)
				}
			}
		}
	}
	e.auto = newAutomaton(e.forms, false, nil)
	return e
}

// base64Forms returns what of s stands unchanged in the base64 of any text that holds s: one form for each position modulo three,
// without the characters that mix s with its neighbours, in both alphabets.
func base64Forms(s string) []string {
	var forms []string
	for lead := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte("\x00\x00"[:lead] + s))
		first, last := (8*lead+5)/6, 8*(lead+len(s))/6
		if last-first < minBase64 {
			continue
		}
		std := text[first:last]
		forms = append(forms, std)
		if safe := strings.NewReplacer("+", "-", "/", "_").Replace(std); safe != std {
			forms = append(forms, safe)
		}
	}
	return forms
}
