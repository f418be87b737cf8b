package upstream

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// orderTests are heads of a request with the fields below, in the order of these names.
var orderTests = map[string]struct {
	order string
	edit  func(h *requestHead)
	want  string
}{
	"as he had it": {order: "user-agent Host COOKIE x-a accept x-A",
		want: "user-agent: curl|Host: target.example|COOKIE: c|x-a: 1|accept: */*|x-A: 2"},
	"host first without one":     {order: "accept User-Agent", want: "Host: target.example|accept: */*|User-Agent: curl|Cookie: c|X-A: 1|X-A: 2"},
	"what he does not mention":   {order: "Host X-A", want: "Host: target.example|X-A: 1|Accept: */*|Cookie: c|User-Agent: curl|X-A: 2"},
	"nothing":                    {order: "", want: "Host: target.example|Accept: */*|Cookie: c|User-Agent: curl|X-A: 1|X-A: 2"},
	"too many names":             {order: "Host host X-A X-A X-A Accept accept Cookie User-Agent HOST", want: "Host: target.example|X-A: 1|X-A: 2|Accept: */*|Cookie: c|User-Agent: curl"},
	"names that are none of his": {order: "Hos Host Hostx Accep Acceptx Accept \r\n X-B: c", want: "Host: target.example|Accept: */*|Cookie: c|User-Agent: curl|X-A: 1|X-A: 2"},
	"a letter that folds to another": {order: "Hoſt Coo\u212aie Host", edit: only("Cookie", "c"),
		want: "Host: target.example|Cookie: c"},
	"login where his was": {order: "Host Proxy-authorization Accept Proxy-Connection", edit: login(only("Accept", "*/*")),
		want: "Host: target.example|Proxy-Authorization: L|Accept: */*"},
	"login where he spoke to the proxy": {order: "Host Proxy-Connection Accept", edit: login(only("Accept", "*/*")),
		want: "Host: target.example|Proxy-Authorization: L|Accept: */*"},
	"login last": {order: "Accept Host", edit: login(only("Accept", "*/*")), want: "Accept: */*|Host: target.example|Proxy-Authorization: L"},
	"no login in a tunnel": {order: "Host Proxy-Authorization Accept", edit: form(originForm, login(only("Accept", "*/*"))),
		want: "Host: target.example|Accept: */*"},
	"close where his connection was": {order: "Host connection Accept Proxy-Connection", edit: form(originFormOnce, only("Accept", "*/*")),
		want: "Host: target.example|connection: close|Accept: */*"},
	"close where he spoke to the proxy": {order: "Host Accept Proxy-Connection", edit: form(originFormOnce, only("Accept", "*/*")),
		want: "Host: target.example|Accept: */*|Connection: close"},
	"no close unasked":           {order: "Host Accept", edit: form(originFormOnce, only("Accept", "*/*")), want: "Host: target.example|Accept: */*"},
	"no connection to a gateway": {order: "Host Connection Accept", edit: only("Accept", "*/*", "Connection", "x"), want: "Host: target.example|Accept: */*"},
	"handshake": {order: "Connection UPGRADE host Connection", edit: form(handshakeForm, only("Connection", "Upgrade", "Upgrade", "websocket")),
		want: "Connection: Upgrade|UPGRADE: websocket|host: target.example"},
	"length":                      {order: "content-length Host Accept", edit: body(5, only("Accept", "*/*")), want: "content-length: 5|Host: target.example|Accept: */*"},
	"one framing":                 {order: "Content-Length Host Transfer-Encoding content-length", edit: body(5, only()), want: "Content-Length: 5|Host: target.example"},
	"chunked in a length's place": {order: "Content-Length Host", edit: body(-1, only()), want: "Transfer-Encoding: chunked|Host: target.example"},
	"chunked":                     {order: "Host transfer-encoding Accept", edit: body(-1, only("Accept", "*/*")), want: "Host: target.example|transfer-encoding: chunked|Accept: */*"},
	"framing behind host":         {order: "Accept host X-A", edit: body(5, only("Accept", "*/*", "X-A", "1")), want: "Accept: */*|host: target.example|Content-Length: 5|X-A: 1"},
	"framing that is not seen":    {order: "Host cONTENT-LENGTH", edit: body(5, only()), want: "Host: target.example|Content-Length: 5"},
	"length of nothing":           {order: "Host Content-length Accept", edit: only("Accept", "*/*"), want: "Host: target.example|Content-length: 0|Accept: */*"},
	"no length of nothing":        {order: "Host", edit: func(h *requestHead) { only()(h); h.Method = "POST" }, want: "Host: target.example"},
	"trailer": {order: "Host trailer X-A Transfer-Encoding", edit: func(h *requestHead) {
		body(-1, only("X-A", "1"))(h)
		h.Trailer = http.Header{"X-Z": nil, "X-Sum": nil}
	}, want: "Host: target.example|trailer: X-Sum,X-Z|X-A: 1|Transfer-Encoding: chunked"},
	"trailer without its place": {order: "Host X-A", edit: func(h *requestHead) {
		body(-1, only("X-A", "1"))(h)
		h.Trailer = http.Header{"X-Sum": nil}
	}, want: "Host: target.example|Transfer-Encoding: chunked|Trailer: X-Sum|X-A: 1"},
	"no trailer without chunks": {order: "Host Trailer Content-Length", edit: func(h *requestHead) {
		body(5, only())(h)
		h.Trailer = http.Header{"X-Sum": nil}
	}, want: "Host: target.example|Content-Length: 5"},
}

