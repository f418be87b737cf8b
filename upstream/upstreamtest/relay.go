package upstreamtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// Relay is an honest gateway: CONNECT, and plain HTTP by absolute-form targets
// with credentials checked on every request. It is as talkative as gateways are:
// see [Vendor.Marks]. The fields change its reply to a CONNECT alone.
type Relay struct {
	// Reply is sent instead of the vendor's 200, as it is; the tunnel opens after it whatever it says.
	Reply []byte
	// Chunk sends the reply in writes of so many bytes; 0 means in one.
	Chunk int
	// Delay is the wait before every write of the reply.
	Delay time.Duration

	meddle *meddling // what it does to answers, also to those of targets; nil = no more than every gateway
}

// settle is how long a request body may lag behind its response.
const settle = 250 * time.Millisecond

// Serve serves requests until the connection becomes a tunnel or ends.
func (r Relay) Serve(ctx context.Context, c *Conn, req *RecordedRequest) {
	for r.exchange(ctx, c, req) {
		next, err := c.ReadRequest()
		if err != nil {
			return
		}
		req = next
	}
}

// exchange serves one request and reports whether another can follow.
func (r Relay) exchange(ctx context.Context, c *Conn, req *RecordedRequest) bool {
	v := c.vendor
	if !v.authorized(req) {
		return c.write(v.loudReply(407, "AUTH_FAILED")) == nil && !req.HasBody()
	}
	if req.Method == "CONNECT" {
		return r.connect(ctx, c, req)
	}
	u, err := url.Parse(req.Target)
	if err != nil || u.Scheme != "http" || u.Host == "" {
		return c.write(v.loudReply(400, "ABSOLUTE_FORM_NEEDED")) == nil && !req.HasBody()
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "80")
	}
	target, err := v.dial(ctx, addr)
	if err != nil {
		return c.write(v.dialFailure(err)) == nil && !req.HasBody()
	}
	f := &forward{c: c, target: target, req: req, meddle: r.meddle}
	return f.run(ctx)
}

// connect serves a CONNECT.
func (r Relay) connect(ctx context.Context, c *Conn, req *RecordedRequest) bool {
	target, err := c.vendor.dial(ctx, req.Target)
	if err != nil {
		return c.write(c.vendor.dialFailure(err)) == nil
	}
	defer func() { _ = target.Close() }() // the tunnel is over
	reply, at := r.Reply, pace{chunk: r.Chunk, delay: r.Delay}
	if r.meddle != nil {
		reply, at = r.meddle.established(c.vendor), r.meddle.pace
	} else if reply == nil {
		reply = c.vendor.established()
	}
	if writePaced(ctx, c, reply, at) == nil {
		tunnel(ctx, c, r.meddle.inside(c.vendor, target))
	}
	return false
}

// dial connects to a target.
func (v *Vendor) dial(ctx context.Context, addr string) (*peer, error) {
	ctx, cancel := context.WithTimeout(ctx, v.config.DialTimeout)
	defer cancel()
	conn, err := v.config.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &peer{Conn: conn}, nil
}

// dialFailure is the vendor's answer when a target cannot be reached.
func (v *Vendor) dialFailure(err error) []byte {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return v.loudReply(504, "NO_HOST_ANSWER")
	}
	return v.loudReply(502, "NO_HOST_CONNECTION")
}

// pace is how a reply is cut into writes.
type pace struct {
	chunk int           // bytes a write; 0 means all in one
	delay time.Duration // before each write
}

