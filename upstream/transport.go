package upstream

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	plainMaxHeadBytes  = 64 << 10 // of an answer
	plainMaxHintBytes  = 1 << 20  // of all 1xx heads before it
	plainContinueAfter = time.Second
	plainGraceAfterCut = time.Second // for an answer to come after the gateway has stopped reading
)

// GatewayMade reports whether the gateway made the response itself; it may look
// at the beginning of the body (response.Body stays readable from its start).
type GatewayMade func(response *http.Response) bool

// Transport carries plain HTTP requests through the pool, an exchange in the
// goroutine of its request; only a request's body has one more, while it is being
// sent. It filters nothing of the messages: the caller does, before and after. Of
// an answer it takes what has exactly one reading (see parseAnswer). Connections
// are kept alive and shared only between requests of the same key and login.
// Close must be called once no request is under way.
type Transport struct {
	pool   *Pool
	logins map[*gateway]string
	idle   idlePool
	bodies sync.WaitGroup // goroutines that send requests' bodies
}

// NewTransport makes the plain side of p. Its idle connections are of files; nil = there
// are always enough.
func NewTransport(p *Pool, files Files) *Transport {
	t := &Transport{pool: p, logins: make(map[*gateway]string, len(p.gateways))}
	t.idle.files = files
	for _, g := range p.gateways {
		t.logins[g] = g.authorization()
		evict := func() { t.idle.evict(g) }
		g.evictIdle.Store(&evict)
	}
	return t
}

// Close drops the idle connections and waits for what the transport has running.
// Bodies of requests must have failed or ended by then.
func (t *Transport) Close() {
	t.idle.close()
	t.bodies.Wait()
}

// PlainRequest is one plain HTTP request. Request is in client form with an http
// URL and every field already filtered; an opaque URL (//host/path) is sent as it
// stands. Its Body is read at most once and never closed; it may be read a moment
// longer than the exchange lasts. Request.Trailer holds the announced names; their
// values are sent when the body has ended.
type PlainRequest struct {
	Request *http.Request
	// Authorization replaces the gateway's login (passthrough). Empty = the gateway's own.
	Authorization string
	// Key keeps connections apart: requests of different keys never share one.
	Key string
	// Idle is how long the answer's body may pause. Reads then fail with
	// os.ErrDeadlineExceeded. 0 = no limit.
	Idle time.Duration
	// Informational is told of each 1xx but 100 and 101 before Do returns. It owns
	// the header. nil = nobody is told.
	Informational func(status int, header http.Header)
}

// PlainResponse is an answer. Its Trailer holds the names that were announced.
type PlainResponse struct {
	*http.Response
	body *answerBody
}

// Trailers returns the trailer fields. It must not be called before a Read of the body
// has returned io.EOF.
func (r *PlainResponse) Trailers() http.Header { return r.body.trailer }

// Ready reports whether something of the body has come with the head, or there is none:
// the first Read will hardly wait. It must not be called after that, and is false for
// a body that GatewayMade has put in its place.
func (r *PlainResponse) Ready() bool {
	return r.Body == http.NoBody || r.Body == io.ReadCloser(r.body) && r.body.x.in.start < r.body.x.in.end
}

// Do sends r through the next gateway, or another if the first cannot be reached.
// A gateway's own answer (407, quota, its error page) is a *ConnectError, not a
// response; requests without a body and with a safe method are then tried through
// the next gateway. The caller closes the response's body, which may be done while
// it is being read. The end of the request's context ends the exchange, the body
// included. The name is the gateway's.
func (t *Transport) Do(r PlainRequest) (*PlainResponse, string, error) {
	var response *PlainResponse
	var name string
	ctx := r.Request.Context()
	err := t.pool.try(ctx, func(g *gateway) *ConnectError {
		name = g.Name
		var failure *ConnectError
		response, failure = t.once(ctx, g, &r)
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
	if hasBody(r) {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	default:
		return false
	}
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// once sends the request through g.
func (t *Transport) once(ctx context.Context, g *gateway, r *PlainRequest) (*PlainResponse, *ConnectError) {
	login := ""
	if g.Scheme != SchemeDirect {
		login = cmp.Or(r.Authorization, t.logins[g])
	}
	head := headBuffers.Get().(*[]byte)
	defer func() { putHeadBuffer(head) }()
	var err error
	if *head, err = appendRequest((*head)[:0], r.Request, login, g.Scheme == SchemeDirect); err != nil {
		return nil, &ConnectError{Phase: PhaseRequest, Cause: CauseMalformed, Err: err}
	}
	response, failure := t.send(ctx, idleKey{gateway: g, key: r.Key, login: login}, r, *head)
	if failure != nil {
		return nil, failure
	}
	if made := t.pool.options.GatewayMade; made != nil && g.Scheme != SchemeDirect && made(response.Response) {
		_ = response.Body.Close()
		return nil, &ConnectError{Phase: PhaseRequest, Cause: statusCause(response.StatusCode), Status: response.StatusCode}
	}
	return response, nil
}

// send exchanges the request for an answer's head: on an idle connection if there is
// one, and once more on a fresh one if that turns out to have been closed meanwhile.
func (t *Transport) send(ctx context.Context, key idleKey, r *PlainRequest, head []byte) (*PlainResponse, *ConnectError) {
	if conn := t.idle.take(key); conn != nil {
		x := newExchange(t, conn, r)
		response, err := x.run(ctx, head)
		if err == nil {
			return response, nil
		}
		if !x.stale(err) || !replayable(r.Request) || ctx.Err() != nil {
			return nil, x.failure(ctx, err)
		}
	}
	conn, failure := t.dial(ctx, key, r.Request)
	if failure != nil {
		return nil, failure
	}
	x := newExchange(t, conn, r)
	response, err := x.run(ctx, head)
	if err != nil {
		return nil, x.failure(ctx, err)
	}
	return response, nil
}

// dial opens a connection within the gateway's limit; it counts until it is closed.
func (t *Transport) dial(ctx context.Context, key idleKey, r *http.Request) (*plainConn, *ConnectError) {
	g := key.gateway
	if !g.tryAcquire() {
		return nil, fullError()
	}
	var c net.Conn
	var failure *ConnectError
	if g.Scheme == SchemeDirect {
		c, failure = g.dialTarget(ctx, withPort(r.URL.Host))
	} else {
		c, failure = g.dial(ctx)
	}
	if failure != nil {
		g.release()
		return nil, failure
	}
	return newPlainConn(c, key), nil
}

// withPort is an http URL's host with its port, 80 if it has none.
func withPort(host string) string {
	if strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']') {
		return host
	}
	return host + ":80"
}

// failure says why an exchange failed.
func (x *plainExchange) failure(ctx context.Context, err error) *ConnectError {
	otherwise := CauseClosed
	if sent := x.sendError(); sent != nil {
		err = errors.Join(sent, err)
	}
	var malformed *malformedError
	switch {
	case errors.As(err, &malformed):
		otherwise = CauseMalformed
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return &ConnectError{Phase: PhaseRequest, Cause: netCause(ctx, err, otherwise), Err: err}
}
