package upstream

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"maskrelay/upstream/vendor"
)

func TestParseReply(t *testing.T) {
	tests := map[string]struct {
		in     string
		status int
		body   bool
		size   int // 0 = incomplete, -1 = malformed
	}{
		"200":                {"HTTP/1.1 200 OK\r\n\r\n", 200, false, 19},
		"no reason":          {"HTTP/1.1 200\r\n\r\n", 200, false, 16},
		"empty reason":       {"HTTP/1.1 200 \r\n\r\n", 200, false, 17},
		"1.0":                {"HTTP/1.0 200 Connection established\r\n\r\n", 200, false, 39},
		"bare LF":            {"HTTP/1.1 200 OK\nA: b\n\nrest", 200, false, 22},
		"mixed line ends":    {"HTTP/1.1 200 OK\r\nA: b\n\r\nrest", 200, false, 24},
		"204":                {"HTTP/1.1 204 No Content\r\n\r\n", 204, false, 27},
		"odd status":         {"HTTP/1.1 613 x\r\n\r\n", 613, false, 18},
		"length 0":           {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, false, 38},
		"length":             {"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, true, 38},
		"lengths":            {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 200, true, 57},
		"length list":        {"HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n", 200, true, 41},
		"length folded":      {"HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\n\r\n", 200, true, 40},
		"negative length":    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 200, true, 39},
		"space before colon": {"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n", 200, true, 39},
		"chunked":            {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, true, 47},
		"identity":           {"HTTP/1.1 200 OK\r\ntransfer-encoding:identity\r\n\r\n", 200, true, 47},
		"name with space":    {"HTTP/1.1 200 OK\r\nProxy Connection: x\r\n\r\n", 200, false, 40},
		"no colon":           {"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", 200, false, 29},
		"NUL":                {"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n", 200, false, 25},
		"incomplete line":    {"HTTP/1.1 2", 0, false, 0},
		"incomplete head":    {"HTTP/1.1 200 OK\r\nA: b\r\n", 0, false, 0},
		"nothing":            {"", 0, false, 0},
		"lone CR":            {"HTTP/1.1 200 OK\r\n\r", 0, false, 0},
		"four digits":        {"HTTP/1.1 2000 OK\r\n\r\n", 0, false, -1},
		"two digits":         {"HTTP/1.1 20 OK\r\n\r\n", 0, false, -1},
		"below 100":          {"HTTP/1.1 099 OK\r\n\r\n", 0, false, -1},
		"HTTP/2":             {"HTTP/2 200\r\n\r\n", 0, false, -1},
		"no version":         {"HTTP 407\r\n\r\n", 0, false, -1},
		"SSH":                {"SSH-2.0-OpenSSH_9\r\n", 0, false, -1},
		"TLS alert":          {"\x15\x03\x01\x00\x02", 0, false, -1},
		"signed status":      {"HTTP/1.1 +20 OK\r\n\r\n", 0, false, -1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			head, size, err := parseReply([]byte(test.in))
			if test.size < 0 {
				if err == nil {
					t.Fatalf("accepted as %+v", head)
				}
				return
			}
			if err != nil || size != test.size {
				t.Fatalf("size %d, error %v; want %d", size, err, test.size)
			}
			if size > 0 && (head.status != test.status || head.body != test.body) {
				t.Errorf("%+v, want status %d, body %t", head, test.status, test.body)
			}
		})
	}
}

// parseReply reads one head from the start of b: its size, 0 while it is incomplete.
func parseReply(b []byte) (replyHead, int, error) {
	size, _ := headSize(b, 0)
	if size == 0 && startsHTTP(b) {
		return replyHead{}, 0, nil
	}
	head, ok := parseHead(b[:size])
	if !ok {
		return replyHead{}, 0, errMalformedReply
	}
	return head, size, nil
}

// script is a gateway that has said all of reply; it may end.
type script struct {
	net.Conn
	reply   *bytes.Reader
	oneByte bool
	end     error
}

func (s *script) Read(b []byte) (int, error) {
	if s.reply.Len() == 0 && s.end != nil {
		return 0, s.end
	}
	if s.oneByte {
		return iotest.OneByteReader(s.reply).Read(b)
	}
	return s.reply.Read(b)
}

// someGateway is one that nobody dials, of a vendor that is not known.
func someGateway(scheme string) *gateway {
	preset, err := vendor.Load(vendor.Generic)
	if err != nil {
		panic(err)
	}
	return &gateway{Gateway: Gateway{Name: "gw", Scheme: scheme, Vendor: preset}}
}

