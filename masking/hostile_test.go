package masking

import (
	"net/http"
	"strings"
	"testing"

	"maskrelay/upstream/upstreamtest"
)

// Nothing of what real vendors add to answers passes a policy that no operator has told of
// any vendor, by name or by value.
func TestVendorHeadersGo(t *testing.T) {
	marks := []string{upstreamtest.DefaultBrand}
	p := mustPolicy(t, PolicyConfig{Marks: marks})
	for vendor, lines := range upstreamtest.VendorHeaders() {
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			for _, edit := range []func(http.Header){p.Response, p.UpgradeResponse, p.Trailer} {
				h := http.Header{http.CanonicalHeaderKey(name): {value}, "X-Mine": {"1"}}
				edit(h)
				delete(h, "Connection")
				delete(h, "Upgrade")
				if name == "Date" {
					continue // any server's
				}
				if len(h) != 1 || h.Get("X-Mine") != "1" {
					t.Errorf("%s: %q left %q", vendor, line, h)
				}
			}
		}
	}
}

// Judges see none of the fields that they look for.
func TestJudgedFieldsGo(t *testing.T) {
	p := mustPolicy(t, PolicyConfig{})
	for _, name := range upstreamtest.JudgedFields() {
		h := http.Header{name: {"192.0.2.7"}, "User-Agent": {"x"}}
		if p.Request(h); len(h) != 1 {
			t.Errorf("%s passed", name)
		}
	}
}
