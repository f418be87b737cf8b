//go:build amd64 || arm64

package tunnel

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// maxPipes bounds the pipes of all reactors together: two descriptors each, and
	// kernel memory while they hold bytes. Further tunnels copy.
	maxPipes  = 256
	pipeBytes = 1 << 20 // what a user may ask for by default (fs.pipe-max-size)
	// minPipe is the least that is worth having; the kernel gives a user who has many
	// pipes smaller ones (fs.pipe-user-pages-soft).
	minPipe = 64 << 10
)

// pending are bytes that were read and that the other side has not taken yet: in
// memory, or in a pipe.
type pending struct {
	rest   []byte
	buffer *[bufferSize]byte // under rest, borrowed from buffers; nil = rest owns its bytes
	pipe   *pipe             // nil = in memory
	left   int               // bytes in the pipe
	silent int               // of the bytes: no payload, not to be booked
}

// pend keeps a copy of b.
func pend(b []byte) *pending {
	p := pendings.Get().(*pending)
	if len(b) > bufferSize {
		p.rest = append([]byte(nil), b...)
		return p
	}
	p.buffer = buffers.Get().(*[bufferSize]byte)
	p.rest = p.buffer[:copy(p.buffer[:], b)]
	return p
}

// drop forgets the bytes and gives back what held them.
func (ps *pipes) drop(p *pending) {
	if p.buffer != nil {
		buffers.Put(p.buffer)
	}
	if p.pipe != nil {
		if p.left == 0 {
			ps.put(p.pipe)
		} else {
			ps.destroy(p.pipe)
		}
	}
	*p = pending{}
	pendings.Put(p)
}

// pipe is a kernel pipe through which bytes pass from socket to socket.
type pipe struct {
	read, write int32
	size        int
}

func newPipe() *pipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	p := &pipe{read: int32(fds[0]), write: int32(fds[1])}
	size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeBytes)
	if err != nil {
		size, err = unix.FcntlInt(uintptr(fds[0]), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || size < minPipe {
		p.close()
		return nil
	}
	p.size = size
	return p
}

func (p *pipe) close() {
	sysClose(p.read)
	sysClose(p.write)
}

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

// pipes are one reactor's. A pipe is lent out only while bytes are in it, so that few
// serve many.
type pipes struct {
	files Files   // of which each pipe holds one; nil = there are always enough
	free  []*pipe // empty ones
	lent  int
	limit int
	// denied counts how often not to ask the kernel again after it gave too little.
	denied int
}

// get lends a pipe; nil if there is none to be had.
func (ps *pipes) get() *pipe {
	if n := len(ps.free); n > 0 {
		p := ps.free[n-1]
		ps.free = ps.free[:n-1]
		ps.lent++
		return p
	}
	if ps.lent >= ps.limit {
		return nil
	}
	if ps.denied > 0 {
		ps.denied--
		return nil
	}
	p := ps.borrow()
	if p == nil {
		ps.denied = 1000
		return nil
	}
	ps.lent++
	return p
}

func (ps *pipes) borrow() *pipe {
	if ps.files != nil && !ps.files.TryTake() {
		return nil
	}
	p := newPipe()
	if p == nil && ps.files != nil {
		ps.files.Put()
	}
	return p
}

// unmake closes a pipe.
func (ps *pipes) unmake(p *pipe) {
	p.close()
	if ps.files != nil {
		ps.files.Put()
	}
}

// put takes an empty pipe back.
func (ps *pipes) put(p *pipe) {
	ps.lent--
	ps.free = append(ps.free, p)
}

// destroy ends a pipe that still has bytes in it.
func (ps *pipes) destroy(p *pipe) {
	ps.lent--
	ps.unmake(p)
}

// trim closes all but keep of the pipes that nobody uses.
func (ps *pipes) trim(keep int) {
	if ps.files != nil && ps.files.Short() {
		keep = 0
	}
	for len(ps.free) > keep {
		n := len(ps.free) - 1
		ps.unmake(ps.free[n])
		ps.free[n] = nil
		ps.free = ps.free[:n]
	}
}

var pendings = sync.Pool{New: func() any { return new(pending) }}
