package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"maskrelay/masking"
	"maskrelay/proxy/tunnel"
	"maskrelay/upstream"
)

// maxUpgradeHead bounds a target's answer to a websocket handshake, in bytes.
const maxUpgradeHead = 64 << 10

var errUpgradeVersion = errors.New("proxy: the handshake's answer is not HTTP/1")

// upgrade opens a tunnel to the target through the upstream, does the websocket
// handshake on it, and hands both connections to the engine when the target
// switches. Any other answer is the target's plain response. Nothing of the
// customer's is read before the target has switched: what comes after a refusal
// would be a new request, with his credentials, and not the target's to see.
func (h *handler) upgrade(w http.ResponseWriter, r *http.Request, x *exchange, target Target) {
	ctx, stop := x.conn.watched(r.Context())
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := &plainWriter{ResponseWriter: w, h: h, x: x, r: r, control: http.NewResponseController(w), left: ctx.Err, gone: ctx.Done(), cancel: cancel}
	defer out.unshare()
	conn, err := h.server.config.Upstream.Connect(ctx, upstream.Request{
		Target: target.String(), Authorization: x.who.authorization, Route: x.route,
	})
	if err != nil {
		x.upstream = gatewayOf(err)
		h.upgradeFailed(out, err)
		return
	}
	x.upstream = conn.Gateway
	out.upstreamAnswered() // its bandwidth is of an answer that is no tunnel's
	handed := false
	defer func() {
		if !handed {
			_ = conn.Close()
			conn.Release()
		}
	}()
	answer, err := h.handshake(ctx, conn, r)
	if err != nil {
		h.upgradeFailed(out, &upstream.ConnectError{
			Gateway: conn.Gateway, Phase: upstream.PhaseRequest, Cause: handshakeCause(ctx, err), Err: err,
		})
		return
	}
	if answer.response.StatusCode != http.StatusSwitchingProtocols {
		h.upgradeAnswered(ctx, out, conn, answer.response)
		return
	}
	stop() // the tunnel reads from here on
	handed = h.upgraded(w, x, conn, answer)
}

func handshakeCause(ctx context.Context, err error) upstream.Cause {
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return upstream.CauseCanceled
	case errors.As(err, &timeout) && timeout.Timeout():
		return upstream.CauseTimeout
	default:
		return upstream.CauseMalformed
	}
}

// upgradeAnswered passes an answer on that is no switch of protocols, unless the gateway has
// made it: some look into tunnels to port 80, and answer in the target's place.
func (h *handler) upgradeAnswered(ctx context.Context, w *plainWriter, conn *upstream.Conn, response *http.Response) {
	// The answer's body may take its time; the end of the exchange still ends it.
	_ = conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if !GatewayMade(h.server.config.Policy)(conn.Answered(response)) {
		h.upgradeRefused(w, conn, response)
		return
	}
	_ = conn.SetDeadline(time.Unix(1, 0)) // no more of it
	_ = response.Body.Close()
	h.upgradeFailed(w, &upstream.ConnectError{
		Gateway: conn.Gateway, Phase: upstream.PhaseRequest, Cause: upstream.CauseStatus, Status: response.StatusCode,
	})
}

// upgradeFailed answers for an upstream that did not get as far as the target.
func (h *handler) upgradeFailed(w *plainWriter, err error) {
	w.x.outcome, w.x.cause = upstreamOutcome(err, h.server.config.Auth == AuthPassthrough)
	w.x.err = err
	if w.x.outcome == UpstreamAuth {
		w.x.conn.letGo()
	}
	w.WriteHeader(http.StatusBadGateway)
	w.end()
}

// upgradeAnswer is a target's answer to a handshake. The reader holds what was read
// beyond its head.
type upgradeAnswer struct {
	response *http.Response
	reader   *bufio.Reader
}

// handshake sends the request in origin-form, in the customer's order and spelling, and
// reads the target's head.
func (h *handler) handshake(ctx context.Context, conn *upstream.Conn, r *http.Request) (upgradeAnswer, error) {
	_ = conn.SetDeadline(time.Now().Add(h.server.config.ConnectTimeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	out := r.Clone(ctx)
	out.Host, out.RequestURI, out.Close, out.Body = r.URL.Host, "", false, nil
	out.URL = rawURL(r)
	order := frontOf(r.Context()).fieldOrder()
	dropAdded(out.Header, order)
	h.server.config.Policy.UpgradeRequest(out.Header)
	head, err := upstream.AppendHandshake(nil, out, order)
	if err != nil {
		return upgradeAnswer{}, err
	}
	if _, err := conn.Write(head); err != nil {
		return upgradeAnswer{}, err
	}
	limited := &io.LimitedReader{R: io.MultiReader(bytes.NewReader(conn.Early), conn.Conn), N: maxUpgradeHead}
	reader := bufio.NewReaderSize(limited, 4<<10)
	response, err := http.ReadResponse(reader, out)
	for err == nil && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
		response, err = http.ReadResponse(reader, out)
	}
	if err != nil {
		return upgradeAnswer{}, err
	}
	if response.ProtoMajor != 1 {
		return upgradeAnswer{}, errUpgradeVersion
	}
	limited.N = 1 << 62 // the head is over
	return upgradeAnswer{response, reader}, nil
}

// upgradeRefused passes the target's answer on as a plain response.
func (h *handler) upgradeRefused(w *plainWriter, conn *upstream.Conn, response *http.Response) {
	policy := w.policy(response.StatusCode)
	nominated := masking.NominatedBy(response.Header)
	policy.Response(response.Header)
	policy.Trailer(response.Trailer)
	nominated.Drop(response.Trailer)
	conn.DropEchoes(response.Header)
	trailers := func() http.Header { conn.DropEchoes(response.Trailer); return response.Trailer }
	body := &responseBody{ReadCloser: response.Body, response: response, trailers: trailers, nominated: nominated, w: w, timed: true}
	defer func() { _ = body.Close() }()
	to := w.Header()
	for name, values := range response.Header {
		to[name] = values
	}
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, body)
	w.end()
}

// upgraded sends the target's 101 and makes a tunnel of the two connections; false
// if the customer's could not be had.
func (h *handler) upgraded(w http.ResponseWriter, x *exchange, conn *upstream.Conn, answer upgradeAnswer) bool {
	client, _, err := hijackWriter{w}.Hijack()
	if err != nil {
		x.err = err
		x.finish(Internal, 0)
		panic(http.ErrAbortHandler)
	}
	h.server.config.Policy.For(answer.response.Request.Host).UpgradeResponse(answer.response.Header)
	conn.DropEchoes(answer.response.Header)
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = answer.response.Header.Write(&head) // a buffer takes everything
	head.WriteString("\r\n")
	early, _ := answer.reader.Peek(answer.reader.Buffered())
	peer := &tunnel.Peer{Conn: conn.Conn, Early: bytes.Clone(early)}
	_ = conn.SetDeadline(time.Time{})
	h.tunnel(x, client.(*earlyConn).early, peer, &openPeer{gateway: conn.Gateway, release: conn.Release, greeting: head.Bytes()})
	return true
}
