package masking

import (
	"bytes"
	"maps"
	"net/http"
	"testing"
)

// browserRequest is what a browser sends for a page, over a proxy.
func browserRequest() http.Header {
	return head(
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
		"Accept-Encoding: gzip, deflate, br, zstd", "Accept-Language: en-US,en;q=0.9", "Cache-Control: max-age=0",
		"Cookie: session=3f9d2c1b7a; theme=dark; _ga=GA1.2.1234567890.1700000000", "Proxy-Connection: keep-alive",
		"Referer: http://shop.example/list?page=2", "Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate",
		"Upgrade-Insecure-Requests: 1", "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/150.0.0.0 Safari/537.36",
		"X-Csrf-Token: 9d8f7a6b5c")
}

// targetResponse is what a shop behind nginx answers, through squid.
func targetResponse() http.Header {
	return head("Server: nginx/1.22.1", "Date: Sat, 21 Nov 2026 02:22:13 GMT", "Content-Type: text/html; charset=utf-8", "Content-Length: 18342",
		"Cache-Control: private, max-age=0, must-revalidate", "Etag: \"5f3e-60b1c2d3e4f50\"", "Vary: Accept-Encoding, Cookie",
		"Set-Cookie: session=3f9d2c1b7a; Path=/; HttpOnly; SameSite=Lax", "Strict-Transport-Security: max-age=63072000",
		"X-Content-Type-Options: nosniff", "X-Frame-Options: SAMEORIGIN", "X-Cache: MISS from gw.vendor.example",
		"Via: 1.1 gw.vendor.example (squid/5.7)", "Connection: keep-alive", "X-Shop-Version: 1.2.3")
}

func benchmarkEdit(b *testing.B, full http.Header, edit func(http.Header)) {
	h := make(http.Header, len(full))
	b.ReportAllocs()
	for b.Loop() {
		clear(h)
		maps.Copy(h, full)
		edit(h)
	}
}

func BenchmarkPolicyRequest(b *testing.B) {
	benchmarkEdit(b, browserRequest(), mustPolicy(b, PolicyConfig{}).Request)
}

func BenchmarkPolicyResponse(b *testing.B) {
	benchmarkEdit(b, targetResponse(), mustPolicy(b, PolicyConfig{Marks: []string{"gw.vendor.example"}}).Response)
}

func BenchmarkScanner(b *testing.B) {
	p := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, 12345 times; %20 pool=oxy&host=bright.\n"), 800)
	m := mustPolicy(b, PolicyConfig{}).Marks()
	for name, encoded := range map[string]bool{"plain": false, "encoded": true} {
		b.Run(name, func(b *testing.B) {
			s := NewScanner("b", m, encoded)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = s.Write(p)
			}
			if len(s.Leaks()) > 0 {
				b.Fatal(s.Leaks())
			}
		})
	}
}

func BenchmarkNewMarks(b *testing.B) {
	words := mustPolicy(b, PolicyConfig{}).Marks().words
	b.ReportAllocs()
	for b.Loop() {
		NewMarks(words...)
	}
}
