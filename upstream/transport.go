package upstream

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"maskrelay/upstream/vendor"
)

const (
	plainMaxHeadBytes  = 64 << 10 // of an answer
	plainMaxHintBytes  = 1 << 20  // of all 1xx heads before it
	plainMaxHeldHints  = 16 << 10 // of those, the ones that are passed on
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
	idle   idlePool
	bodies sync.WaitGroup // goroutines that send requests' bodies
}

// NewTransport makes the plain side of p. Its idle connections are of files; nil = there
// are always enough.
func NewTransport(p *Pool, files Files) *Transport {
	t := &Transport{pool: p}
	t.idle.files = files
	for _, g := range p.gateways {
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
	// Route decides about the gateway and its login; nil = the default pool, and no wishes.
	Route *Route
	// Key keeps connections apart: requests of different keys never share one.
	Key string
	// Order are the names of the customer's field lines, as he spelled and ordered them; the
	// request leaves like that. It is a hint: what is sent, and with which values, stands in
	// Request alone. nil = any order.
	Order []string
	// Idle is how long the answer's body may pause. Reads then fail with
	// os.ErrDeadlineExceeded. 0 = no limit.
	Idle time.Duration
	// Informational is told of 1xx answers, but not of 100 and 101, before Do returns, and of
	// those that came through a gateway only once the final answer is known to be a target's:
	// a gateway that fails says nothing to the customer, and one that has failed before
	// another served has not. Of 16 KB of them the rest is dropped. It owns the header. nil =
	// nobody is told.
	Informational func(status int, header http.Header)

	until moment // the end of the time for a set-up; 0 = none: what cannot be sent again is waited for
}

// PlainResponse is an answer. Its Trailer holds the names that were announced.
type PlainResponse struct {
	*http.Response
	// Order are the names of the answer's field lines, as it spelled and ordered them.
	Order []string
	body  *answerBody
}

// Trailers returns the trailer fields. It must not be called before a Read of the body
// has returned io.EOF.
func (r *PlainResponse) Trailers() http.Header {
	r.body.x.conn.echoes.dropEchoes(r.body.trailer)
	return r.body.trailer
}

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
	again := replayable(r.Request)
	err := t.pool.try(ctx, r.Route, func(g *gateway, until moment) *ConnectError {
		name = g.Name
		if again {
			r.until = until
		}
		var failure *ConnectError
		response, failure = t.once(ctx, g, &r)
		if failure == nil {
			return nil
		}
		// A request that reached a gateway may have had its effect.
		failure.final = failure.Phase == PhaseRequest && !again
		failure.own = r.Authorization != ""
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
	route := t.pool.routeOr(r.Route)
	key := idleKey{gateway: g, key: r.Key, port: route.port(g)}
	form := absoluteForm
	switch g.Scheme {
	case SchemeDirect:
		form = originFormOnce
	case SchemeSOCKS5:
		form, key.target = originForm, withPort(r.Request.URL.Host)
		fallthrough
	default:
		key.login = cmp.Or(r.Authorization, route.login(g))
	}
	head := headBuffers.Get().(*[]byte)
	defer func() { putHeadBuffer(head) }()
	var err error
	if *head, err = appendRequest((*head)[:0], &requestHead{r.Request, key.login, form, r.Order}); err != nil {
		return nil, &ConnectError{Phase: PhaseRequest, Cause: CauseMalformed, Err: err}
	}
	response, failure := t.send(ctx, key, r, *head)
	if failure != nil || form == originFormOnce {
		return response, failure // the target's own, whatever it says
	}
	withLogin(response.Response, key.login)
	if failure = t.gatewayMade(g, response); failure != nil {
		_ = response.Body.Close()
		return nil, failure
	}
	echoes := response.body.x.conn.echoes
	echoes.dropEchoes(response.Header)
	echoes.dropEchoes(response.Trailer)
	response.body.x.passHints()
	return response, nil
}

// gatewayMade is what an answer means that g made itself, nil for a target's. In a tunnel of
// a SOCKS5 gateway the words of a preset mean nothing: it is the target that was asked, and
// nobody is to blame.
func (t *Transport) gatewayMade(g *gateway, r *PlainResponse) *ConnectError {
	if g.Scheme == SchemeSOCKS5 {
		if made := t.pool.options.GatewayMade; made == nil || !made(r.Response) {
			return nil
		}
		return &ConnectError{Phase: PhaseRequest, Cause: CauseStatus, Status: r.StatusCode}
	}
	_, reason, _ := strings.Cut(r.Status, " ")
	came := r.body.x.in.buffered()
	cause, verdict := g.classify(vendor.Answer{
		Status: r.StatusCode, Reason: textproto.TrimString(reason), Header: r.Header.Get, Body: came[:min(len(came), maxClassified)],
	})
	if made := t.pool.options.GatewayMade; !verdict.Own && (made == nil || !made(r.Response)) {
		return nil
	}
	return &ConnectError{Phase: PhaseRequest, Cause: cause, Status: r.StatusCode, Advice: verdict.Advice}
}

// send exchanges the request for an answer's head: on an idle connection or one that
// stands ready, if there is one, and once more on a fresh one if that turns out to have
// been closed meanwhile.
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
	for fresh := !replayable(r.Request); ; fresh = true {
		conn, failure := t.dial(ctx, key, r, fresh)
		if failure != nil {
			return nil, failure
		}
		x := newExchange(t, conn, r)
		response, err := x.run(ctx, head)
		if err == nil {
			return response, nil
		}
		if !conn.warm || !x.stale(err) || ctx.Err() != nil {
			return nil, x.failure(ctx, err)
		}
	}
}

// dial opens a connection within the gateway's limit, or takes one that stands ready
// unless it is to be fresh; to a SOCKS5 gateway it comes with a tunnel. It counts until
// it is closed.
func (t *Transport) dial(ctx context.Context, key idleKey, r *PlainRequest, fresh bool) (*plainConn, *ConnectError) {
	g := key.gateway
	ctx, cancel := r.within(ctx)
	defer cancel()
	l, failure := g.connect(ctx, withPort(r.Request.URL.Host), key.port, fresh)
	if failure != nil {
		return nil, failure
	}
	conn := newPlainConn(l.Conn, key)
	conn.lane, conn.warm = l.held.lane, l.warm
	if key.target == "" {
		return conn, nil
	}
	ctx, cancel = context.WithTimeout(ctx, t.pool.options.ConnectTimeout)
	defer cancel()
	request := Request{Target: key.target, Authorization: r.Authorization}
	if conn.early, failure = g.openTunnel(ctx, conn, t.pool.routeOr(r.Route), request); failure != nil {
		_ = conn.Close()
		return nil, failure
	}
	return conn, nil
}

// within ends ctx with the time for the set-up.
func (r *PlainRequest) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.until == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, r.until.left(time.Now()))
}

// patience is how long a write, or the answer's head, may take of most.
func (r *PlainRequest) patience(most time.Duration) time.Duration {
	if r.until == 0 {
		return most
	}
	return max(min(most, r.until.left(time.Now())), 1)
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
	if x.conn.key.target != "" { // it is the target that was spoken to
		otherwise = CauseUnreachable
	}
	return &ConnectError{Phase: PhaseRequest, Cause: netCause(ctx, err, otherwise), Err: err}
}
