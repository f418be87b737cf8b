package upstreamtest

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// playLimit is how much of an endless reply is read.
const playLimit = 256 << 10

// play sends a CONNECT with "ping" behind it and a FIN, and returns what comes
// back until the end, whatever kind of end it is.
func play(t *testing.T, b Behaviour) (got string, v *Vendor) {
	t.Helper()
	v = startVendor(t, VendorConfig{Behaviour: b})
	c := dial(t, v.Addr())
	c.send(connectLine(startEcho(t).Addr()) + "ping")
	_ = c.CloseWrite() // a reset may have come already
	return readEnd(t, c), v
}

// readEnd reads to the end or to playLimit; a hang fails the test.
func readEnd(t *testing.T, c *client) string {
	t.Helper()
	b, err := io.ReadAll(io.LimitReader(c.br, playLimit))
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		t.Fatalf("hangs after %.200q", b)
	}
	return string(b)
}

// outcome splits what a vendor said: the final head, and what followed it.
func outcome(got string) (m message, rest string) {
	for {
		i := strings.Index(got, "\n\r\n")
		skip, before := 3, got
		if i >= 0 {
			before = got[:i+1] // not all of an endless reply for each of its heads
		}
		if j := strings.Index(before, "\n\n"); j >= 0 {
			i, skip = j, 2
		}
		if i < 0 {
			return message{}, got
		}
		m, got = splitHead([]byte(got[:i])), got[i+skip:]
		if s := m.status(); s < 100 || s > 199 || s == http.StatusSwitchingProtocols {
			return m, got
		}
	}
}

func TestEveryBehaviour(t *testing.T) {
	t.Parallel()
	// Heads that a lenient parser takes for a 200; that they are malformed is their point.
	malformed := map[string]bool{"version-2": true, "nul-in-head": true, "folded-line": true, "no-colon": true,
		"length-negative": true, "length-two": true, "length-overflow": true}
	all := Behaviours()
	if len(all) < 60 {
		t.Errorf("only %d behaviours", len(all))
	}
	for name, b := range all {
		if strings.Contains(name, "stall") {
			continue // they never end by themselves: see TestStalls
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, v := play(t, b)
			m, rest := outcome(got)
			opened := m.status() >= 200 && m.status() <= 299
			switch {
			case strings.HasPrefix(name, "relay"):
				if !opened || rest != "ping" {
					t.Errorf("got %q then %q", m.first, rest)
				}
			case strings.HasPrefix(name, "tunnel"):
				// A reset may overtake the 200.
				if !opened && !strings.Contains(name, "reset") {
					t.Errorf("got %q", got)
				}
			case malformed[name]:
				if !opened {
					t.Errorf("got %q", got)
				}
			default:
				h := m.header()
				body := h.Get("Transfer-Encoding") != "" || (h.Get("Content-Length") != "" && h.Get("Content-Length") != "0")
				if opened && !body && len(got) < 64<<10 && strings.HasPrefix(m.first, "HTTP/") {
					t.Errorf("a fault that looks like a tunnel: %.300q", got)
				}
			}
			if len(v.Conns()[0].Requests()) != 1 {
				t.Error("the request was not recorded")
			}
		})
	}
}

