package integration

import (
	"crypto/tls"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestHandshakeFlood makes whole TLS handshakes as fast as it goes, and leaves.
func TestHandshakeFlood(t *testing.T) {
	s := startScene(t, nil, "")
	s.endure(t, func(m *mob) {
		m.work(mobWorkers, func(w int) {
			c, err := m.dial(s.secure, mobAddr(w%2))
			if err != nil {
				return
			}
			defer m.leave(c)
			if tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake() == nil { // an abuser does not care
				m.answered(http.StatusOK)
			}
		})
		m.waitAnswers(20)
	})
}

// TestHalfHellos sends the first half of a hello on thousands of connections, and holds them: as many as the relay has room for, and more.
func TestHalfHellos(t *testing.T) {
	s := startScene(t, nil, "")
	hello := helloOf(t)
	s.endure(t, func(m *mob) {
		held := m.hold(3000, func(i int) (net.Conn, error) { return m.say(s.secure, mobAddr(i), hello[:len(hello)/2]) })
		lab.Wait(t, 10*time.Second, "the relay to end those that it has no room for", func() bool {
			return len(alive(held)) <= abuseConns+abuseSpare
		})
	})
}

// TestHelloGarbage sends what is no hello, and hellos that promise more than there is, as fast as it goes.
func TestHelloGarbage(t *testing.T) {
	s := startScene(t, nil, "")
	hello := helloOf(t)
	texts := []string{
		"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x00\x05\x01\xff\xff\xff\x03", "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + string(make([]byte, 16<<10)),
		"\x80\x2e\x01\x00\x02", hello[:len(hello)-1] + "\x00", string(make([]byte, 64<<10)),
	}
	s.endure(t, func(m *mob) {
		m.work(mobWorkers, func(w int) {
			n := int(m.opened.Load()) % len(texts)
			c, err := m.say(s.secure, mobAddr(w), texts[n])
			if err != nil {
				return
			}
			defer m.leave(c)
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // some are waited for: the next
			_, _ = c.Read(make([]byte, 64))
		})
		lab.Wait(t, mobLimit, "the flood", func() bool { return m.opened.Load() > 100 })
	})
}

// TestRenegotiation: a connection pays for one handshake. Who asks for another loses it, and nobody else does.
func TestRenegotiation(t *testing.T) {
	t.Parallel()
	lab.Need(t, "openssl")
	addr, pair := lab.FreeAddr(t), newKeyPair(t, t.TempDir())
	_, plain := startSingle(t, lab.Env{"TLS_LISTEN": addr, "TLS_CERT_FILE": pair.certFile, "TLS_KEY_FILE": pair.keyFile})
	cmd := exec.Command("openssl", "s_client", "-connect", addr, "-tls1_2", "-legacy_renegotiation")
	cmd.Stdin = strings.NewReader("R\nR\n") // on a line of its own it begins a handshake
	p := lab.Start(t, "openssl s_client", cmd)
	p.ExitCode(t, 20*time.Second) // what it is matters to openssl alone
	said := string(p.Stdout.Bytes()) + string(p.Stderr.Bytes())
	if !strings.Contains(said, "RENEGOTIATING") || !strings.Contains(said, "SSL alert number") {
		t.Errorf("renegotiation was not refused:\n%s", said)
	}
	if c, err := tunnel(plain, startEcho(t)); err != nil {
		t.Error(err)
	} else if err := c.Close(); err != nil {
		t.Error(err)
	}
}
