package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/masking"
	"maskrelay/upstream/upstreamtest"
)

// customer is one connection to the relay; what it receives is kept.
type customer struct {
	net.Conn // TCP, or TLS over it
	t        testing.TB
	raw      *net.TCPConn
	tape     *tape
	br       *bufio.Reader
	unlike   bool // holds bytes of a stream that are not to be scanned
}

// tape keeps what is read through it.
type tape struct {
	io.Reader
	mu   sync.Mutex // guards kept
	kept bytes.Buffer
}

func (t *tape) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept.Write(b[:n])
	return n, err
}

func (c *customer) received() []byte {
	c.tape.mu.Lock()
	defer c.tape.mu.Unlock()
	return bytes.Clone(c.tape.kept.Bytes())
}

// dial connects a customer to the relay's first address.
func (r *rig) dial() *customer { return r.dialAt(0, nil) }

// dialAt connects to the n-th address, over TLS if there is a configuration.
func (r *rig) dialAt(n int, secured *tls.Config) *customer {
	r.t.Helper()
	return r.dialBy(&net.Dialer{Timeout: patience}, n, secured)
}

func (r *rig) dialBy(d *net.Dialer, n int, secured *tls.Config) *customer {
	r.t.Helper()
	conn, err := d.Dial("tcp", r.server.Addrs()[n].String())
	must(r.t, err)
	must(r.t, conn.SetDeadline(time.Now().Add(patience)))
	c := &customer{Conn: conn, t: r.t, raw: conn.(*net.TCPConn)}
	if secured != nil {
		c.Conn = tls.Client(conn, secured)
	}
	c.tape = &tape{Reader: c.Conn}
	c.br = bufio.NewReader(c.tape)
	r.t.Cleanup(func() { _ = c.raw.Close() })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.customers = append(r.customers, c)
	return c
}

// send writes all of s in one write.
func (c *customer) send(s string) {
	c.t.Helper()
	_, err := io.WriteString(c.Conn, s)
	must(c.t, err)
}

// fin half-closes.
func (c *customer) fin() {
	c.t.Helper()
	if s, ok := c.Conn.(*tls.Conn); ok {
		must(c.t, s.CloseWrite())
		return
	}
	must(c.t, c.raw.CloseWrite())
}

// reset closes with an RST.
func (c *customer) reset() {
	c.t.Helper()
	must(c.t, c.raw.SetLinger(0))
	must(c.t, c.raw.Close())
}

// expect reads exactly want.
func (c *customer) expect(want string) {
	c.t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(c.br, b)
	if err != nil || string(b) != want {
		c.t.Fatalf("got %q (%v)\nwant %q", b[:n], err, want)
	}
}

// ends expects the end of the stream, and nothing before it.
func (c *customer) ends() {
	c.t.Helper()
	b, err := io.ReadAll(c.br)
	if err != nil || len(b) > 0 {
		c.t.Fatalf("got %q and %v, want an end", b, err)
	}
}

// breaks expects the connection to end soon, in whatever way, and returns what came before.
func (c *customer) breaks() string {
	c.t.Helper()
	b, err := io.ReadAll(c.br)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection is still open; got %q", b)
	}
	return string(b)
}

// connect opens a tunnel.
func (c *customer) connect(target string) {
	c.t.Helper()
	c.send(connectTo(target))
	c.expect(masking.Established)
}

// answer reads a response with its body.
func (c *customer) answer(method string) (*http.Response, string) {
	c.t.Helper()
	response, err := http.ReadResponse(c.br, &http.Request{Method: method})
	must(c.t, err)
	body, err := io.ReadAll(response.Body)
	must(c.t, err)
	must(c.t, response.Body.Close())
	return response, string(body)
}

// get sends a GET and returns the answer.
func (c *customer) get(url string, lines ...string) (*http.Response, string) {
	c.t.Helper()
	c.send(request("GET", url, lines...))
	return c.answer("GET")
}

// head reads a response's head as it is.
func (c *customer) head() string {
	c.t.Helper()
	var head strings.Builder
	for {
		line, err := c.br.ReadString('\n')
		must(c.t, err)
		head.WriteString(line)
		if line == "\r\n" {
			return head.String()
		}
	}
}

// echoes proves that the tunnel carries bytes both ways.
func (c *customer) echoes() {
	c.t.Helper()
	c.send("ping through the tunnel\n")
	c.expect("ping through the tunnel\n")
}

// started starts one of upstreamtest's targets and closes it at the end.
func started(t *testing.T) func(*upstreamtest.Target, error) *upstreamtest.Target {
	return func(target *upstreamtest.Target, err error) *upstreamtest.Target {
		t.Helper()
		must(t, err)
		t.Cleanup(func() { must(t, target.Close()) })
		return target
	}
}

func startEcho(t *testing.T) *upstreamtest.Target {
	t.Helper()
	return started(t)(upstreamtest.StartEcho())
}
