//go:build amd64 || arm64

package tunnel

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// drain moves n bytes from a pipe to a socket; fewer with an error, EAGAIN when the
// socket is full.
func drain(p *pipe, to int32, n int) (int, syscall.Errno) {
	moved := 0
	for moved < n {
		m, errno := sysSplice(p.read, to, n-moved)
		if errno != 0 {
			return moved, errno
		}
		if m == 0 {
			return moved, unix.EPIPE // not to be expected of a pipe with bytes in it
		}
		moved += m
	}
	return moved, 0
}

// pace sets the kernel's pacing of what is sent on fd above the bandwidth: it smooths,
// take is exact, and what was missed can be caught up on.
func (s *Shared) pace(fd int32) {
	perSecond := s.rate.Load()
	value := uint32(math.MaxUint32) // no pacing
	if perSecond > 0 && perSecond < math.MaxUint32/2 {
		value = uint32(perSecond + perSecond/4)
	}
	_ = sysSetInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, value)
}
