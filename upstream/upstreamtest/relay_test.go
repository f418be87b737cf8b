package upstreamtest

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestPlainRequestsThroughRelay(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	v := startVendor(t, VendorConfig{Username: "customer-x", Password: "pass-y"})
	auth := "Proxy-Authorization: Basic " + v.basic() + "\r\n"
	c := dial(t, v.Addr()) // one connection for all: every step must leave it usable
	steps := []struct {
		name, method, path, head, body string
		status                         int
		want                           string
	}{
		{"get", "GET", "/stream?n=1", "", "", 200, "{\"line\":0}\n"},
		{"post with length", "POST", "/digest", "Content-Length: 2\r\n", "hi", 200, `"bytes":2`},
		{"post in chunks", "POST", "/digest", "Transfer-Encoding: chunked\r\nTrailer: X-T\r\n", "2\r\nhi\r\n0\r\nX-T: v\r\n\r\n", 200, `"trailers":["X-T: v"]`},
		{"head", "HEAD", "/bytes?n=100", "", "", 200, ""},
		{"no content", "GET", "/status?code=204", "", "", 204, ""},
		{"the target's own error", "GET", "/status?code=503", "", "", 503, "the target says 503"},
		{"trailers", "GET", "/trailers", "", "", 200, "body before trailers\n"},
		{"no path", "GET", "", "", "", 200, `"target":"/"`},
		{"query without path", "GET", "?a=b", "", "", 200, `"target":"/?a=b"`},
		{"escapes stay", "GET", "/?a=%2f%2F", "", "", 200, `"target":"/?a=%2f%2F"`},
	}
	for _, s := range steps {
		c.send(s.method + " " + j.URL() + s.path + " HTTP/1.1\r\nHost: a\r\n" + auth + s.head + "\r\n" + s.body)
		resp, body := c.response(s.method)
		if resp.StatusCode != s.status || !strings.Contains(body, s.want) || resp.Close {
			t.Errorf("%s: %s %q, close %v", s.name, resp.Status, body, resp.Close)
		}
		if resp.Header.Get("Via") == "" || resp.Header.Get("X-SuperVendor-Trace") == "" ||
			!strings.Contains(resp.Header.Get("Connection"), "X-SuperVendor-Trace") {
			t.Errorf("%s: not loud: %v", s.name, resp.Header)
		}
	}
	if got := string(j.Received()); strings.Contains(got, "Proxy-") || showsMark(got, v.Marks()) {
		t.Errorf("the target received %q", got)
	}
	// Credentials are wanted from every request.
	c.send("GET " + j.URL() + "/ HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, _ := c.response("GET"); resp.StatusCode != 407 {
		t.Errorf("without credentials: %s", resp.Status)
	}
	if v.Accepted() != 1 || len(v.Conns()[0].Requests()) != len(steps)+1 {
		t.Errorf("%d connections", v.Accepted())
	}
}

func TestRelayPassesInterimResponses(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	v := startVendor(t, VendorConfig{})
	c := dial(t, v.Addr())
	c.send("GET " + j.URL() + "/earlyhints HTTP/1.1\r\nHost: a\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 103 ") {
		t.Errorf("got %q", head)
	}
	c.response("GET")
	c.send("POST " + j.URL() + "/continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 100 ") {
		t.Errorf("got %q", head)
	}
	c.send("hi")
	if resp, body := c.response("POST"); resp.StatusCode != 200 || !strings.Contains(body, `"bytes":2`) {
		t.Errorf("got %s %q", resp.Status, body)
	}
	c.send("POST " + j.URL() + "/continue?refuse=1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	if resp, _ := c.response("POST"); resp.StatusCode != 417 {
		t.Errorf("got %s", resp.Status)
	}
	if got := c.rest(); got != "" { // a body that never came ends the connection
		t.Errorf("then %q", got)
	}
}

func TestRelayStreams(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	v := startVendor(t, VendorConfig{})
	c := dial(t, v.Addr())
	c.send("GET " + j.URL() + "/stream?n=2&interval=1m HTTP/1.1\r\nHost: a\r\n\r\n")
	c.head()
	const line = "b\r\n{\"line\":0}\n\r\n"
	if got := c.exactly(len(line)); got != line {
		t.Errorf("got %q", got)
	}
}

func TestRelayUpgrades(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	v := startVendor(t, VendorConfig{})
	c := dial(t, v.Addr())
	c.send(fmt.Sprintf(handshake, j.URL()+"/ws") + masked(0x81, "early"))
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "Sec-WebSocket-Accept: s3pPLM") {
		t.Errorf("got %q", head)
	}
	want := string(frame(0x81, []byte("early")))
	if got := c.exactly(len(want)); got != want {
		t.Errorf("got %q", got)
	}
	c.send(masked(0x88, ""))
	if got := c.rest(); got != "\x88\x00" {
		t.Errorf("at the end %q", got)
	}
}

func TestRelayConnectionClose(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	v := startVendor(t, VendorConfig{})
	for name, request := range map[string]string{
		"asked for": "GET " + j.URL() + "/notype HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"http/1.0":  "GET " + j.URL() + "/notype HTTP/1.0\r\n\r\n",
	} {
		c := dial(t, v.Addr())
		c.send(request)
		if got := c.rest(); !strings.Contains(got, "Connection: close, X-") || !strings.HasSuffix(got, "undated</html>\n") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestRelayTellsOfTargetsThatFail(t *testing.T) {
	t.Parallel()
	reset, err := StartReset(1)
	reset = closing(t, reset, err)
	v := startVendor(t, VendorConfig{})
	c := dial(t, v.Addr())
	c.send("GET http://" + reset.Addr() + "/ HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, body := c.response("GET"); resp.StatusCode != 502 || !showsMark(body, v.Marks()) {
		t.Errorf("got %s %q", resp.Status, body)
	}
}

func TestBulkThroughTunnel(t *testing.T) {
	t.Parallel()
	sink, err := StartSink()
	sink = closing(t, sink, err)
	v := startVendor(t, VendorConfig{})
	c := dial(t, v.Addr())
	c.send(connectLine(sink.Addr()))
	c.head()
	const size = 8 << 20
	if _, err := io.Copy(c.TCPConn, Pattern(size)); err != nil {
		t.Fatal(err)
	}
	c.fin()
	if got := c.rest(); got != SinkLine(PatternDigest(size), size) {
		t.Errorf("got %q", got)
	}
	if n := len(v.Received()); n != size+len(connectLine(sink.Addr())) {
		t.Errorf("recorded %d bytes", n)
	}
}
