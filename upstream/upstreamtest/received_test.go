package upstreamtest

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// Whatever a vendor does, his record has all bytes that came.
func TestEveryByteIsRecorded(t *testing.T) {
	t.Parallel()
	ca := must(NewCA())(t)
	config := &tls.Config{Certificates: []tls.Certificate{must(ca.Server())(t)}}
	for name, test := range map[string]struct {
		b   Behaviour
		tls bool
	}{
		"silent":               {b: Silent()},
		"silent, inside TLS":   {b: Silent(), tls: true},
		"speaks first":         {b: first{bytes: "220 ready\r\n"}},
		"speaks first, in TLS": {b: first{bytes: "220 ready\r\n"}, tls: true},
		"stalls":               {b: Raw{Then: Stall}},
		"tunnel, stalled":      {b: once((*Vendor).established, Stall)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := VendorConfig{Behaviour: test.b}
			if test.tls {
				c.TLS = config
			}
			v := must(StartVendor(c))(t)
			conn := must(net.DialTimeout("tcp", v.Addr(), testTimeout))(t)
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(testTimeout))
			if test.tls {
				conn = tls.Client(conn, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
			}
			head, rest := connectLine("a.example:443"), strings.Repeat("what follows. ", 1000)
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(testTimeout)
			for len(v.Received()) < len(head) && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond) // until the behaviour has begun
			}
			if _, err := io.WriteString(conn, rest); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(name, "stall") {
				for len(v.Received()) < len(head)+len(rest) && time.Now().Before(deadline) {
					time.Sleep(time.Millisecond)
				}
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if got := string(v.Received()); got != head+rest {
				t.Errorf("%d bytes of %d", len(got), len(head+rest))
			}
		})
	}
}
