package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

var requestTests = map[string]struct {
	edit  func(r *http.Request)
	login string
	form  requestForm
	want  string // "" = refused
}{
	"plain":  {want: "GET http://target.example/a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\n\r\n"},
	"login":  {login: "Basic x", want: "GET http://target.example/a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\nProxy-Authorization: Basic x\r\n\r\n"},
	"direct": {form: originFormOnce, want: "GET /a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\nConnection: close\r\n\r\n"},
	"tunnel": {form: originForm, login: "not the target's to see", want: "GET /a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\n\r\n"},
	"opaque, tunnel": {form: originForm, edit: func(r *http.Request) { r.URL.Opaque = "//target.example/{x}//y" },
		want: "GET /{x}//y?q=1 HTTP/1.1\r\nHost: target.example\r\n\r\n"},
	"opaque": {edit: func(r *http.Request) {
		r.URL.Opaque, r.URL.RawQuery, r.URL.ForceQuery = "//target.example/{x}", "", true
	},
		want: "GET http://target.example/{x}? HTTP/1.1\r\nHost: target.example\r\n\r\n"},
	"opaque, direct": {form: originFormOnce, edit: func(r *http.Request) { r.URL.Opaque = "//target.example/{x}//y" },
		want: "GET /{x}//y?q=1 HTTP/1.1\r\nHost: target.example\r\nConnection: close\r\n\r\n"},
	"order": {edit: func(r *http.Request) {
		r.Header = http.Header{"B": {"2", "1"}, "Accept": {"*/*"}, "User-Agent": {"curl"}, "Cookie": {"c"}}
	}, login: "L", want: "GET http://target.example/a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\nUser-Agent: curl\r\nProxy-Authorization: L\r\nAccept: */*\r\nB: 2\r\nB: 1\r\nCookie: c\r\n\r\n"},
	"no framing but ours": {edit: func(r *http.Request) {
		r.Header = http.Header{"Content-Length": {"7"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"x"}, "Connection": {"x"}, "Host": {"other"}, "Proxy-Authorization": {"his"}}
	}, want: "GET http://target.example/a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\n\r\n"},
	"POST without a body": {edit: func(r *http.Request) { r.Method = "POST" },
		want: "POST http://target.example/a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\nContent-Length: 0\r\n\r\n"},
	"DELETE with one": {edit: func(r *http.Request) {
		r.Method, r.Body, r.ContentLength = "DELETE", io.NopCloser(strings.NewReader("x")), 1
	},
		want: "DELETE http://target.example/a%20b?q=1 HTTP/1.1\r\nHost: target.example\r\nContent-Length: 1\r\n\r\n"},
	"value with line end":  {edit: func(r *http.Request) { r.Header["X"] = []string{"a\r\nY: b"} }},
	"value with line feed": {edit: func(r *http.Request) { r.Header["X"] = []string{"a\nY: b"} }},
	"value with NUL":       {edit: func(r *http.Request) { r.Header["X"] = []string{"a\x00"} }},
	"name with colon":      {edit: func(r *http.Request) { r.Header["X: a\r\nY"] = []string{"b"} }},
	"agent with line end":  {edit: func(r *http.Request) { r.Header["User-Agent"] = []string{"a\r\nY: b"} }},
	"method with space":    {edit: func(r *http.Request) { r.Method = "GET /x" }},
	"no method":            {edit: func(r *http.Request) { r.Method = "" }},
	"target with space":    {edit: func(r *http.Request) { r.URL.Opaque = "//target.example/a b" }},
	"target with line end": {edit: func(r *http.Request) { r.URL.Opaque = "//target.example/a\r\nX:" }},
	"query with line end":  {edit: func(r *http.Request) { r.URL.Opaque, r.URL.RawQuery = "//target.example/", "a\r\nX:" }},
	"host with line end":   {edit: func(r *http.Request) { r.Host = "target.example\r\nX: y" }},
	"no host":              {edit: func(r *http.Request) { r.Host = "" }},
	"login with line end":  {login: "Basic x\r\nX: y"},
	"trailer with line end": {edit: func(r *http.Request) {
		r.Body, r.Trailer = io.NopCloser(strings.NewReader("x")), http.Header{"A\r\nB": nil}
	}},
	"framing in a trailer": {edit: func(r *http.Request) {
		r.Body, r.Trailer = io.NopCloser(strings.NewReader("x")), http.Header{"Content-Length": nil}
	}},
}

func plainGet() *http.Request {
	return &http.Request{
		Method: "GET", Host: "target.example", URL: &url.URL{Scheme: "http", Host: "target.example", Path: "/a b", RawQuery: "q=1"},
		Header: http.Header{},
	}
}

func TestRequestHead(t *testing.T) {
	for name, test := range requestTests {
		t.Run(name, func(t *testing.T) {
			r := plainGet()
			if test.edit != nil {
				test.edit(r)
			}
			b, err := appendRequest(nil, &requestHead{r, test.login, test.form, nil})
			if test.want == "" {
				if !errors.Is(err, errRequest) {
					t.Errorf("got %q, %v; want it refused", b, err)
				}
				return
			}
			if must(t, err); string(b) != test.want {
				t.Errorf("got\n%q, want\n%q", b, test.want)
			}
		})
	}
}

// A request that cannot be written reaches no gateway.
func TestRequestThatCannotBeWritten(t *testing.T) {
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", "http://"+closedAddr(t))}})
	r := get(t, "http://target.example/")
	r.Header["X"] = []string{"a\r\nb"}
	_, _, err := tr.Do(PlainRequest{Request: r})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Phase != PhaseRequest || failure.Cause != CauseMalformed {
		t.Errorf("got %v", err)
	}
}

// Gateways that keep a request waiting have no more time between them than one set-up.
func TestPlainKeepsToItsTime(t *testing.T) {
	t.Parallel()
	var gateways []Gateway
	for range 3 {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(
			func(ctx context.Context, _ *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) { <-ctx.Done() })})
		gateways = append(gateways, gatewayOf(t, v.Addr(), v.URL()))
	}
	const patience = 2 * time.Second
	tr := newTransport(t, Options{Gateways: gateways, DialTimeout: patience / 10, ConnectTimeout: patience})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://target.example/", nil)
	must(t, err)
	start := time.Now()
	_, _, err = tr.Do(PlainRequest{Request: r})
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Cause != CauseTimeout {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took < patience || took > patience*8/5 {
		t.Errorf("%s, of %s", took, patience*11/10)
	}
}