// writePaced writes b at the given pace.
func writePaced(ctx context.Context, w io.Writer, b []byte, p pace) error {
	if p.chunk <= 0 {
		p.chunk = len(b)
	}
	for len(b) > 0 {
		if p.delay > 0 && !pause(ctx, p.delay) {
			return ctx.Err()
		}
		n := min(p.chunk, len(b))
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// forward is one plain request on its way.
type forward struct {
	c      *Conn
	target *peer
	req    *RecordedRequest
	meddle *meddling
}

// run sends the request on a connection of its own, its body while the answer
// is read, and reports whether the client's connection can be used again.
func (f *forward) run(ctx context.Context) bool {
	defer func() { _ = f.target.Close() }() // nothing more to learn from it
	cut := context.AfterFunc(ctx, func() { _ = f.target.Close() })
	defer cut()
	f.target.br = bufio.NewReader(f.target.Conn)
	if _, err := f.target.Write(f.requestHead()); err != nil {
		return f.c.write(f.c.vendor.loudReply(502, "HOST_WENT_AWAY")) == nil && !f.req.HasBody()
	}
	if !f.req.HasBody() {
		return f.respond(ctx)
	}
	if f.req.Header.Get("Upgrade") != "" {
		// What follows the answer may be a tunnel, which needs the connection to itself.
		return copyBody(f.target, f.c.br, requestFraming(f.req.Header)) == nil && f.respond(ctx)
	}
	sent := make(chan error, 1)
	go func() {
		sent <- copyBody(f.target, f.c.br, requestFraming(f.req.Header))
	}()
	keep := f.respond(ctx)
	// The body may lag a moment behind the answer; one that never comes ends the connection.
	deadline := time.Now().Add(settle)
	if !keep {
		deadline = time.Now()
	}
	err := errors.Join(f.c.SetReadDeadline(deadline), f.target.SetDeadline(deadline), <-sent)
	return keep && err == nil
}

// requestHead is the head for the target: origin form, nothing meant for the gateway.
func (f *forward) requestHead() []byte {
	m := splitHead(f.req.Raw)
	_, host, _ := strings.Cut(f.req.Target, "://")
	path := ""
	if i := strings.IndexAny(host, "/?"); i >= 0 {
		host, path = host[:i], host[i:]
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	m.first = f.req.Method + " " + path + " HTTP/1.1"
	if f.req.Header.Get("Host") == "" {
		m.lines = append([]string{"Host: " + host}, m.lines...) // HTTP/1.0 needs none, HTTP/1.1 does
	}
	upgrade := f.req.Header.Get("Upgrade") != ""
	m.drop("Proxy-Authorization", "Proxy-Connection", "Keep-Alive", "Connection")
	if upgrade {
		m.lines = append(m.lines, "Connection: Upgrade")
	} else {
		m.lines = append(m.lines, "Connection: close")
	}
	return m.bytes()
}

// respond passes the target's answer on, interim ones first, and reports
// whether the client's connection can be used again.
func (f *forward) respond(ctx context.Context) bool {
	for {
		raw, err := readHead(f.target.br)
		if err != nil {
			return f.c.write(f.c.vendor.loudReply(502, "NO_HOST_REPLY")) == nil
		}
		m := splitHead(raw)
		status := m.status()
		switch {
		case status == 101:
			m.lines = append(m.lines, f.c.vendor.forwardLines()...)
			if writePaced(ctx, f.c, f.meddle.head(f.c.vendor, m), f.meddle.at()) == nil {
				tunnel(ctx, f.c, f.target)
			}
			return false
		case status >= 100 && status < 200:
			if f.c.write(raw) != nil {
				return false
			}
		default:
			return f.final(ctx, m)
		}
	}
}

// final passes the final response on.
func (f *forward) final(ctx context.Context, m message) bool {
	framing := responseFraming(f.req.Method, m.status(), m.header())
	reframed := f.meddle.reframes() && framing.kind != noBody
	keep := (framing.kind != untilClose || reframed) && f.req.Proto == "HTTP/1.1" &&
		!strings.EqualFold(f.req.Header.Get("Connection"), "close")
	m.drop("Connection", "Keep-Alive")
	if reframed {
		m.drop("Content-Length", "Transfer-Encoding", "Trailer")
		m.lines = append(m.lines, "Transfer-Encoding: chunked")
	}
	m.lines = append(m.lines, f.c.vendor.forwardLines()...)
	trace := fmt.Sprintf("X-%s-Trace", f.c.vendor.config.Brand)
	connection := "close"
	if keep {
		connection = "keep-alive"
	}
	m.lines = append(m.lines, "Connection: "+connection+", "+trace, trace+": "+f.c.vendor.host())
	if writePaced(ctx, f.c, f.meddle.head(f.c.vendor, m), f.meddle.at()) != nil {
		return false
	}
	if f.meddle != nil {
		return f.meddle.body(ctx, f, framing) && keep
	}
	return copyBody(f.c, f.target.br, framing) == nil && keep
}
