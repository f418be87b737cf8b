package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/elazarl/goproxy"

	"maskrelay/masking"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// caFile writes an authority's certificate to a file.
func caFile(t *testing.T, ca *upstreamtest.CA) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(name, ca.PEM(), 0o600))
	return name
}

func newCA(t *testing.T) *upstreamtest.CA {
	t.Helper()
	ca, err := upstreamtest.NewCA()
	must(t, err)
	return ca
}

// tlsVendor is a vendor behind TLS, and the gateway of it that trusts trusted.
func tlsVendor(t *testing.T, ca, trusted *upstreamtest.CA) (*upstreamtest.Vendor, []upstream.GatewayConfig) {
	t.Helper()
	cert, err := ca.Server()
	must(t, err)
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{
		Username: vendorUsername, Password: vendorPassword, TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
	})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v, []upstream.GatewayConfig{{Name: "secured", URL: v.URL(), CAFile: caFile(t, trusted)}}
}

func verifiedGateway(t *testing.T) {
	ca := newCA(t)
	t.Run("wrong certificate", func(t *testing.T) {
		vendor, gateways := tlsVendor(t, ca, newCA(t))
		r := newRig(t, setup{gateways: gateways})
		c := r.dial()
		c.send(connectTo("target.test:443"))
		c.expect(r.reply(UpstreamFailed, true))
		c.ends()
		if b := vendor.Received(); len(b) > 0 {
			t.Errorf("the impostor received %q", b)
		}
		eventually(t, "no connection left", func() bool { return vendor.Open() == 0 })
	})
	t.Run("half-close", func(t *testing.T) {
		_, gateways := tlsVendor(t, ca, ca)
		r := newRig(t, setup{gateways: gateways})
		sink := started(t)(upstreamtest.StartSink())
		c := r.dial()
		c.connect(sink.Addr())
		c.send("through TLS")
		c.fin()
		if line, err := c.br.ReadString('\n'); err != nil || !strings.HasSuffix(line, " 11\n") {
			t.Errorf("got %q, %v: the answer after our end is lost", line, err)
		}
		c.ends()
	})
	t.Run("server first", func(t *testing.T) {
		_, gateways := tlsVendor(t, ca, ca)
		r := newRig(t, setup{gateways: gateways})
		banner := started(t)(upstreamtest.StartBanner([]byte("220 banner\r\n")))
		for range 20 {
			c := r.dial()
			c.connect(banner.Addr())
			c.expect("220 banner\r\n")
			must(t, c.Close())
		}
	})
}

func halfOpenEnds(t *testing.T) {
	short := func(c *Config) { c.IdleTimeout = 150 * time.Millisecond }
	t.Run("customer gone, vendor stays", func(t *testing.T) {
		r := newRig(t, setup{config: short, vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Behaviours()["tunnel-silent"]}})
		for range 10 {
			c := r.dial()
			c.connect("target.test:443")
			must(t, c.Close())
		}
		eventually(t, "all ended", func() bool { return r.vendor.Open() == 0 })
		r.idle()
		if o := r.outcome(10); o != HalfOpen && o != IdleTimeout && o != OK {
			t.Errorf("outcome %s", o)
		}
	})
	t.Run("vendor half-closed, customer stays", func(t *testing.T) {
		r := newRig(t, setup{config: short, vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Behaviours()["tunnel-half-close"]}})
		c := r.dial()
		c.connect("target.test:443")
		c.ends() // the FIN is passed on
		r.idle()
		if o := r.outcome(1); o != HalfOpen && o != IdleTimeout { // both are due at once
			t.Errorf("outcome %s", o)
		}
	})
	t.Run("nobody says a word", func(t *testing.T) {
		r := newRig(t, setup{config: short})
		c := r.dial()
		c.connect(startEcho(t).Addr())
		c.breaks()
		if o := r.outcome(1); o != IdleTimeout {
			t.Errorf("outcome %s", o)
		}
		r.idle()
	})
	t.Run("resets pass on", func(t *testing.T) {
		r := newRig(t, setup{})
		reset := started(t)(upstreamtest.StartReset(4))
		c := r.dial()
		c.connect(reset.Addr())
		c.send("ping")
		if _, err := c.br.ReadByte(); err == nil || err.Error() == "EOF" {
			t.Errorf("got %v, want a reset", err)
		}
		echo := startEcho(t)
		c = r.dial()
		c.connect(echo.Addr())
		c.echoes()
		c.reset()
		eventually(t, "the target was reset", func() bool { return echo.Conns()[0].End() == upstreamtest.EndReset })
		r.idle()
	})
}

