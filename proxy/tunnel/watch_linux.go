package tunnel

import (
	"golang.org/x/sys/unix"
)

// pollReadable reports whether fd has bytes, an end or an error to read. It is a
// syscall.RawConn callback.
func pollReadable(fd uintptr) bool {
	return pollEvents(fd, unix.POLLIN|unix.POLLRDHUP) != 0
}

func pollEvents(fd uintptr, events int16) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(fds, 0)
		switch {
		case err == unix.EINTR: //nolint:errorlint // a bare errno
			continue
		case err != nil:
			return unix.POLLERR
		}
		return fds[0].Revents
	}
}

// hungUp reports whether the customer on fd has left. A reset always says so. A FIN
// alone may be a half-close by one who has sent his request and waits for the
// answer: it counts only if he sent nothing that is still to be delivered.
// Over TLS bytes may be a goodbye, and nobody half-closes TCP there: a FIN counts.
func hungUp(fd uintptr, sentEarly, secured bool) bool {
	events := pollEvents(fd, unix.POLLIN|unix.POLLRDHUP)
	switch {
	case events&(unix.POLLERR|unix.POLLHUP) != 0:
		return true
	case events&unix.POLLRDHUP == 0:
		return false
	case sentEarly:
		return false
	case secured:
		return true
	}
	return !unread(fd)
}

// unread reports whether fd has bytes to read.
func unread(fd uintptr) bool {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EINTR { //nolint:errorlint // a bare errno
			continue
		}
		return err == nil && n > 0
	}
}

// disconnected reports whether the connection of fd is over: reset, or closed from both
// ends.
func disconnected(fd uintptr) bool {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == unix.BPF_TCP_CLOSE
}

// outQueue is how many bytes in fd's send queue are not acknowledged.
func outQueue(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}
