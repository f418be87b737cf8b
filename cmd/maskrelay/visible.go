package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// visible returns s with everything escaped that is not seen as it is: control bytes, also
// those of C1 that some terminals obey, line and paragraph separators, marks that turn the
// direction of writing, and what is no UTF-8. Words of vendors and customers pass through it
// on their way to a terminal.
func visible(s string) string {
	odd := func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }
	if !strings.ContainsFunc(s, odd) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		c, n := utf8.DecodeRuneInString(s)
		switch {
		case c == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(c):
			b.WriteString(s[:n])
		default:
			quoted := strconv.QuoteRune(c)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// visibleJSON returns JSON with everything escaped inside its strings that is not seen as it
// is, and that JSON lets stand: it means the same. The white space between its parts stays.
func visibleJSON(b []byte) []byte {
	at := 0
	for at < len(b) && b[at] < 0x7f {
		at++
	}
	if at == len(b) {
		return b
	}
	out := append(make([]byte, 0, len(b)+16), b[:at]...)
	for b = b[at:]; len(b) > 0; {
		c, n := utf8.DecodeRune(b)
		switch {
		case c < 0x7f || c != utf8.RuneError && unicode.IsPrint(c):
			out = append(out, b[:n]...)
		case c > 0xffff: // a pair of surrogates
			c -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, c)
		}
		b = b[n:]
	}
	return out
}

// visibleWriter passes lines of JSON, or of what zerolog makes of it for people, on as
// visibleJSON has them.
type visibleWriter struct{ io.Writer }

// Write implements io.Writer.
func (w visibleWriter) Write(line []byte) (int, error) {
	if _, err := w.Writer.Write(visibleJSON(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}
