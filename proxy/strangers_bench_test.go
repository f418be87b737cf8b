package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"maskrelay/upstream/upstreamtest"
)

// BenchmarkStrangersMemory holds a stranger for each iteration and tells what one takes of the process: heap and stacks.
// The kernel's part comes on top: some 5 KB and what lies unread.
func BenchmarkStrangersMemory(b *testing.B) {
	ca, err := upstreamtest.NewCA()
	must(b, err)
	phases := []struct {
		name, send string
		secured    bool
	}{
		{"engine/refused", unauthorized, false},
		{"engine/a head of 7 KB", "CONNECT x:1 HTTP/1.1\r\nA: " + strings.Repeat("x", 7<<10), false},
		{"net-http/a byte", "G", false},
		{"net-http/a head of 30 KB", "GET http://x/ HTTP/1.1\r\nA: " + strings.Repeat("x", 30<<10), false},
		{"tls/a byte", "\x16", true},
		{"tls/a hello of 15 KB", "\x16\x03\x01\x3f\x00\x01\x00\x60\x00" + strings.Repeat("x", 15<<10), true},
		{"tls/done", "", true},
	}
	for _, phase := range phases {
		b.Run(phase.name, func(b *testing.B) {
			s := strangersServer(b, ca, phase.secured)
			conns := make([]net.Conn, b.N)
			before := inUse()
			for i := range conns {
				conn, err := net.Dial("tcp", s.Addrs()[0].String())
				must(b, err)
				if conns[i] = conn; phase.send == "" {
					must(b, tls.Client(conn, trusting(ca)).Handshake())
				}
				_, err = io.WriteString(conn, phase.send)
				must(b, err)
			}
			eventually(b, "all wait", func() bool { return s.strangers.count.Load() == int64(b.N) })
			b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/stranger")
			for _, conn := range conns {
				must(b, conn.Close())
			}
		})
	}
}

func strangersServer(b *testing.B, ca *upstreamtest.CA, secured bool) *Server {
	certFile, keyFile := writePair(b, b.TempDir(), ca)
	r := newRig(b, setup{config: func(c *Config) {
		c.MaxConns = 100_000
		if secured {
			c.Listen, c.TLSListen, c.CertFile, c.KeyFile = nil, []string{"127.0.0.1:0"}, certFile, keyFile
		}
		c.HeaderTimeout = 4 * patience
	}})
	return r.server
}

func inUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// BenchmarkStrangers is what the books cost a connection that waits for a moment.
func BenchmarkStrangers(b *testing.B) {
	s := newStrangers()
	from := origin{netip.MustParsePrefix("192.0.2.1/32")}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		x := new(stranger)
		for pb.Next() {
			s.wait(x, from)
			s.take(x)
		}
	})
}
