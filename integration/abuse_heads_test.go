package integration

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"maskrelay/integration/lab"
)

// TestHugeHeads sends heads that are far too large as fast as it goes, on both listeners. Each gets 431, or its end.
func TestHugeHeads(t *testing.T) {
	const connect, plain = "CONNECT shop.target.example:443 HTTP/1.1\r\nHost: shop.target.example:443\r\n", "GET http://shop.target.example/ HTTP/1.1\r\nHost: shop.target.example\r\n"
	lines, field, long := strings.Repeat("X-Line: v\r\n", 10_000), "X-Field: "+strings.Repeat("f", 1<<20)+"\r\n", strings.Repeat("a", 1<<20)
	for name, heads := range map[string][]string{
		"10,000 lines": {connect + lines + "\r\n", plain + lines + "\r\n"},
		"1 MB": {
			connect + field + "\r\n", plain + field + "\r\n",
			"CONNECT " + long + ":443 HTTP/1.1\r\n\r\n", "GET http://shop.target.example/" + long + " HTTP/1.1\r\n\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startScene(t, nil, "")
			s.endure(t, func(m *mob) {
				m.work(mobWorkers, func(w int) {
					head := heads[w%len(heads)]
					if w < mobWorkers/2 {
						m.ask(s.relay.Addr, mobAddr(w), head)
						return
					}
					m.askSecurely(s, mobAddr(w), head)
				})
				m.waitAnswers(20)
				right, _ := m.answers(http.StatusRequestHeaderFieldsTooLarge)
				nothing, _ := m.answers(0)
				if _, other := m.answers(http.StatusRequestHeaderFieldsTooLarge, 0); other > 0 || right < nothing {
					t.Errorf("%v; want 431, or nothing where it was lost", m)
				}
			})
		})
	}
}

// askSecurely is ask over TLS.
func (m *mob) askSecurely(s *scene, from, text string) {
	c, err := m.dial(s.secure, from)
	if err != nil {
		return
	}
	defer m.leave(c)
	inside := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // an abuser does not care
	if inside.Handshake() == nil {
		m.askOn(inside, text)
	}
}

// waitAnswers waits until the mob has had so many answers.
func (m *mob) waitAnswers(n int) {
	m.t.Helper()
	lab.Wait(m.t, mobLimit, "the mob's answers", func() bool { _, all := m.answers(); return all >= n })
}
