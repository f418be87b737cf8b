package upstreamtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// maxHead is the largest message head that a server here reads, in bytes.
const maxHead = 64 << 10

var (
	errHeadTooLarge  = errors.New("upstreamtest: message head too large")
	errMalformedHead = errors.New("upstreamtest: malformed message head")
)

// RecordedRequest is a request head as it came off the wire. It is immutable.
type RecordedRequest struct {
	Raw    []byte // the whole head with its empty line
	Method string
	Target string // as sent: authority, absolute or origin form
	Proto  string
	Lines  []string    // header lines in received order and case, without line ends
	Header http.Header // the same, by canonical name
}

// HasBody reports whether the head announces a body.
func (r *RecordedRequest) HasBody() bool {
	length := r.Header.Get("Content-Length")
	return r.Header.Get("Transfer-Encoding") != "" || (length != "" && length != "0")
}

// readHead reads up to and including the empty line. Empty lines before the
// head are skipped. On an error it returns what it has.
func readHead(br *bufio.Reader) ([]byte, error) {
	var head []byte
	start := 0 // of the current line
	for {
		part, err := br.ReadSlice('\n')
		head = append(head, part...)
		if len(head) > maxHead {
			return head, errHeadTooLarge
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return head, err
		}
		if line := head[start:]; len(bytes.TrimRight(line, "\r\n")) == 0 {
			if start > 0 {
				return head, nil
			}
			head = head[:0]
		}
		start = len(head)
	}
}

// parseRequest splits a request head. It is lenient: the recording matters more than the rules.
func parseRequest(raw []byte) (*RecordedRequest, error) {
	m := splitHead(raw)
	parts := strings.Split(m.first, " ")
	if len(parts) != 3 || !strings.HasPrefix(parts[2], "HTTP/") || parts[0] == "" || parts[1] == "" {
		return nil, fmt.Errorf("%w: request line of %d bytes", errMalformedHead, len(m.first))
	}
	return &RecordedRequest{
		Raw: raw, Method: parts[0], Target: parts[1], Proto: parts[2],
		Lines: m.lines, Header: m.header(),
	}, nil
}

// message is a message head that can be changed without disturbing the order and case of the rest.
type message struct {
	first string
	lines []string
}

// splitHead splits a head into its first line and its header lines.
func splitHead(raw []byte) message {
	lines := strings.Split(strings.TrimRight(string(raw), "\r\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSuffix(line, "\r")
	}
	return message{first: lines[0], lines: lines[1:]}
}

// header returns the lines by canonical name.
func (m *message) header() http.Header {
	h := http.Header{}
	for _, line := range m.lines {
		if name, value, ok := strings.Cut(line, ":"); ok {
			h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return h
}

// drop removes every line of the given names, in any case.
func (m *message) drop(names ...string) {
	m.lines = slices.DeleteFunc(m.lines, func(line string) bool {
		name, _, _ := strings.Cut(line, ":")
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, strings.TrimSpace(name)) })
	})
}

// bytes returns the head as it goes on the wire.
func (m *message) bytes() []byte {
	var b bytes.Buffer
	b.WriteString(m.first + "\r\n")
	for _, line := range m.lines {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// status returns the status code of a response head, 0 if it has none of three digits.
func (m *message) status() int {
	version, rest, _ := strings.Cut(m.first, " ")
	digits, _, _ := strings.Cut(rest, " ")
	code, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || len(digits) != 3 || !strings.HasPrefix(version, "HTTP/") {
		return 0
	}
	return int(code)
}

// headWindow keeps the last bytes of a connection so that a handler behind
// net/http can find its own request's head as it was sent.
type headWindow struct {
	mu  sync.Mutex // guards buf: net/http reads in the background while a handler runs
	buf []byte
}

// windowSize holds a whole head and what net/http reads ahead.
const windowSize = maxHead + 8<<10

// add appends p and forgets what no longer fits.
func (w *headWindow) add(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(p) > windowSize {
		p = p[len(p)-windowSize:]
	}
	w.buf = append(w.buf, p...)
	if len(w.buf) > 2*windowSize {
		w.buf = append(w.buf[:0], w.buf[len(w.buf)-windowSize:]...)
	}
}

// take returns the head that starts with the given request line and forgets
// everything up to its end; nil if it is not there.
func (w *headWindow) take(requestLine string) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	start := bytes.Index(w.buf, []byte(requestLine))
	if start < 0 {
		return nil
	}
	end := bytes.Index(w.buf[start:], []byte("\r\n\r\n"))
	if end < 0 {
		return nil
	}
	head := bytes.Clone(w.buf[start : start+end+4])
	w.buf = append(w.buf[:0], w.buf[start+end+4:]...)
	return head
}
