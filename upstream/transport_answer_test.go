package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// answering is a gateway that answers the first request with text, then closes if told
// so, and every other request with "second".
func answering(text string, closing bool) upstreamtest.Behaviour {
	var requests atomic.Int64
	return upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		for {
			reply := "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"
			first := requests.Add(1) == 1
			if first {
				reply = text
			}
			if _, err := io.WriteString(c, reply); err != nil || first && closing {
				return
			}
			if _, err := c.ReadRequest(); err != nil {
				return
			}
		}
	})
}

type answerTest struct {
	method string // default GET
	text   string
	closes bool // the gateway, after the text

	status int // default 200
	body   string
	cut    bool  // the body ends with an error
	cause  Cause // of the refusal instead
	reused bool  // the next request may use the connection
}

var answerTests = map[string]answerTest{
	"length":              {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", body: "hello", reused: true},
	"empty":               {text: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", reused: true},
	"no reason":           {text: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", reused: true},
	"line feeds":          {text: "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", body: "hello", reused: true},
	"chunked":             {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n02\r\nlo\r\n0\r\n\r\n", body: "hello", reused: true},
	"chunk extensions":    {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\nA;a=b;c=\"d\"\r\n0123456789\r\n0 ;x\r\n\r\n", body: "0123456789", reused: true},
	"padded chunk sizes":  {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5   \r\nhello\r\n0\t\r\n\r\n", body: "hello", reused: true},
	"until close":         {text: "HTTP/1.1 200 OK\r\n\r\nhello", closes: true, body: "hello"},
	"HTTP/1.0":            {text: "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", body: "hello"},
	"close":               {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\nhello", body: "hello"},
	"proxy's close":       {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nProxy-Connection: close\r\n\r\nhello", body: "hello"},
	"HEAD":                {method: "HEAD", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", reused: true},
	"HEAD, chunked":       {method: "HEAD", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", reused: true},
	"HEAD, a body":        {method: "HEAD", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
	"204":                 {text: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, reused: true},
	"204 with a length":   {text: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", status: 204},
	"204 with chunks":     {text: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", status: 204},
	"304":                 {text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, reused: true},
	"101":                 {text: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", status: 101},
	"hints":               {text: "HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", body: "ok", reused: true},
	"a body in a hint":    {text: "HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", cause: CauseMalformed},
	"surplus":             {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", body: "hello"},
	"surplus line end":    {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n", body: "hello"},
	"surplus, chunked":    {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", body: "hello"},
	"surplus, 204":        {text: "HTTP/1.1 204 No Content\r\n\r\nhello", status: 204},
	"folded":              {text: "HTTP/1.1 200 OK\r\nX-A: b\r\n Content-Length: 99\r\nContent-Length: 5\r\n\r\nhello", body: "hello", reused: true},
	"odd name":            {text: "HTTP/1.1 200 OK\r\nX Y: b\r\nContent-Length: 5\r\n\r\nhello", body: "hello", reused: true},
	"length and chunks":   {text: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", body: "hello"},
	"same lengths":        {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", body: "hello"},
	"chunks of HTTP/1.0":  {text: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", closes: true, body: "0\r\n\r\n"},
	"short":               {text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", closes: true, body: "hello", cut: true},
	"short chunk":         {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello", closes: true, body: "hello", cut: true},
	"no last chunk":       {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", closes: true, body: "hello", cut: true},
	"no end of trailers":  {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", closes: true, body: "hello", cut: true},
	"bare LF, chunk size": {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", cut: true},
	"bare LF, chunk end":  {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", body: "hello", cut: true},
	"chunk too long":      {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", body: "hello", cut: true},
	"no chunk size":       {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", cut: true},
	"chunk size, sign":    {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", cut: true},
	"chunk size, prefix":  {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", cut: true},
	"chunk size, space":   {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", cut: true},
	"chunk size, huge":    {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", cut: true},
	"CR in chunk's line":  {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", cut: true},
	"endless chunk line":  {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 5000) + "\r\nhello\r\n0\r\n\r\n", cut: true},
	"bad trailer":         {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nno colon\r\n\r\n", body: "hello", cut: true},
	"endless trailers":    {text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + strings.Repeat("X-A: b\r\n", 4000) + "\r\n", body: "hello", cut: true},
	"head of 60 KB":       {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + strings.Repeat("X-A: "+strings.Repeat("b", 993)+"\r\n", 60) + "\r\nhello", body: "hello", reused: true},
	"head of 70 KB":       {text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + strings.Repeat("X-A: "+strings.Repeat("b", 993)+"\r\n", 70) + "\r\nhello", cause: CauseMalformed},
	"endless hints":       {text: strings.Repeat("HTTP/1.1 103 Early\r\nLink: "+strings.Repeat("b", 1000)+"\r\n\r\n", 1100), cause: CauseMalformed},
	"closed in the head":  {text: "HTTP/1.1 200 OK\r\nContent-Le", closes: true, cause: CauseClosed},
}

// malformedHeads are refused: two readers could take them in two ways.
var malformedHeads = map[string]string{
	"lengths differ":       "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
	"length list":          "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
	"length, sign":         "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
	"length, negative":     "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
	"length, hexadecimal":  "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
	"length, empty":        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
	"length, huge":         "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
	"length, folded":       "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n 5\r\n\r\nhello",
	"length, space":        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
	"length, tab":          "HTTP/1.1 200 OK\r\nContent-Length\t: 5\r\n\r\nhello",
	"length, control":      "HTTP/1.1 200 OK\r\nContent-Length\x0b: 5\r\n\r\nhello",
	"coding, space":        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nhello",
	"coding, unknown":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"coding, identity":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
	"coding, empty":        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
	"coding, control":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n\r\nhello",
	"coding, twice":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"coding, list":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
	"bare CR in a value":   "HTTP/1.1 200 OK\r\nX-A: b\rContent-Length: 5\r\n\r\nhello",
	"CR before CRLF":       "HTTP/1.1 200 OK\r\nContent-Length: 5\r\r\n\r\nhello",
	"NUL":                  "HTTP/1.1 200 OK\r\nX-A: b\x00\r\nContent-Length: 5\r\n\r\nhello",
	"no colon":             "HTTP/1.1 200 OK\r\nContent-Length 5\r\n\r\nhello",
	"space before a field": "HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\nhello",
	"an empty line first":  "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"not HTTP":             "<html>hello</html>\r\n\r\n",
	"no line at all":       "\x00\x00\x12\x04\x00\x00\x00\x00\x00",
	"a banner, no end":     "220 mail.example ready",
	"another version":      "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"lower case":           "http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"two spaces":           "HTTP/1.1  200 OK\r\nContent-Length: 5\r\n\r\nhello",
	"two digits":           "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
	"four digits":          "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
	"a status below 100":   "HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello",
	"a signed status":      "HTTP/1.1 +20 OK\r\nContent-Length: 5\r\n\r\nhello",
	"no status":            "HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
}

// TestAnswers drives each answer, then asks again: an answer that could be read in two
// ways, or that is not over, must not leave its connection behind.
func TestAnswers(t *testing.T) {
	tests := make(map[string]answerTest)
	for name, test := range answerTests {
		tests[name] = test
	}
	for name, text := range malformedHeads {
		tests["malformed: "+name] = answerTest{text: text, cause: CauseMalformed}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: answering(test.text, test.closes)})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 5 * time.Second})
			test.drive(t, tr)
			response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
			must(t, err)
			if got := drain(t, response.Response); got != "second" {
				t.Errorf("the next answer is %q", got)
			}
			if reused := v.Accepted() == 1; reused != test.reused {
				t.Errorf("connection used again: %v, want %v", reused, test.reused)
			}
		})
	}
}

// drive sends the first request and compares its answer.
func (test answerTest) drive(t *testing.T, tr *Transport) {
	t.Helper()
	request := get(t, "http://target.example/")
	request.Method = test.method
	if test.method == "" {
		request.Method = http.MethodGet
	}
	response, _, err := tr.Do(PlainRequest{Request: request, Idle: 5 * time.Second})
	if test.cause != "" {
		var failure *ConnectError
		if !errors.As(err, &failure) || failure.Cause != test.cause || failure.Phase != PhaseRequest {
			t.Errorf("got %v, want a failure by %s", err, test.cause)
		}
		return
	}
	must(t, err)
	body, err := io.ReadAll(response.Body)
	must(t, response.Body.Close())
	if want := cmp.Or(test.status, 200); response.StatusCode != want || string(body) != test.body || (err != nil) != test.cut {
		t.Errorf("got %d %q, %v; want %d %q, cut %v", response.StatusCode, body, err, want, test.body, test.cut)
	}
	for _, name := range []string{"Transfer-Encoding", "Trailer"} {
		if v, ok := response.Header[name]; ok {
			t.Errorf("%s is left: %q", name, v)
		}
	}
}

func TestAnswerHeader(t *testing.T) {
	head := "HTTP/1.1 404 Not Here\r\nset-cookie: a\r\nX-Folded: b\r\n\t c \r\nSET-COOKIE:\td  \r\nX Y: z\r\nPragma: no-cache\r\n" +
		"Content-Length: 3\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, Content-Length\r\n\r\n"
	h, err := parseAnswer([]byte(head))
	must(t, err)
	f, trailers, err := h.frame(http.MethodGet)
	must(t, err)
	want := http.Header{"Set-Cookie": {"a", "d"}, "X-Folded": {"b c"}, "Pragma": {"no-cache"}}
	if fmt.Sprint(h.header) != fmt.Sprint(want) || h.status != 404 || statusText(&h) != "404 Not Here" {
		t.Errorf("got %d %q %v, want %v", h.status, h.reason, h.header, want)
	}
	if !f.chunked || !f.close || f.length != -1 || len(trailers) != 1 || trailers["X-Sum"] != nil {
		t.Errorf("framing %+v, trailers %v", f, trailers)
	}
}

func TestAnswerTrailers(t *testing.T) {
	text := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Missing\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-other: 2\r\nContent-Length: 9\r\n\r\n"
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: answering(text, false)})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/")})
	must(t, err)
	announced := response.Trailer
	if _, ok := announced["X-Sum"]; len(announced) != 2 || !ok {
		t.Errorf("announced %v", announced)
	}
	clear(announced) // the caller's own
	drain(t, response.Response)
	want := http.Header{"X-Sum": {"1"}, "X-Other": {"2"}, "X-Missing": nil}
	if got := response.Trailers(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("trailers %v, want %v", got, want)
	}
}

func TestInformational(t *testing.T) {
	text := "HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: answering(text, false)})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	var got []string
	response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/"), Informational: func(status int, h http.Header) {
		got = append(got, fmt.Sprint(status, h))
	}})
	must(t, err)
	drain(t, response.Response)
	if want := []string{"103 map[Link:[a]]", "102 map[]"}; !slices.Equal(got, want) {
		t.Errorf("told of %q, want %q", got, want)
	}
}

// An answer's body that pauses too long fails, whatever its framing.
func TestAnswerPauses(t *testing.T) {
	for name, head := range map[string]string{
		"length": "Content-Length: 9\r\n\r\nhello", "chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "until close": "\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: answering("HTTP/1.1 200 OK\r\n"+head, false)})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
			response, _, err := tr.Do(PlainRequest{Request: get(t, "http://target.example/"), Idle: 50 * time.Millisecond})
			must(t, err)
			body, err := io.ReadAll(response.Body)
			var timeout interface{ Timeout() bool }
			if string(body) != "hello" || !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("got %q, %v", body, err)
			}
			must(t, response.Body.Close())
			waitFor(t, func() bool { return v.Open() == 0 })
		})
	}
}
