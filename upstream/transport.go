package upstream

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const (
	// plainIdle is how long a connection to a gateway waits for the next plain
	// request; shorter than gateways keep theirs, so that requests rarely meet a
	// connection that is just being closed.
	plainIdle          = 10 * time.Second
	plainIdlePerKey    = 8
	plainIdleTotal     = 1024
	plainMaxHeadBytes  = 64 << 10
	plainContinueAfter = time.Second
)

// GatewayMade reports whether the gateway made the response itself; it may look
// at the beginning of the body (response.Body stays readable from its start).
type GatewayMade func(response *http.Response) bool

// errRefusedDial guards the transports: they dial their gateway and nothing else.
var errRefusedDial = errors.New("upstream: refused to dial anything but the gateway")

// Transport carries plain HTTP requests through the pool. It verifies nothing and
// filters nothing of the messages: the caller does, before and after. Connections
// are kept alive and shared only between requests of the same key.
// Close must be called once no request is under way.
type Transport struct {
	pool       *Pool
	transports map[*gateway]*http.Transport
}

// NewTransport makes the plain side of p.
func NewTransport(p *Pool) *Transport {
	t := &Transport{pool: p, transports: make(map[*gateway]*http.Transport, len(p.gateways))}
	for _, g := range p.gateways {
		tr := t.newTransport(g)
		t.transports[g] = tr
		evict := tr.CloseIdleConnections
		g.evictIdle.Store(&evict)
	}
	return t
}

// Close drops the idle connections.
func (t *Transport) Close() {
	for _, tr := range t.transports {
		tr.CloseIdleConnections()
	}
}

func (t *Transport) newTransport(g *gateway) *http.Transport {
	tr := &http.Transport{
		DisableCompression:     true, // no gunzip: the target's bytes pass as they are
		MaxIdleConns:           plainIdleTotal,
		MaxIdleConnsPerHost:    plainIdlePerKey,
		IdleConnTimeout:        plainIdle,
		ResponseHeaderTimeout:  t.pool.options.ConnectTimeout,
		ExpectContinueTimeout:  plainContinueAfter,
		MaxResponseHeaderBytes: plainMaxHeadBytes,
		Protocols:              new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(true)
	if g.Scheme == SchemeDirect {
		tr.DisableKeepAlives = true // there is no proxy URL that could keep customers apart
		tr.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
			return t.counted(g, func() (net.Conn, *ConnectError) { return g.dialTarget(ctx, address) })
		}
		return tr
	}
	// The scheme is http for https gateways too: DialContext hands over TLS connections.
	// The fragment only keeps the idle connections of different keys apart.
	tr.Proxy = func(r *http.Request) (*url.URL, error) {
		key, _ := r.Context().Value(keyOfPlain{}).(string)
		return &url.URL{Scheme: SchemeHTTP, Host: g.Address(), Fragment: key}, nil
	}
	tr.DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		if address != g.Address() {
			return nil, errRefusedDial
		}
		return t.counted(g, func() (net.Conn, *ConnectError) { return g.dial(ctx) })
	}
	return tr
}

// keyOfPlain is the context key of PlainRequest.Key.
type keyOfPlain struct{}

// counted dials within the gateway's limit; the connection counts until it is closed.
// A write on it that takes longer than the connect timeout fails: net/http's
// transport has no deadline of its own for it.
func (t *Transport) counted(g *gateway, dial func() (net.Conn, *ConnectError)) (net.Conn, error) {
	if !g.tryAcquire() {
		return nil, fullError()
	}
	c, failure := dial()
	if failure != nil {
		g.release()
		return nil, failure
	}
	return &countedConn{Conn: c, patience: t.pool.options.ConnectTimeout, release: sync.OnceFunc(g.release)}, nil
}

type countedConn struct {
	net.Conn
	patience time.Duration
	release  func()
}

func (c *countedConn) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.patience))
	return c.Conn.Write(b)
}

func (c *countedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// PlainRequest is one plain HTTP request. Request is in client form with an http
// URL and every field already filtered; its Body is read at most once and never closed.
type PlainRequest struct {
	Request *http.Request
	// Authorization replaces the gateway's login (passthrough). Empty = the gateway's own.
	Authorization string
	// Key keeps connections apart: requests of different keys never share one.
	Key string
}

// PlainResponse is an answer. Its Trailer holds the names that were announced.
type PlainResponse struct {
	*http.Response
	original *http.Response // the transport writes its Trailer when the body has ended
}

// Trailers returns the trailer fields. It must not be called before a Read of the body
// has returned io.EOF: until then the transport may be writing them.
func (r *PlainResponse) Trailers() http.Header { return r.original.Trailer }

// Do sends r through the next gateway, or another if the first cannot be reached.
// A gateway's own answer (407, quota, its error page) is a *ConnectError, not a
// response; requests without a body and with a safe method are then tried through
// the next gateway. The caller closes the response's body. The name is the gateway's.
func (t *Transport) Do(r PlainRequest) (*PlainResponse, string, error) {
	var response *PlainResponse
	var name string
	ctx := r.Request.Context()
	err := t.pool.try(ctx, func(g *gateway) *ConnectError {
		name = g.Name
		var failure *ConnectError
		response, failure = t.once(g, r)
		if failure == nil {
			return nil
		}
		// A request that reached a gateway may have had its effect.
		failure.final = failure.Phase == PhaseRequest && !replayable(r.Request)
		return failure
	})
	if err != nil {
		return nil, name, err
	}
	return response, name, nil
}

// replayable reports whether the request may be sent a second time.
func replayable(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	default:
		return false
	}
}

// once sends the request through g.
func (t *Transport) once(g *gateway, r PlainRequest) (*PlainResponse, *ConnectError) {
	ctx := context.WithValue(r.Request.Context(), keyOfPlain{}, r.Key)
	out := r.Request.Clone(ctx)
	out.Trailer = r.Request.Trailer // the values come with the end of the body, into the caller's map
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = io.NopCloser(out.Body)
	}
	if g.Scheme == SchemeDirect {
		// Targets get origin-form; an opaque URL would be sent as it stands.
		if u, err := url.Parse(out.URL.String()); err == nil {
			out.URL = u
		}
	} else if authorization := cmp.Or(r.Authorization, g.authorization()); authorization != "" {
		out.Header["Proxy-Authorization"] = []string{authorization}
	}
	original, err := t.transports[g].RoundTrip(out)
	if err != nil {
		var failure *ConnectError
		if errors.As(err, &failure) {
			return nil, failure
		}
		return nil, &ConnectError{Phase: PhaseRequest, Cause: netCause(ctx, err, CauseClosed), Err: err}
	}
	// Whoever reads the body, in whatever goroutine, must not write what others look at.
	fresh := *original
	fresh.Trailer = original.Trailer.Clone()
	response := &PlainResponse{Response: &fresh, original: original}
	if made := t.pool.options.GatewayMade; made != nil && g.Scheme != SchemeDirect && made(response.Response) {
		_ = response.Body.Close()
		return nil, &ConnectError{Phase: PhaseRequest, Cause: statusCause(response.StatusCode), Status: response.StatusCode}
	}
	return response, nil
}