func unwrappedBeforeTunnel(t *testing.T) {
	r := newRig(t, setup{idle: true})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, l.Close()) }()
	client, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer func() { must(t, client.Close()) }()
	accepted, err := l.Accept()
	must(t, err)
	raw := accepted.(*net.TCPConn)
	defer func() { must(t, raw.Close()) }()
	c := &frontConn{raw: raw, stream: &rest{Conn: raw, head: bytes.NewReader([]byte("LLO"))}, server: r.server}
	r.server.open.Add(1)
	r.server.list(c)
	exchange := &tunnelExchange{listener: &listener{server: r.server}, who: nobody}
	stream, early := c.handOver([]byte("HE"), exchange)
	if stream != net.Conn(raw) {
		t.Errorf("the tunnel gets a %T: no splice, a buffer each way", stream)
	}
	if string(early) != "HELLO" {
		t.Errorf("early bytes %q", early)
	}
	exchange.release() // counts once; checked when the rig ends
}

func refusalsKeepConnection(t *testing.T) {
	r := newRig(t, setup{})
	echo := startEcho(t)
	r.run("407 then 200", func(t *testing.T) {
		c := r.dial()
		c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: " + echo.Addr() + "\r\n\r\n")
		c.expect(r.reply(AuthRequired, false))
		c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: " + echo.Addr() + "\r\n" + basic(customerName, "wrong") + "\r\n")
		c.expect(r.reply(AuthFailed, false))
		c.connect(echo.Addr())
		c.echoes()
	})
	r.run("refusal with early data is readable", func(t *testing.T) {
		for range 20 {
			c := r.dial()
			c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: " + echo.Addr() + "\r\n\r\n" +
				"\x16\x03\x01\x00\x05early\r\n" + strings.Repeat("more early bytes\r\n", 1000))
			c.expect(r.reply(AuthRequired, false))
			c.expect(r.reply(BadRequest, true)) // to what is no request
			c.ends()
		}
	})
	r.run("vendor's refusal with early data is readable", func(t *testing.T) {
		refusing := newRig(t, setup{vendor: upstreamtest.VendorConfig{Behaviour: upstreamtest.Loud(503, "NO_PEER")}})
		for range 20 {
			c := refusing.dial()
			c.send(connectTo("target.test:443") + strings.Repeat("early bytes", 2000))
			c.expect(refusing.reply(UpstreamFailed, true))
			c.ends()
		}
	})
}

func wholeChallenge(t *testing.T) {
	r := newRig(t, setup{})
	c := r.dial()
	c.send("CONNECT target.test:443 HTTP/1.1\r\nHost: target.test:443\r\n\r\n")
	response, body := c.answer("CONNECT")
	if response.StatusCode != 407 || response.Header.Get("Proxy-Authenticate") != `Basic realm="Relay"` ||
		response.Header.Get("Proxy-Status") != "Relay; error=http_request_denied" ||
		response.Header.Get("Content-Type") != "text/plain" || response.ContentLength != int64(len(body)) || body == "" {
		t.Errorf("got %v with %q", response, body)
	}
}

func http1Only(t *testing.T) {
	t.Run("preface", func(t *testing.T) {
		r := newRig(t, setup{})
		c := r.dial()
		c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		c.expect(r.reply(BadRequest, true))
		c.ends()
	})
	t.Run("upgrade", func(t *testing.T) {
		r := newRig(t, setup{})
		c := r.dial()
		response, _ := c.get(r.judge.URL()+"/", "Connection: Upgrade, HTTP2-Settings\r\n", "Upgrade: h2c\r\n", "HTTP2-Settings: AAMAAABkAAQAAP__\r\n")
		if response.StatusCode != 200 || response.ProtoMajor != 1 {
			t.Errorf("got %v", response.Status)
		}
		if s := strings.ToLower(string(r.vendor.Received())); strings.Contains(s, "h2c") || strings.Contains(s, "http2") {
			t.Errorf("the vendor received %q", s)
		}
	})
	t.Run("ALPN", func(t *testing.T) {
		r, ca := tlsRig(t, setup{})
		c := r.dialAt(0, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", NextProtos: []string{"h2", "http/1.1"}})
		must(t, c.Conn.(*tls.Conn).Handshake())
		if p := c.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("negotiated %q", p)
		}
	})
}

