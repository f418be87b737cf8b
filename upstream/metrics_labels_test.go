package upstream

import (
	"fmt"
	"testing"

	"maskrelay/upstream/upstreamtest"
)

// However many statuses and reasons a vendor invents, its failures have a few series.
func TestInventedStatusesMakeNoSeries(t *testing.T) {
	v := startVendor(t, upstreamtest.VendorConfig{})
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", v.URL())}})
	for status := 300; status <= 999; status += 3 {
		v.SetBehaviour(upstreamtest.Raw{Bytes: fmt.Appendf(nil, "HTTP/1.1 %d INVENTED_%d\r\nX-Err-%d: %d\r\nContent-Length: 0\r\n\r\n", status, status, status, status)})
		if conn, err := p.Connect(t.Context(), Request{Target: "target.example:443"}); err == nil {
			t.Fatalf("%d opens a tunnel: %v", status, conn)
		}
	}
	n := 0
	for _, name := range []string{"maskrelay_upstream_failures_total", "maskrelay_upstream_ejections_total", "maskrelay_upstream_connect_seconds"} {
		n += len(collected(t, p, name))
	}
	if n == 0 || n > 12 {
		t.Errorf("%d series", n)
	}
}
