package upstreamtest

import (
	"strings"
	"testing"
)

// TestHeadsOfAnyBrand: a case means the same whatever the vendor's name. Heads that a relay
// takes stay under what the strictest reader takes, 16 KiB, and the long one is long.
func TestHeadsOfAnyBrand(t *testing.T) {
	t.Parallel()
	s := &stage{echo: startEcho(t)}
	for _, brand := range []string{"acme", DefaultBrand, strings.Repeat("long-brand-", 5) + "x"} {
		for _, h := range framingHostilities() {
			if h.Ways&ByConnect == 0 || !h.Serves {
				continue
			}
			v := startVendor(t, VendorConfig{Behaviour: h.HTTP, Brand: brand})
			c := dial(t, v.Addr())
			c.send("CONNECT " + s.echo.Addr() + " HTTP/1.1\r\nHost: a\r\n\r\n" + canary)
			c.fin()
			size := strings.Index(c.rest(), canary)
			if size <= 0 || size > 16<<10 || h.Name == "connect-head-15k" && size < 15_000 {
				t.Errorf("%s of %q: a head of %d bytes", h.Name, brand, size)
			}
		}
	}
}
