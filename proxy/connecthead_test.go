package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"maskrelay/masking"
)

const plainHead = "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\nUser-Agent: Mozilla/5.0\r\n" +
	"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic Y3VzdG9tZXI3MzkxOnB3LTVmYzFlOGQy\r\n\r\n"

func TestParseConnect(t *testing.T) {
	const line, host = "CONNECT shop.example:443 HTTP/1.1\r\n", "Host: shop.example:443\r\n"
	tests := []struct {
		name, head string
		kind       headKind
	}{
		{"plain", line + host + "\r\n", headPlain},
		{"early data", line + host + "\r\n\x16\x03\x01", headPlain},
		{"fields that are skipped", line + host + "User-Agent: a b\r\nX-Y:\r\nAccept:\t*/* \r\nProxy-Connection: close\r\n\r\n", headPlain},
		{"another host", line + "Host: other.example\r\n\r\n", headPlain},
		{"obs-text", line + host + "X: \xe9\xff\r\n\r\n", headPlain},
		{"HTTP/1.0", "CONNECT shop.example:443 HTTP/1.0\r\n\r\n", headPlain},
		{"IPv4", "CONNECT 192.0.2.1:443 HTTP/1.1\r\n" + host + "\r\n", headPlain},
		{"nothing", "", headIncomplete},
		{"half of the method", "CONN", headIncomplete},
		{"half of the line", "CONNECT shop.example:443 HT", headIncomplete},
		{"half of the end", line + host + "\r", headIncomplete},
		{"no end", line + host, headIncomplete},
		{"another method", "GET http://shop.example/ HTTP/1.1\r\nHost: x\r\n\r\n", headOther},
		{"lower-case method", "connect shop.example:443 HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"empty line first", "\r\n" + line + host + "\r\n", headOther},
		{"no version", "CONNECT shop.example:443\r\n" + host + "\r\n", headOther},
		{"HTTP/2", "CONNECT shop.example:443 HTTP/2.0\r\n" + host + "\r\n", headOther},
		{"two spaces", "CONNECT  shop.example:443 HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"space at the line's end", "CONNECT shop.example:443 HTTP/1.1 \r\n" + host + "\r\n", headOther},
		{"tab", "CONNECT shop.example:443\tHTTP/1.1\r\n" + host + "\r\n", headOther},
		{"no port", "CONNECT shop.example HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"empty port", "CONNECT shop.example: HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"empty host", "CONNECT :443 HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"two ports", "CONNECT shop.example:1:443 HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"named port", "CONNECT shop.example:https HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"user", "CONNECT u@shop.example:443 HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"path", "CONNECT shop.example:443/ HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"escape", "CONNECT shop%2eexample:443 HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"IPv6", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n" + host + "\r\n", headOther},
		{"bare LF", "CONNECT shop.example:443 HTTP/1.1\n" + host + "\r\n", headOther},
		{"bare LF in a field", line + "Host: shop.example:443\n\r\n", headOther},
		{"bare LF at the end", line + host + "\n", headOther},
		{"bare CR", line + host + "X: a\rb\r\n\r\n", headOther},
		{"NUL", line + host + "X: a\x00b\r\n\r\n", headOther},
		{"DEL", line + host + "X: a\x7fb\r\n\r\n", headOther},
		{"folded", line + host + "X: a\r\n b\r\n\r\n", headOther},
		{"space before the first field", line + " " + host + "\r\n", headOther},
		{"space before the colon", line + "Host : shop.example:443\r\n\r\n", headOther},
		{"no colon", line + host + "X\r\n\r\n", headOther},
		{"no name", line + host + ": x\r\n\r\n", headOther},
		{"name with a slash", line + host + "X/Y: z\r\n\r\n", headOther},
		{"name beyond ASCII", line + host + "X\xe9: z\r\n\r\n", headOther},
		{"no host", line + "\r\n", headOther},
		{"two hosts", line + host + host + "\r\n", headOther},
		{"odd host", line + "Host: a b\r\n\r\n", headOther},
		{"two logins", line + host + "Proxy-Authorization: Basic YTpi\r\nproxy-authorization: Basic YTpi\r\n\r\n", headOther},
		{"length", line + host + "Content-Length: 0\r\n\r\n", headOther},
		{"encoding", line + host + "transfer-ENCODING: chunked\r\n\r\n", headOther},
		{"expect", line + host + "Expect: 100-continue\r\n\r\n", headOther},
		{"upgrade", line + host + "Upgrade: h2c\r\n\r\n", headOther},
		{"trailer", line + host + "Trailer: X\r\n\r\n", headOther},
		{"8 KB", line + host + "X: " + strings.Repeat("x", maxConnectHead-len(line+host)-len("X: \r\n\r\n")) + "\r\n\r\n", headPlain},
		{"more", line + host + "X: " + strings.Repeat("x", maxConnectHead-len(line+host)-len("X: \r\n\r\n")+1) + "\r\n\r\n", headOther},
		{"endless", line + strings.Repeat("X: y\r\n", 2000), headOther},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, n, kind := parseConnect([]byte(tt.head))
			if kind != tt.kind || (n > 0) != (kind == headPlain) {
				t.Errorf("kind %d, %d bytes; want kind %d", kind, n, tt.kind)
			}
			compareWithNetHTTP(t, []byte(tt.head))
			if kind != headPlain {
				return
			}
			for i := range n { // however it comes, it is the same head
				if _, _, kind := parseConnect([]byte(tt.head[:i])); kind != headIncomplete {
					t.Fatalf("the first %d bytes are of kind %d", i, kind)
				}
			}
		})
	}
}

func TestParseConnectFinds(t *testing.T) {
	h, n, _ := parseConnect([]byte(plainHead + "early"))
	if n != len(plainHead) || string(h.authority) != "shop.example:443" || !h.authorized || h.closes || h.http10 ||
		string(h.authorization) != "Basic Y3VzdG9tZXI3MzkxOnB3LTVmYzFlOGQy" {
		t.Errorf("got %q, %d bytes", h.authority, n)
	}
	for value, closes := range map[string]bool{"keep-alive": false, "Close": true, "x, close": true, "disclosed": true, "clos": false} {
		h, _, _ := parseConnect([]byte("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: x\r\nconnection: " + value + "\r\n\r\n"))
		if h.closes != closes {
			t.Errorf("Connection: %s closes: %v", value, h.closes)
		}
	}
}

// compareWithNetHTTP checks that a head which is called plain is one to net/http, with
// the same content, and that what net/http refuses is never called plain.
func compareWithNetHTTP(t *testing.T, b []byte) {
	t.Helper()
	h, n, kind := parseConnect(b)
	if kind != headPlain {
		return
	}
	reader := bufio.NewReaderSize(bytes.NewReader(b), len(b)+16)
	r, err := http.ReadRequest(reader)
	if err != nil {
		t.Fatalf("plain, but net/http says %v: %q", err, b)
	}
	rest, err := io.ReadAll(reader)
	if err != nil || len(b)-len(rest) != n {
		t.Fatalf("%d bytes, net/http takes %d: %q", n, len(b)-len(rest), b)
	}
	values := r.Header["Proxy-Authorization"]
	login := ""
	if len(values) > 0 {
		login = values[0]
	}
	minor := 1
	if h.http10 {
		minor = 0
	}
	if r.Method != http.MethodConnect || r.RequestURI != string(h.authority) || r.ProtoMajor != 1 || r.ProtoMinor != minor ||
		len(values) > 1 || (len(values) == 1) != h.authorized || login != string(h.authorization) ||
		r.ContentLength != 0 || len(r.TransferEncoding) > 0 || len(r.Trailer) > 0 || r.Header.Get("Upgrade") != "" {
		t.Fatalf("net/http reads %s %s %s %q: %q", r.Method, r.RequestURI, r.Proto, values, b)
	}
	// The end of the connection is what a refusal through net/http makes of the request.
	w := &endRecorder{header: http.Header{}}
	reply := masking.NewReply("Relay", masking.ReplySpec{Status: http.StatusTooManyRequests, Text: "x"})
	if ends := reply.Serve(w, r, false); ends != h.closes || r.Close && !h.closes {
		t.Fatalf("closes: %v, net/http: %v, %v: %q", h.closes, ends, r.Close, b)
	}
	theirs, o := shape(r)
	ours, err := ParseTarget(string(h.authority))
	if (o == OK) != (err == nil) || theirs != ours {
		t.Fatalf("target %v, %v; the handler's %v, %s: %q", ours, err, theirs, o, b)
	}
	if err == nil && ours.String() != string(h.authority) {
		t.Fatalf("target %v is another spelling of %q", ours, h.authority)
	}
	servedByNetHTTP(t, r, b)
}

// servedByNetHTTP checks what net/http's server looks at once it has read a head.
func servedByNetHTTP(t *testing.T, r *http.Request, b []byte) {
	t.Helper()
	lines := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
	_, _ = lines.ReadLine()
	fields, _ := lines.ReadMIMEHeader() // ReadRequest keeps no Host
	hosts := fields["Host"]
	if len(hosts) > 1 || len(hosts) == 1 && !httpguts.ValidHostHeader(hosts[0]) || len(hosts) == 0 && r.ProtoAtLeast(1, 1) {
		t.Fatalf("hosts %q: %q", hosts, b)
	}
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			t.Fatalf("name %q: %q", name, b)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				t.Fatalf("value %q: %q", v, b)
			}
		}
	}
}

