package proxy

import (
	"testing"

	"golang.org/x/sys/unix"
)

// nothingUnread reports whether the server has read all that its connections received.
func nothingUnread(t *testing.T, s *Server) bool {
	t.Helper()
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	for c := range s.conns {
		rc, err := c.raw.SyscallConn()
		must(t, err)
		var n int
		must(t, rc.Control(func(fd uintptr) {
			var b [1]byte
			n, _, _ = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}))
		if n > 0 {
			return false
		}
	}
	return true
}
