//go:build unix

package upstreamtest

import (
	"net"
	"syscall"
)

// unread returns what the peer has sent and nobody has read, up to 64 KiB, and leaves it where it is.
func unread(c *net.TCPConn) []byte {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	buf := make([]byte, largeBuffer)
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK|syscall.MSG_DONTWAIT) // without anything to read it is -1
	})
	if err != nil {
		return nil
	}
	return buf[:max(n, 0)]
}
