package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/elazarl/goproxy"

	"maskrelay/proxy/tunnel"
)

// maxMethod is how much of a method the log keeps, in bytes; those of the IANA registry are shorter.
const maxMethod = 32

// handler is the front's http.Handler: the gate, then goproxy.
type handler struct {
	server  *Server
	goproxy *goproxy.ProxyHttpServer
}

func newHandler(s *Server) *handler {
	h := &handler{server: s}
	h.goproxy = h.newGoproxy()
	return h
}

var errFailClosed = errors.New("proxy: goproxy must not dial")

// newGoproxy sets goproxy up so that whatever is forgotten fails instead of going
// somewhere by itself: no dial, no environment, no decompression, no log of its own.
func (h *handler) newGoproxy() *goproxy.ProxyHttpServer {
	refuse := func(context.Context, string, string) (net.Conn, error) { return nil, errFailClosed }
	p := goproxy.NewProxyHttpServer()
	p.Logger = debugLog{h.server.log}
	p.Tr = &http.Transport{DialContext: refuse, DialTLSContext: refuse, DisableCompression: true, DisableKeepAlives: true}
	p.ConnectDial = func(string, string) (net.Conn, error) { return nil, errFailClosed }
	p.ConnectDialWithReq = func(*http.Request, string, string) (net.Conn, error) { return nil, errFailClosed }
	p.KeepAcceptEncoding = true
	p.NonproxyHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.refuse(w, r, exchangeOf(r.Context()), BadRequest)
	})
	action := &goproxy.ConnectAction{Action: goproxy.ConnectHijack, Hijack: h.submit}
	p.OnRequest().HandleConnectFunc(func(host string, _ *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		return action, host
	})
	p.OnRequest().DoFunc(func(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		ctx.RoundTripper = goproxy.RoundTripperFunc(h.roundTrip)
		return r, nil
	})
	p.OnResponse().DoFunc(h.settle)
	return p
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := frontOf(r.Context())
	if c == nil {
		panic(http.ErrAbortHandler) // not served through a listener of ours
	}
	defer c.handled()
	c.setPhase(phaseHandling)
	c.lingers = false
	c.saying.Store(nil)
	c.leaving.Store(false)
	_ = c.SetWriteDeadline(time.Now().Add(h.server.config.IdleTimeout))
	x := h.server.newExchange(c)
	x.method = clipped(r.Method)
	defer h.recovered(w, r, x)
	target, outcome := shape(r)
	if outcome == OK {
		x.target = target.String()
		outcome = h.server.admit(x, r, target)
	}
	if outcome != OK {
		h.refuse(w, r, x, outcome)
		return
	}
	c.current = x
	switch {
	case r.Method == http.MethodConnect:
		h.goproxy.ServeHTTP(hijackWriter{w}, r)
	case isUpgrade(r):
		h.upgrade(w, r, x, target)
	default:
		h.plain(w, r, x)
	}
}

// recovered ends the exchange of a handler that panicked, and only that one.
func (h *handler) recovered(w http.ResponseWriter, r *http.Request, x *exchange) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	h.server.log.Error().Str("type", fmt.Sprintf("%T", v)).Str("text", fmt.Sprint(v)).
		Bytes("stack", debug.Stack()).Msg("a request's handler failed")
	if c := frontOf(r.Context()); x.begun || c.hijacked { // nothing of ours may follow
		if !x.begun {
			_ = c.Close()
		}
		x.finish(Internal, 0)
		panic(http.ErrAbortHandler)
	}
	if p := x.plain; p != nil && p.body != nil {
		p.body.leave()
	}
	h.refuse(w, r, x, Internal)
}

// refuse writes the outcome's reply through net/http, so that the connection lives
// on where the protocol allows.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, x *exchange, o Outcome) {
	reply := h.server.replyTo(o, x.fault)
	if !x.conn.holding() {
		// Nobody has vouched for this customer: he does not hold up a socket by not reading.
		_ = x.conn.SetWriteDeadline(time.Now().Add(replyTimeout))
	}
	x.conn.reply(w, r, reply, endsWith(o, reply.Status(), carries(r)))
	x.finish(o, reply.Status())
}

