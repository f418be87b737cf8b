package proxy

const (
	maxSizeDigits   = 15      // of a chunk's size, hexadecimal: no overflow
	maxExtension    = 256     // bytes of a chunk's extensions
	maxTrailerBytes = 4 << 10 // of a trailer section; net/http's bound
)

// What net/http refuses wherever it gets it: behind any part of a chunk's framing, and
// behind any part of a trailer section. It stands for what it could have taken differently
// or left out, so that a malformed body ends in one way.
var (
	badChunk   = []byte("\r\r\n")
	badTrailer = []byte(":\r\n:\r\n\r\n")
)

// takeBody takes up b, the next bytes of a body, and returns how many are the body's. At
// the first byte that is not in order it ends, and what net/http refuses is next.
func (in *incoming) takeBody(b []byte) int {
	for i := 0; i < len(b); {
		switch in.state {
		case atStart:
			return i
		case inBody, inChunk:
			n := min(int64(len(b)-i), in.left)
			in.left -= n
			i += int(n)
			switch {
			case in.left > 0:
			case in.state == inBody:
				in.state = atStart
			default:
				in.state = atChunkCR
			}
			continue
		}
		if was := in.state; !in.step(b[i]) {
			in.state, in.unread = broken, badChunk
			if was >= atTrailer {
				in.unread = badTrailer
			}
			return i
		}
		i++
	}
	return len(b)
}

// startChunk makes a chunk's size come next.
func (in *incoming) startChunk() { in.state, in.left, in.digits, in.extra = inSize, 0, 0, 0 }

// step takes one byte of a chunked body's framing (RFC 9112 §7.1); false if it is not in
// order. Extensions have no meaning here and never leave the relay, but stay within their
// line.
func (in *incoming) step(c byte) bool {
	switch in.state {
	case inSize:
		return in.sizeByte(c)
	case inExtension:
		if c == '\r' {
			in.state = atSizeLF
			return true
		}
		in.extra++
		return in.extra <= maxExtension && isValueByte(c)
	case atSizeLF:
		if in.state = inChunk; in.left == 0 {
			in.state, in.extra = atTrailer, 0
		}
		return c == '\n'
	case atChunkCR:
		in.state = atChunkLF
		return c == '\r'
	case atChunkLF:
		in.startChunk()
		return c == '\n'
	}
	in.extra++
	return in.extra <= maxTrailerBytes && in.trailerByte(c)
}

// sizeByte takes a byte of a chunk's size: digits alone, up to extensions or the line's end.
func (in *incoming) sizeByte(c byte) bool {
	var digit byte
	switch {
	case c >= '0' && c <= '9':
		digit = c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		digit = c | 0x20 - 'a' + 10
	case c == ';':
		in.state = inExtension
		return in.digits > 0
	case c == '\r':
		in.state = atSizeLF
		return in.digits > 0
	default:
		return false
	}
	in.left = in.left<<4 | int64(digit)
	in.digits++
	return in.digits <= maxSizeDigits
}

// trailerByte takes a byte of the trailer section: field lines as in a head, of which none
// may be framing.
func (in *incoming) trailerByte(c byte) bool {
	switch in.state {
	case atTrailer:
		if c == '\r' {
			in.state = atEndLF
			return true
		}
		in.state, in.nameLen = inTrailer, 0
		return in.nameByte(c)
	case inTrailer:
		if c != ':' {
			return in.nameByte(c)
		}
		in.state = inValue
		return in.nameLen > len(in.name) || framingName(in.name[:in.nameLen]) == ""
	case inValue:
		if c == '\r' {
			in.state = atTrailerLF
			return true
		}
		return isValueByte(c)
	case atTrailerLF:
		in.state = atTrailer
	case atEndLF:
		in.state = atStart
	}
	return c == '\n'
}

func (in *incoming) nameByte(c byte) bool {
	if in.nameLen < len(in.name) {
		in.name[in.nameLen] = c
	}
	in.nameLen++
	return tokenBytes[c]
}

// isValueByte reports whether a byte may stand in a field's value.
func isValueByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
