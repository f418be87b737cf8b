package masking

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestValidateStrip(t *testing.T) {
	if err := ValidateStrip([]string{"X-Foo", "x-bar-*", "CUDA_CLIIP", "X*"}); err != nil {
		t.Fatalf("good entries: %v", err)
	}
	bad := []string{"", "*", "X Foo", "X-*-Y", "X-Foo:", "é", strings.Repeat("x", maxPattern+1), "X-**"}
	for _, e := range bad {
		if err := ValidateStrip([]string{"X-Good", e}); !errors.Is(err, ErrPattern) || strings.Contains(err.Error(), "X-Good") {
			t.Errorf("entry %q: got %v", e, err)
		}
	}
	err := ValidateStrip([]string{"X Foo", "ok", "X Bar"})
	if err == nil || !strings.Contains(err.Error(), `"X Foo"`) || !strings.Contains(err.Error(), `"X Bar"`) {
		t.Errorf("want both bad entries named, got %v", err)
	}
}

func TestNameSet(t *testing.T) {
	s := newNameSet("X-Real-IP CUDA_CLIIP", "X-Brd-* X-Proxy* X-A-B-*")
	for name, want := range map[string]bool{
		"X-Real-Ip": true, "x_real_ip": true, "X.REAL.IP": true, "X-Real-Ip2": false, "X-Real": false,
		"Cuda-Cliip": true, "X-Brd-": true, "X-Brd-Err-Code": true, "X-Brd": false, "X_BRD_x": true,
		"X-Proxy": true, "X-Proxyuser-Ip": true, "X-Prox": false, "X-A-B-C": true, "X-A-C": false, "": false,
		"X-A-" + strings.Repeat("-", 4000): false,
		"X-A-B-" + strings.Repeat("x", 99): true,
	} {
		if got := s.has(fold(nil, name)); got != want {
			t.Errorf("%.40q: got %v", name, got)
		}
	}
}

// Platforms invent new names for a client's address all the time; their ends are always the same.
func TestRequestStripsInventedAddressNames(t *testing.T) {
	p := mustPolicy(t, PolicyConfig{})
	for _, name := range []string{
		"X-Vercel-Forwarded-For", "X-Real-Client-Ip", "X-Nf-Client-Connection-Ip", "Do-Connecting-Ipv6", "X-Sucuri-Clientip", "X_Foo_Client_Ip",
	} {
		h := http.Header{name: {"198.51.100.7"}, "X-Tip": {"kept"}}
		p.Request(h)
		if _, kept := h[name]; kept || h["X-Tip"] == nil {
			t.Errorf("%s: left %v", name, h)
		}
	}
}
