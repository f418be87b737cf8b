package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

// FuzzAnswerHead compares the head's reader with net/http's. What it accepts net/http
// accepts too; and unless the connection is given up after the answer, both agree
// where the answer ends.
func FuzzAnswerHead(f *testing.F) {
	for _, test := range answerTests {
		f.Add([]byte(test.text), test.method == http.MethodHead)
	}
	for _, text := range malformedHeads {
		f.Add([]byte(text), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, isHead bool) {
		size := endOfHead(b, 0)
		for seen := range size {
			if got := endOfHead(b[:seen], 0); got != 0 {
				t.Fatalf("%d bytes of %q have an end at %d", seen, b, got)
			}
			if got := endOfHead(b, seen); got != size {
				t.Fatalf("looking on from %d in %q: %d, want %d", seen, b, got, size)
			}
		}
		if size == 0 || size > 1<<12 {
			return
		}
		head, err := parseAnswer(b[:size])
		if err != nil {
			return
		}
		method := http.MethodGet
		if isHead {
			method = http.MethodHead
		}
		got, _, err := head.frame(method)
		if err != nil {
			return
		}
		compareHeads(t, b[:size], method, &head, got)
	})
}

func compareHeads(t *testing.T, b []byte, method string, head *answerHead, got framing) {
	for name, values := range head.header {
		if !httpguts.ValidHeaderFieldName(name) || strings.ContainsAny(strings.Join(values, ""), "\r\n\x00") {
			t.Fatalf("%q: field %q: %q", b, name, values)
		}
	}
	want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: method})
	if err != nil {
		if strings.Contains(err.Error(), "bad trailer key") || strings.Contains(err.Error(), "malformed MIME header") {
			return // names that are no tokens are left out here, refused there
		}
		t.Fatalf("%q is taken; net/http: %v", b, err)
	}
	if err := want.Body.Close(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if want.StatusCode != head.status {
		t.Fatalf("%q: status %d, net/http %d", b, head.status, want.StatusCode)
	}
	if got.close {
		return
	}
	chunked := len(want.TransferEncoding) > 0 && method != http.MethodHead && head.status != 304
	length := want.ContentLength
	if method == http.MethodHead || head.status == 304 || head.status == 204 || head.status < 200 {
		length = 0
	}
	if want.Close || got.chunked != chunked || got.length != length && !chunked {
		t.Fatalf("%q: %+v, net/http: close %v, chunked %v, length %d", b, got, want.Close, chunked, length)
	}
}

// FuzzChunks compares the chunks' reader with net/http's: what comes to an orderly end
// here is the same there.
func FuzzChunks(f *testing.F) {
	for _, test := range answerTests {
		if _, body, ok := strings.Cut(test.text, "chunked\r\n\r\n"); ok {
			f.Add([]byte(body), uint8(7))
		}
	}
	f.Add([]byte("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		x := &plainExchange{over: true}
		x.in.conn = &scriptConn{data: b, step: int(step)%16 + 1}
		body := &answerBody{x: x, framing: framing{chunked: true, length: -1}}
		var got []byte
		var err error
		for buf := make([]byte, int(step)+1); err == nil; {
			var n int
			n, err = body.read(buf)
			got = append(got, buf[:n]...)
		}
		rest := len(x.in.buffered()) + len(x.in.conn.(*scriptConn).data)
		x.in.free()
		if !errors.Is(err, io.EOF) {
			return
		}
		reader := bufio.NewReader(bytes.NewReader(b))
		want, err := io.ReadAll(httputil.NewChunkedReader(reader))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q, net/http %q, %v", b, got, want, err)
		}
		if !bytes.HasSuffix(b[:len(b)-rest], []byte("\r\n")) {
			t.Fatalf("%q: ends at %d", b, len(b)-rest)
		}
	})
}

// scriptConn gives its data out in steps.
type scriptConn struct {
	net.Conn
	data []byte
	step int
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.data[:min(c.step, len(c.data))])
	c.data = c.data[n:]
	return n, nil
}
