package upstreamtest

import (
	"context"
	"fmt"
	"io"
)

// Target is a TCP server that knows no HTTP. All methods are safe for concurrent use.
type Target struct{ st *station }

// startTarget serves every connection with handle, which need not close it.
func startTarget(handle func(context.Context, *recorded)) (*Target, error) {
	st, err := newStation("", nil, 0)
	if err != nil {
		return nil, err
	}
	st.serve(handle)
	return &Target{st: st}, nil
}

// StartEcho starts a target that sends back what it gets, and half-closes after its peer did.
func StartEcho() (*Target, error) {
	return startTarget(func(_ context.Context, c *recorded) { echo(c) })
}

// StartBanner starts a target that speaks first, like SSH or SMTP, and then echoes.
func StartBanner(banner []byte) (*Target, error) {
	return startTarget(func(_ context.Context, c *recorded) {
		if _, err := c.Write(banner); err == nil {
			echo(c)
		}
	})
}

// StartSink starts a target that reads to its peer's FIN and then answers with
// one line, the SHA-256 in hex and the count of what it read, as [SinkLine] makes it.
func StartSink() (*Target, error) {
	return startTarget(func(_ context.Context, c *recorded) {
		if sum, n, err := digest(c); err == nil {
			_, _ = io.WriteString(c, SinkLine(sum, n)) // a peer that left needs no answer
		}
	})
}

// SinkLine returns what a sink answers to n bytes with the given SHA-256 in hex.
func SinkLine(sum string, n int64) string { return fmt.Sprintf("%s %d\n", sum, n) }

// StartSource starts a target that sends Pattern(n), half-closes, and reads what comes until its peer ends.
func StartSource(n int64) (*Target, error) {
	return startTarget(func(_ context.Context, c *recorded) {
		if _, err := io.Copy(c, Pattern(n)); err != nil {
			return
		}
		if c.CloseWrite() == nil {
			drain(c)
		}
	})
}

// StartReset starts a target that reads n bytes of each connection and resets it.
func StartReset(n int64) (*Target, error) {
	return startTarget(func(_ context.Context, c *recorded) {
		if _, err := io.CopyN(io.Discard, c, n); err == nil {
			_ = c.Reset() // that is all there was to do
		}
	})
}

// echo sends back what comes until EOF, and half-closes.
func echo(c *recorded) {
	if copyAsItComes(c, c) == nil && c.CloseWrite() == nil {
		drain(c)
	}
}

// Addr returns the listener's host:port.
func (t *Target) Addr() string { return t.st.Addr().String() }

// Conns returns a record of every connection in order of accept.
func (t *Target) Conns() []*ConnRecord { return t.st.led.list() }

// Received returns all bytes from all connections, in order of accept.
func (t *Target) Received() []byte { return t.st.led.received() }

// Dropped returns how many received bytes the record limit left out of Received.
func (t *Target) Dropped() int64 { return t.st.led.dropped() }

// Open returns how many connections are open now.
func (t *Target) Open() int {
	_, open := t.st.led.counts()
	return open
}

// Accepted returns how many connections were ever accepted.
func (t *Target) Accepted() int {
	accepted, _ := t.st.led.counts()
	return accepted
}

// Close cuts all connections; when it returns all goroutines of the target have ended.
func (t *Target) Close() error { return t.st.close() }
