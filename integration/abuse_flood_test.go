package integration

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestConnectAndClose opens connections and closes them, by FIN or RST, with or without a byte, as fast as it goes.
func TestConnectAndClose(t *testing.T) {
	s := startScene(t, nil, "")
	s.endure(t, func(m *mob) {
		m.work(mobWorkers, func(w int) {
			addr := s.relay.Addr
			if w%4 == 3 {
				addr = s.secure
			}
			c, err := m.dial(addr, mobAddr(w))
			if err != nil {
				return
			}
			if w%2 == 1 {
				_, _ = io.WriteString(c, "C") // the next is the end
			}
			if n := m.opened.Load(); w < 2 && n < mobMost/8 {
				_ = c.(*net.TCPConn).SetLinger(-1) // an orderly end; its port waits
			}
			m.leave(c)
		})
		lab.Wait(t, mobLimit, "the flood", func() bool { return m.opened.Load() > 500 })
	})
}

// TestJunkBehindRefusal sends junk behind requests that are refused, as fast as the relay takes it.
func TestJunkBehindRefusal(t *testing.T) {
	s := startScene(t, nil, "")
	const refused = "CONNECT shop.target.example:443 HTTP/1.1\r\nHost: shop.target.example:443\r\n\r\n"
	const plain = "GET http://shop.target.example/ HTTP/1.1\r\nHost: shop.target.example\r\n\r\n"
	texts := []string{
		refused + strings.Repeat("\x00\xff junk ", 8<<10), strings.Repeat(refused, 500), refused + strings.Repeat("GET / HTTP/1.1\r\n\r\n", 1000),
		plain + strings.Repeat("\r\n", 30<<10), strings.Repeat(plain, 500), "CONNECT bad target HTTP/1.1\r\n\r\n" + strings.Repeat("x", 64<<10),
	}
	s.endure(t, func(m *mob) {
		m.work(mobWorkers, func(w int) { m.ask(s.relay.Addr, mobAddr(w), texts[int(m.opened.Load())%len(texts)]) })
		m.waitAnswers(20)
	})
}

// TestOverTheCap has a customer ask for tunnels beyond his cap as fast as he gets his refusals, on connections that live on.
func TestOverTheCap(t *testing.T) {
	s := startScene(t, nil, "")
	head := "CONNECT shop.target.example:443 HTTP/1.1\r\nHost: shop.target.example:443\r\n" + rogueLogin + basic("greedy", "greedy-password") + "\r\n\r\n"
	s.endure(t, func(m *mob) {
		m.hold(10, func(i int) (net.Conn, error) { return m.say(s.relay.Addr, mobAddr(i), head) })
		lab.Wait(t, 10*time.Second, "the cap to be reached", func() bool { return leases(t, s.relay, "greedy") == 10 })
		m.work(mobWorkers, func(w int) {
			c, err := m.dial(s.relay.Addr, mobAddr(w))
			if err != nil {
				return
			}
			defer m.leave(c)
			r := bufio.NewReader(c)
			for !m.ended() {
				if _, err := io.WriteString(c, head); err != nil {
					return
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body) // the next read tells
				_ = resp.Body.Close()
				m.answered(resp.StatusCode)
				if resp.StatusCode == http.StatusOK {
					return
				}
			}
		})
		m.waitAnswers(100)
		if right, other := m.answers(http.StatusTooManyRequests); right == 0 || other > 0 {
			t.Errorf("%v; want 429", m)
		}
	})
}

// TestWebsocketFlood has a customer open websockets as fast as it goes, and others ask for them without a login.
func TestWebsocketFlood(t *testing.T) {
	s := startScene(t, nil, "")
	key := "Sec-WebSocket-Key: " + base64.StdEncoding.EncodeToString(randomBytes(16))
	lines := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key}
	good := rogueHead("GET", "http://shop.target.example/ws", lines...)
	stranger := "GET http://shop.target.example/ws HTTP/1.1\r\nHost: shop.target.example\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	s.endure(t, func(m *mob) {
		m.work(mobWorkers, func(w int) { m.ask(s.relay.Addr, mobAddr(w), []string{good, stranger}[w%2]) })
		m.waitAnswers(20)
		if right, other := m.answers(http.StatusSwitchingProtocols, http.StatusProxyAuthRequired); right == 0 || other > right/100 {
			t.Errorf("%v; want 101 and 407", m)
		}
	})
}

// TestAdminFlood has those who have found the admin listener and have no token open a thousand connections to it, ask for /metrics and not read, and ask for
// pages as fast as it goes. What customers get must not depend on it.
func TestAdminFlood(t *testing.T) {
	s := startScene(t, lab.Env{"ADMIN_TOKEN": "token-of-the-abused-relay"}, "")
	const scrape = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
	for name, begin := range map[string]func(m *mob){
		"idle": func(m *mob) {
			m.hold(1000, func(i int) (net.Conn, error) { return m.say(s.relay.Admin, mobAddr(i), "G") })
		},
		"not reading": func(m *mob) {
			m.hold(1000, func(i int) (net.Conn, error) { return m.say(s.relay.Admin, mobAddr(i), strings.Repeat(scrape, 8)) })
		},
		"pages": func(m *mob) {
			paths := []string{"/", "/healthz", "/readyz", "/api/v1/accounts", "/metrics", "/metrics", "/debug/pprof/goroutine?debug=2", "/nothing"}
			m.work(mobWorkers, func(w int) {
				m.ask(s.relay.Admin, mobAddr(w), fmt.Sprintf("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", paths[int(m.opened.Load())%len(paths)]))
			})
			m.waitAnswers(20)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.endure(t, func(m *mob) { begin(m) })
		})
	}
}