// only sets the fields, by names and values.
func only(fields ...string) func(h *requestHead) {
	return func(h *requestHead) {
		h.Header = http.Header{}
		for i := 0; i < len(fields); i += 2 {
			h.Header.Add(fields[i], fields[i+1])
		}
	}
}

func login(edit func(h *requestHead)) func(h *requestHead) {
	return func(h *requestHead) { edit(h); h.login = "L" }
}

func form(f requestForm, edit func(h *requestHead)) func(h *requestHead) {
	return func(h *requestHead) { edit(h); h.form = f }
}

func body(length int64, edit func(h *requestHead)) func(h *requestHead) {
	return func(h *requestHead) {
		edit(h)
		h.Method, h.Body, h.ContentLength = "POST", io.NopCloser(strings.NewReader("hello")), length
	}
}

func TestRequestOrder(t *testing.T) {
	for name, test := range orderTests {
		t.Run(name, func(t *testing.T) {
			h := &requestHead{Request: &http.Request{
				Method: "GET", Host: "target.example", URL: &url.URL{Scheme: "http", Host: "target.example", Path: "/"},
				Header: http.Header{"Accept": {"*/*"}, "User-Agent": {"curl"}, "Cookie": {"c"}, "X-A": {"1", "2"}},
			}, order: strings.Split(test.order, " ")}
			if test.edit != nil {
				test.edit(h)
			}
			b, err := appendRequest(nil, h)
			must(t, err)
			_, fields, _ := strings.Cut(string(b), "\r\n")
			if got := strings.ReplaceAll(strings.TrimSuffix(fields, "\r\n\r\n"), "\r\n", "|"); got != test.want {
				t.Errorf("got\n%q, want\n%q", got, test.want)
			}
		})
	}
}

// Many fields are sorted to be found; few are not.
func TestRequestOrderOfMany(t *testing.T) {
	for _, n := range []int{fewFields - 1, fewFields, fewFields + 1, 100} {
		h := &requestHead{Request: plainGet(), order: []string{"Host"}}
		want := "Host: target.example\r\n"
		for i := n; i > 0; i-- {
			name := fmt.Sprintf("x-%03d", i*7%101)
			h.Header.Set(name, "v")
			if i%2 == 0 {
				h.order = append(h.order, name)
				want += name + ": v\r\n"
			}
		}
		var rest []string
		for name := range h.Header {
			if !strings.Contains(want, strings.ToLower(name)) {
				rest = append(rest, name+": v\r\n")
			}
		}
		slices.Sort(rest)
		b, err := appendRequest(nil, h)
		must(t, err)
		checkHead(t, h, string(b))
		if _, got, _ := strings.Cut(string(b), "\r\n"); got != want+strings.Join(rest, "")+"\r\n" {
			t.Errorf("%d fields: %q", n, got)
		}
	}
}

// What cannot be written is refused in the customer's order, too.
func TestRequestOrderRefuses(t *testing.T) {
	for name, test := range requestTests {
		if test.want != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]string{{}, {"Host", "user-agent", "x"}, {"Transfer-Encoding", "Trailer", "Proxy-Authorization"}} {
				r := plainGet()
				if test.edit != nil {
					test.edit(r)
				}
				if b, err := appendRequest(nil, &requestHead{r, test.login, test.form, order}); err == nil {
					t.Errorf("written: %q", b)
				}
			}
		})
	}
}

// chromium is a browser's request, as net/http has read it.
func chromium() *requestHead {
	h := &requestHead{Request: plainGet(), login: "Basic dTpw"}
	lines := []string{
		"Host", "", "Proxy-Connection", "", "Proxy-Authorization", "", "Upgrade-Insecure-Requests", "1", "User-Agent", "Mozilla/5.0 (X11; Linux x86_64)",
		"Accept", "text/html,application/xhtml+xml", "Referer", "http://target.example/", "Accept-Encoding", "gzip, deflate", "Accept-Language", "en-US,en;q=0.9",
		"Cookie", "a=b; c=d", "If-None-Match", "\"x\"",
	}
	for i := 0; i < len(lines); i += 2 {
		h.order = append(h.order, lines[i])
		if lines[i+1] != "" {
			h.Header.Set(lines[i], lines[i+1])
		}
	}
	return h
}

// The order costs no memory.
func TestRequestOrderAllocates(t *testing.T) {
	h, b := chromium(), make([]byte, 0, 1<<10)
	ordered := testing.AllocsPerRun(100, func() { _, _ = appendRequest(b, h) })
	h.order = nil
	if sorted := testing.AllocsPerRun(100, func() { _, _ = appendRequest(b, h) }); ordered > sorted {
		t.Errorf("%g allocations, %g without an order", ordered, sorted)
	}
}

func BenchmarkRequestHead(b *testing.B) {
	for name, edit := range map[string]func(h *requestHead){"ordered": func(*requestHead) {}, "sorted": func(h *requestHead) { h.order = nil }} {
		b.Run(name, func(b *testing.B) {
			h, buf := chromium(), make([]byte, 0, 1<<10)
			edit(h)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := appendRequest(buf, h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
