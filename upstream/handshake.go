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
	errReplyTooLong   = errors.New("the answer's head is longer than 16 KB")
)

// replyHead is what the handshake needs of a gateway's answer; the rest is dropped.
type replyHead struct {
	status int
	body   bool // Transfer-Encoding, or a Content-Length that is not 0
}

// parseReply reads one head from the start of b. It returns the head's size with
// the empty line, 0 while the head is incomplete. Line ends may be bare LF
// (RFC 9112 §2.2). A field that could announce a body counts as one even when it
// is spelled badly: in doubt the tunnel is not opened.
func parseReply(b []byte) (replyHead, int, error) {
	size := headSize(b)
	if size == 0 {
		// A server that does not speak HTTP is known by its first bytes.
		if n := min(len(b), 7); string(b[:n]) != "HTTP/1."[:n] {
			return replyHead{}, 0, errMalformedReply
		}
		return replyHead{}, 0, nil
	}
	line, rest, _ := bytes.Cut(b[:size], []byte("\n"))
	status, ok := parseStatusLine(bytes.TrimSuffix(line, []byte("\r")))
	if !ok {
		return replyHead{}, 0, errMalformedReply
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
	return h, size, nil
}

// headSize finds the end of a head: the first empty line.
func headSize(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		at += i + 1
		switch {
		case at < len(b) && b[at] == '\n':
			return at + 1
		case at+1 < len(b) && b[at] == '\r' && b[at+1] == '\n':
			return at + 2
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
// Any 2xx opens the tunnel (RFC 9110 §9.3.6), 1xx heads are skipped, and a 2xx
// that announces a body is refused: the gateway's words would become the tunnel's
// first bytes. The request carries Host and Proxy-Authorization and nothing else.
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
	request := make([]byte, 0, 256)
	request = append(request, "CONNECT "...)
	request = append(request, target...)
	request = append(request, " HTTP/1.1\r\nHost: "...)
	request = append(request, target...)
	if authorization != "" {
		request = append(request, "\r\nProxy-Authorization: "...)
		request = append(request, authorization...)
	}
	request = append(request, "\r\n\r\n"...)
	if _, err := conn.Write(request); err != nil {
		return nil, &ConnectError{Phase: PhaseConnect, Cause: netCause(ctx, err, CauseClosed), Err: err}
	}
	buf := replyBuffers.Get().(*[maxReplyHead]byte)
	defer replyBuffers.Put(buf)
	return readReply(ctx, conn, buf[:])
}

// readReply reads heads until one decides.
func readReply(ctx context.Context, conn net.Conn, buf []byte) ([]byte, *ConnectError) {
	fail := func(cause Cause, status int, err error) ([]byte, *ConnectError) {
		return nil, &ConnectError{Phase: PhaseConnect, Cause: cause, Status: status, Err: err}
	}
	start, end := 0, 0
	for {
		head, size, err := parseReply(buf[start:end])
		switch {
		case err != nil:
			return fail(CauseMalformed, 0, err)
		case size == 0 && end == len(buf):
			return fail(CauseMalformed, 0, errReplyTooLong)
		case size == 0:
			n, err := conn.Read(buf[end:])
			if end += n; err != nil && n == 0 {
				if errors.Is(err, io.EOF) && end > 0 {
					err = io.ErrUnexpectedEOF
				}
				return fail(netCause(ctx, err, CauseClosed), 0, err)
			}
			continue
		}
		start += size
		switch {
		case head.status == 101:
			return fail(CauseMalformed, head.status, errors.New("switches protocols unasked"))
		case head.status < 200:
			continue
		case head.status > 299:
			return fail(statusCause(head.status), head.status, nil)
		case head.body:
			return fail(CauseBody, head.status, nil)
		}
		return bytes.Clone(buf[start:end]), nil
	}
}
