package masking

import "strings"

const (
	// maxUnescape is how often escapes are undone: %2525 is a percent sign escaped twice.
	maxUnescape = 3
	// minBase64Run is the fewest characters in a row that are read as base64: words of six bytes and more are found in those.
	minBase64Run = 8
	// minHiddenMark is the shortest mark that is looked for in bytes that are no text: a shorter one would be found by chance.
	minHiddenMark = 5
)

// OtherReadings calls is with what else a reader can make of s than s itself, until is says true, and reports whether it did:
// percent escapes undone, again where they were escaped themselves, and what base64 may hide, in either alphabet and wherever it
// begins. The bytes are valid during the call alone.
func OtherReadings(s string, is func(reading []byte) bool) bool {
	for range maxUnescape {
		if base64Readings(s, is) {
			return true
		}
		plain := unescaped(s)
		if len(plain) == len(s) {
			return false
		}
		if is([]byte(plain)) {
			return true
		}
		s = plain
	}
	return base64Readings(s, is)
}

// unescaped is s with its percent escapes undone.
func unescaped(s string) string {
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:at]...)
	for i := at; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			b = append(b, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

// sextets are the values of base64's characters, plus 1, in both alphabets.
var sextets = func() (table [256]uint8) {
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		table[c] = uint8(i) + 1
	}
	table['-'], table['_'] = table['+'], table['/']
	return table
}()

// base64Readings is OtherReadings for base64.
func base64Readings(s string, is func([]byte) bool) bool {
	var reading []byte // made when it is needed: most values have nothing to read
	for end := 0; end < len(s); end++ {
		begin := end
		for end < len(s) && sextets[s[end]] != 0 {
			end++
		}
		if end-begin < minBase64Run {
			continue
		}
		for shift := range 4 {
			if reading = appendBase64(reading[:0], s[begin+shift:end]); is(reading) {
				return true
			}
		}
	}
	return false
}

// appendBase64 appends what the characters mean, whole bytes only.
func appendBase64(b []byte, chars string) []byte {
	var bits uint32
	have := 0
	for i := range len(chars) {
		bits = bits<<6 | uint32(sextets[chars[i]]-1)
		if have += 6; have >= 8 {
			have -= 8
			b = append(b, byte(bits>>have))
		}
	}
	return b
}

// inAny reports whether s holds a mark, in whatever form.
func (m *Marks) inAny(s string) bool {
	switch {
	case m.in(s), m.hasSpace && strings.Contains(s, "+") && m.in(strings.ReplaceAll(s, "+", " ")):
		return true
	case strings.IndexByte(s, '%') < 0:
		return m.inBase64(s)
	}
	return OtherReadings(s, m.hiddenIn)
}

// inBase64 is base64Readings for hiddenIn, without a buffer: nearly every field of an answer comes here.
func (m *Marks) inBase64(s string) bool {
	for end := 0; end < len(s); end++ {
		begin := end
		for end < len(s) && sextets[s[end]] != 0 {
			end++
		}
		for shift := 0; shift < 4 && end-begin >= minBase64Run; shift++ {
			if m.inBase64Run(s[begin+shift : end]) {
				return true
			}
		}
	}
	return false
}

func (m *Marks) inBase64Run(chars string) bool {
	var bits, state uint32
	word, have := int32(-1), 0
	for i := range len(chars) {
		bits = bits<<6 | uint32(sextets[chars[i]]-1)
		if have += 6; have < 8 {
			continue
		}
		have -= 8
		if state, word = m.plain.step(state, byte(bits>>have)); word >= 0 && len(m.words[word]) >= minHiddenMark {
			return true
		}
	}
	return false
}

// hiddenIn reports whether b, which may be any bytes, holds a mark that is long enough to be no chance.
func (m *Marks) hiddenIn(b []byte) bool {
	state, word := uint32(0), int32(-1)
	for _, c := range b {
		if state, word = m.plain.step(state, c); word >= 0 && len(m.words[word]) >= minHiddenMark {
			return true
		}
	}
	return false
}