func connectWithBody(t *testing.T) {
	r := newRig(t, setup{})
	for framing, body := range map[string]string{
		"Content-Length: 5\r\n": "HELLO", "Transfer-Encoding: chunked\r\n": "5\r\nHELLO\r\n0\r\n\r\n",
	} {
		c := r.dial()
		c.send(connectTo("target.test:443", framing) + body)
		c.expect(r.reply(BadRequest, true))
		c.ends()
	}
	if r.vendor.Accepted() != 0 {
		t.Error("the vendor was asked")
	}
}

func noEnvironment(t *testing.T) {
	trap := startEcho(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, "http://"+trap.Addr())
	}
	t.Setenv("NO_PROXY", "")
	echo := startEcho(t)
	for name, gateways := range map[string][]upstream.GatewayConfig{"vendor": nil, "direct": {{URL: upstream.Direct}}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{gateways: gateways, unlike: true}) // a direct target sees the relay, not a vendor
			c := r.dial()
			if response, _ := c.get(r.judge.URL() + "/"); response.StatusCode != 200 {
				t.Errorf("plain: %s", response.Status)
			}
			c = r.dial()
			c.connect(echo.Addr())
			c.echoes()
		})
	}
	if trap.Accepted() != 0 {
		t.Error("the environment's proxy was used")
	}
}

func noInterception(t *testing.T) {
	r := newRig(t, setup{})
	site, err := upstreamtest.StartJudge(upstreamtest.JudgeConfig{TLS: true})
	must(t, err)
	defer func() { must(t, site.Close()) }()
	c := r.dial()
	c.unlike = true // the site tells back what it was sent, inside TLS
	c.connect(site.Addr())
	inside := tls.Client(&buffered{Conn: c.Conn, br: c.br}, &tls.Config{RootCAs: site.CertPool(), ServerName: "localhost"})
	must(t, inside.Handshake())
	public, err := x509.ParseCertificate(goproxy.GoproxyCa.Certificate[0])
	must(t, err)
	for _, cert := range inside.ConnectionState().PeerCertificates {
		if cert.Issuer.String() == public.Subject.String() {
			t.Error("goproxy's own authority signed the site's certificate")
		}
	}
}

// buffered is a connection whose first bytes are in a reader.
type buffered struct {
	net.Conn
	br *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.br.Read(p) }

func ownAuthentication(t *testing.T) {
	r := newRig(t, setup{})
	echo := startEcho(t)
	token := base64.StdEncoding.EncodeToString([]byte(customerName + ":" + customerPassword))
	for _, one := range []struct {
		name, lines string
		outcome     Outcome // "" = open
	}{
		{"lower case scheme", "Proxy-Authorization: basic " + token + "\r\n", ""},
		{"upper case scheme", "Proxy-Authorization: BASIC " + token + "\r\n", ""},
		{"lower case name", "proxy-authorization: Basic " + token + "\r\n", ""},
		{"no padding", "Proxy-Authorization: Basic " + strings.TrimRight(token, "=") + "\r\n", ""},
		{"none", "", AuthRequired},
		{"wrong name", basic("nobody", customerPassword), AuthFailed},
		{"wrong password", basic(customerName, customerPassword+"x"), AuthFailed},
		{"empty password", basic(customerName, ""), AuthFailed},
		{"bearer", "Proxy-Authorization: Bearer " + token + "\r\n", AuthFailed},
		{"no base64", "Proxy-Authorization: Basic !!!\r\n", AuthFailed},
		{"site's authorization", "Authorization: Basic " + token + "\r\n", AuthRequired},
		{"two of them", login() + login(), BadRequest},
	} {
		r.run(one.name, func(t *testing.T) {
			c := r.dial()
			c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: " + echo.Addr() + "\r\n" + one.lines + "\r\n")
			if one.outcome == "" {
				c.expect(masking.Established)
				return
			}
			c.expect(r.reply(one.outcome, one.outcome == BadRequest))
		})
	}
}

// allNetworks trusts everybody as a balancer.
func allNetworks() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }
