package upstreamtest

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// get asks a judge on a connection of its own.
func get(t *testing.T, j *Judge, request string) (*http.Response, string) {
	t.Helper()
	c := dial(t, j.Addr())
	c.send(request)
	method, _, _ := strings.Cut(request, " ")
	return c.response(method)
}

func TestJudgeTellsWhatItSaw(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	c := dial(t, j.Addr())
	head := "POST /?q=%20a HTTP/1.1\r\nx-LOWER: 1\r\nHost: site.example\r\nB: 2\r\nA: 3\r\nB:  4\r\nContent-Length: 5\r\n\r\n"
	for range 2 { // the second time on a connection that has seen the same before
		c.send(head + "hello")
		_, body := c.response("POST")
		var seen Seen
		if err := json.Unmarshal([]byte(body), &seen); err != nil {
			t.Fatal(err)
		}
		want := []string{"x-LOWER: 1", "Host: site.example", "B: 2", "A: 3", "B:  4", "Content-Length: 5"}
		if !slices.Equal(seen.Lines, want) || seen.Rebuilt {
			t.Errorf("lines %q", seen.Lines)
		}
		if seen.Method != "POST" || seen.Target != "/?q=%20a" || seen.Host != "site.example" || seen.Remote != c.LocalAddr().String() {
			t.Errorf("saw %+v", seen)
		}
		if seen.Body.Bytes != 5 || seen.Body.SHA256 != "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
			t.Errorf("body %+v", seen.Body)
		}
	}
	if got := string(j.Received()); got != head+"hello"+head+"hello" {
		t.Errorf("received %q", got)
	}
	if reqs := j.Conns()[0].Requests(); len(reqs) != 2 || string(reqs[1].Raw) != head {
		t.Errorf("%d requests", len(reqs))
	}
}

func TestJudgePages(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	const end = " HTTP/1.1\r\nHost: a\r\n"
	big := must(io.ReadAll(Pattern(100_000)))(t)
	tests := []struct {
		name, request string
		status        int
		body          string
		check         func(*http.Response) bool
	}{
		{"bytes", "GET /bytes?n=100000" + end + "\r\n", 200, string(big), func(r *http.Response) bool { return r.ContentLength == 100_000 }},
		{"bytes by HEAD", "HEAD /bytes?n=7" + end + "\r\n", 200, "", func(r *http.Response) bool { return r.ContentLength == 7 }},
		{"bytes, bad", "GET /bytes?n=-1" + end + "\r\n", 400, "n: a number of bytes is needed\n", nil},
		{"digest", "POST /digest" + end + "Content-Length: 2\r\n\r\nhi", 200,
			`{"bytes":2,"sha256":"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"}` + "\n", nil},
		{"digest of chunks with trailer", "POST /digest" + end + "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nhi\r\n0\r\nX-T: v\r\n\r\n", 200,
			`{"bytes":2,"sha256":"8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4","trailers":["X-T: v"]}` + "\n", nil},
		{"stream", "GET /stream?n=2&interval=1ms" + end + "\r\n", 200, "{\"line\":0}\n{\"line\":1}\n",
			func(r *http.Response) bool { return slices.Equal(r.TransferEncoding, []string{"chunked"}) }},
		{"gzip not asked for", "GET /gzip" + end + "\r\n", 200, strings.Repeat(gzipText, 64),
			func(r *http.Response) bool { return r.Header.Get("Content-Encoding") == "" }},
		{"no type, no date", "GET /notype" + end + "\r\n", 200, "<html>untyped and undated</html>\n",
			func(r *http.Response) bool { return r.Header["Content-Type"] == nil && r.Header["Date"] == nil }},
		{"trailers", "GET /trailers" + end + "\r\n", 200, "body before trailers\n",
			func(r *http.Response) bool { return r.Trailer.Get("X-Checksum") == "c0ffee" }},
		{"status", "GET /status?code=418" + end + "\r\n", 418, "the target says 418\n", nil},
		{"status without body", "GET /status?code=204" + end + "\r\n", 204, "", nil},
		{"status too small", "GET /status?code=100" + end + "\r\n", 400, "code: 200 to 999\n", nil},
		{"slow", "GET /slow?delay=1ms" + end + "\r\n", 200, "at last\n", nil},
		{"redirect", "GET /redirect?to=http://b.example/x" + end + "\r\n", 302, "",
			func(r *http.Response) bool { return r.Header.Get("Location") == "http://b.example/x" }},
		{"redirect with code", "GET /redirect?code=308" + end + "\r\n", 308, "", nil},
		{"expectation refused", "POST /continue?refuse=1" + end + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", 417, "not wanted\n", nil},
		{"no expectation", "POST /continue" + end + "Content-Length: 2\r\n\r\nhi", 400, "Expect: 100-continue is needed\n", nil},
		{"no handshake", "GET /ws" + end + "\r\n", 426, "a websocket handshake is needed\n", nil},
		{"unknown", "GET /unknown" + end + "\r\n", 404, "no such page\n", nil},
		{"unclean path is not redirected", "GET //bytes" + end + "\r\n", 404, "no such page\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, body := get(t, j, tt.request)
			if resp.StatusCode != tt.status || body != tt.body {
				t.Errorf("got %s %.200q", resp.Status, body)
			}
			if tt.check != nil && !tt.check(resp) {
				t.Errorf("header %v, trailer %v, length %d, encoding %q", resp.Header, resp.Trailer, resp.ContentLength, resp.TransferEncoding)
			}
		})
	}
}

