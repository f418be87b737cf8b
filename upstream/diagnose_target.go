package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxTargetHead bounds what is read of a target's answer, in bytes.
const maxTargetHead = 64 << 10

// diagnoseTarget is where the exchange goes.
type diagnoseTarget struct {
	url     *url.URL
	address string // host:port
	roots   *x509.CertPool
}

func newDiagnoseTarget(u *url.URL, roots *x509.CertPool) (*diagnoseTarget, error) {
	if u == nil {
		return nil, errors.New("upstream: no target")
	}
	port := u.Port()
	switch u.Scheme {
	case "http", "https":
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
	case "tcp":
	default:
		return nil, errors.New("upstream: the target is not an http, https or tcp URL")
	}
	if u.Hostname() == "" || port == "" {
		return nil, errors.New("upstream: the target has no host or no port")
	}
	return &diagnoseTarget{url: u, address: net.JoinHostPort(u.Hostname(), port), roots: roots}, nil
}

// request is a GET that says nothing of who asks.
func (t *diagnoseTarget) request(ctx context.Context) *http.Request {
	u := *t.url
	if u.Path == "" {
		u.Path = "/"
	}
	u.User, u.Fragment = nil, ""
	r := &http.Request{
		Method: http.MethodGet, URL: &u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept": {"*/*"}, "User-Agent": {"Mozilla/5.0"}},
	}
	return r.WithContext(ctx)
}

// throughTunnel asks the target over conn, which stays open.
func (x *examination) throughTunnel(ctx context.Context, conn net.Conn) {
	if x.target.url.Scheme == "tcp" {
		x.skip(HopTarget, "of a tcp target the open tunnel is all that can be asked")
		return
	}
	limited, cancel := context.WithTimeout(ctx, x.pool.options.ConnectTimeout)
	defer cancel()
	began := time.Now()
	detail, failure := x.target.askTLS(limited, conn)
	if failure != nil {
		x.fail(HopTarget, failure, nil, began)
		return
	}
	x.ok(HopTarget, x.blot.clean(detail), began)
}

// AskTarget asks target, an https URL, for its page over conn, an open tunnel to it, and
// says in a few words what came; roots nil = the system's. It leaves conn open and of no
// further use. The error is a *ConnectError; ctx's end is one.
func AskTarget(ctx context.Context, conn net.Conn, target *url.URL, roots *x509.CertPool) (string, error) {
	t, err := newDiagnoseTarget(target, roots)
	if err != nil {
		return "", err
	}
	detail, failure := t.askTLS(ctx, conn)
	if failure != nil {
		return "", failure
	}
	return printable(detail), nil
}

// AdviceOnTarget is what to do about an error of AskTarget.
func AdviceOnTarget(err error) string {
	e := &ConnectError{Cause: CauseClosed}
	_ = errors.As(err, &e)
	return adviceOnTarget(e)
}

// phaseTarget is a failure behind the open tunnel. No relay's exchange knows it.
const phaseTarget Phase = "target"

// askTLS makes TLS with the target over conn and asks for the page.
func (t *diagnoseTarget) askTLS(ctx context.Context, conn net.Conn) (string, *ConnectError) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	secured := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.url.Hostname(), RootCAs: t.roots, NextProtos: []string{"http/1.1"},
	})
	fail := func(err error, otherwise Cause) (string, *ConnectError) {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
		}
		return "", &ConnectError{Phase: phaseTarget, Cause: ioCause(err, otherwise), Err: err}
	}
	if err := secured.HandshakeContext(ctx); err != nil {
		return fail(err, tlsOrClosed(err))
	}
	status, err := t.get(ctx, secured)
	if err != nil {
		return fail(err, CauseClosed)
	}
	return describeTLS(secured.ConnectionState()) + "; " + status, nil
}

// tlsOrClosed tells a tunnel that ended from a handshake that failed.
func tlsOrClosed(err error) Cause {
	var op *net.OpError
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) && op.Op != "remote error" {
		return CauseClosed
	}
	return CauseTLS
}

// get asks for the page and says what came.
func (t *diagnoseTarget) get(ctx context.Context, conn net.Conn) (string, error) {
	request := t.request(ctx)
	request.Close = true
	if err := request.Write(conn); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxTargetHead)), request)
	if err != nil {
		return "", err
	}
	_ = response.Body.Close()
	return fmt.Sprintf("GET %s: %s%s", request.URL.RequestURI(), response.Status, ownWord(response.StatusCode)), nil
}

// throughNothing is the way of direct://.
func (x *examination) throughNothing(ctx context.Context) {
	began := time.Now()
	conn, failure := x.g.dialTarget(ctx, x.target.address)
	if failure != nil {
		x.fail(HopTCP, failure, nil, began)
		x.skip(HopTarget, "the target was not reached")
		return
	}
	defer func() { _ = conn.Close() }()
	x.ok(HopTCP, conn.RemoteAddr().String(), began)
	if x.target.url.Scheme != "http" {
		x.throughTunnel(ctx, conn)
		return
	}
	limited, cancel := context.WithTimeout(ctx, x.pool.options.ConnectTimeout)
	defer cancel()
	stop := context.AfterFunc(limited, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	began = time.Now()
	status, err := x.target.get(limited, conn)
	if err != nil {
		x.fail(HopTarget, &ConnectError{Phase: phaseTarget, Cause: netCause(ctx, err, CauseClosed), Err: err}, nil, began)
		return
	}
	x.ok(HopTarget, x.blot.clean(status), began)
}

// earlyConn gives first what came with the gateway's answer.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// hearing remembers the beginning of what was read.
type hearing struct {
	net.Conn
	heard []byte // up to maxReplyHead
}

func (h *hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if room := maxReplyHead - len(h.heard); room > 0 {
		h.heard = append(h.heard, b[:min(n, room)]...)
	}
	return n, err
}

// answer is what was heard of a gateway of that scheme, nil if it were no words. What
// SOCKS5 says is in the failure already.
func (h *hearing) answer(scheme string) *http11Answer {
	if len(h.heard) == 0 || scheme == SchemeSOCKS5 && !bytes.HasPrefix(h.heard, []byte("HTTP/")) {
		return nil
	}
	return parseHeard(bytes.Clone(h.heard))
}
