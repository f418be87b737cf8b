package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"maskrelay/masking"
)

// header2 is a PROXY header, version 2.
func header2(t *testing.T, command proxyproto.ProtocolVersionAndCommand, source string) string {
	t.Helper()
	h := &proxyproto.Header{Version: 2, Command: command}
	if source != "" {
		from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))
		h.SourceAddr, h.DestinationAddr = from, &net.TCPAddr{IP: from.IP, Port: 8080}
		h.TransportProtocol = proxyproto.TCPv4
		if from.IP.To4() == nil {
			h.TransportProtocol = proxyproto.TCPv6
		}
	}
	var b bytes.Buffer
	_, err := h.WriteTo(&b)
	must(t, err)
	return b.String()
}

func balanced(c *Config) { c.ProxyFrom = allNetworks() }

func TestProxyHeader(t *testing.T) { bothWays(t, testProxyHeader) }

func testProxyHeader(t *testing.T) {
	for _, one := range []struct{ name, header, client string }{
		{"v1 TCP4", "PROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\n", "198.51.100.7"},
		{"v1 TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 4000 8080\r\n", "2001:db8::7"},
		{"v1 IPv4 in TCP6", "PROXY TCP6 198.51.100.7 2001:db8::1 4000 8080\r\n", "198.51.100.7"},
		{"v1 mapped", "PROXY TCP6 ::ffff:198.51.100.7 ::ffff:192.0.2.1 4000 8080\r\n", "198.51.100.7"},
		{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", "127.0.0.1"},
		{"v1 UNKNOWN with addresses", "PROXY UNKNOWN 198.51.100.7 192.0.2.1 4000 8080\r\n", "127.0.0.1"},
		{"v2 IPv4", header2(t, proxyproto.PROXY, "198.51.100.7:4000"), "198.51.100.7"},
		{"v2 IPv6", header2(t, proxyproto.PROXY, "[2001:db8::7]:4000"), "2001:db8::7"},
		{"v2 LOCAL", header2(t, proxyproto.LOCAL, ""), "127.0.0.1"},
		{"v2 LOCAL with addresses", header2(t, proxyproto.LOCAL, "198.51.100.7:4000"), "127.0.0.1"},
	} {
		t.Run(one.name, func(t *testing.T) {
			r := newRig(t, setup{config: balanced})
			echo := startEcho(t)
			check := func(c *customer) {
				c.expect(masking.Established + "early")
				c.echoes()
				must(t, c.Close())
			}
			c := r.dial()
			c.send(one.header + connectTo(echo.Addr()) + "early")
			check(c)
			c = r.dial()
			half := len(one.header) / 2
			c.send(one.header[:half])
			eventually(t, "the first half is read", func() bool { return nothingUnread(t, r.server) })
			c.send(one.header[half:])
			c.send(connectTo(echo.Addr()) + "early")
			check(c)
			r.outcome(2)
			for _, x := range r.log.exchanges() {
				if x["client"] != one.client {
					t.Errorf("client %v, want %s", x["client"], one.client)
				}
			}
		})
	}
}

func TestBadProxyHeader(t *testing.T) { bothWays(t, testBadProxyHeader) }

func testBadProxyHeader(t *testing.T) {
	for name, first := range map[string]string{
		"missing": connectTo("target.test:443"), "malformed": "PROXY TCP4 198.51.100.7\r\n", "words": "PROXY TCP4 a b c d\r\n",
		"endless": "PROXY TCP4 " + string(bytes.Repeat([]byte("1"), 300)), "v2 cut": header2(t, proxyproto.PROXY, "198.51.100.7:4000")[:14] + "\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{config: func(c *Config) { balanced(c); c.HeaderTimeout = 300 * time.Millisecond }})
			c := r.dial()
			c.send(first)
			if got := c.breaks(); got != "" {
				t.Errorf("got %q, want nothing", got)
			}
			r.idle()
			if n := r.vendor.Accepted(); n != 0 {
				t.Error("the vendor was asked")
			}
		})
	}
}

func TestProxyHeaderFromStrangers(t *testing.T) { bothWays(t, testProxyHeaderFromStrangers) }

func testProxyHeaderFromStrangers(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }})
	for _, header := range []string{"PROXY TCP4 198.51.100.7 192.0.2.1 4000 8080\r\n", header2(t, proxyproto.PROXY, "198.51.100.7:4000")} {
		c := r.dial()
		c.send(header + connectTo("target.test:443"))
		c.expect(r.reply(BadRequest, true))
		c.ends()
	}
	c := r.dial()
	c.connect(startEcho(t).Addr())
	c.echoes()
}

// A peer that says nothing holds up nobody: the accept loop never reads.
func TestSilentBalancerPeer(t *testing.T) { bothWays(t, testSilentBalancerPeer) }

func testSilentBalancerPeer(t *testing.T) {
	r := newRig(t, setup{config: balanced})
	for range 20 {
		r.dial()
	}
	c := r.dial()
	c.send("PROXY UNKNOWN\r\n")
	c.connect(startEcho(t).Addr())
	c.echoes()
}
