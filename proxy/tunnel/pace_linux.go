//go:build amd64 || arm64

package tunnel

import (
	"math"

	"golang.org/x/sys/unix"
)

// pace sets the kernel's pacing of what is sent on fd in direction d above the bandwidth:
// it smooths, take is exact, and what was missed can be caught up on.
func (s *Shared) pace(fd int32, d int) {
	perSecond := s.ways[d].paced.Load()
	value := uint32(math.MaxUint32) // no pacing
	if perSecond > 0 && perSecond < math.MaxUint32/2 {
		value = uint32(perSecond + perSecond/4)
	}
	_ = sysSetInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, value)
}
