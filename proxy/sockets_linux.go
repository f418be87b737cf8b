package proxy

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// notSentLow bounds the bytes that wait in a send queue before the network has
	// asked for them: a customer who does not read costs a tenth of the memory.
	notSentLow = 128 << 10
	// deferAccept is how long a connection waits in the kernel for its first bytes, so
	// that the first read finds them. One that stays silent is accepted after it.
	deferAccept = 3 * time.Second
	// minUserTimeout is the least time for sent bytes to be acknowledged.
	minUserTimeout = 120 * time.Second
)

// userTimeout is how long a customer may leave sent bytes unacknowledged. The kernel
// counts the time of a closed window too, in which he acknowledges every probe, so it
// must not end before a customer who does not read is ended as idle.
func userTimeout(idle time.Duration) time.Duration { return max(minUserTimeout, idle) }

// listenConfig sets on the listening socket what every connection needs and inherits:
// it saves the calls for each, and connections that Go's net does not accept have the
// options as well.
func listenConfig(idle time.Duration) net.ListenConfig {
	return net.ListenConfig{
		KeepAlive: -1, // set here, not on each connection
		Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { prepareListener(int(fd), idle) })
		},
	}
}

// prepareListener sets the options. A kernel that lacks one serves without it.
func prepareListener(fd int, idle time.Duration) {
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAliveIdle / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAliveInterval / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveCount},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLow},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout(idle).Milliseconds())},
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(deferAccept / time.Second)},
	} {
		_ = unix.SetsockoptInt(fd, o.level, o.name, o.value)
	}
}
