//go:build !linux

package tunnel

import "syscall"

// pollReadable is not asked twice by the runtime's poller: the first call says
// "not yet", the second comes when the socket is readable.
func pollReadable(fd uintptr) bool { return unreadOrOver(fd) }

func unreadOrOver(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	return err != syscall.EAGAIN && err != syscall.EINTR
}

// hungUp sees an end only behind no unread bytes: poll(2)'s POLLRDHUP is Linux's.
func hungUp(fd uintptr, sentEarly, _ bool) bool {
	var b [1]byte
	n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return false
	case err != nil:
		return true
	}
	return n == 0 && !sentEarly
}

// outQueue is not known here: a slow reader's progress is seen only when a write ends.
func outQueue(uintptr) int { return 0 }

// disconnected is not known here: a reset that a write has seen may be taken for an end.
func disconnected(uintptr) bool { return false }
