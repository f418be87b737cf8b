package integration

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const (
	slowConns  = 2000 // more than the relay has room for
	roomyConns = 1200 // all that it has room for beside others: who is ended and begins anew with a long head is a flood, not slow
)

const rogueLogin = "Proxy-Authorization: Basic " // and the login

func rogueHead(method, target string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: shop.target.example\r\n" + rogueLogin + basic("rogue", "rogue-password") + "\r\n" +
		strings.Join(append(lines, ""), "\r\n") + "\r\n"
}

// helloOf is a ClientHello as it goes over the wire.
func helloOf(t testing.TB) string {
	t.Helper()
	var sent bytes.Buffer
	c := tls.Client(recorder{w: &sent}, &tls.Config{ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
	if err := c.Handshake(); err == nil || sent.Len() < 100 {
		t.Fatalf("a handshake with nobody: %d bytes, %v", sent.Len(), err)
	}
	return sent.String()
}

// recorder is a connection to nobody.
type recorder struct {
	net.Conn
	w io.Writer
}

func (r recorder) Write(b []byte) (int, error) { return r.w.Write(b) }
func (recorder) Read([]byte) (int, error)      { return 0, io.EOF }
func (recorder) Close() error                  { return nil }

// TestSlowHeads has thousands say what the relay waits for as slowly as they can.
func TestSlowHeads(t *testing.T) {
	hello := helloOf(t)
	long := "GET http://shop.target.example/ HTTP/1.1\r\nX-Long: " + strings.Repeat("l", 30<<10)
	for _, tc := range []struct {
		name        string
		text        string
		first       int // bytes at once
		secure      bool
		hasBalancer bool
		conns       int // 0 = slowConns
	}{
		{name: "request line", text: "CONNECT " + strings.Repeat("a", 1000), first: 1},
		{name: "head", text: "CONNECT shop.target.example:443 HTTP/1.1\r\nX: " + strings.Repeat("b", 1000), first: 50},
		{name: "long head", text: long, first: len(long) - 1000, conns: roomyConns},
		{name: "PROXY header", text: "PROXY TCP4 100.64.1.1 100.64.1.2 1000 8080", first: 1, hasBalancer: true},
		{name: "hello", text: hello, first: 1, secure: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env, header := lab.Env{}, ""
			if tc.hasBalancer {
				env, header = fromBalancer, calmHeader
			}
			s := startScene(t, env, header)
			s.endure(t, func(m *mob) {
				addr := s.relay.Addr
				if tc.secure {
					addr = s.secure
				}
				m.trickle(cmp.Or(tc.conns, slowConns), addr, tc.text, tc.first)
			})
		})
	}
}

// TestSilence has thousands connect and say nothing.
func TestSilence(t *testing.T) {
	s := startScene(t, nil, "")
	s.endure(t, func(m *mob) {
		m.trickle(slowConns, s.relay.Addr, "", 0)
		m.trickle(slowConns, s.secure, "", 0)
	})
}

// TestSlowBodies has a customer send the bodies of as many requests as his cap allows a byte at a time, and another part of them not read answers.
func TestSlowBodies(t *testing.T) {
	body := rogueHead("POST", "http://shop.target.example/", "Content-Length: 1000000") + strings.Repeat("b", 1000)
	big := rogueHead("GET", fmt.Sprintf("http://shop.target.example/big/%d", 100<<20))
	for _, tc := range []struct {
		name, text string
		first      int
	}{
		{"body", body, len(body) - 1000},
		{"answer not read", big, len(big)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startScene(t, nil, "")
			s.endure(t, func(m *mob) {
				held := m.hold(320, func(i int) (net.Conn, error) {
					return m.say(s.relay.Addr, mobAddr(i), tc.text[:tc.first])
				})
				lab.Wait(t, 10*time.Second, "the cap to be reached", func() bool { return leases(t, s.relay, "rogue") == 300 })
				if tc.first == len(tc.text) {
					s.waitStill(t) // 300 downloads at full speed are no abuse
				}
				m.work(1, func(int) {
					for i, c := range held {
						if tc.first < len(tc.text) {
							_, _ = io.WriteString(c, tc.text[tc.first:tc.first+1]) // some are refused
						}
						if i%16 == 0 {
							time.Sleep(time.Millisecond) // a few at a time
						}
					}
				})
			})
		})
	}
}

