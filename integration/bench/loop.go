//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// loop is one thread's epoll set. Generator and vendor share their half of the processors, so they use system calls without the runtime's
// poller: that leaves more of the half to the relay's peers in the kernel.
type loop struct {
	fd     int
	events [256]unix.EpollEvent
	buf    []byte
}

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &loop{fd: fd, buf: make([]byte, 64<<10)}, nil
}

// watch adds fd; its events carry id and kind.
func (l *loop) watch(fd int, events uint32, id, kind int) error {
	return unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(id), Pad: int32(kind)})
}

// change replaces the events of a watched fd.
func (l *loop) change(fd int, events uint32, id int) error {
	return unix.EpollCtl(l.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(id)})
}

// wait returns the next events, none after limit. They are valid until the next call.
func (l *loop) wait(limit time.Duration) ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(l.fd, l.events[:], int(limit/time.Millisecond))
	if errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l.events[:n], nil
}

// close releases the set.
func (l *loop) close() { closeFD(l.fd) }

// closeFD closes a descriptor whose other errors were seen where it was used.
func closeFD(fd int) { _ = unix.Close(fd) }

// sources are the loopback addresses that the generator dials from in turn: one alone would search long for a free port once half of its
// 28,232 are in TIME_WAIT.
const sources = 16

var nextSource atomic.Uint32

// dial begins a connection to addr, which must be IPv4, on a new non-blocking socket.
func dial(addr netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("source address: %w", err)
	}
	from := unix.SockaddrInet4{Addr: [4]byte{127, 9, 0, byte(1 + nextSource.Add(1)%sources)}}
	if err := unix.Bind(fd, &from); err != nil {
		closeFD(fd)
		return -1, fmt.Errorf("source address: %w", err)
	}
	to := unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	if err := unix.Connect(fd, &to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		closeFD(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// listen returns a non-blocking listening socket at addr, which must be IPv4, and the address with its port.
func listen(addr netip.AddrPort) (int, netip.AddrPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, addr, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	}
	if err == nil {
		err = unix.Listen(fd, 4096)
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err != nil {
		closeFD(fd)
		return -1, addr, fmt.Errorf("listen on %v: %w", addr, err)
	}
	in4, ok := name.(*unix.SockaddrInet4)
	if !ok {
		closeFD(fd)
		return -1, addr, fmt.Errorf("listen on %v: not IPv4", addr)
	}
	return fd, netip.AddrPortFrom(addr.Addr(), uint16(in4.Port)), nil
}
