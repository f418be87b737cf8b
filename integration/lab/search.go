package lab

import "maskrelay/masking"

// encodedBytes is how far into a stream marks are also looked for in base64 and URL-escaped: far beyond any head. Under the race detector that
// search is slower than what a bulk transfer needs.
const encodedBytes = 1 << 20

// Search looks for marks in one stream: as they are in all of it, and encoded in its first MiB. The pieces must come in order from one goroutine.
type Search struct {
	plain   *masking.Scanner
	encoded *masking.Scanner
	left    int // of encodedBytes
}

// NewSearch returns a Search whose leaks name the stream as where. Without marks it finds nothing.
func NewSearch(where string, marks *masking.Marks) *Search {
	return &Search{plain: masking.NewScanner(where, marks, false), encoded: masking.NewScanner(where, marks, true), left: encodedBytes}
}

// Write searches p. It never fails.
func (s *Search) Write(p []byte) (int, error) {
	head := p[:min(len(p), s.left)]
	s.left -= len(head)
	_, _ = s.encoded.Write(head) // a Scanner's Write has no errors
	_, _ = s.plain.Write(p)
	return len(p), nil
}

// Leaks returns what was found.
func (s *Search) Leaks() []masking.Leak {
	return append(s.encoded.Leaks(), s.plain.Leaks()...)
}
