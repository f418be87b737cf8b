//go:build amd64 || arm64

package tunnel

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the reactors. All descriptors are non-blocking: no call waits, and so
// none tells Go's scheduler that it might (RawSyscall), which would cost more than
// some of these calls do and, under load, hand the reactor's processor to others.

const errAgain = unix.EAGAIN

func result(n uintptr, errno syscall.Errno) (int, syscall.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sysRead reads into b, which is not empty.
func sysRead(fd int32, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno != unix.EINTR {
			return result(n, errno)
		}
	}
}

// sysSend writes b, without SIGPIPE. Of an empty b it tells whether fd is connected.
func sysSend(fd int32, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return result(n, errno)
		}
	}
}

// sysPeek reports whether fd has bytes to read.
func sysPeek(fd int32) bool {
	var b [1]byte
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 1,
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		if errno != unix.EINTR {
			return errno == 0 && n > 0
		}
	}
}

// sysSplice moves up to n bytes between a pipe and a socket.
func sysSplice(from, to int32, n int) (int, syscall.Errno) {
	for {
		moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n),
			unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno != unix.EINTR {
			return result(moved, errno)
		}
	}
}

func sysClose(fd int32) {
	_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) // Linux closes whatever it answers
}

// sysShutdown ends our direction of fd.
func sysShutdown(fd int32) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return errno
}

// sysReset closes fd with a reset.
func sysReset(fd int32) {
	linger := unix.Linger{Onoff: 1}
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
	sysClose(fd)
}

func sysSetInt(fd int32, level, option int, value uint32) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
	return errno
}

// soBufLock is SO_BUF_LOCK: whether the buffers' sizes are the user's or the kernel's.
const soBufLock = 72

// sysUnlocks reports whether the kernel (5.14 or newer) takes a receive buffer's size
// back into its own hands.
func sysUnlocks() bool {
	fd, errno := sysSocket(netip.IPv4Unspecified())
	if errno != 0 {
		return false
	}
	defer sysClose(fd)
	return sysSetInt(fd, unix.SOL_SOCKET, soBufLock, 0) == 0
}

// sysUnsent is how many bytes in fd's send queue are not acknowledged.
func sysUnsent(fd int32) int {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// sysSocket makes a TCP socket of the address's family.
func sysSocket(a netip.Addr) (int32, syscall.Errno) {
	family := uintptr(unix.AF_INET)
	if a.Is6() {
		family = unix.AF_INET6
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errno != 0 {
		return -1, errno
	}
	return int32(fd), 0
}

// sockaddr is an address as the kernel reads it.
type sockaddr struct {
	raw  [unix.SizeofSockaddrInet6]byte
	size uintptr
}

func toSockaddr(ap netip.AddrPort) (s sockaddr) {
	binary.BigEndian.PutUint16(s.raw[2:], ap.Port())
	if ap.Addr().Is4() {
		binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET)
		a := ap.Addr().As4()
		copy(s.raw[4:], a[:])
		s.size = unix.SizeofSockaddrInet4
		return s
	}
	binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET6)
	a := ap.Addr().As16()
	copy(s.raw[8:], a[:])
	if zone := ap.Addr().Zone(); zone != "" {
		if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
			binary.NativeEndian.PutUint32(s.raw[24:], uint32(n))
		}
	}
	s.size = unix.SizeofSockaddrInet6
	return s
}

func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s.raw[2:])
	switch binary.NativeEndian.Uint16(s.raw[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s.raw[4:8])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s.raw[8:24])).Unmap(), port)
	default:
		return netip.AddrPort{}
	}
}

// sysConnect begins a connection; EINPROGRESS is the usual answer.
func sysConnect(fd int32, to netip.AddrPort) syscall.Errno {
	s := toSockaddr(to)
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), s.size)
		if errno != unix.EINTR {
			return errno
		}
	}
}

func sysBind(fd int32, to netip.Addr) syscall.Errno {
	s := toSockaddr(netip.AddrPortFrom(to, 0))
	_, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)), s.size)
	return errno
}

// sysAccept takes the next connection of a listener.
func sysAccept(fd int32) (int32, netip.AddrPort, syscall.Errno) {
	for {
		s := sockaddr{size: unix.SizeofSockaddrInet6}
		size := uint32(s.size)
		conn, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&s.raw)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return int32(conn), s.addrPort(), 0
		case unix.EINTR, unix.ECONNABORTED: // it was gone before we came; the next one
			continue
		default:
			return -1, netip.AddrPort{}, errno
		}
	}
}

// watched are the events of every socket, registered once and never changed.
const watched = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | 1<<31 // EPOLLET

// sysWatch registers fd with an epoll instance under a token.
func sysWatch(epoll, fd int32, token uint64) syscall.Errno {
	event := unix.EpollEvent{Events: watched, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&event)), 0, 0)
	return errno
}

// sysUnwatch takes fd out; only for a socket that lives on elsewhere.
func sysUnwatch(epoll, fd int32) {
	var event unix.EpollEvent
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_DEL, uintptr(fd), uintptr(unsafe.Pointer(&event)), 0, 0)
}

// sysEvents fetches what has happened, without waiting.
func sysEvents(epoll int32, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
