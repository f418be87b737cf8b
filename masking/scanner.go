package masking

import (
	"fmt"
	"slices"
	"sync"
)

// maxLeaks bounds what a Scanner keeps; one leak already fails an audit.
const maxLeaks = 100

// Leak is one mark found where it must not be.
type Leak struct {
	Where, Mark string // Where is the Scanner's name of the stream; " (base64)" or " (url-escaped)" follows for such a form
	Offset      int64  // of the form's first byte in the stream
}

// String names the place and the mark's beginning only: a mark can be a password.
func (l Leak) String() string {
	return fmt.Sprintf("%s: mark %q… (%d bytes) at offset %d", l.Where, l.Mark[:min(2, len(l.Mark))], len(l.Mark), l.Offset)
}

// Scanner finds marks in a stream written in pieces of any size; how it is cut changes nothing. Its memory does not grow with the
// stream. It is safe for concurrent use, but the pieces of one stream must come in order.
type Scanner struct {
	where string
	marks *Marks

	mu     sync.Mutex
	offset int64 // of the next byte
	state  uint32
	leaks  []Leak

	encoded *encodedMarks // nil = plain text only
	base64  uint32
	url     unescaper
}

// NewScanner returns a Scanner for the stream called where. With encoded it also finds each mark in base64 (at all three
// alignments, standard and URL alphabet, as given and in lower case, not across line breaks; forms of at least four characters)
// and with any of its bytes percent-escaped or a space as '+'.
func NewScanner(where string, m *Marks, encoded bool) *Scanner {
	s := &Scanner{where: where, marks: m}
	if encoded {
		s.encoded = m.encoded()
	}
	return s
}

// Write scans p. It never fails and keeps nothing of p.
func (s *Scanner) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leaks) == maxLeaks {
		return len(p), nil
	}
	if s.encoded == nil {
		s.writePlain(p)
	} else {
		s.writeEncoded(p)
	}
	return len(p), nil
}

// Leaks returns what was found, in the order of its end, at most 100. The slice is the caller's.
func (s *Scanner) Leaks() []Leak {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.leaks)
}

func (s *Scanner) writePlain(p []byte) {
	a, state := s.marks.plain, s.state
	for i, c := range p {
		state = a.next[state+uint32(a.class[c])]
		if state&hit != 0 {
			state &^= hit
			mark := s.marks.words[a.ends[state/a.columns]]
			s.found("", mark, s.offset+int64(i+1-len(mark)))
		}
	}
	s.state = state
	s.offset += int64(len(p))
}

func (s *Scanner) writeEncoded(p []byte) {
	for _, c := range p {
		before, word := s.state, int32(-1)
		s.state, word = s.marks.plain.step(before, c)
		s.offset++
		if word >= 0 {
			mark := s.marks.words[word]
			s.found("", mark, s.offset-int64(len(mark)))
		}
		s.base64, word = s.encoded.auto.step(s.base64, c)
		if word >= 0 {
			s.found(" (base64)", s.marks.words[s.encoded.owners[word]], s.offset-int64(len(s.encoded.forms[word])))
		}
		s.url.next(s, before, c)
	}
}

func (s *Scanner) found(form, mark string, offset int64) {
	if len(s.leaks) < maxLeaks {
		s.leaks = append(s.leaks, Leak{Where: s.where + form, Mark: mark, Offset: offset})
	}
}

// unescaper follows the stream as it reads with its URL escapes undone. Without an escape in the last bytes that is the stream
// itself, so it runs only from an escape until both readings are in the same state again.
type unescaper struct {
	active bool
	state  uint32
	held   [2]byte // '%' and a digit that may begin an escape
	holds  int
	recent []escape // the latest escapes, oldest first, as many as the longest mark can hold
}

// escape is one undone escape: where it began, how many bytes it took.
type escape struct{ at, width int64 }

// next takes c, the byte before s.offset; before is the plain reading's state without it.
func (u *unescaper) next(s *Scanner, before uint32, c byte) {
	starts := c == '%' || c == '+' && s.marks.hasSpace
	if !u.active {
		if !starts {
			return
		}
		u.active, u.state = true, before
	}
	switch {
	case u.holds == 2 && isHex(c):
		u.holds = 0
		u.undo(s, escape{s.offset - 3, 3}, unhex(u.held[1])<<4|unhex(c))
	case u.holds == 1 && isHex(c):
		u.held[1], u.holds = c, 2
	default:
		u.release(s)
		switch {
		case c == '%':
			u.held[0], u.holds = c, 1
		case starts:
			u.undo(s, escape{s.offset - 1, 1}, ' ')
		default:
			u.feed(s, c, s.offset)
		}
	}
	if u.holds == 0 && u.state == s.state {
		u.active, u.recent = false, u.recent[:0]
	}
}

// release feeds the bytes that turned out to begin no escape.
func (u *unescaper) release(s *Scanner) {
	for i, c := range u.held[:u.holds] {
		u.feed(s, c, s.offset-int64(u.holds-i))
	}
	u.holds = 0
}

func (u *unescaper) undo(s *Scanner, e escape, c byte) {
	if len(u.recent) >= 2*s.marks.longest { // drop the older half at once
		u.recent = append(u.recent[:0], u.recent[len(u.recent)-s.marks.longest:]...)
	}
	u.recent = append(u.recent, e)
	u.feed(s, c, s.offset)
}

// feed takes one byte of the unescaped reading that ends at offset end of the stream.
func (u *unescaper) feed(s *Scanner, c byte, end int64) {
	var word int32
	u.state, word = s.marks.plain.step(u.state, c)
	if word < 0 {
		return
	}
	mark := s.marks.words[word]
	if start, escaped := u.start(end, int64(len(mark))); escaped {
		s.found(" (url-escaped)", mark, start)
	}
}

// start returns where in the stream the last n unescaped bytes before end begin, and whether an escape is among them.
func (u *unescaper) start(end, n int64) (start int64, escaped bool) {
	for _, e := range slices.Backward(u.recent) {
		plain := end - (e.at + e.width)
		if n <= plain {
			break
		}
		n -= plain + 1
		end, escaped = e.at, true
	}
	return end - n, escaped
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
