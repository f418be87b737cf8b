package upstream

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkSetup is what a set-up costs beside its system calls: the choice, the
// request, the answer and the books.
func BenchmarkSetup(b *testing.B) {
	reply := []byte("HTTP/1.1 200 Connection established\r\nVia: 1.1 gw (vendor)\r\nDate: Sat, 21 Nov 2026 05:00:00 GMT\r\n\r\n")
	for _, balance := range []string{RoundRobin, LeastConn} {
		for _, n := range []int{1, 8, 64, 128} {
			b.Run(fmt.Sprintf("%s/gateways=%d", balance, n), func(b *testing.B) {
				o := Options{
					Balance: balance, DialTimeout: time.Second, ConnectTimeout: time.Second,
					Ports: [2]int{1024, 65535}, Sources: addrs("192.0.2.10", "192.0.2.11"),
				}
				for i := range n {
					g, err := ParseGateway(GatewayConfig{Name: fmt.Sprint(i), URL: fmt.Sprintf("http://user:password@192.0.2.1:%d", 7000+i)})
					if err != nil {
						b.Fatal(err)
					}
					o.Gateways = append(o.Gateways, g)
				}
				p, err := NewPool(o)
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close()
				var s Setup
				var request []byte
				b.ReportAllocs()
				for b.Loop() {
					s.Start(p, nil)
					if _, err := s.Next(); err != nil {
						b.Fatal(err)
					}
					s.Connected()
					request = s.AppendRequest(request[:0], Request{Target: "target.example:443"})
					if _, err := s.Reply(reply); err != nil {
						b.Fatal(err)
					}
					s.Opened().Release()
				}
			})
		}
	}
}
