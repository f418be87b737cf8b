package proxy

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/elazarl/goproxy"

	"maskrelay/masking"
	"maskrelay/upstream"
)

// plain carries an ordinary request through goproxy.
func (h *handler) plain(w http.ResponseWriter, r *http.Request, x *exchange) {
	ctx, stop := x.conn.watched(r.Context())
	defer stop()
	out := &plainWriter{ResponseWriter: w, h: h, x: x, r: r, control: http.NewResponseController(w), left: ctx.Err, gone: ctx.Done(), extended: x.start}
	x.plain = out
	out.share()
	defer out.unshare()
	h.goproxy.ServeHTTP(out, h.outgoing(ctx, r, out))
	out.end()
}

// outgoing is the request as it leaves: its fields filtered before goproxy takes
// Connection away, which names more fields that must go; the target's Host (RFC 9112
// §3.2.2); the request target byte for byte. r stays as it is.
func (h *handler) outgoing(ctx context.Context, r *http.Request, w *plainWriter) *http.Request {
	out := r.WithContext(ctx)
	out.Header = maps.Clone(r.Header) // the mask takes fields out and leaves their lines alone
	w.order = w.x.conn.fieldOrder()
	dropAdded(out.Header, w.order)
	nominated := masking.NominatedBy(out.Header)
	h.server.config.Policy.Request(out.Header)
	out.Close = false // the customer's connection, not ours to the gateway
	out.Host = r.URL.Host
	out.URL = rawURL(r)
	if r.Body == nil || r.ContentLength == 0 {
		out.Body = http.NoBody
		return out
	}
	out.Trailer = r.Trailer.Clone()
	h.server.config.Policy.Trailer(out.Trailer)
	nominated.Drop(out.Trailer)
	w.body = &requestBody{ReadCloser: r.Body, w: w, trailer: out.Trailer}
	w.body.expects = strings.EqualFold(r.Header.Get("Expect"), "100-continue")
	out.Body = w.body
	return out
}

// roundTrip sends goproxy's request through the upstream, and filters what comes
// back. No other code of ours or goproxy's sees a vendor's head.
func (h *handler) roundTrip(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
	x := exchangeOf(r.Context())
	if x == nil || x.plain == nil {
		return nil, errFailClosed
	}
	w := x.plain
	request := upstream.PlainRequest{
		Request: r, Authorization: x.who.authorization, Route: x.route, Key: x.who.key, Order: w.order, Idle: h.server.config.IdleTimeout,
	}
	if r.ProtoAtLeast(1, 1) {
		request.Informational = w.informational
	}
	response, gateway, err := h.server.transport.Do(request)
	x.upstream = gateway
	if err != nil {
		return nil, err
	}
	x.connect = time.Since(x.start)
	w.upstreamAnswered()
	if response.StatusCode == http.StatusSwitchingProtocols {
		_ = response.Body.Close() // nobody asked for it
		return nil, &upstream.ConnectError{Gateway: gateway, Phase: upstream.PhaseRequest, Cause: upstream.CauseMalformed, Status: 101}
	}
	policy := w.policy(response.StatusCode)
	nominated := masking.NominatedBy(response.Header)
	policy.Response(response.Header)
	policy.Trailer(response.Trailer)
	nominated.Drop(response.Trailer)
	w.ready, w.came.names = response.Ready(), response.Order
	response.Body = &responseBody{ReadCloser: response.Body, response: response.Response, trailers: response.Trailers, nominated: nominated, w: w}
	return response.Response, nil
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
	outcome := UpstreamFailed
	if x := exchangeOf(ctx.Req.Context()); x != nil && x.plain != nil {
		w := x.plain
		outcome, w.x.cause = upstreamOutcome(ctx.Error, h.server.config.Auth == AuthPassthrough)
		w.x.outcome, w.x.err = outcome, ctx.Error
		if outcome == UpstreamAuth {
			w.x.conn.letGo()
		}
		if o := w.body.fault(); o != "" {
			w.x.outcome, w.x.cause = o, "body"
		}
	}
	return &http.Response{StatusCode: h.server.replies.of(outcome).Status(), Header: http.Header{}, Body: http.NoBody}
}

// informational passes a 1xx of the target's on, filtered. 100 is net/http's own to
// send, 101 is no answer to a plain request.
func (w *plainWriter) informational(code int, header http.Header) {
	if code == http.StatusContinue || code == http.StatusSwitchingProtocols || http.StatusText(code) == "" { // net/http would write a phrase of its own
		return
	}
	if w.body != nil && w.body.expects {
		return // net/http may be writing its 100 at this very moment, and knows no lock for both
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrote {
		return
	}
	w.policy(code).Response(header)
	to := w.ResponseWriter.Header()
	for name, values := range header {
		to[name] = values
	}
	w.ResponseWriter.WriteHeader(code)
	clear(to)
}