func TestBehaviourBytes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		b    Behaviour
		want string // exactly, unless it ends with ...
	}{
		{"raw, open", Raw{Bytes: []byte("any\x00thing")}, "any\x00thing"},
		{"raw, close", Raw{Bytes: []byte("bye"), Then: Close}, "bye"},
		{"raw, half-close", Raw{Bytes: []byte("bye"), Then: HalfClose}, "bye"},
		{"raw, in pieces", Raw{Bytes: []byte("piecemeal"), Chunk: 2, Delay: time.Microsecond}, "piecemeal"},
		{"silent", Silent(), ""},
		{"close before reply", CloseBeforeReply(), ""},
		{"status", Status(418, "Teapot", http.Header{"B": {"2"}, "A": {"1", "3"}}, "tea"),
			"HTTP/1.1 418 Teapot\r\nA: 1\r\nA: 3\r\nB: 2\r\nContent-Length: 3\r\n\r\ntea"},
		{"status without reason", Status(500, "", http.Header{"Content-Length": {"9"}}, "x"), "HTTP/1.1 500\r\nContent-Length: 9\r\n\r\nx"},
		{"informational first", InformationalFirst(), "HTTP/1.1 103 SuperVendor Hints\r\nX-SuperVendor-Hint: 1\r\n\r\n" +
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 SuperVendor OK\r\n\r\nping"},
		{"204", No200Tunnel(), "HTTP/1.1 204 SuperVendor No Content\r\nX-SuperVendor-Session: 1\r\n\r\nping"},
		{"body by length", ConnectWithBody(false), "HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\nSuperVendor welcomes you\n"},
		{"body in chunks", ConnectWithBody(true),
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n19\r\nSuperVendor welcomes you\n\r\n0\r\n\r\n"},
		{"huge head", HugeHead(20_000), "HTTP/1.1 200 OK\r\nX-SuperVendor-Padding: " + strings.Repeat("p", 20_000) + "\r\n\r\n"},
		{"endless head", Endless(), "HTTP/1.1 200 OK\r\nX-SuperVendor-Line: ll..."},
		{"endless 100", EndlessInformational(), "HTTP/1.1 100 SuperVendor\r\n\r\nHTTP/1.1 100 SuperVendor\r\n\r\n..."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, _ := play(t, tt.b)
			begin, open := strings.CutSuffix(tt.want, "...")
			if got != tt.want && (!open || !strings.HasPrefix(got, begin) || len(got) != playLimit) {
				t.Errorf("got %.300q", got)
			}
		})
	}
}

func TestEarlyDataIsOneWrite(t *testing.T) {
	t.Parallel()
	v := startVendor(t, VendorConfig{Behaviour: EarlyData([]byte("SSH-2.0-x\r\n"))})
	c := dial(t, v.Addr())
	c.send(connectLine("a.example.test:22"))
	b := make([]byte, 4<<10)
	n := must(c.Read(b))(t)
	if !strings.HasSuffix(string(b[:n]), "\r\n\r\nSSH-2.0-x\r\n") {
		t.Errorf("first packet %q", b[:n])
	}
	c.send("echo")
	c.fin()
	if got := c.rest(); got != "echo" {
		t.Errorf("then %q", got)
	}
}

func TestTunnelEndings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		b     Behaviour
		reset bool
	}{
		{"reset", Reset(1000), true},
		{"cut", Cut(1000), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := startVendor(t, VendorConfig{Behaviour: tt.b})
			c := dial(t, v.Addr())
			c.send(connectLine("a.example.test:443"))
			c.head()
			c.send(strings.Repeat("x", 1000))
			if got := c.isReset(); got != tt.reset {
				t.Errorf("reset: %v", got)
			}
			if end := v.Conns()[0].End(); end != EndLocal {
				t.Errorf("the record blames the peer: %s", end)
			}
		})
	}
}

func TestStalls(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"stall", "tunnel-stalled-reader"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := must(StartVendor(VendorConfig{Behaviour: Behaviours()[name]}))(t)
			c := dial(t, v.Addr())
			c.send(connectLine("a.example.test:443"))
			if name != "stall" {
				c.head()
			}
			if err := c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			_, err := io.Copy(c.TCPConn, Pattern(1<<30))
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() {
				t.Errorf("writing ended with %v", err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefusalsServeOneConnectionOn(t *testing.T) {
	t.Parallel()
	v := startVendor(t, VendorConfig{Behaviour: Loud(407, "THREADS_EXHAUSTED")})
	c := dial(t, v.Addr())
	for range 3 {
		c.send(connectLine("a.example.test:443"))
		if resp, _ := c.response("CONNECT"); resp.StatusCode != 407 || resp.Header.Get("X-SuperVendor-Error") != "THREADS_EXHAUSTED" {
			t.Errorf("got %s", resp.Status)
		}
	}
}

func TestStaleKeepAlive(t *testing.T) {
	t.Parallel()
	j := startJudge(t, JudgeConfig{})
	v := startVendor(t, VendorConfig{Behaviour: StaleKeepAlive()})
	c := dial(t, v.Addr())
	request := "GET " + j.URL() + "/notype HTTP/1.1\r\nHost: a\r\n\r\n"
	c.send(request)
	if resp, _ := c.response("GET"); resp.StatusCode != 200 || resp.Close {
		t.Fatalf("first: %s, close %v", resp.Status, resp.Close)
	}
	c.send(request)
	if got := c.rest(); got != "" {
		t.Errorf("second: %q", got)
	}
}