// carries reports whether more belongs to a request than its head: a body, or all that
// follows a CONNECT.
func carries(r *http.Request) bool { return r.Method == http.MethodConnect || r.ContentLength != 0 }

// clipped bounds what the log keeps of a method, of which anybody can invent one of 30 KB.
func clipped(method string) string { return method[:min(len(method), maxMethod)] }

// shape finds the request's target, or refuses: authority-form for CONNECT,
// absolute-form with http for the rest (RFC 9112 §3.2).
func shape(r *http.Request) (Target, Outcome) {
	if r.Method == http.MethodConnect {
		// A CONNECT has no body (RFC 9110 §9.3.6): bytes that claim to be one would be
		// lost or become the tunnel's.
		if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			return Target{}, BadRequest
		}
		return parsed(ParseTarget(r.RequestURI))
	}
	if isForbidden(r.Method) || !strings.EqualFold(r.URL.Scheme, "http") || r.URL.User != nil || r.URL.Opaque != "" ||
		strings.ContainsRune(r.RequestURI, '#') {
		return Target{}, BadRequest
	}
	if r.Method == http.MethodOptions && slices.Contains(r.Header["Max-Forwards"], "0") {
		return Target{}, BadRequest // ours to answer (RFC 9110 §7.6.2), and we have nothing to say
	}
	host := r.URL.Host
	if r.URL.Port() == "" {
		if strings.HasSuffix(host, ":") {
			return Target{}, BadRequest
		}
		host += ":80"
	}
	return parsed(ParseTarget(host))
}

// isForbidden reports whether a plain request's method, as one who folds case reads it, would
// show the customer what the vendor adds to his request (TRACE, and TRACK as some servers
// call it), or be read as a CONNECT.
func isForbidden(method string) bool {
	for _, forbidden := range [...]string{http.MethodTrace, "TRACK", http.MethodConnect} {
		if len(method) == len(forbidden) && strings.EqualFold(method, forbidden) {
			return true
		}
	}
	return false
}

func parsed(t Target, err error) (Target, Outcome) {
	if err != nil {
		return Target{}, BadRequest
	}
	return t, OK
}

// hijackWriter keeps the bytes that net/http has read beyond the head: goproxy
// drops the reader that Hijack returns.
type hijackWriter struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController.
func (w hijackWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker.
func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := w.ResponseWriter.(http.Hijacker).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early := &earlyConn{Conn: conn}
	if n := rw.Reader.Buffered(); n > 0 {
		b, _ := rw.Reader.Peek(n)
		early.early = bytes.Clone(b)
	}
	return early, rw, nil
}

// earlyConn is a hijacked connection and what was read from it too early.
type earlyConn struct {
	net.Conn
	early []byte
}

// submit is goproxy's CONNECT action: the connection becomes a tunnel's. It returns
// at once, and net/http's goroutine ends.
func (h *handler) submit(r *http.Request, client net.Conn, _ *goproxy.ProxyCtx) {
	x := exchangeOf(r.Context())
	hijacked, ok := client.(*earlyConn)
	if !ok || x == nil {
		_ = client.Close()
		return
	}
	h.tunnel(x, hijacked.early, nil, nil)
}

// tunnel hands the exchange's connection to the engine. peer and its held are the
// upstream side, if that is open already.
func (h *handler) tunnel(x *exchange, early []byte, peer *tunnel.Peer, held *openPeer) {
	s := h.server
	x.begun = true
	t := &tunnelExchange{
		listener: x.conn.listener, who: x.who, target: x.target, client: addrOf(x.client), id: x.id,
		start: x.start.Sub(s.epoch), peer: held, upgraded: held != nil,
	}
	if held == nil {
		t.begin(x.route)
	}
	client, early := x.conn.handOver(early, t)
	x.conn = nil // its memory is not kept for the tunnel's life
	key := t.Key()
	s.engine.Submit(tunnel.Job{Client: client, Early: early, Peer: peer, Exchange: t})
	if s.barred(key, x.client) { // a reload between the gate and here did not find the tunnel
		s.engine.CloseWhere(func(other tunnel.Exchange) bool { return other == t })
	}
}
