package upstream

import (
	"bytes"
	"errors"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"maskrelay/upstream/vendor"
)

// maxReplyHead bounds a gateway's answer to CONNECT, in bytes, all 1xx heads included.
const maxReplyHead = 16 << 10

var (
	errMalformedReply = errors.New("the answer is not HTTP/1")
	errSwitches       = errors.New("switches protocols unasked")
	errReplyTooLong   = errors.New("the answer's head is longer than 16 KB")
)

// replyHead is what the handshake needs of a gateway's answer; the rest is dropped.
type replyHead struct {
	status int
	body   bool // Transfer-Encoding, or a Content-Length that is not 0
}

// maxClassified bounds how much of a refusal's body is looked at, in bytes.
const maxClassified = 4 << 10

// refusal is what g means by an answer to CONNECT that is no 2xx: of the body there is
// what has come with the head.
func refusal(g *gateway, status int, head, body []byte) *ConnectError {
	line, fields, _ := bytes.Cut(head, []byte("\n"))
	cause, verdict := g.classify(vendor.Answer{
		Status: status,
		Reason: reasonOf(line),
		Header: func(name string) string { return fieldOf(fields, name) },
		Body:   body[:min(len(body), maxClassified)],
	})
	return &ConnectError{Phase: PhaseConnect, Cause: cause, Status: status, Advice: verdict.Advice}
}

// reasonOf is the reason phrase of a status line that parseStatusLine took.
func reasonOf(line []byte) string {
	const before = "HTTP/1.x 200 "
	return string(textproto.TrimBytes(line[min(len(before), len(line)):]))
}

// fieldOf is the first value of a field among the lines of a head, as parseFields has it, ""
// without the field.
func fieldOf(fields []byte, name string) string {
	for len(fields) > 0 {
		var line []byte
		line, fields, _ = bytes.Cut(fields, []byte("\n"))
		if len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name) {
			return string(unfold(line[len(name)+1:], fields))
		}
	}
	return ""
}

// unfold is a field's value with the lines that continue it, joined with spaces (RFC 9112
// §5.2). Hardly any are.
func unfold(value, rest []byte) []byte {
	value = textproto.TrimBytes(value)
	for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
		var more []byte
		more, rest, _ = bytes.Cut(rest, []byte("\n"))
		value = slices.Concat(value, []byte(" "), textproto.TrimBytes(more))
	}
	return textproto.TrimBytes(value)
}

// replyScan looks through an answer that comes in pieces. It never looks at a line
// twice, so that a gateway cannot make it expensive by sending little at a time.
type replyScan struct {
	start uint16 // of the head under way; 1xx heads stand before it
	from  uint16 // where, after start, to look for its end
}

// look looks at all that came so far. n > 0: the tunnel is open and b[n:] is the
// target's; (0, nil): more is needed. Any 2xx opens the tunnel (RFC 9110 §9.3.6), 1xx
// heads are skipped, and a 2xx that announces a body is refused: the gateway's words
// would become the tunnel's first bytes. Other answers mean what g's preset says.
func (r *replyScan) look(g *gateway, b []byte) (n int, failure *ConnectError) {
	fail := func(cause Cause, status int, err error) (int, *ConnectError) {
		return 0, &ConnectError{Phase: PhaseConnect, Cause: cause, Status: status, Err: err}
	}
	for start := int(r.start); ; r.start, r.from = uint16(start), 0 {
		rest := b[start:]
		size, from := headSize(rest, int(r.from))
		switch {
		case size == 0 && !startsHTTP(rest):
			return fail(CauseMalformed, 0, errMalformedReply)
		case size == 0 && len(b) >= maxReplyHead, start+size > maxReplyHead:
			return fail(CauseMalformed, 0, errReplyTooLong)
		case size == 0:
			r.from = uint16(from) // less than maxReplyHead
			return 0, nil
		}
		head, ok := parseHead(rest[:size])
		start += size
		switch {
		case !ok:
			return fail(CauseMalformed, 0, errMalformedReply)
		case head.status == 101:
			return fail(CauseMalformed, head.status, errSwitches)
		case head.status < 200:
			continue
		case head.status > 299:
			return 0, refusal(g, head.status, rest[:size], rest[size:])
		case head.body:
			return fail(CauseBody, head.status, nil)
		}
		return start, nil
	}
}

// startsHTTP reports whether b may be the beginning of an answer: a server that does
// not speak HTTP is known by its first bytes.
func startsHTTP(b []byte) bool {
	n := min(len(b), 7)
	return string(b[:n]) == "HTTP/1."[:n]
}

// parseHead reads one head with its empty line. Line ends may be bare LF (RFC 9112
// §2.2). A field that could announce a body counts as one even when it is spelled
// badly: in doubt the tunnel is not opened.
func parseHead(b []byte) (replyHead, bool) {
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	status, ok := parseStatusLine(bytes.TrimSuffix(line, []byte("\r")))
	if !ok {
		return replyHead{}, false
	}
	h := replyHead{status: status}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		name = bytes.TrimSpace(name)
		switch {
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.body = true
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 63)
			h.body = h.body || err != nil || n > 0
		}
	}
	return h, true
}

// headSize finds the end of a head, the first empty line, at or after from. While
// there is none, resume is where to go on when more bytes have come.
func headSize(b []byte, from int) (size, resume int) {
	for at := from; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0, len(b)
		}
		at += i + 1
		switch {
		case at < len(b) && b[at] == '\n':
			return at + 1, 0
		case at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n':
			return at + 2, 0
		case at == len(b), at+1 == len(b) && b[at] == '\r':
			return 0, at - 1 // what follows decides
		}
	}
}

// parseStatusLine takes HTTP/1.0 or HTTP/1.1, three digits, and anything after a space.
func parseStatusLine(line []byte) (int, bool) {
	const prefix = "HTTP/1.x "
	if len(line) < len(prefix)+3 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return 0, false
	}
	code := line[len(prefix) : len(prefix)+3]
	if rest := line[len(prefix)+3:]; len(rest) > 0 && rest[0] != ' ' {
		return 0, false
	}
	status := 0
	for _, c := range code {
		if c < '0' || c > '9' {
			return 0, false
		}
		status = status*10 + int(c-'0')
	}
	return status, status >= 100
}

// appendConnect appends the whole request for a tunnel.
func appendConnect(b []byte, target, authorization string) []byte {
	b = append(b, "CONNECT "...)
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, target...)
	if authorization != "" {
		b = append(b, "\r\nProxy-Authorization: "...)
		b = append(b, authorization...)
	}
	return append(b, "\r\n\r\n"...)
}
