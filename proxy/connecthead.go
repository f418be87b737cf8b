package proxy

import "bytes"

// maxConnectHead bounds the head of a plain CONNECT, in bytes. A longer one may be in
// order; net/http judges it, and says 431 where that is due.
const maxConnectHead = 8 << 10

// connectHead is what the front needs of a plain CONNECT's head. The slices are parts
// of the bytes that it was read from.
type connectHead struct {
	authority     []byte // the request target
	authorization []byte // Proxy-Authorization's value, without the space around it
	authorized    bool   // there is such a field
	http10        bool   // HTTP/1.0, else HTTP/1.1
	closes        bool   // a Connection field wants the end; HTTP/1.0 always does
	hosts         int
}

// headKind is what the beginning of a connection is.
type headKind int

const (
	headIncomplete headKind = iota // may become a plain CONNECT
	headPlain                      // a plain, well-formed CONNECT
	headOther                      // anything else
)

// parseConnect reads the head of a plain CONNECT at the start of b; n is its length. It
// takes only what can be read in one way, and leaves all else, right or wrong, to
// net/http: a request line with single spaces, CRLF at each line's end, names of token
// characters directly before the colon, values without control bytes, no folded lines,
// exactly one Host (at most one in HTTP/1.0), at most one Proxy-Authorization, and no
// field that could announce a body or another protocol. Fields that a CONNECT has no
// use for are skipped. It allocates nothing.
func parseConnect(b []byte) (h connectHead, n int, kind headKind) {
	line, n, kind := headLine(b, 0)
	if kind != headPlain {
		return h, 0, kind
	}
	if !h.requestLine(line) {
		return h, 0, headOther
	}
	for {
		if line, n, kind = headLine(b, n); kind != headPlain {
			return h, 0, kind
		}
		if len(line) == 0 {
			break
		}
		if !h.field(line) {
			return h, 0, headOther
		}
	}
	if h.hosts != 1 && !h.http10 {
		return h, 0, headOther
	}
	return h, n, headPlain
}

const connectMethod = "CONNECT "

// headLine cuts the line that begins at the given offset, without its CRLF; next is the
// offset behind it.
func headLine(b []byte, at int) (line []byte, next int, kind headKind) {
	if n := min(len(b), len(connectMethod)); string(b[:n]) != connectMethod[:n] {
		return nil, 0, headOther
	}
	end := bytes.IndexByte(b[at:min(len(b), maxConnectHead)], '\n')
	switch {
	case end < 0 && len(b) >= maxConnectHead:
		return nil, 0, headOther
	case end < 0:
		return nil, 0, headIncomplete
	case end == 0 || b[at+end-1] != '\r':
		return nil, 0, headOther
	}
	return b[at : at+end-1], at + end + 1, headPlain
}

// requestLine reads "CONNECT host:port HTTP/1.x".
func (h *connectHead) requestLine(line []byte) bool {
	rest := line[len(connectMethod):]
	end := bytes.IndexByte(rest, ' ')
	if end < 0 {
		return false
	}
	h.authority = rest[:end]
	switch string(rest[end+1:]) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10, h.closes = true, true
	default:
		return false
	}
	return plainAuthority(h.authority)
}

// plainAuthority reports whether a is a name or an IPv4 address, a colon and digits.
// ParseTarget says whether they make sense.
func plainAuthority(a []byte) bool {
	colon := bytes.IndexByte(a, ':')
	if colon < 1 || colon == len(a)-1 {
		return false
	}
	for _, c := range a[:colon] {
		if c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	for _, c := range a[colon+1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// tokenBytes are those of a field's name (RFC 9110 §5.6.2).
var tokenBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = true
	}
	return t
}()

// field takes one field's line; false if the head is not a plain CONNECT's.
func (h *connectHead) field(line []byte) bool {
	colon := 0
	for colon < len(line) && tokenBytes[line[colon]] {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return false
	}
	for _, c := range line[colon+1:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return h.known(line[:colon], line[colon+1:])
}

// known acts on the fields that matter to a CONNECT.
func (h *connectHead) known(name, value []byte) bool {
	switch len(name) {
	case len("host"):
		if isName(name, "host") {
			h.hosts++
			return h.hosts == 1 && plainHost(trimSpace(value))
		}
	case len("proxy-authorization"):
		if isName(name, "proxy-authorization") {
			if h.authorized {
				return false
			}
			h.authorized, h.authorization = true, trimSpace(value)
		}
	case len("connection"):
		if isName(name, "connection") {
			h.closes = h.closes || hasClose(value)
		}
	case len("expect"):
		return !isName(name, "expect")
	case len("upgrade"):
		return !isName(name, "upgrade") && !isName(name, "trailer")
	case len("content-length"):
		return !isName(name, "content-length")
	case len("transfer-encoding"):
		return !isName(name, "transfer-encoding")
	}
	return true
}

// trimSpace takes the optional white space (RFC 9110 §5.6.3) off both ends.
func trimSpace(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for len(v) > 0 && (v[len(v)-1] == ' ' || v[len(v)-1] == '\t') {
		v = v[:len(v)-1]
	}
	return v
}

// isName compares a name of token characters with one of the same length in lower case.
func isName(name []byte, lower string) bool {
	for i, c := range name {
		if c|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// plainHost reports whether v consists of bytes that nobody refuses in a Host.
func plainHost(v []byte) bool {
	for _, c := range v {
		if c != '-' && c != '_' && c != '[' && c != ']' && (c < '.' || c > ':' || c == '/') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// hasClose finds "close" in any case, anywhere: what might want the end gets it.
func hasClose(v []byte) bool {
	for i := 0; i+len("close") <= len(v); i++ {
		if isName(v[i:i+len("close")], "close") {
			return true
		}
	}
	return false
}
