package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// fixed is a gateway that answers a request when it has read all of want, or at once.
func fixed(want, text string) upstreamtest.Behaviour {
	return upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		if _, err := io.ReadFull(c, make([]byte, len(want))); err != nil {
			return
		}
		if _, err := io.WriteString(c, text); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
	})
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// post is a POST of body; length -1 = unknown.
func post(t *testing.T, body io.Reader, length int64) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://target.example/", io.NopCloser(body))
	must(t, err)
	r.ContentLength = length
	return r
}

// lateTrailer gives its trailers their values when its text ends.
type lateTrailer struct {
	io.Reader
	trailer http.Header
}

func (l lateTrailer) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err != nil {
		l.trailer["X-Sum"] = []string{"1"}
		l.trailer["X-Two"] = []string{"a", "b"}
	}
	return n, err
}

func TestUploads(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 5000) // more than one buffer
	tests := map[string]struct {
		body    string
		length  int64
		trailer bool
		framing string // in the head
		want    string // on the wire, after the head
	}{
		"length":        {"hello", 5, false, "Content-Length: 5\r\n", "hello"},
		"long":          {long, int64(len(long)), false, "Content-Length: 80000\r\n", long},
		"unknown":       {"hello", -1, false, "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"},
		"unknown, zero": {"hello", 0, false, "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"},
		"empty":         {"", -1, false, "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"},
		"long, unknown": {long, -1, false, "Transfer-Encoding: chunked\r\n", "8000\r\n" + long[:32768] + "\r\n8000\r\n" + long[32768:65536] + "\r\n3880\r\n" + long[65536:] + "\r\n0\r\n\r\n"},
		"trailers":      {"hello", -1, true, "Transfer-Encoding: chunked\r\nTrailer: X-Sum,X-Two\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Two: a\r\nX-Two: b\r\n\r\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: fixed(test.want, okAnswer)})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
			r := post(t, strings.NewReader(test.body), test.length)
			if test.trailer {
				r.Trailer = http.Header{"X-Sum": nil, "X-Two": nil}
				r.Body = io.NopCloser(lateTrailer{strings.NewReader(test.body), r.Trailer})
			}
			response, _, err := tr.Do(PlainRequest{Request: r})
			must(t, err)
			if got := drain(t, response.Response); got != "ok" {
				t.Errorf("got %q", got)
			}
			head, body, _ := strings.Cut(string(v.Received()), "\r\n\r\n")
			if !strings.Contains(head+"\r\n", test.framing) || strings.Count(head, "Content-Length")+strings.Count(head, "Transfer-Encoding") != 1 || body != test.want {
				t.Errorf("sent %q %d bytes of body, want %q %d", head, len(body), test.framing, len(test.want))
			}
			waitFor(t, func() bool { return newestIdle(tr) != nil }) // the connection lives on
		})
	}
}

// gate is a body of which nothing comes until it is opened; then fails.
type gate struct {
	open  chan struct{}
	reads atomic.Int64
	err   error
}

func newGate(err error) *gate { return &gate{open: make(chan struct{}), err: err} }

func (g *gate) Read([]byte) (int, error) {
	g.reads.Add(1)
	<-g.open
	return 0, g.err
}

var errCustomer = errors.New("the customer's body broke")

// An answer that comes before the body is whole is delivered; the connection is not
// used again when the body ends as it should not.
func TestAnswerBeforeTheBody(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{Behaviour: fixed("", "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")})
	tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	body := newGate(errCustomer)
	response, _, err := tr.Do(PlainRequest{Request: post(t, body, 100)})
	must(t, err)
	if got := drain(t, response.Response); got != "no" || response.StatusCode != 413 {
		t.Errorf("got %d %q", response.StatusCode, got)
	}
	close(body.open)
	waitFor(t, func() bool { return v.Open() == 0 })
	if newestIdle(tr) != nil {
		t.Error("the connection is kept")
	}
}