func TestJudgeGzip(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	resp, body := get(t, j, "GET /gzip HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br, gzip\r\n\r\n")
	z := must(gzip.NewReader(strings.NewReader(body)))(t)
	if text := must(io.ReadAll(z))(t); resp.Header.Get("Content-Encoding") != "gzip" || string(text) != strings.Repeat(gzipText, 64) {
		t.Errorf("got %v %.60q", resp.Header, text)
	}
}

func TestJudgeInterimResponses(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	c := dial(t, j.Addr())
	c.send("GET /earlyhints HTTP/1.1\r\nHost: a\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 103 ") || !strings.Contains(head, "Link: </style.css>") {
		t.Errorf("first %q", head)
	}
	if _, body := c.response("GET"); body != "after early hints\n" {
		t.Errorf("then %q", body)
	}
	c.send("POST /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 100 ") {
		t.Errorf("no 100 but %q", head)
	}
	c.send("hi")
	if resp, body := c.response("POST"); resp.StatusCode != 200 || !strings.Contains(body, `"bytes":2`) {
		t.Errorf("then %s %q", resp.Status, body)
	}
}

func TestJudgeStreamIsFlushed(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	c := dial(t, j.Addr())
	c.send("GET /stream?n=2&interval=1m HTTP/1.1\r\nHost: a\r\n\r\n")
	c.head()
	if got := c.exactly(len("b\r\n{\"line\":0}\n\r\n")); got != "b\r\n{\"line\":0}\n\r\n" {
		t.Errorf("got %q", got)
	} // the next line is a minute away: the end of the test cuts it
}

const handshake = "GET %s HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// masked builds a client's frame.
func masked(first byte, payload string) string {
	mask := [4]byte{9, 8, 7, 6}
	b := frame(first, []byte(payload))
	head := len(b) - len(payload)
	b[1] |= 0x80
	for i := range payload {
		b[head+i] ^= mask[i%4]
	}
	return string(b[:head]) + string(mask[:]) + string(b[head:])
}

