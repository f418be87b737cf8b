//go:build !race

package proxy

import (
	"net/netip"
	"testing"

	"maskrelay/proxy/tunnel"
)

// Until the collector runs, a drop's garbage costs memory as its tunnels do: an exchange,
// its target and the credentials are all that a head leaves behind. The race detector
// allocates on its own account.
func TestHeadToOpenLeavesLittleBehind(t *testing.T) {
	r := newRig(t, setup{idle: true})
	l := r.server.listeners[0]
	peer := netip.MustParseAddrPort(balancer)
	for _, target := range []string{"shop.example:443", "192.0.2.7:443"} {
		head := []byte(plainHeadOf(target))
		n := testing.AllocsPerRun(500, func() {
			v, _ := l.arrive(peer)
			verdict := v.Head(head)
			if verdict.Action != tunnel.Open {
				t.Fatalf("%+v", verdict)
			}
			verdict.Exchange.(*tunnelExchange).release()
		})
		if n > 3 {
			t.Errorf("%s: %g allocations", target, n)
		}
	}
}
