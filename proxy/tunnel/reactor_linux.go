//go:build amd64 || arm64

package tunnel

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	turnBytes    = 512 << 10 // of one direction, before others get their turn
	eventsAtOnce = 512
	// sweepPause is the least between two looks at the deadlines of set-ups.
	sweepPause   = 5 * time.Millisecond
	seasonAfter  = 15 * time.Second // a tunnel that lives so long gets the options for a long life
	seasonAtOnce = 256              // tunnels of one sweep
	keptPipes    = 16               // of a reactor that has nothing to splice
	wakeToken    = 1<<64 - 1
)

// reactor carries tunnels in one goroutine. It waits for its own epoll instance in Go's
// poller (epoll in epoll), so that no thread is blocked; sockets are registered once
// and edge-triggered. Only its goroutine touches what is not under mu.
type reactor struct {
	engine *Engine
	epoll  int32
	file   *os.File // owns epoll
	wait   syscall.RawConn
	poke   int32 // an eventfd in epoll

	mu     sync.Mutex // guards what follows
	inbox  []arrival
	spare  []arrival // the inbox after the present one
	tasks  []func()
	poked  bool
	closed bool // nothing is taken in any more

	slab     slab
	young    []uint32 // the indexes of those with a deadline
	nearest  int64    // of their deadlines, or before it; 0 = none
	swept    int64    // when they were looked at last
	nextScan int64    // when all tunnels are looked at next
	ready    []uint64 // sides that have used up their turn
	debts    debts    // sides that wait for their share
	breaking []uint64 // tunnels that wait for a queue to empty
	setups   []*setup // for reuse
	pipes    pipes
	buffer   []byte // what is being read
	scratch  []byte // what is being composed
	now      int64
	armed    int64 // when the poller wakes the reactor; 0 = never
	stopping bool

	visitors atomic.Int64
	load     atomic.Int64       // connections that it was given and has not let go of
	look     func(uintptr) bool // fetches events; made once
	got      int                // how many there are
	events   [eventsAtOnce]unix.EpollEvent
}

// arrival is a connection for a reactor to take in.
type arrival struct {
	client    int32
	peer      int32 // -1 = to be opened
	reception *Reception
	visitor   Visitor
	reply     []byte // turned away with it, if reception is set and visitor is not
	job       Job
	early     []byte // the peer's
	start     int64
}

func newReactor(e *Engine, share int) (*reactor, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	r := &reactor{
		engine: e, epoll: int32(fd), file: os.NewFile(uintptr(fd), "epoll"), poke: -1,
		buffer: make([]byte, bufferSize), scratch: make([]byte, 0, 4<<10),
		pipes: pipes{files: e.options.Files, limit: max(maxPipes/share, 4)},
	}
	r.look = func(uintptr) bool {
		r.got = sysEvents(r.epoll, r.events[:])
		return r.got > 0
	}
	poke, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		r.poke = int32(poke)
		event := unix.EpollEvent{Events: unix.EPOLLIN | 1<<31, Fd: -1, Pad: -1} // edge-triggered: never read
		err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, poke, &event)
	}
	if err == nil {
		r.wait, err = r.file.SyscallConn()
	}
	if err != nil {
		r.shut()
		return nil, err
	}
	return r, nil
}

// shut closes what the reactor itself holds.
func (r *reactor) shut() {
	r.pipes.trim(0)
	if r.poke >= 0 {
		sysClose(r.poke)
	}
	_ = r.file.Close()
}

// push hands an arrival over; false after the reactor's end: it is the caller's.
func (r *reactor) push(batch ...arrival) bool {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return false
	}
	r.inbox = append(r.inbox, batch...)
	r.load.Add(int64(len(batch)))
	r.pokeLocked()
	return true
}

// post has f run by the reactor; false after its end.
func (r *reactor) post(f func()) bool {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return false
	}
	r.tasks = append(r.tasks, f)
	r.pokeLocked()
	return true
}

// pokeLocked wakes the reactor, unless somebody has, and unlocks.
func (r *reactor) pokeLocked() {
	defer r.mu.Unlock() // not before the write: the reactor could end, and the descriptor be another's
	if r.poked {
		return
	}
	r.poked = true
	one := [8]byte{1}                      // amd64 and arm64 are little-endian
	_, _ = unix.Write(int(r.poke), one[:]) // fails only when full, and then it has been poked
}

// run is the reactor's goroutine. It ends when the engine closes and no tunnel is left.
func (r *reactor) run() {
	defer r.shut()
	for {
		n := r.await()
		r.now = int64(r.engine.now())
		for i := range n {
			r.dispatch(&r.events[i])
		}
		r.takeIn()
		r.takeTurns()
		r.payOff()
		r.settle()
		r.sweep()
		if r.stopping && r.slab.live == 0 && r.retire() {
			return
		}
	}
}

// retire stops taking in; false if something has come in between.
func (r *reactor) retire() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = len(r.inbox)+len(r.tasks) == 0
	return r.closed
}

// await returns how many events there are, at once if there is other work.
func (r *reactor) await() int {
	if len(r.ready) > 0 {
		r.look(0)
		return r.got
	}
	r.arm()
	if err := r.wait.Read(r.look); err != nil {
		r.armed = 0 // the deadline has passed
		_ = r.file.SetReadDeadline(time.Time{})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			time.Sleep(time.Millisecond) // not to be expected; whatever it is, do not spin
		}
		r.look(0)
	}
	return r.got
}

// arm sets when the poller wakes the reactor though nothing has happened.
func (r *reactor) arm() {
	next := r.nextScan
	for _, at := range [...]int64{r.nearest, r.debts.next(), r.settleAt()} {
		if at != 0 && at < next {
			next = at
		}
	}
	if r.armed != 0 && r.armed <= next {
		return // early enough
	}
	r.armed = next
	_ = r.file.SetReadDeadline(r.engine.epoch.Add(time.Duration(next)))
}

