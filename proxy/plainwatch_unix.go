//go:build unix

package proxy

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const canWatch = true

// hasLeft waits until something comes on conn, and reports whether that is its end. A
// read deadline ends the wait. Bytes are left where they are; what follows them cannot
// be seen.
func hasLeft(conn *net.TCPConn) bool {
	socket, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	left := false
	err = socket.Read(func(fd uintptr) bool {
		var b [1]byte
		for {
			n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR: //nolint:errorlint // a bare errno
				continue
			case err == unix.EAGAIN: //nolint:errorlint // a bare errno
				return false
			}
			left = err != nil || n == 0
			return true
		}
	})
	return left || err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// hasUnread reports whether bytes of conn's wait to be read: closing it would reset it.
func hasUnread(conn *net.TCPConn) bool {
	socket, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	waiting := 0
	err = socket.Control(func(fd uintptr) {
		var b [1]byte
		waiting, _, _ = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT) // -1 on an error
	})
	return err == nil && waiting > 0
}
