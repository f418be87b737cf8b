package upstreamtest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const testTimeout = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// must returns v, or ends the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// closing starts what the test is about and closes it at the end.
func closing[T io.Closer](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return v
}

func startVendor(t *testing.T, config VendorConfig) *Vendor {
	t.Helper()
	v, err := StartVendor(config)
	return closing(t, v, err)
}

func startJudge(t *testing.T, config JudgeConfig) *Judge {
	t.Helper()
	j, err := StartJudge(config)
	return closing(t, j, err)
}

func startEcho(t *testing.T) *Target {
	t.Helper()
	e, err := StartEcho()
	return closing(t, e, err)
}

// client is one connection with a deadline over all of it.
type client struct {
	t *testing.T
	*net.TCPConn
	br *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	c := must(net.DialTimeout("tcp", addr, testTimeout))(t)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("a %T", c)
	}
	return &client{t: t, TCPConn: tcp, br: bufio.NewReader(tcp)}
}

// send writes all of s.
func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, s); err != nil {
		c.t.Fatal(err)
	}
}

// fin half-closes.
func (c *client) fin() {
	c.t.Helper()
	if err := c.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// head reads a response head as it is.
func (c *client) head() string {
	c.t.Helper()
	return string(must(readHead(c.br))(c.t))
}

// response reads a response with its body.
func (c *client) response(method string) (*http.Response, string) {
	c.t.Helper()
	resp := must(http.ReadResponse(c.br, &http.Request{Method: method}))(c.t)
	defer func() { _ = resp.Body.Close() }()
	return resp, string(must(io.ReadAll(resp.Body))(c.t))
}

// rest reads to the end.
func (c *client) rest() string {
	c.t.Helper()
	return string(must(io.ReadAll(c.br))(c.t))
}

// exactly reads n bytes.
func (c *client) exactly(n int) string {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.br, b); err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// isReset reports whether the connection ends with an error, not an EOF or a timeout.
func (c *client) isReset() bool {
	_, err := io.ReadAll(c.br)
	var ne net.Error
	return err != nil && !(errors.As(err, &ne) && ne.Timeout())
}

// awaitClosed waits for the server's side of a connection.
func awaitClosed(t *testing.T, r *ConnRecord) {
	t.Helper()
	select {
	case <-r.Closed():
	case <-time.After(testTimeout):
		t.Fatal("the connection was not closed")
	}
}

// showsMark reports whether s holds one of the marks.
func showsMark(s string, marks []string) bool {
	for _, m := range marks {
		if strings.Contains(s, m) {
			return true
		}
	}
	return false
}
