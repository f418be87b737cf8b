package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"maskrelay/masking"
	"maskrelay/upstream/upstreamtest"
)

// inParts answers any request with the parts of an answer, one write each, a moment
// apart, and then closes. {brand} is the vendor's.
func inParts(parts ...string) upstreamtest.Behaviour {
	return upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		for i, part := range parts {
			if i > 0 {
				select {
				case <-ctx.Done():
					return
				case <-time.After(20 * time.Millisecond): // a packet of its own
				}
			}
			if _, err := io.WriteString(c, strings.ReplaceAll(part, "{brand}", "SuperVendor")); err != nil {
				break
			}
		}
		_ = c.Close()
	})
}

// What the vendor says in the target's place becomes our 502; the rig scans for its name.
func TestGatewaysAnswersBecomeOurs(t *testing.T) {
	filler := strings.Repeat("<p>Something went wrong.</p>\n", 400) // 11 KB
	tests := map[string]upstreamtest.Behaviour{
		"page without a length, in packets": inParts("HTTP/1.0 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>", "<title>Error", "</title>see https://{brand}.example/help"),
		"page with a length, name at 11 KB": inParts(fmt.Sprintf("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s", len(filler)+11, filler), "{brand}"),
		"redirect to its own pages":         inParts("HTTP/1.1 302 Found\r\nLocation: https://dashboard.{brand}.example/topup\r\nContent-Length: 11\r\n\r\n{brand}"),
		"code for a reason":                 inParts("HTTP/1.1 502 NO_HOST_CONNECTION\r\nX-Exit: 1\r\nContent-Length: 0\r\n\r\n"),
		"name for a reason":                 inParts("HTTP/1.1 503 {brand} is busy\r\nContent-Length: 0\r\n\r\n"),
		"JSON":                              inParts("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{\"error\":\"{brand} KYC\"}"),
	}
	for name, behaviour := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: behaviour}})
			c := r.dial()
			c.send(request("GET", "http://shop.example/"))
			if response, _ := c.answer("GET"); response.StatusCode != 502 {
				t.Errorf("status %d", response.StatusCode)
			}
		})
	}
}

// What comes too late to make the answer ours must still not name the vendor.
func TestLateNameInAnErrorBodyIsCutOff(t *testing.T) {
	head := "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	long := strings.Repeat("x", 20<<10)
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: inParts(head+chunk(long), chunk("by Super"), chunk("Vendor, your proxy"), chunk(""))}})
	c := r.dial()
	c.send(request("GET", "http://shop.example/"))
	got := c.breaks()
	if !strings.HasPrefix(got, "HTTP/1.1 404 Not Found\r\n") || strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("got %d bytes: %.100q … %q, want a 404 that is cut off", len(got), got, got[max(0, len(got)-40):])
	}
}

// An error that comes as a stream is passed on as it comes.
func TestErrorStreamIsNotHeldUp(t *testing.T) {
	line := "{\"error\":\"more to come\"}\n"
	proceed := make(chan struct{})
	r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(func(ctx context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		_, _ = io.WriteString(c, "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/x-ndjson\r\n\r\n"+line)
		select {
		case <-proceed:
			_, _ = io.WriteString(c, line)
		case <-ctx.Done():
		}
		_ = c.Close()
	})}})
	c := r.dial()
	c.send(request("GET", "http://shop.example/"))
	c.expect("HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.expect(fmt.Sprintf("%x\r\n%s\r\n", len(line), line))
	close(proceed)
	c.expect(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(line), line))
}

// A customer who names a vendor's site himself gets its redirects. What answers with
// an error is judged by all marks, whatever host he thinks of.
func TestMarkedSiteAskedForByName(t *testing.T) {
	tests := map[string]struct {
		answer string
		status int
	}{
		"redirect":             {"HTTP/1.1 301 Moved Permanently\r\nLocation: https://www.oxylabs.io/\r\nContent-Length: 0\r\n\r\n", 301},
		"vendor's own error":   {"HTTP/1.1 503 Service Unavailable\r\nServer: {brand}\r\nContent-Length: 7\r\n\r\n{brand}", 502},
		"built-in one's error": {"HTTP/1.1 503 Service Unavailable\r\nContent-Type: Text/HTML\r\nContent-Length: 16\r\n\r\nask oxylabs.io!!", 502},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: inParts(test.answer)}})
			c := r.dial()
			c.send(request("GET", "http://www.oxylabs.io.test/"))
			if response, _ := c.answer("GET"); response.StatusCode != test.status || response.StatusCode == 301 && response.Header.Get("Location") == "" {
				t.Errorf("status %d, %v", response.StatusCode, response.Header)
			}
		})
	}
}

var errBroken = errors.New("broken")

func TestGuardedBody(t *testing.T) {
	marks := masking.NewMarks("SuperVendor", "vendor.example")
	tests := map[string]struct {
		in    string
		after error // of the body
		want  string
		err   error
	}{
		"clean":                {in: "nothing here, supervend nor vendor.exampl", want: "nothing here, supervend nor vendor.exampl", err: io.EOF},
		"mark":                 {in: "by SUPERVENDOR inc", want: "by ", err: errMarked},
		"mark at the start":    {in: "vendor.example", want: "", err: errMarked},
		"broken off":           {in: "half a superven", after: errBroken, want: "half a superven", err: errBroken},
		"empty":                {in: "", want: "", err: io.EOF},
		"beginning at its end": {in: "xs", want: "xs", err: io.EOF},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "error with data": iotest.DataErrReader,
	}
	for name, test := range tests {
		for how, reader := range readers {
			t.Run(name+"/"+how, func(t *testing.T) {
				var in io.Reader = strings.NewReader(test.in)
				if test.after != nil {
					in = io.MultiReader(in, iotest.ErrReader(test.after))
				}
				g := &guardedBody{body: io.NopCloser(reader(in)), marks: marks}
				var got []byte
				var err error
				for buf := make([]byte, 3); err == nil; {
					var n int
					n, err = g.Read(buf)
					got = append(got, buf[:n]...)
				}
				// Read whole, bytes before the mark in the same read do not pass either.
				if !strings.HasPrefix(test.want, string(got)) || !errors.Is(test.err, errMarked) && string(got) != test.want || !errors.Is(err, test.err) {
					t.Errorf("got %q, %v; want %q, %v", got, err, test.want, test.err)
				}
			})
		}
	}
}