// endRecorder is a ResponseWriter that drops what is written.
type endRecorder struct{ header http.Header }

func (w *endRecorder) Header() http.Header         { return w.header }
func (w *endRecorder) Write(b []byte) (int, error) { return len(b), nil }
func (w *endRecorder) WriteHeader(int)             {}

func FuzzParseConnect(f *testing.F) {
	for _, seed := range []string{
		plainHead, plainHead + "early", "CONNECT a:1 HTTP/1.0\r\nHost: b\r\nConnection: keep-alive\r\n\r\n",
		"CONNECT a_b.c-d:65535 HTTP/1.1\r\nhOst: \r\nX:\t y\t\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "CONNECT a:1 HTTP/1.1\nHost: a\n\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "CONNECT -:0 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
		"CONNECT 0x7f.1:00080 HTTP/1.1\r\nHost: a\r\nProxy-Authorization:\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX: \x80\r\n\r\n",
		"CONNECT a..b:99999 HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost:\x0ba\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		compareWithNetHTTP(t, b)
		_, n, kind := parseConnect(b)
		if kind != headPlain {
			return
		}
		for _, i := range []int{n / 2, n - 1} {
			if _, _, kind := parseConnect(b[:i]); kind != headIncomplete {
				t.Errorf("the first %d of %d bytes are of kind %d", i, n, kind)
			}
		}
	})
}

func TestParseConnectAllocatesNothing(t *testing.T) {
	b := []byte(plainHead)
	if n := testing.AllocsPerRun(100, func() { parseConnect(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParseConnect(b *testing.B) {
	head := []byte(plainHead)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, kind := parseConnect(head); kind != headPlain {
			b.Fatal("not plain")
		}
	}
}
