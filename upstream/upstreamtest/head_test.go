package upstreamtest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestReadHead(t *testing.T) {
	t.Parallel()
	long := "X: " + strings.Repeat("x", 10_000) + "\r\n"
	tests := []struct {
		name, in, head, rest string
		err                  error
	}{
		{"simple", "GET / HTTP/1.1\r\nA: b\r\n\r\nrest", "GET / HTTP/1.1\r\nA: b\r\n\r\n", "rest", nil},
		{"bare line feeds", "GET / HTTP/1.1\nA: b\n\nrest", "GET / HTTP/1.1\nA: b\n\n", "rest", nil},
		{"no fields", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "", nil},
		{"empty lines first", "\r\n\nGET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "", nil},
		{"line longer than the buffer", "GET / HTTP/1.1\r\n" + long + "\r\nrest", "GET / HTTP/1.1\r\n" + long + "\r\n", "rest", nil},
		{"cut", "GET / HT", "GET / HT", "", io.EOF},
		{"too large", strings.Repeat("x", maxHead+5000), "", "", errHeadTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			br := bufio.NewReader(strings.NewReader(tt.in))
			head, err := readHead(br)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v", err)
			}
			if errors.Is(err, errHeadTooLarge) {
				return
			}
			if string(head) != tt.head {
				t.Errorf("head %.60q", head)
			}
			if rest := must(io.ReadAll(br))(t); string(rest) != tt.rest {
				t.Errorf("rest %q", rest)
			}
		})
	}
}

func TestParseRequest(t *testing.T) {
	t.Parallel()
	req := must(parseRequest([]byte("POST http://a/ HTTP/1.1\r\nhOST: a\r\nX-b:  c \r\nX-B: d\r\ncontent-length: 3\r\n\r\n")))(t)
	if req.Method != "POST" || req.Target != "http://a/" || req.Proto != "HTTP/1.1" || !req.HasBody() {
		t.Errorf("got %+v", req)
	}
	if !slices.Equal(req.Lines, []string{"hOST: a", "X-b:  c ", "X-B: d", "content-length: 3"}) {
		t.Errorf("lines %q", req.Lines)
	}
	if !slices.Equal(req.Header.Values("x-b"), []string{"c", "d"}) {
		t.Errorf("header %q", req.Header)
	}
	for _, bad := range []string{"", "GET\r\n\r\n", "GET / \r\n\r\n", "GET / FTP/1\r\n\r\n", "\x16\x03\x01\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n"} {
		if _, err := parseRequest([]byte(bad)); !errors.Is(err, errMalformedHead) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestMessageKeepsWhatItDoesNotDrop(t *testing.T) {
	t.Parallel()
	m := splitHead([]byte("HTTP/1.1 200 OK\r\nb: 1\r\nCONNECTION: x\r\nA: 2\r\nconnection: y\r\n\r\n"))
	m.drop("Connection", "Absent")
	if got := string(m.bytes()); got != "HTTP/1.1 200 OK\r\nb: 1\r\nA: 2\r\n\r\n" {
		t.Errorf("got %q", got)
	}
	if m.status() != 200 || (&message{first: "nonsense"}).status() != 0 {
		t.Error("status codes")
	}
}

func TestHeadWindow(t *testing.T) {
	t.Parallel()
	var w headWindow
	w.add([]byte("GET /a HTTP/1.1\r\nX: 1\r\n\r\n"))
	if got := string(w.take("GET /a HTTP/1.1")); got != "GET /a HTTP/1.1\r\nX: 1\r\n\r\n" {
		t.Errorf("first %q", got)
	}
	if got := w.take("GET /a HTTP/1.1"); got != nil {
		t.Errorf("taken twice: %q", got)
	}
	w.add(bytes.Repeat([]byte("body"), 100_000))
	w.add([]byte("GET /a HTTP/1.1\r\nX: 2\r\n\r\nGET /a HTTP/1.1\r\nX: 3\r\n\r\n"))
	for _, want := range []string{"X: 2", "X: 3"} {
		if got := string(w.take("GET /a HTTP/1.1")); !strings.Contains(got, want) {
			t.Errorf("got %q, want %s", got, want)
		}
	}
	for range 1000 {
		w.add(make([]byte, 1000))
	}
	if len(w.buf) > 2*windowSize {
		t.Errorf("window of %d bytes", len(w.buf))
	}
}

func TestCopyBody(t *testing.T) {
	t.Parallel()
	const chunks = "4\r\nwiki\r\nA;ext=1\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n"
	tests := []struct {
		name, in string
		f        framing
		out      string
		ok       bool
	}{
		{"none", "next", framing{}, "", true},
		{"length", "12345next", framing{kind: byLength, length: 5}, "12345", true},
		{"length cut", "123", framing{kind: byLength, length: 5}, "123", false},
		{"chunked with extension and trailer", chunks + "next", framing{kind: chunked}, chunks, true},
		{"chunked cut", "4\r\nwi", framing{kind: chunked}, "4\r\nwi", false},
		{"chunked without trailer end", "0\r\nX: 1\r\n", framing{kind: chunked}, "0\r\nX: 1\r\n", false},
		{"bad chunk size", "zz\r\n", framing{kind: chunked}, "", false},
		{"negative chunk size", "-1\r\n", framing{kind: chunked}, "", false},
		{"until close", "all of it", framing{kind: untilClose}, "all of it", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := copyBody(&out, bufio.NewReader(strings.NewReader(tt.in)), tt.f)
			if out.String() != tt.out || (err == nil) != tt.ok {
				t.Errorf("got %q, %v", out.String(), err)
			}
		})
	}
}

func FuzzHead(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:443 HTTP/1.0\n\n", "\r\n\r\n", "HTTP/1.1 200\r\n\r\n",
		"POST http://[::1]/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n", ":\r\n\r\n", "a b c\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReader(bytes.NewReader(in))
		head, err := readHead(br)
		if !bytes.Contains(in, head) {
			t.Fatalf("head %q is not in the input", head)
		}
		if err != nil {
			return
		}
		m := splitHead(head)
		again := splitHead(m.bytes())
		if again.first != m.first || !slices.Equal(again.lines, m.lines) {
			t.Fatalf("%q does not survive being written", head)
		}
		_ = m.status()
		req, err := parseRequest(head)
		if err != nil {
			return
		}
		var out bytes.Buffer
		rest := in[bytes.Index(in, head)+len(head):]
		err = copyBody(&out, br, requestFraming(req.Header))
		if !bytes.HasPrefix(rest, out.Bytes()) {
			t.Fatalf("body %q is not what came (%v)", out.Bytes(), err)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0x81, 0x82, 1, 2, 3, 4, 'h' ^ 1, 'i' ^ 2})
	f.Add([]byte{0x81, 0xfe, 0, 1, 0, 0, 0, 0, 'x'})
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x81, 0x02, 'h', 'i'})
	f.Fuzz(func(t *testing.T, in []byte) {
		first, payload, err := readFrame(bufio.NewReader(bytes.NewReader(in)))
		if err != nil {
			return
		}
		if out := frame(first, payload); out[0] != in[0] || !bytes.HasSuffix(out, payload) || len(out) > len(in) {
			t.Fatalf("frame %x became %x", in, out)
		}
	})
}