func TestReadReply(t *testing.T) {
	huge := "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxReplyHead) + "\r\n\r\n"
	tests := map[string]struct {
		in     string
		cause  Cause
		status int
		early  string
	}{
		"established":        {in: "HTTP/1.1 200 OK\r\n\r\n"},
		"server first":       {in: "HTTP/1.1 200 OK\r\n\r\n220 smtp\r\n", early: "220 smtp\r\n"},
		"other 2xx":          {in: "HTTP/1.1 206 Hm\r\nX: y\r\n\r\nbytes", early: "bytes"},
		"1xx first":          {in: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 H\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nz", early: "z"},
		"101":                {in: "HTTP/1.1 101 Switching\r\n\r\n", cause: CauseMalformed, status: 101},
		"2xx with body":      {in: "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nvendor", cause: CauseBody, status: 200},
		"407":                {in: "HTTP/1.1 407 NO_USER\r\nProxy-Authenticate: Basic realm=\"v\"\r\n\r\n", cause: CauseAuth, status: 407},
		"401":                {in: "HTTP/1.1 401 x\r\n\r\n", cause: CauseAuth, status: 401},
		"402":                {in: "HTTP/1.1 402 x\r\n\r\n", cause: CauseQuota, status: 402},
		"403":                {in: "HTTP/1.1 403 x\r\n\r\n", cause: CauseForbidden, status: 403},
		"429":                {in: "HTTP/1.1 429 x\r\n\r\n", cause: CauseRate, status: 429},
		"503":                {in: "HTTP/1.1 503 x\r\n\r\n", cause: CauseServer, status: 503},
		"504":                {in: "HTTP/1.1 504 x\r\n\r\n", cause: CauseTimeout, status: 504},
		"302":                {in: "HTTP/1.1 302 x\r\n\r\n", cause: CauseStatus, status: 302},
		"466":                {in: "HTTP/1.1 466 x\r\n\r\n", cause: CauseStatus, status: 466},
		"closed at once":     {in: "", cause: CauseClosed},
		"closed in the head": {in: "HTTP/1.1 200 OK\r\nA:", cause: CauseClosed},
		"not HTTP":           {in: "SSH-2.0-x\r\n", cause: CauseMalformed},
		"endless head":       {in: huge, cause: CauseMalformed},
		"endless 1xx":        {in: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxReplyHead/20), cause: CauseMalformed},
	}
	for name, test := range tests {
		for _, oneByte := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", name, oneByte), func(t *testing.T) {
				conn := &script{reply: bytes.NewReader([]byte(test.in)), oneByte: oneByte}
				var n negotiation
				early, _, failure := n.hear(t.Context(), someGateway(SchemeHTTP), conn, make([]byte, maxReplyHead))
				if test.cause != "" {
					if failure == nil || failure.Cause != test.cause || failure.Status != test.status {
						t.Fatalf("failure %v, want %s with status %d", failure, test.cause, test.status)
					}
					return
				}
				if failure != nil {
					t.Fatal(failure)
				}
				// One byte at a time, the rest is still in the connection.
				if want := test.early; oneByte && len(early) != 0 || !oneByte && string(early) != want {
					t.Errorf("early bytes %q, want %q", early, want)
				}
			})
		}
	}
}

func TestOpenTunnelObeysItsContext(t *testing.T) {
	tests := map[string]struct {
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want Cause
	}{
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 20*time.Millisecond)
		}, CauseTimeout},
		"canceled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, CauseCanceled},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			silent, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer func() { _ = silent.Close() }()
			conn, err := net.Dial("tcp", silent.Addr().String())
			must(t, err)
			defer func() { _ = conn.Close() }()
			ctx, cancel := test.ctx(t.Context())
			defer cancel()
			_, failure := someGateway(SchemeHTTP).openTunnel(ctx, conn, &Route{}, Request{Target: "target.example:443", Authorization: "Basic eDp5"})
			if failure == nil || failure.Cause != test.want {
				t.Errorf("failure %v, want %s", failure, test.want)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nearly"))
	f.Add([]byte("HTTP/1.0 407\n\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding : x\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		head, size, err := parseReply(in)
		if size < 0 || size > len(in) || err != nil && size != 0 {
			t.Fatalf("size %d of %d, error %v", size, len(in), err)
		}
		if size > 0 && (head.status < 100 || head.status > 999) {
			t.Fatalf("status %d", head.status)
		}
		// What is complete stays what it is, however it was cut before.
		for cut := range in {
			h, n, err := parseReply(in[:cut])
			if n > 0 && (n != size || h != head) {
				t.Fatalf("cut at %d: %+v, %d; whole: %+v, %d", cut, h, n, head, size)
			}
			if err == nil && n == 0 && size > 0 && cut >= size {
				t.Fatalf("cut at %d of %d: incomplete", cut, size)
			}
		}
		// Looked at in pieces, an answer means what it means at once.
		var whole, pieces replyScan
		g := someGateway(SchemeHTTP)
		n, failure := whole.look(g, in)
		for end := range len(in) + 1 {
			got, why := pieces.look(g, in[:end])
			if got == 0 && why == nil && end < len(in) {
				continue
			}
			// The pieces may decide before the whole is there, but not otherwise.
			if got != n || (why == nil) != (failure == nil) || why != nil && failure != nil && why.Cause != failure.Cause {
				t.Fatalf("at %d of %d: %d, %v; whole: %d, %v", end, len(in), got, why, n, failure)
			}
			return
		}
	})
}

// What a preset's classifier gets to see of a refusal.
func TestAnswerIsReadInPlace(t *testing.T) {
	const head = "HTTP/1.1 407 TRAFFIC_EXHAUSTED now \r\nX-Error:  client_10110 \r\nx-error: second\r\nEmpty:\r\nSpaced : x\r\nContent-Length: 4\r\n\r\n"
	line, fields, _ := bytes.Cut([]byte(head), []byte("\n"))
	if got := reasonOf(line); got != "TRAFFIC_EXHAUSTED now" {
		t.Errorf("reason %q", got)
	}
	for _, line := range []string{"HTTP/1.1 407", "HTTP/1.1 407 ", "HTTP/1.1 407\r", "HTTP/1.1 407 \r"} {
		if got := reasonOf([]byte(line)); got != "" {
			t.Errorf("%q: reason %q", line, got)
		}
	}
	for name, want := range map[string]string{
		"X-Error": "client_10110", "x-ERROR": "client_10110", "Empty": "", "Absent": "", "Spaced": "", "X": "", "": "", "Content-Length": "4",
		"HTTP/1.1 407 TRAFFIC_EXHAUSTED now": "",
	} {
		if got := fieldOf(fields, name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = fieldOf(fields, "Absent") }); n > 0 {
		t.Errorf("%g allocations to find nothing", n)
	}
}