// waitStill waits until the relay moves nothing for the rogue any more.
func (s *scene) waitStill(t *testing.T) {
	t.Helper()
	last, still := -1.0, 0
	lab.Wait(t, 20*time.Second, "the rogue's downloads to stand still", func() bool {
		n, _ := s.relay.Metric(t, `maskrelay_account_bytes_total{account="rogue",direction="received"}`)
		if n != last {
			last, still = n, 0
		}
		still++
		return n > 0 && still > 20
	})
}

// slowEnd is one phase in which somebody may be slow.
type slowEnd struct {
	addr, text string
	first      int // bytes at once
}

// slowEnds are all phases, at a relay that customers reach straight and at one behind a load balancer.
func slowEnds(t *testing.T, plain, balanced *scene) map[string]slowEnd {
	t.Helper()
	const header = "PROXY TCP4 100.64.1.1 100.64.1.2 1000 8080\r\n"
	hello, line := helloOf(t), "CONNECT "+strings.Repeat("a", 1000)
	long := "GET http://shop.target.example/ HTTP/1.1\r\nX-Long: " + strings.Repeat("l", 20<<10)
	return map[string]slowEnd{
		"silence":               {plain.relay.Addr, "", 0},
		"silence before TLS":    {plain.secure, "", 0},
		"request line":          {plain.relay.Addr, line, 1},
		"head":                  {plain.relay.Addr, "CONNECT shop.target.example:443 HTTP/1.1\r\nX: " + strings.Repeat("b", 1000), 50},
		"long head":             {plain.relay.Addr, long, len(long) - 1000},
		"hello":                 {plain.secure, hello, 1},
		"half a hello":          {plain.secure, hello, len(hello) / 2},
		"PROXY header":          {balanced.relay.Addr, header, 1},
		"PROXY header, binary":  {balanced.relay.Addr, headerV2(1, strings.Repeat("x", 500)), 14},
		"PROXY header, TLS":     {balanced.secure, header, 1},
		"line behind a header":  {balanced.relay.Addr, header + line, 60},
		"hello behind a header": {balanced.secure, header + hello, 50},
	}
}

// TestSlowEnds has one in each phase send a byte now and then: HEADER_TIMEOUT ends him, however steadily he sends. Where net/http takes a connection over from the
// reactor the time begins anew, once; and who is silent is seen by the relay after the kernel's three seconds only (TCP_DEFER_ACCEPT).
func TestSlowEnds(t *testing.T) {
	t.Parallel()
	const timeout, longest = time.Second, 8 * time.Second // with what a busy machine adds
	env := lab.Env{"HEADER_TIMEOUT": timeout.String()}
	plain := startScene(t, env, "")
	env["PROXY_PROTOCOL_FROM"] = fromBalancer["PROXY_PROTOCOL_FROM"]
	balanced := startScene(t, env, calmHeader)
	for name, tc := range slowEnds(t, plain, balanced) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMob(t)
			defer m.end()
			c, err := m.say(tc.addr, mobAddr(2000), tc.text[:tc.first])
			if err != nil {
				t.Fatal(err)
			}
			start, sent := time.Now(), tc.first
			lab.Wait(t, longest, "the relay to end it", func() bool {
				if time.Since(start) > time.Duration(sent-tc.first)*100*time.Millisecond && sent < len(tc.text) {
					_, _ = io.WriteString(c, tc.text[sent:sent+1]) // its end is looked for below
					sent++
				}
				return ended(c)
			})
		})
	}
}
