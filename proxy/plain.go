package proxy

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	"github.com/elazarl/goproxy"

	"maskrelay/upstream"
)

// plain carries an ordinary request through goproxy.
func (h *handler) plain(w http.ResponseWriter, r *http.Request, x *exchange) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	out := &plainWriter{ResponseWriter: w, h: h, x: x, r: r, control: http.NewResponseController(w), cancel: cancel}
	ctx = context.WithValue(ctx, plainKey{}, out)
	if r.ProtoAtLeast(1, 1) {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotFirstResponseByte: func() { out.answered.Store(true) },
			Got100Continue:       func() { out.answered.Store(false) },
			Got1xxResponse:       out.informational,
		})
	}
	// Filtered before goproxy takes Connection away, which names more fields that must go.
	filtered := r.WithContext(ctx)
	filtered.Header = r.Header.Clone()
	h.server.config.Policy.Request(filtered.Header)
	h.goproxy.ServeHTTP(out, filtered)
	out.end()
}

// plainKey is the context key of the request's plainWriter.
type plainKey struct{}

// roundTrip sends goproxy's request through the upstream: filtered on the way out,
// filtered on the way back. No other code of ours or goproxy's sees a vendor's head.
func (h *handler) roundTrip(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
	w, ok := r.Context().Value(plainKey{}).(*plainWriter)
	if !ok {
		return nil, errFailClosed
	}
	x := w.x
	response, gateway, err := h.server.transport.Do(upstream.PlainRequest{
		Request: h.outgoing(r, w), Authorization: x.who.authorization, Key: x.who.key,
	})
	x.upstream = gateway
	if err != nil {
		return nil, err
	}
	x.connect = time.Since(x.start)
	if response.StatusCode == http.StatusSwitchingProtocols {
		_ = response.Body.Close() // nobody asked for it
		return nil, &upstream.ConnectError{Gateway: gateway, Phase: upstream.PhaseRequest, Cause: upstream.CauseMalformed, Status: 101}
	}
	policy := w.policy(response.StatusCode)
	policy.Response(response.Header)
	policy.Trailer(response.Trailer)
	response.Body = &responseBody{ReadCloser: response.Body, response: response.Response, trailers: response.Trailers, w: w}
	return response.Response, nil
}

// outgoing is the request as it leaves: the target's Host (RFC 9112 §3.2.2), the
// request target byte for byte. Its fields were filtered before goproxy saw them.
func (h *handler) outgoing(r *http.Request, w *plainWriter) *http.Request {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.Close = false // the customer's connection, not ours to the gateway
	out.Host = r.URL.Host
	out.URL = rawURL(w.r) // goproxy has cleared RequestURI in its own
	if out.Body == nil || out.ContentLength == 0 {
		out.Body = http.NoBody
		return out
	}
	out.Trailer = r.Trailer.Clone()
	h.server.config.Policy.Trailer(out.Trailer)
	w.body = &requestBody{ReadCloser: r.Body, w: w, trailer: out.Trailer}
	if strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		w.body.over = r.Context().Done()
	}
	out.Body = w.body
	return out
}

// rawURL keeps the request target as the customer spelled it: net/url would escape
// some bytes anew.
func rawURL(r *http.Request) *url.URL {
	u := *r.URL
	_, rest, ok := strings.Cut(r.RequestURI, "://")
	if !ok {
		return &u
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	if !strings.Contains(rest, "/") {
		rest += "/" // RFC 9112 §3.2.1: an empty path is sent as "/"
	}
	u.Opaque, u.Path, u.RawPath = "//"+rest, "", ""
	u.RawQuery, u.ForceQuery = query, hasQuery && query == ""
	return &u
}

// settle is goproxy's response hook: an error becomes one of our replies, which
// plainWriter writes in the place of this empty response.
func (h *handler) settle(response *http.Response, ctx *goproxy.ProxyCtx) *http.Response {
	if response != nil {
		return response
	}
	w, ok := ctx.Req.Context().Value(plainKey{}).(*plainWriter)
	outcome := UpstreamFailed
	if ok {
		outcome, w.x.cause = upstreamOutcome(ctx.Error, h.server.config.Auth == AuthPassthrough)
		w.x.outcome, w.x.err = outcome, ctx.Error
		if outcome == UpstreamAuth {
			w.x.conn.letGo()
		}
		if w.idled.Load() {
			w.x.outcome, w.x.cause = UpstreamTimeout, "idle"
		}
		if o := w.body.fault(); o != "" {
			w.x.outcome, w.x.cause = o, "body"
		}
	}
	return &http.Response{StatusCode: h.server.replies.of(outcome).Status(), Header: http.Header{}, Body: http.NoBody}
}

// informational passes a 1xx of the target's on, filtered. 100 is net/http's own to
// send, 101 is no answer to a plain request.
func (w *plainWriter) informational(code int, header textproto.MIMEHeader) error {
	w.answered.Store(false) // the answer is still to come
	if code == http.StatusContinue || code == http.StatusSwitchingProtocols {
		return nil
	}
	if w.body != nil && w.body.over != nil {
		return nil // net/http may be writing its 100 at this very moment, and knows no lock for both
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrote {
		return nil
	}
	filtered := http.Header(header).Clone()
	w.policy(code).Response(filtered)
	to := w.ResponseWriter.Header()
	for name, values := range filtered {
		to[name] = values
	}
	w.ResponseWriter.WriteHeader(code)
	clear(to)
	return nil
}
