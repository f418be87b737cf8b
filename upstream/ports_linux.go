package upstream

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"
)

// portWindows reports whether this system can bound one socket's local ports.
const portWindows = true

// outgoing prepares a socket for d: with the source address no port is taken before
// connect, which can then share it between gateways, and the window bounds its choice.
// A kernel without these options (4.2, 6.3) does without; connect only costs more.
func outgoing(d Dial) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if d.Source.IsValid() {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			}
			if d.Ports[1] != 0 {
				window := int(uint32(d.Ports[1])<<16 | uint32(d.Ports[0]))
				_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_LOCAL_PORT_RANGE, window)
			}
		})
	}
}
