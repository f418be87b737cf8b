package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// Opcodes of RFC 6455 §5.2, with FIN.
const (
	textFrame  = 0x81
	closeFrame = 0x88
	pingFrame  = 0x89
	pongFrame  = 0x8a
)

// TestWebsocket talks to a judge through the relay and squid: in a tunnel, in a tunnel with TLS, and by a handshake in absolute form.
func TestWebsocket(t *testing.T) {
	t.Parallel()
	relay, addr := startSingle(t, nil)
	plain, secure := startJudge(t, upstreamtest.JudgeConfig{}), startJudge(t, upstreamtest.JudgeConfig{TLS: true})

	t.Run("tunnel", func(t *testing.T) {
		c := mustDial(t, addr)
		if got := c.mustConnect(t, plain.Addr(), customerName, customerPassword); got.status != http.StatusOK {
			t.Fatalf("CONNECT: %+v", got)
		}
		c.websocket(t, handshake{target: "/ws", host: plain.Addr()})
	})
	t.Run("tunnel with TLS", func(t *testing.T) {
		c := mustDial(t, addr)
		if got := c.mustConnect(t, secure.Addr(), customerName, customerPassword); got.status != http.StatusOK {
			t.Fatalf("CONNECT: %+v", got)
		}
		inside := tls.Client(c.Conn, &tls.Config{RootCAs: secure.CertPool(), ServerName: "127.0.0.1"})
		newClient(t, inside).websocket(t, handshake{target: "/ws", host: secure.Addr()})
	})
	t.Run("absolute form", func(t *testing.T) {
		c := mustDial(t, addr)
		c.websocket(t, handshake{target: plain.URL() + "/ws", host: plain.Addr(), login: basic(customerName, customerPassword)})
	})
	lab.Wait(t, clientLimit, "all of them to end", func() bool {
		http, _ := relay.Metric(t, `maskrelay_connections{kind="http"}`)
		return relay.Tunnels(t) == 0 && http == 0 && plain.Open() == 0 && secure.Open() == 0
	})
}

// startJudge starts a target whose received bytes, after TLS, are searched for the customer at the end.
func startJudge(t *testing.T, config upstreamtest.JudgeConfig) *upstreamtest.Judge {
	t.Helper()
	j, err := upstreamtest.StartJudge(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		checkNoMarks(t, "judge", j.Received(), customerMarks())
		if j.Accepted() == 0 || j.Dropped() > 0 {
			t.Errorf("the judge accepted %d connections and did not record %d bytes", j.Accepted(), j.Dropped())
		}
	})
	return j
}

// handshake is how a websocket is asked for.
type handshake struct {
	target, host string
	login        string // for the proxy, "" = none
}

// websocket opens a websocket, exchanges frames of all length forms, and closes it.
func (c *client) websocket(t *testing.T, h handshake) {
	t.Helper()
	key := base64.StdEncoding.EncodeToString(randomBytes(16))
	lines := []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key}
	if u, err := url.Parse(h.target); err != nil || u.Host == "" {
		lines = append([]string{"Host: " + h.host}, lines...)
	}
	got := c.mustGet(t, h.target, h.login, lines...)
	if got.status != http.StatusSwitchingProtocols || got.header.Get("Sec-WebSocket-Accept") != upstreamtest.AcceptKey(key) {
		t.Fatalf("handshake: %+v", got)
	}
	for name, text := range map[string][]byte{"short": []byte("hello"), "two bytes of length": bytes.Repeat([]byte("m"), 1000), "eight": bytes.Repeat([]byte("l"), 100_000)} {
		if opcode, echo, err := c.frame(textFrame, text); err != nil || opcode != textFrame || !bytes.Equal(echo, text) {
			t.Errorf("%s: frame %#x with %d of %d bytes: %v", name, opcode, len(echo), len(text), err)
		}
	}
	if opcode, echo, err := c.frame(pingFrame, []byte("are you there")); err != nil || opcode != pongFrame || string(echo) != "are you there" {
		t.Errorf("ping: frame %#x %q: %v", opcode, echo, err)
	}
	if opcode, _, err := c.frame(closeFrame, []byte{3, 232}); err != nil || opcode != closeFrame {
		t.Errorf("close: frame %#x: %v", opcode, err)
	}
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		t.Errorf("after the close frame: %q, %v", rest, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// frame sends one masked frame (RFC 6455 §5.2) and reads the next one.
func (c *client) frame(first byte, payload []byte) (byte, []byte, error) {
	out := []byte{first}
	switch n := len(payload); {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n <= 0xffff:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	mask := randomBytes(4)
	out = append(out, mask...)
	for i, b := range payload {
		out = append(out, b^mask[i%4])
	}
	if _, err := c.Write(out); err != nil {
		return 0, nil, err
	}
	return c.readFrame()
}

// readFrame reads a server's frame.
func (c *client) readFrame() (byte, []byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1])
	if size := map[uint64]int{126: 2, 127: 8}[n]; size > 0 {
		var long [8]byte
		if _, err := io.ReadFull(c.r, long[8-size:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(long[:])
	}
	if n > 1<<20 { // also a mask, which a server must not use
		return 0, nil, fmt.Errorf("websocket: frame of %d bytes", n)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(c.r, payload)
	return head[0], payload, err
}
