//go:build unix

package upstream

import "golang.org/x/sys/unix"

// isQuiet reports whether nothing waits to be read on the socket: no byte, no end, no error.
func isQuiet(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EINTR { //nolint:errorlint // a bare errno
			continue
		}
		return err == unix.EAGAIN //nolint:errorlint // a bare errno
	}
}
