package masking

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParseBrand(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"word", "Proxy", ""},
		{"space inside", "Acme Proxies", ""},
		{"longest", strings.Repeat("x", 64), ""},
		{"empty", "", "empty"},
		{"too long", strings.Repeat("x", 65), "65 bytes"},
		{"space first", " a", "space at an end"},
		{"space last", "a ", "space at an end"},
		{"quote", `a"b`, "byte 0x22 at 1"},
		{"backslash", `ab\`, "byte 0x5c at 2"},
		{"line break", "a\r\nSet-Cookie: x", "byte 0x0d at 1"},
		{"not ASCII", "é", "byte 0xc3 at 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := ParseBrand(c.in)
			if c.want == "" {
				if err != nil || string(b) != c.in {
					t.Fatalf("got %q, %v", b, err)
				}
				return
			}
			if b != "" || !errors.Is(err, ErrBrand) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %q, %v; want an error with %q", b, err, c.want)
			}
		})
	}
}

func TestReplyBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		brand Brand
		spec  ReplySpec
		close bool
		want  string
	}{
		{"bare", "Proxy", ReplySpec{Status: 403, Text: "No."}, false,
			"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nContent-Type: text/plain\r\n\r\nNo.\n"},
		{"all, closing, brand as token", "Acme", ReplySpec{407, "Who?", "http_request_denied", 7, true}, true,
			"HTTP/1.1 407 Proxy Authentication Required\r\nConnection: close\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n" +
				"Proxy-Authenticate: Basic realm=\"Acme\"\r\nProxy-Status: Acme; error=http_request_denied\r\nRetry-After: 7\r\n\r\nWho?\n"},
		{"brand as string", "Acme Proxies", ReplySpec{Status: 502, ProxyError: "dns_error"}, false,
			"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1\r\nContent-Type: text/plain\r\nProxy-Status: \"Acme Proxies\"; error=dns_error\r\n\r\n\n"},
		{"brand beginning with a digit is no token", "9lives", ReplySpec{Status: 502, ProxyError: "dns_error"}, false,
			"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1\r\nContent-Type: text/plain\r\nProxy-Status: \"9lives\"; error=dns_error\r\n\r\n\n"},
		{"status without a name", "Proxy", ReplySpec{Status: 499, Text: "x"}, false,
			"HTTP/1.1 499 status code 499\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nx\n"},
		{"nothing can split the head", "a\r\nX: y", ReplySpec{Status: 200, Text: "x", ProxyError: "a\r\nX: y", RetryAfter: -1, Challenge: true}, false,
			"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nProxy-Authenticate: Basic realm=\"Proxy\"\r\n\r\nx\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(NewReply(c.brand, c.spec).Bytes(c.close)); got != c.want {
				t.Fatalf("got\n%q\nwant\n%q", got, c.want)
			}
		})
	}
}

// TestServeOnTheWire compares a real server's bytes with Bytes.
func TestServeOnTheWire(t *testing.T) {
	reply := NewReply("Acme Proxies", ReplySpec{407, "Proxy credentials are missing or wrong.", "http_request_denied", 3, true})
	plain := NewReply("Proxy", ReplySpec{Status: 499, Text: "Gone."})
	const host = " HTTP/1.1\r\nHost: h\r\n"
	big := strings.Repeat("b", maxDrain+1)
	for _, c := range []struct {
		name, request string
		reply         *Reply
		close         bool // asked of Serve
		ends          bool // expected on the wire
		rewrite       func([]byte) []byte
	}{
		{"GET", "GET /" + host + "\r\n", reply, false, false, nil},
		{"GET of a nameless status", "GET /" + host + "\r\n", plain, false, false, nil},
		{"GET, close asked", "GET /" + host + "\r\n", reply, true, true, nil},
		{"GET, customer closes", "GET /" + host + "Connection: close\r\n\r\n", reply, false, true, nil},
		{"GET, customer closes among others", "GET /" + host + "Connection: x, Close\r\n\r\n", reply, false, true, nil},
		{"HEAD", "HEAD /" + host + "\r\n", reply, false, false, headOnly},
		{"HEAD, close asked", "HEAD /" + host + "\r\n", reply, true, true, headOnly},
		{"POST, small body", "POST /" + host + "Content-Length: 5\r\n\r\nhello", reply, false, false, nil},
		{"POST, chunked body", "POST /" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", reply, false, false, nil},
		{"POST, empty body", "POST /" + host + "Content-Length: 0\r\n\r\n", reply, false, false, nil},
		{"POST, large body", fmt.Sprintf("POST /%sContent-Length: %d\r\n\r\n%s", host, len(big), big), reply, false, true, nil},
		{"POST, large chunked body", fmt.Sprintf("POST /%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", host, len(big), big), reply, false, true, nil},
		{"POST, broken chunks", "POST /" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", reply, false, true, nil},
		{"POST, waiting for 100", "POST /" + host + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", reply, false, true, nil},
		{"CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", reply, false, false, nil},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", reply, false, true, asHTTP10},
		{"HTTP/1.0 HEAD", "HEAD / HTTP/1.0\r\n\r\n", reply, false, true, func(b []byte) []byte { return headOnly(asHTTP10(b)) }},
		{"HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", reply, false, true, asHTTP10},
		{"HTTP/1.0 POST", "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", reply, false, true, asHTTP10},
		{"HTTP/1.0 CONNECT", "CONNECT h:443 HTTP/1.0\r\n\r\n", reply, true, true, asHTTP10},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serveOnce(t, c.reply, c.close)
			want := bytes.Clone(c.reply.Bytes(c.ends))
			if c.rewrite != nil {
				want = c.rewrite(want)
			}
			conn := dial(t, srv)
			writeRequest(conn, c.request)
			got := make([]byte, len(want))
			if n, err := io.ReadFull(conn, got); err != nil {
				t.Fatalf("got %q, %v; want %q", got[:n], err, want)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("got\n%q\nwant\n%q", got, want)
			}
			if c.ends {
				_ = conn.(*net.TCPConn).CloseWrite() // a server may wait for the body it refused
				if rest, _ := io.ReadAll(conn); len(rest) > 0 {
					t.Fatalf("%q after the reply", rest)
				}
				return
			}
			writeRequest(conn, "GET /again"+host+"\r\n") // the connection lives on
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != c.reply.Status() {
				t.Fatalf("second exchange: %v, %v", resp, err)
			}
			_ = resp.Body.Close()
		})
	}
}

func headOnly(b []byte) []byte { return b[:bytes.Index(b, []byte("\r\n\r\n"))+4] }

func asHTTP10(b []byte) []byte { return bytes.Replace(b, []byte("HTTP/1.1"), []byte("HTTP/1.0"), 1) }

func serveOnce(t *testing.T, r *Reply, close bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Server", "vendor")
		w.Header().Add("Connection", "keep-alive")
		r.Serve(w, req, close)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func dial(t *testing.T, srv *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// writeRequest ignores errors: a server that replies and closes before it has read all is under test, not the write.
func writeRequest(conn net.Conn, s string) { _, _ = io.WriteString(conn, s) }

// deadlineRecorder is a ResponseWriter that remembers its read deadline.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (d *deadlineRecorder) SetReadDeadline(at time.Time) error { d.deadline = at; return nil }

func TestServeWaitsForNoBodyForEver(t *testing.T) {
	r := NewReply("Proxy", ReplySpec{Status: 403, Text: "No."})
	for _, c := range []struct {
		name string
		body io.Reader
		want bool
	}{{"no body", nil, false}, {"body", strings.NewReader("x"), true}} {
		t.Run(c.name, func(t *testing.T) {
			d := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
			before := time.Now()
			r.Serve(d, httptest.NewRequest(http.MethodPost, "/", c.body), true)
			if got := !d.deadline.IsZero(); got != c.want || got && (d.deadline.Before(before) || d.deadline.After(time.Now().Add(drainTime))) {
				t.Fatalf("deadline %v", d.deadline)
			}
		})
	}
}

func TestReplyIsShared(t *testing.T) {
	r := NewReply("Proxy", ReplySpec{Status: 429, Text: "Slow down.", RetryAfter: 1})
	want := string(r.Bytes(false))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				rec := httptest.NewRecorder()
				r.Serve(rec, httptest.NewRequest(http.MethodGet, "/", nil), false)
				for name := range rec.Header() { // a middleware may do what it likes with its copy
					rec.Header()[name] = append(rec.Header()[name], "x")
				}
				rec.Header()["Retry-After"][0] = "spoiled"
			}
		})
	}
	wg.Wait()
	rec := httptest.NewRecorder()
	r.Serve(rec, httptest.NewRequest(http.MethodGet, "/", nil), false)
	if got := rec.Header().Get("Retry-After"); got != "1" || string(r.Bytes(false)) != want {
		t.Fatalf("Retry-After %q, bytes %q", got, r.Bytes(false))
	}
}

func TestEstablished(t *testing.T) {
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(Established)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 200 || len(resp.Header) != 0 {
		t.Fatalf("%v", resp)
	}
}

func TestServeSaysWhetherItEndsTheConnection(t *testing.T) {
	r := NewReply("Proxy", ReplySpec{Status: 407, Text: "No."})
	for name, c := range map[string]struct {
		proto       int // minor version
		close, want bool
	}{"goes on": {1, false, false}, "asked to end": {1, true, true}, "HTTP/1.0": {0, false, true}} {
		req := httptest.NewRequest(http.MethodGet, "http://target.example/", nil)
		req.ProtoMinor = c.proto
		w := httptest.NewRecorder()
		if got := r.Serve(w, req, c.close); got != c.want || (w.Header().Get("Connection") == "close") != c.want {
			t.Errorf("%s: %t, %v", name, got, w.Header())
		}
	}
}

func TestHeadIsBytesWithoutTheBody(t *testing.T) {
	r := NewReply("Proxy", ReplySpec{Status: 403, Text: "No."})
	for _, closing := range []bool{false, true} {
		head := r.Head(closing)
		if want := headOnly(r.Bytes(closing)); !bytes.Equal(head, want) {
			t.Errorf("got %q, want %q", head, want)
		}
		if _ = append(head, "spoiled"...); !bytes.HasSuffix(r.Bytes(closing), []byte("No.\n")) {
			t.Error("the body can be written over")
		}
	}
}