// The customer's failure ends the exchange, and is its error.
func TestBodyFails(t *testing.T) {
	tests := map[string]struct {
		err    error
		length int64
		want   error
	}{
		"breaks": {errCustomer, 100, errCustomer}, "breaks, unknown length": {errCustomer, -1, errCustomer}, "is short": {io.EOF, 100, io.ErrUnexpectedEOF},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
			tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 20 * time.Second})
			body := newGate(test.err)
			close(body.open)
			_, _, err := tr.Do(PlainRequest{Request: post(t, body, test.length)})
			var failure *ConnectError
			if !errors.Is(err, test.want) || !errors.As(err, &failure) || failure.Cause != CauseClosed {
				t.Errorf("got %v", err)
			}
			waitFor(t, func() bool { return v.Open() == 0 })
			if b := v.Received(); strings.HasSuffix(string(b), "\r\n0\r\n\r\n") {
				t.Errorf("a broken body looks whole: %q", b)
			}
		})
	}
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A gateway that does not take the body is left in time, one that closes is heard first.
func TestGatewayDoesNotTakeTheBody(t *testing.T) {
	t.Run("stops reading", func(t *testing.T) {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Then: upstreamtest.Stall}})
		tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 200 * time.Millisecond})
		_, _, err := tr.Do(PlainRequest{Request: post(t, zeros{}, -1)})
		var failure *ConnectError
		if !errors.As(err, &failure) || failure.Cause != CauseTimeout {
			t.Errorf("got %v", err)
		}
	})
	t.Run("never answers", func(t *testing.T) {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
		tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 200 * time.Millisecond})
		_, _, err := tr.Do(PlainRequest{Request: post(t, strings.NewReader("hello"), 5)})
		var failure *ConnectError
		if !errors.As(err, &failure) || failure.Cause != CauseTimeout {
			t.Errorf("got %v", err)
		}
	})
	t.Run("closes", func(t *testing.T) {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Raw{Then: upstreamtest.RST}})
		tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}, ConnectTimeout: 20 * time.Second})
		_, _, err := tr.Do(PlainRequest{Request: post(t, zeros{}, -1)})
		var failure *ConnectError
		if !errors.As(err, &failure) || failure.Cause != CauseClosed {
			t.Errorf("got %v", err)
		}
	})
}

func TestExpectContinue(t *testing.T) {
	expecting := func(t *testing.T, body io.Reader) *http.Request {
		r := post(t, body, 5)
		r.Header.Set("Expect", "100-continue")
		return r
	}
	t.Run("asked for", func(t *testing.T) {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Func(func(_ context.Context, c *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			if _, err := io.ReadFull(c, make([]byte, 5)); err == nil {
				_, _ = io.WriteString(c, okAnswer)
			}
			_, _ = c.ReadRequest()
		})})
		tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
		response, _, err := tr.Do(PlainRequest{Request: expecting(t, strings.NewReader("hello"))})
		must(t, err)
		drain(t, response.Response)
		waitFor(t, func() bool { return newestIdle(tr) != nil })
	})
	t.Run("refused", func(t *testing.T) {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: fixed("", "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")})
		tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
		body := newGate(errCustomer)
		response, _, err := tr.Do(PlainRequest{Request: expecting(t, body)})
		must(t, err)
		drain(t, response.Response)
		waitFor(t, func() bool { return v.Open() == 0 })
		if n := body.reads.Load(); n != 0 || response.StatusCode != 417 {
			t.Errorf("status %d, the body was read %d times", response.StatusCode, n)
		}
	})
	t.Run("no word of it", func(t *testing.T) {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: fixed("hello", okAnswer)})
		tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
		response, _, err := tr.Do(PlainRequest{Request: expecting(t, strings.NewReader("hello"))})
		must(t, err)
		if got := drain(t, response.Response); got != "ok" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("closed instead", func(t *testing.T) {
		v := startVendor(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.CloseBeforeReply()})
		tr := newTransport(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
		body := newGate(errCustomer)
		if _, _, err := tr.Do(PlainRequest{Request: expecting(t, body)}); err == nil || body.reads.Load() != 0 {
			t.Errorf("got %v, the body was read %d times", err, body.reads.Load())
		}
	})
}
