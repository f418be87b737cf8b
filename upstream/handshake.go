package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
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

// replyScan looks through an answer that comes in pieces. It never looks at a line
// twice, so that a gateway cannot make it expensive by sending little at a time.
type replyScan struct {
	start uint16 // of the head under way; 1xx heads stand before it
	from  uint16 // where, after start, to look for its end
}

// look looks at all that came so far. n > 0: the tunnel is open and b[n:] is the
// target's; (0, nil): more is needed. Any 2xx opens the tunnel (RFC 9110 §9.3.6), 1xx
// heads are skipped, and a 2xx that announces a body is refused: the gateway's words
// would become the tunnel's first bytes.
func (r *replyScan) look(b []byte) (n int, failure *ConnectError) {
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
			return fail(statusCause(head.status), head.status, nil)
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

// replyBuffers holds the buffers of handshakes under way; none is held after.
var replyBuffers = sync.Pool{New: func() any { return new([maxReplyHead]byte) }}

// openTunnel asks for a tunnel to target over conn and returns the bytes that the
// gateway sent after its head (the target's first words; the caller owns them).
// The request carries Host and Proxy-Authorization and nothing else.
// ctx's end and the deadline interrupt it; on return no deadline is set.
func openTunnel(ctx context.Context, conn net.Conn, target, authorization string) ([]byte, *ConnectError) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	early, failure := exchangeConnect(ctx, conn, target, authorization)
	if !stop() && failure == nil {
		// ctx ended as the answer came; its function may set the deadline at any time.
		return nil, &ConnectError{Phase: PhaseConnect, Cause: netCause(ctx, ctx.Err(), CauseTimeout), Err: ctx.Err()}
	}
	_ = conn.SetDeadline(time.Time{})
	return early, failure
}

func exchangeConnect(ctx context.Context, conn net.Conn, target, authorization string) ([]byte, *ConnectError) {
	request := appendConnect(make([]byte, 0, connectSize(target, authorization)), target, authorization)
	if _, err := conn.Write(request); err != nil {
		return nil, &ConnectError{Phase: PhaseConnect, Cause: netCause(ctx, err, CauseClosed), Err: err}
	}
	buf := replyBuffers.Get().(*[maxReplyHead]byte)
	defer replyBuffers.Put(buf)
	return readReply(ctx, conn, buf[:])
}

// connectSize is the size of what appendConnect appends, or a little more.
func connectSize(target, authorization string) int {
	return len("CONNECT  HTTP/1.1\r\nHost: \r\nProxy-Authorization: \r\n\r\n") + 2*len(target) + len(authorization)
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

// readReply reads heads until one decides.
func readReply(ctx context.Context, conn net.Conn, buf []byte) ([]byte, *ConnectError) {
	var scan replyScan
	for end := 0; ; {
		n, err := conn.Read(buf[end:])
		if end += n; err != nil && n == 0 {
			if errors.Is(err, io.EOF) && end > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, &ConnectError{Phase: PhaseConnect, Cause: netCause(ctx, err, CauseClosed), Err: err}
		}
		start, failure := scan.look(buf[:end])
		switch {
		case failure != nil:
			return nil, failure
		case start > 0:
			return bytes.Clone(buf[start:end]), nil
		}
	}
}
