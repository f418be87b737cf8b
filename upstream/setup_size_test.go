package upstream

import (
	"testing"
	"unsafe"
)

// A drop is tens of thousands of handshakes at once, which a gateway answers when it can.
func TestSetupIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Setup{}); n > 80 {
		t.Errorf("a set-up takes %d bytes: the next size class", n)
	}
}
