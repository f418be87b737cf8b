package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"maskrelay/masking"
	"maskrelay/upstream/upstreamtest"
)

// writePair writes a new certificate of ca into the directory and returns its files.
func writePair(t testing.TB, dir string, ca *upstreamtest.CA) (certFile, keyFile string) {
	t.Helper()
	pair, err := ca.Server()
	must(t, err)
	var chain bytes.Buffer
	for _, der := range pair.Certificate {
		must(t, pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	der, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
	must(t, err)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(certFile, chain.Bytes(), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
	return certFile, keyFile
}

// tlsRig is a rig with a TLS listener alone.
func tlsRig(t *testing.T, s setup) (*rig, *upstreamtest.CA) {
	t.Helper()
	ca := newCA(t)
	certFile, keyFile := writePair(t, t.TempDir(), ca)
	more := s.config
	s.config = func(c *Config) {
		c.Listen, c.TLSListen, c.CertFile, c.KeyFile = nil, []string{"127.0.0.1:0"}, certFile, keyFile
		if more != nil {
			more(c)
		}
	}
	return newRig(t, s), ca
}

func trusting(ca *upstreamtest.CA) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
}

// corked collects writes until it is uncorked, so that several TLS records leave in one segment.
type corked struct {
	net.Conn
	corked bool
	held   bytes.Buffer
}

func (c *corked) Write(b []byte) (int, error) {
	if c.corked {
		return c.held.Write(b)
	}
	return c.Conn.Write(b)
}

func (c *corked) uncork() error {
	c.corked = false
	_, err := c.Conn.Write(c.held.Bytes())
	return err
}

func TestTLSListener(t *testing.T) {
	r, ca := tlsRig(t, setup{})
	echo := startEcho(t)
	r.run("tunnel", func(t *testing.T) {
		c := r.dialAt(0, trusting(ca))
		c.connect(echo.Addr())
		c.echoes()
		c.fin()
		c.ends()
	})
	r.run("plain request", func(t *testing.T) {
		c := r.dialAt(0, trusting(ca))
		for range 2 {
			if response, _ := c.get(r.judge.URL() + "/notype"); response.StatusCode != 200 {
				t.Errorf("got %s", response.Status)
			}
		}
	})
	r.run("refusal", func(t *testing.T) {
		c := r.dialAt(0, trusting(ca))
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		c.expect(r.reply(BadRequest, true))
		c.ends()
	})
	r.run("no TLS from the customer", func(t *testing.T) {
		c := r.dialAt(0, nil)
		c.unlike = true
		c.send(connectTo(echo.Addr()))
		if got := c.breaks(); bytes.Contains([]byte(got), []byte("HTTP")) {
			t.Errorf("got %q", got)
		}
	})
	r.run("early bytes in records of their own", func(t *testing.T) {
		for range 10 {
			c := r.dialAt(0, nil)
			cork := &corked{Conn: c.raw}
			c.Conn = tls.Client(cork, trusting(ca))
			c.tape.Reader = c.Conn
			must(t, c.Conn.(*tls.Conn).Handshake())
			cork.corked = true
			c.send(connectTo(echo.Addr()))
			for range 3 {
				c.send("HELLO")
			}
			must(t, cork.uncork())
			c.expect(masking.Established + "HELLOHELLOHELLO")
		}
	})
}

func TestSilentHandshakeEnds(t *testing.T) {
	r, _ := tlsRig(t, setup{config: func(c *Config) { c.HeaderTimeout = 100 * time.Millisecond }})
	c := r.dialAt(0, nil)
	c.ends()
	r.idle()
}

func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	first, second := newCA(t), newCA(t)
	certFile, keyFile := writePair(t, dir, first)
	r := newRig(t, setup{config: func(c *Config) {
		c.Listen, c.TLSListen, c.CertFile, c.KeyFile = nil, []string{"127.0.0.1:0"}, certFile, keyFile
	}})
	serves := func(ca *upstreamtest.CA) {
		t.Helper()
		must(t, r.dialAt(0, trusting(ca)).Conn.(*tls.Conn).Handshake())
	}
	old := r.dialAt(0, trusting(first))
	must(t, old.Conn.(*tls.Conn).Handshake())

	if r.server.cert.changed() {
		t.Error("files look changed that are not")
	}
	writePair(t, dir, second)
	if !r.server.cert.changed() {
		t.Error("changed files are not seen")
	}
	must(t, r.server.Reload())
	serves(second)
	old.connect(startEcho(t).Addr()) // lives on
	old.echoes()

	must(t, os.WriteFile(certFile, []byte("no certificate"), 0o600))
	if r.server.Reload() == nil {
		t.Error("a bad file is taken")
	}
	serves(second)
	if r.server.cert.changed() {
		t.Error("a bad file is tried again though it has not changed")
	}
	writePair(t, dir, first)
	must(t, r.server.Reload())
	serves(first)
}

// A pair that is moved into place may look like the old one by time and size.
func TestReplacedCertificateIsSeen(t *testing.T) {
	dir, next := t.TempDir(), t.TempDir()
	certFile, keyFile := writePair(t, dir, newCA(t))
	c, err := loadCertificate(certFile, keyFile)
	must(t, err)
	at := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(certFile, at, at))
	must(t, c.reload())
	if c.changed() {
		t.Error("files look changed that are not")
	}
	same, err := os.ReadFile(certFile)
	must(t, err)
	moved := filepath.Join(next, "cert.pem")
	must(t, os.WriteFile(moved, same, 0o600))
	must(t, os.Chtimes(moved, at, at))
	must(t, os.Rename(moved, certFile))
	if !c.changed() {
		t.Error("another file under the name is not seen")
	}
	must(t, os.Remove(certFile))
	if !c.changed() || c.reload() == nil || c.changed() {
		t.Error("a missing file is not seen once")
	}
}

func TestBadCertificateAtStart(t *testing.T) {
	r := newRig(t, setup{idle: true})
	c := r.server.config
	c.TLSListen, c.CertFile, c.KeyFile = []string{"127.0.0.1:0"}, "/nonexistent/cert.pem", "/nonexistent/key.pem"
	if s, err := New(c); err == nil {
		s.Close()
		t.Error("no error")
	}
}

func TestProxyHeaderBeforeTLS(t *testing.T) {
	r, ca := tlsRig(t, setup{config: func(c *Config) { c.ProxyFrom = allNetworks() }})
	c := r.dialAt(0, nil)
	c.send("PROXY TCP4 198.51.100.7 192.0.2.1 4000 443\r\n")
	c.Conn = tls.Client(c.raw, trusting(ca))
	c.tape.Reader = c.Conn
	c.connect(startEcho(t).Addr())
	c.echoes()
	must(t, c.Close())
	r.outcome(1)
	if got := r.log.exchanges()[0]["client"]; got != "198.51.100.7" {
		t.Errorf("client %v", got)
	}
}
