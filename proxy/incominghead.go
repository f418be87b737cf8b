package proxy

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// framing is what a head says of its message's extent, and where the message goes.
type framing struct {
	connect bool // CONNECT
	http10  bool // HTTP/1.0, else HTTP/1.1
	chunked bool
	counted bool // there is a Content-Length
	hosts   int
	length  int64 // Content-Length
}

// takeHead takes up b, the next bytes of a head, and returns how many are the head's.
func (in *incoming) takeHead(b []byte) (n int, refused Outcome) {
	before := len(*in.head)
	in.keep(b)
	head := *in.head
	for at := before; ; at = in.begun {
		i := bytes.IndexByte(head[at:], '\n')
		if i < 0 {
			if len(head) > maxHead {
				return 0, HeadTooLarge
			}
			return len(b), ""
		}
		end := at + i + 1
		if end > maxHead {
			return 0, HeadTooLarge
		}
		line, ok := bytes.CutSuffix(head[in.begun:end], crlf)
		if !ok {
			return 0, BadRequest
		}
		in.begun = end
		if len(line) == 0 { // the first line has at least a byte
			*in.head = head[:end]
			return end - before, in.endHead()
		}
		if in.lines++; in.lines > maxFieldLines+1 {
			return 0, HeadTooLarge
		}
		if ok = in.lines > 1; ok {
			ok = in.fieldLine(line)
		} else {
			ok = in.requestLine(line)
		}
		if !ok {
			return 0, BadRequest
		}
	}
}

var crlf = []byte("\r\n")

// endHead judges the whole head and says how its body is read. What two readers could
// take differently is refused (RFC 9112 §6, §11.2), even where the RFC lets a reader be
// generous. A CONNECT has no body, and often no Host: its target stands in one place only.
// Whether Host agrees with an absolute-form does not matter: it never leaves the relay,
// the target's does (RFC 9112 §3.2.2).
func (in *incoming) endHead() Outcome {
	f := &in.framing
	switch {
	case f.hosts == 0 && !f.http10 && !f.connect,
		f.chunked && (f.counted || f.http10 || f.connect),
		f.connect && f.length != 0:
		return BadRequest
	}
	in.last = f.http10 // a proxy keeps none of those connections (RFC 9112 §9.3)
	switch {
	case f.chunked:
		in.startChunk()
	case f.length > 0:
		in.state, in.left = inBody, f.length
	default:
		in.state = atStart
	}
	return ""
}

// requestLine takes "METHOD target HTTP/1.x".
func (f *framing) requestLine(line []byte) bool {
	method, rest, _ := bytes.Cut(line, space)
	target, version, _ := bytes.Cut(rest, space)
	for _, c := range method {
		if !tokenBytes[c] {
			return false
		}
	}
	if !isText(target) || bytes.IndexByte(target, '\t') >= 0 {
		return false
	}
	f.connect, f.http10 = string(method) == "CONNECT", string(version) == "HTTP/1.0"
	return len(method) > 0 && len(target) > 0 && (f.http10 || string(version) == "HTTP/1.1")
}

var space = []byte(" ")

// fieldLine takes one line: a name of token characters, a colon directly behind it, a value
// without control bytes. So no line goes on in the next.
func (f *framing) fieldLine(line []byte) bool {
	colon := 0
	for colon < len(line) && tokenBytes[line[colon]] {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return false
	}
	name, value := line[:colon], line[colon+1:]
	if !isText(value) {
		return false
	}
	switch framingName(name) {
	case "host":
		f.hosts++
		return f.hosts == 1 && isSpelled(name)
	case "content-length":
		twice := f.counted
		f.counted = true
		var ok bool
		f.length, ok = bodyLength(trimSpace(value))
		return ok && !twice && isSpelled(name)
	case "transfer-encoding":
		twice := f.chunked
		f.chunked = true
		coding := trimSpace(value)
		return !twice && isSpelled(name) && len(coding) == len("chunked") && isName(coding, "chunked")
	}
	return true
}

// isText reports whether b has only bytes that may stand in a field's value. It looks at
// eight at a time, and at each of eight only if one of them is a control byte.
func isText(b []byte) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		del := w ^ ones*0x7f
		if ((w-ones*' ')&^w|(del-ones)&^del)&highs == 0 {
			continue
		}
		for _, c := range b[:8] {
			if !isValueByte(c) {
				return false
			}
		}
	}
	for _, c := range b {
		if !isValueByte(c) {
			return false
		}
	}
	return true
}

// framingName returns the lower-case form of a name that says where a message ends or
// goes, else "". So are names with "_" for "-": some servers cannot tell those apart.
func framingName(name []byte) string {
	switch len(name) {
	case len("host"):
		if isName(name, "host") {
			return "host"
		}
	case len("content-length"):
		if isAlike(name, "content-length") {
			return "content-length"
		}
	case len("transfer-encoding"):
		if isAlike(name, "transfer-encoding") {
			return "transfer-encoding"
		}
	}
	return ""
}

// isAlike is isName for a lower-case name with hyphens, for which underscores may stand.
func isAlike(name []byte, lower string) bool {
	for i, c := range name {
		if c|0x20 != lower[i] && (c != '_' || lower[i] != '-') {
			return false
		}
	}
	return true
}

// isSpelled reports whether a framing name has its hyphens.
func isSpelled(name []byte) bool { return bytes.IndexByte(name, '_') < 0 }

// bodyLength reads a Content-Length: digits alone, too few to overflow.
func bodyLength(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// fieldNames are the names in a head's lines. Those of a connection's heads are mostly the
// same: they are kept for the next one.
type fieldNames struct {
	all   string // each with a colon behind it
	order []string
}

// maxKeptNames bounds all that is kept of them, in bytes: half a kilobyte of names and a
// few more of headers.
const maxKeptNames = 512

// of returns the names in a head's lines, of which there are as many. It uses up the head.
func (f *fieldNames) of(head []byte, lines int) []string {
	_, rest, _ := bytes.Cut(head, crlf)
	names := head[:0]
	for range lines {
		colon := bytes.IndexByte(rest, ':')
		end := colon + bytes.IndexByte(rest[colon:], '\n')
		names = append(names, rest[:colon+1]...) // never overtakes rest
		rest = rest[end+1:]
	}
	if f.order != nil && string(names) == f.all {
		return f.order
	}
	all := string(names)
	order := make([]string, 0, lines)
	for left := all; left != ""; {
		var name string
		name, left, _ = strings.Cut(left, ":")
		order = append(order, name)
	}
	*f = fieldNames{}
	if len(all) <= maxKeptNames {
		*f = fieldNames{all, order}
	}
	return order
}
