package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"maskrelay/upstream/upstreamtest"
)

const (
	// maxTaken bounds what the customer takes of one answer, in bytes.
	maxTaken = 1 << 20
	// lastWait is how long he waits for the end of a connection that has nothing more to say.
	lastWait = 250 * time.Millisecond
	// oddWait is how long he waits in a tunnel whose vendor may do as he pleases.
	oddWait = 200 * time.Millisecond
	// pageBytes is the length of the page that a plain request asks for.
	pageBytes = 1000
	// webSocketKey is the customer's; any will do.
	webSocketKey = "dGhlIHNhbXBsZSBub25jZQ=="
)

// page is the target's page.
var page = sync.OnceValue(func() []byte {
	b, _ := io.ReadAll(upstreamtest.Pattern(pageBytes)) // the generator cannot fail
	return b
})

// canary is what a customer sends through a tunnel: every byte that there is.
var canary = sync.OnceValue(func() []byte {
	b := []byte("canary-0f3c ")
	for i := range 256 {
		b = append(b, byte(i))
	}
	return append(b, " canary-end"...)
})

// taken is what a customer received in one exchange.
type taken struct {
	bytes []byte
	err   error // that ended the connection; nil = orderly, or it was he who left

	response *http.Response // the final head, nil = none came whole
	body     []byte         // without framing, as far as it came
	bodyErr  error          // the body broke off
	after    []byte         // what came through the tunnel
	late     bool           // patience was over
}

// visit is one customer on one connection.
type visit struct {
	net.Conn
	got bytes.Buffer
	err error
}

// Read notes what it reads.
func (v *visit) Read(p []byte) (int, error) {
	if v.got.Len() >= maxTaken {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := v.Conn.Read(p)
	v.got.Write(p[:n])
	if err != nil {
		v.err = err
	}
	return n, err
}

// visit sends the case's request and takes what comes.
func (st *stage) visit(ctx context.Context, e *exchange) taken {
	conn, err := st.dial(ctx, e.spot.Listener)
	if err != nil {
		return taken{err: err}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }() // he has what he came for
	v := &visit{Conn: conn}
	_ = v.SetDeadline(time.Now().Add(st.config.patience()))
	t := taken{}
	if _, err := io.WriteString(v, st.request(e.spot.Way)); err != nil {
		t.err = err
	} else {
		st.take(v, e, &t)
	}
	st.leave(v)
	t.bytes = v.got.Bytes()
	if t.err == nil && v.err != nil && !errors.Is(v.err, io.EOF) {
		t.err = v.err
	}
	return t
}

func (c *Config) patience() time.Duration {
	if c.Patience > 0 {
		return c.Patience
	}
	return defaultPatience
}

func (st *stage) dial(ctx context.Context, listener string) (net.Conn, error) {
	d := net.Dialer{Timeout: st.config.patience()}
	if st.from != nil {
		d.LocalAddr = st.from
	}
	addr := st.relay.Bare
	if listener == Secured {
		addr = st.relay.Secured
	}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil || listener != Secured {
		return conn, err
	}
	host, _, _ := net.SplitHostPort(addr)
	secured := tls.Client(conn, &tls.Config{RootCAs: st.relay.Roots, ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

// request is what the customer sends: with his credentials, and with all that could give
// him away.
func (st *stage) request(way string) string {
	var b strings.Builder
	site := st.site.Addr()
	switch way {
	case Connect:
		at := st.echo.Addr()
		b.WriteString("CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\nUser-Agent: " + customerAgent + "\r\nProxy-Connection: keep-alive\r\n")
	case Plain:
		b.WriteString("GET http://" + site + "/bytes?n=1000 HTTP/1.1\r\nHost: " + site + "\r\nUser-Agent: " + plainAgent + "\r\nAccept: */*\r\n")
	case Websocket:
		b.WriteString("GET http://" + site + "/ws?raw=1 HTTP/1.1\r\nHost: " + site + "\r\nUser-Agent: " + plainAgent + "\r\n" +
			"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + webSocketKey + "\r\n")
	}
	b.WriteString(st.credentials() + judgedLines(judgedFields) + "\r\n")
	return b.String()
}

// take reads the answer, and goes through the tunnel if one opens.
func (st *stage) take(v *visit, e *exchange, t *taken) {
	br := bufio.NewReader(v)
	method := http.MethodGet
	if e.spot.Way == Connect {
		method = http.MethodConnect
	}
	for {
		response, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.late = isTimeout(err)
			return
		}
		if s := response.StatusCode; s < 200 && s != http.StatusSwitchingProtocols {
			_ = response.Body.Close() // there is none
			continue
		}
		t.response = response
		if opens(e.spot.Way, response.StatusCode) {
			st.through(v, br, e, t)
			_ = v.SetReadDeadline(time.Unix(1, 0)) // what a body would be is the tunnel's
			_ = response.Body.Close()
			return
		}
		t.body, t.bodyErr = io.ReadAll(io.LimitReader(response.Body, maxTaken))
		t.late = isTimeout(t.bodyErr)
		_ = response.Body.Close()
		return
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// opens reports whether a status opens a tunnel.
func opens(way string, status int) bool {
	return way == Connect && status/100 == 2 || way == Websocket && status == http.StatusSwitchingProtocols
}

// through sends the canary and waits for it to come back.
func (st *stage) through(v *visit, br *bufio.Reader, e *exchange, t *taken) {
	if e.odd() {
		_ = v.SetReadDeadline(time.Now().Add(oddWait))
	}
	if _, err := v.Write(canary()); err != nil {
		t.err = err
		return
	}
	buf := make([]byte, 4<<10)
	for !bytes.Contains(t.after, canary()) && len(t.after) < maxTaken {
		n, err := br.Read(buf)
		t.after = append(t.after, buf[:n]...)
		if err != nil {
			t.late = isTimeout(err) && !e.odd()
			return
		}
	}
}

// leave ends the customer's side and takes what still comes.
func (st *stage) leave(v *visit) {
	if c, ok := v.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_ = v.SetReadDeadline(time.Now().Add(lastWait))
	buf := make([]byte, 4<<10)
	for {
		if _, err := v.Read(buf); err != nil {
			return
		}
	}
}
