package proxy

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// samePROXY checks that a header is read from memory as it is from a connection on
// which nothing more comes.
func samePROXY(t *testing.T, b []byte) {
	t.Helper()
	source, n, err := parseProxyHeader(b)
	reader := bufio.NewReaderSize(bytes.NewReader(b), proxyHeaderBuffer)
	want, wantErr := readProxyHeader(reader)
	if (n > 0) != (wantErr == nil) || n > 0 && err != nil || source != want {
		t.Fatalf("from memory %v, %d, %v; from a connection %v, %v: %q", source, n, err, want, wantErr, b)
	}
	if n == 0 {
		return
	}
	if rest, _ := io.ReadAll(reader); len(b)-len(rest) != n {
		t.Fatalf("%d bytes, from a connection %d: %q", n, len(b)-len(rest), b)
	}
	for i := range n {
		if _, n, err := parseProxyHeader(b[:i]); n != 0 || err != nil {
			t.Fatalf("the first %d bytes are %d, %v: %q", i, n, err, b)
		}
	}
}

func TestParseProxyHeader(t *testing.T) {
	long := func(size int) string { // version 2, LOCAL, with that many bytes after the fixed part
		return string(proxyproto.SIGV2) + "\x20\x00" + string([]byte{byte(size >> 8), byte(size)}) + strings.Repeat("\x00", size)
	}
	tests := []struct {
		name, header string
		n            int // of its bytes; 0 = incomplete, -1 = refused
		source       string
	}{
		{"v1", "PROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\nrest", 45, "198.51.100.7:4000"},
		{"v1 mapped", "PROXY TCP6 ::ffff:198.51.100.7 ::1 4000 8080\r\n", 46, "198.51.100.7:4000"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", 15, "invalid AddrPort"},
		{"v1 incomplete", "PROXY TCP4 198.51.100.7", 0, ""},
		{"v1 words", "PROXY TCP4 a b c d\r\n", -1, ""},
		{"v1 without CR", "PROXY UNKNOWN\n", -1, ""},
		{"v1 too long", "PROXY TCP4 " + strings.Repeat("1", 100), -1, ""},
		{"v1 another word", "PROX ", -1, ""},
		{"v2 with TLVs", header2(t, proxyproto.PROXY, "198.51.100.7:4000")[:14] + "\x00\x10\xc6\x33\x64\x07\x7f\x00\x00\x01\x0f\xa0\x1f\x90\x04\x00\x01\x00GET", 32, "198.51.100.7:4000"},
		{"v2 local", long(0), 16, "invalid AddrPort"},
		{"v2 longest", long(4096), 16 + 4096, "invalid AddrPort"},
		{"v2 longer", long(4097), -1, ""},
		{"v2 incomplete", long(40)[:50], 0, ""},
		{"v2 of another version", string(proxyproto.SIGV2) + "\x31\x11\x00\x00", -1, ""},
		{"nothing", "", 0, ""},
		{"something else", "CONNECT a:1 HTTP/1.1\r\n\r\n", -1, ""},
	}
	acceptBalancersQuirk()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			source, n, err := parseProxyHeader([]byte(tt.header))
			if n != max(tt.n, 0) || (err != nil) != (tt.n < 0) || tt.n > 0 && source.String() != tt.source {
				t.Errorf("got %v, %d, %v", source, n, err)
			}
			samePROXY(t, []byte(tt.header))
		})
	}
}

func FuzzParseProxyHeader(f *testing.F) {
	acceptBalancersQuirk()
	for _, seed := range []string{
		"PROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\nrest", "PROXY UNKNOWN\r\n", "PROXY TCP6 ::1 ::2 1 2\r\n",
		string(proxyproto.SIGV2) + "\x20\x00\x00\x00", string(proxyproto.SIGV2) + "\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x0f\xa0\x1f\x90x",
		string(proxyproto.SIGV2) + "\x21\x21\x00\x26" + strings.Repeat("a", 38),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) { samePROXY(t, b) })
}