// dispatch notes what has happened to a socket and acts on it.
func (r *reactor) dispatch(e *unix.EpollEvent) {
	token := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
	if token == wakeToken {
		return
	}
	t := r.slab.find(token)
	if t == nil {
		return
	}
	s := &t.sides[token&1]
	if e.Events&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.set(readable)
	}
	if e.Events&unix.EPOLLPRI != 0 {
		s.set(urgent) // a read ends at the mark, whatever is behind it
	}
	if e.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.set(writable)
	}
	if e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.set(hung)
	}
	if e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.set(broken)
	}
	if e.Events&unix.EPOLLERR != 0 {
		s.set(errored)
	}
	r.step(t, int(token&1))
}

// step acts on an event of one side.
func (r *reactor) step(t *tunnel, side int) {
	defer r.rescue(t, t.generation)
	switch t.phase {
	case visiting:
		r.visit(t)
	case blocked:
		r.lookOut(t, side)
	case connecting:
		if !r.lookOut(t, side) && side == 1 {
			r.connected(t)
		}
	case asking:
		if !r.lookOut(t, side) && side == 1 {
			r.ask(t)
		}
	case replying:
		if !r.lookOut(t, side) && side == 1 {
			r.hear(t)
		}
	case carrying:
		if s := &t.sides[side]; s.is(errored) && s.is(ended) && t.sides[1-side].deaf == 0 {
			r.deafen(t, 1-side) // nothing is read there any more that would tell
		}
		r.carry(t)
	case lingering:
		r.linger(t)
	}
}

// rescue ends a tunnel for which something panicked, and only that one.
func (r *reactor) rescue(t *tunnel, generation uint32) {
	v := recover()
	if v == nil {
		return
	}
	err := panicError(v)
	if t.generation != generation || t.phase == unused {
		r.engine.trouble(err) // it had ended already
		return
	}
	defer r.rescue(t, generation)
	r.fail(t, err)
}

// takeIn takes up what others have handed over.
func (r *reactor) takeIn() {
	r.mu.Lock()
	inbox, tasks := r.inbox, r.tasks
	r.poked = false
	if len(inbox) == 0 && len(tasks) == 0 {
		r.mu.Unlock()
		return
	}
	r.inbox, r.tasks, r.spare = r.spare, nil, nil
	r.mu.Unlock()
	for i := range inbox {
		r.receive(&inbox[i])
	}
	for _, f := range tasks {
		f()
	}
	clear(inbox)
	if cap(inbox) <= 4*eventsAtOnce {
		r.mu.Lock()
		r.spare = inbox[:0]
		r.mu.Unlock()
	}
}

// vacate ends t's place: the reactor has nothing of it any more.
func (r *reactor) vacate(t *tunnel) {
	r.slab.put(t)
	r.load.Add(-1)
}

// receive takes a connection in.
func (r *reactor) receive(a *arrival) {
	t := r.slab.take()
	t.start = min(a.start, r.now) // it came after the clock was read
	t.sides[0].fd = a.client
	t.setup = r.newSetup()
	t.phase = visiting // until below
	defer r.rescue(t, t.generation)
	errno := sysWatch(r.epoll, a.client, t.token(0))
	t.sides[0].set(readable | writable) // a look costs less than an event
	if a.reception == nil {
		t.exchange, t.setup.head, t.phase = a.job.Exchange, a.job.Early, blocked
		if errno != 0 {
			t.sides[1].fd = a.peer
			r.fail(t, fmt.Errorf("tunnel: watch: %w", errno))
			return
		}
		r.begin(t, a)
		return
	}
	t.setup.reception, t.setup.visitor = a.reception, a.visitor
	if a.visitor != nil {
		r.visitors.Add(1)
	}
	if errno != 0 || r.stopping {
		r.leave(t)
		return
	}
	if a.visitor == nil {
		r.lastWord(t, a.reply)
		return
	}
	r.setDeadline(t, a.reception.HeadTimeout)
	generation := t.generation
	r.visit(t)
	if t.generation == generation && t.phase == visiting && !t.setup.waits {
		r.waits(t)
	}
}

func (r *reactor) newSetup() *setup {
	n := len(r.setups)
	if n == 0 {
		return new(setup)
	}
	s := r.setups[n-1]
	r.setups = r.setups[:n-1]
	return s
}

// dropSetup ends a set-up: there is nothing to wait for and to keep any more.
func (r *reactor) dropSetup(t *tunnel) {
	r.setDeadline(t, 0)
	r.lighten(t)
}

// lighten gives back what only a connection without an open tunnel needs.
func (r *reactor) lighten(t *tunnel) {
	s := t.setup
	if s == nil {
		return
	}
	t.setup = nil
	*s = setup{}
	if len(r.setups) < eventsAtOnce {
		r.setups = append(r.setups, s)
	}
}

// setDeadline bounds the phase that begins; 0 = it has no bound. A time that has passed
// already ends it with the next sweep.
func (r *reactor) setDeadline(t *tunnel, d time.Duration) {
	if d == 0 {
		t.deadline = 0
		if t.young > 0 {
			last := len(r.young) - 1
			moved := r.young[last]
			r.young[t.young-1] = moved
			r.slab.at(moved).young = t.young
			r.young = r.young[:last]
			t.young = 0
		}
		return
	}
	t.deadline = r.now + int64(max(d, sweepPause))
	if t.young == 0 {
		r.young = append(r.young, t.index)
		t.young = uint32(len(r.young))
	}
	if r.nearest == 0 || t.deadline < r.nearest {
		r.nearest = t.deadline
	}
}
