//go:build linux

package upstream

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkReach is the cost of a connection to a gateway while a share of the local
// ports towards it is in use, with and without windows. The kernel's range must fit
// into the file descriptors twice, so run it where the range is small:
//
//	go test -c ./upstream && unshare -n sh -c 'ip link set lo up
//	  echo 32768 36767 >/proc/sys/net/ipv4/ip_local_port_range
//	  ./upstream.test -test.run xxx -test.bench Reach'
func BenchmarkReach(b *testing.B) {
	low, high := benchRange(b)
	for _, used := range []int{10, 40, 60, 80, 90} {
		for _, ports := range [][2]int{{}, {low, high}} {
			b.Run(fmt.Sprintf("used=%d%%/windows=%t", used, ports[1] != 0), func(b *testing.B) {
				g := benchGateway(b, ports)
				for range (high - low + 1) * used / 100 {
					defer reset(reachOnce(b, g))
				}
				for b.Loop() {
					reset(reachOnce(b, g))
				}
			})
		}
	}
}

func reachOnce(b *testing.B, g *gateway) link {
	l, failure := g.connect(b.Context(), "", 0, true)
	if failure != nil {
		b.Fatal(failure)
	}
	return l
}

// reset closes without TIME_WAIT, which would use up the ports.
func reset(l link) {
	_ = l.Conn.(*net.TCPConn).SetLinger(0)
	_ = l.Close()
	l.held.Release()
}

func benchRange(b *testing.B) (low, high int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Sscan(strings.TrimSpace(string(text)), &low, &high); err != nil {
		b.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	if need := uint64(2*(high-low) + 100); limit.Cur < need {
		b.Skipf("%d file descriptors are needed, %d allowed", need, limit.Cur)
	}
	return low, high
}

// benchGateway is a gateway on loopback that accepts and holds.
func benchGateway(b *testing.B, ports [2]int) *gateway {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepting.Go(func() {
				defer func() { _ = c.Close() }()
				_, _ = c.Read(make([]byte, 1)) // until the peer ends
			})
		}
	})
	b.Cleanup(func() {
		_ = l.Close()
		accepting.Wait()
	})
	addr := netip.MustParseAddrPort(l.Addr().String())
	config, err := ParseGateway(GatewayConfig{URL: "http://" + addr.String()})
	if err != nil {
		b.Fatal(err)
	}
	p, err := NewPool(Options{Gateways: []Gateway{config}, DialTimeout: 1e9, ConnectTimeout: 1e9, Ports: ports})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p.gateways[0]
}