func TestJudgeWebsocket(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	c := dial(t, j.Addr())
	c.send(fmt.Sprintf(handshake, "/ws") + masked(0x81, "early"))
	// The key and its answer are RFC 6455's own example (§1.3).
	if head := c.head(); !strings.Contains(head, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") {
		t.Errorf("head %q", head)
	}
	long, huge := strings.Repeat("l", 60_000), strings.Repeat("h", 70_000)
	for _, step := range []struct{ send, want string }{
		{"", string(frame(0x81, []byte("early")))},
		{masked(0x82, long), string(frame(0x82, []byte(long)))},
		{masked(0x82, huge), string(frame(0x82, []byte(huge)))},
		{masked(0x01, "frag") + masked(0x80, "ment"), string(frame(0x01, []byte("frag"))) + string(frame(0x80, []byte("ment")))},
		{masked(0x8a, "pong") + masked(0x89, "ping"), string(frame(0x8a, []byte("ping")))},
		{masked(0x88, "\x03\xe8"), string(frame(0x88, []byte("\x03\xe8")))},
	} {
		c.send(step.send)
		if got := c.exactly(len(step.want)); got != step.want {
			t.Errorf("got %.40q, want %.40q", got, step.want)
		}
	}
	if got := c.rest(); got != "" {
		t.Errorf("after close: %q", got)
	}
}

func TestJudgeRawUpgrade(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	c := dial(t, j.Addr())
	c.send(fmt.Sprintf(handshake, "/ws?raw=1") + "early")
	c.head()
	c.send(" late")
	c.fin()
	if got := c.rest(); got != "early late" {
		t.Errorf("got %q", got)
	}
}

func TestReadFrameRefuses(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"unmasked":  string(frame(0x81, []byte("x"))),
		"too large": "\x82\xff\x00\x00\x00\x00\x7f\xff\xff\xff",
		"cut":       "\x82\xfe\x00",
		"empty":     "",
	} {
		if _, _, err := readFrame(bufio.NewReader(strings.NewReader(in))); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestJudgeTLS(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{TLS: true, Names: []string{"shop.example.test"}})
	raw := dial(t, j.Addr())
	c := tls.Client(raw.TCPConn, &tls.Config{RootCAs: j.CertPool(), ServerName: "shop.example.test", NextProtos: []string{"h2", "http/1.1"}})
	if _, err := io.WriteString(c, "GET /notype HTTP/1.1\r\nHost: shop.example.test\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got := string(must(io.ReadAll(c))(t))
	if !strings.HasSuffix(got, "undated</html>\n") || c.ConnectionState().NegotiatedProtocol != "http/1.1" {
		t.Errorf("got %q by %q", got, c.ConnectionState().NegotiatedProtocol)
	}
	if r := string(j.Received()); !strings.HasPrefix(r, "GET /notype HTTP/1.1\r\nHost: shop") {
		t.Errorf("received %q", r)
	}
	if !strings.HasPrefix(j.URL(), "https://127.0.0.1:") || j.CA() == nil {
		t.Errorf("URL %s", j.URL())
	}
	if plain := startJudge(t, JudgeConfig{}); plain.CertPool() != nil {
		t.Error("a plain judge has a pool")
	}
}

func TestJudgeCloseEndsSlowHandlers(t *testing.T) {
	t.Parallel()
	j := must(StartJudge(JudgeConfig{}))(t)
	slow, ws := dial(t, j.Addr()), dial(t, j.Addr())
	ws.send(fmt.Sprintf(handshake, "/ws"))
	ws.head()
	slow.send("GET /stream?n=2&interval=1m HTTP/1.1\r\nHost: a\r\n\r\n")
	slow.head()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j.Open() != 0 || j.Accepted() != 2 {
		t.Errorf("open %d, accepted %d", j.Open(), j.Accepted())
	}
	for _, r := range j.Conns() {
		awaitClosed(t, r)
	}
}

func TestPatternIsStable(t *testing.T) {
	t.Parallel()
	a, b := must(io.ReadAll(Pattern(1000)))(t), must(io.ReadAll(Pattern(2000)))(t)
	if len(a) != 1000 || string(a) != string(b[:1000]) || string(b[:1000]) == string(b[1000:]) {
		t.Error("pattern is not a stable prefix of itself, or repeats")
	}
	if n := len(must(io.ReadAll(Pattern(-1)))(t)); n != 0 {
		t.Errorf("%d bytes of a negative pattern", n)
	}
}
