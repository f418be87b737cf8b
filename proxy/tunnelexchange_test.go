package proxy

import (
	"testing"
	"unsafe"
)

// An idle tunnel is to cost half a kilobyte in all, and the engine needs its share.
func TestTunnelExchangeIsSmall(t *testing.T) {
	const target = "checkout.shop.example.com:443"
	if n := unsafe.Sizeof(tunnelExchange{}) + uintptr(len(target)); n > 160 {
		t.Errorf("a tunnel's exchange with its target takes %d bytes", n)
	}
	if n := unsafe.Sizeof(tunnelExchange{}); n > 128 {
		t.Errorf("a tunnel's exchange takes %d bytes: the next size class", n)
	}
}
