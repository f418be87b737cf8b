package tunnel

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lots hold the directions that wait for bytes: an epoll instance each, with one
// goroutine that waits for it in Go's own poller (epoll in epoll), so that no
// thread is blocked and a waiting direction costs neither stack nor buffer.
type lots struct {
	all     []*lot
	running sync.WaitGroup
}

type lot struct {
	fd   int
	file *os.File // owns fd
	wake func(id uint64, d int)
}

// newLots starts the lots; wake is called from their goroutines. Without any (the
// host refuses epoll instances) every direction waits in a goroutine of its own.
func newLots(wake func(id uint64, d int)) *lots {
	ls := &lots{}
	for range runtime.GOMAXPROCS(0) {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			break
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			_ = unix.Close(fd)
			break
		}
		l := &lot{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), wake: wake}
		rc, err := l.file.SyscallConn()
		if err != nil {
			_ = l.file.Close()
			break
		}
		ls.all = append(ls.all, l)
		ls.running.Go(func() { l.run(rc) })
	}
	return ls
}

// close ends the goroutines. No direction is parked any more.
func (ls *lots) close() {
	for _, l := range ls.all {
		_ = l.file.Close()
	}
	ls.running.Wait()
}

// arm has the direction woken once, when its source is readable, which it may be by
// now. The registration ends with the socket.
func (ls *lots) arm(t *pump, d int) bool {
	r := &t.directions[d].reader
	if len(ls.all) == 0 || r.rc == nil {
		return false
	}
	l := ls.all[t.id%uint64(len(ls.all))]
	token := t.id<<1 | uint64(d)
	event := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT,
		Fd:     int32(uint32(token)), Pad: int32(uint32(token >> 32)),
	}
	op := unix.EPOLL_CTL_ADD
	if r.known {
		op = unix.EPOLL_CTL_MOD
	}
	r.known = true // before it can be woken, and read this, elsewhere
	var err error
	// Control keeps the descriptor from being closed, and its number from meaning another socket.
	if cerr := r.rc.Control(func(fd uintptr) { err = unix.EpollCtl(l.fd, op, int(fd), &event) }); cerr != nil {
		return false
	}
	return err == nil
}

// run wakes directions until the lot is closed.
func (l *lot) run(rc syscall.RawConn) {
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		err := rc.Read(func(fd uintptr) bool {
			var err error
			n, err = unix.EpollWait(int(fd), events, 0)
			return n > 0 || err != nil && err != unix.EINTR //nolint:errorlint // a bare errno
		})
		if err != nil {
			return
		}
		for _, e := range events[:max(n, 0)] {
			token := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
			l.wake(token>>1, int(token&1))
		}
	}
}
