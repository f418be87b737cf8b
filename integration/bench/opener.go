//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// opening is what the loops of one order share: which tunnels to open, until when, and what to do with them.
type opening struct {
	addr    netip.AddrPort
	head    []byte
	echo    []byte       // what goes there and back in each tunnel
	pending bool         // a tunnel counts when its head is sent
	keep    bool         // keep the tunnels instead of closing them
	left    atomic.Int64 // tunnels still to begin; very many when only the time counts
	until   time.Time
	failed  atomic.Int64
	mu      sync.Mutex // guards first
	first   error
}

// fail counts one tunnel that did not end well.
func (g *opening) fail(err error) {
	if g.failed.Add(1) > 1 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.first = err
}

// tunnelLimit is how long one tunnel may take from connect to echo.
const tunnelLimit = 15 * time.Second

// hopeless is after how many failures an order gives up.
const hopeless = 2000

// more reports whether to begin another tunnel.
func (g *opening) more() bool {
	return g.failed.Load() < hopeless && time.Now().Before(g.until) && g.left.Add(-1) >= 0
}

type stage uint8

const (
	idle stage = iota
	connecting
	waitReply
	waitEcho
)

// slot is one worker: a tunnel between connect and its end.
type slot struct {
	fd    int
	stage stage
	began time.Time
	setup time.Duration
	reply []byte // of the reply's head, while it is not complete
	echo  int    // bytes that came back
}

// opener is one thread's share of an opening.
type opener struct {
	*opening
	*loop
	slots  []slot
	active int
	held   []int
	setup  []int64 // nanoseconds
	whole  []int64
}

// openAll carries an opening out with workers at a time and returns its openers.
func (g *opening) openAll(workers int) ([]*opener, error) {
	openers := make([]*opener, min(runtime.NumCPU(), workers))
	for i := range openers {
		l, err := newLoop()
		if err != nil {
			return nil, err
		}
		defer l.close()
		openers[i] = &opener{opening: g, loop: l, slots: make([]slot, (workers+i)/len(openers))}
	}
	errs := make([]error, len(openers))
	var wg sync.WaitGroup
	for i, o := range openers {
		wg.Go(func() { errs[i] = o.run() })
	}
	wg.Wait()
	return openers, errors.Join(errs...)
}

// run keeps its slots busy until nothing more is to begin and all have ended.
func (o *opener) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range o.slots {
		o.active++
		o.begin(i)
	}
	const sweepEvery = 500 * time.Millisecond
	swept := time.Now()
	for o.active > 0 {
		events, err := o.wait(sweepEvery)
		if err != nil {
			return err
		}
		for _, ev := range events {
			if s := &o.slots[ev.Fd]; s.stage != idle {
				o.step(int(ev.Fd), s)
			}
		}
		if now := time.Now(); now.Sub(swept) >= sweepEvery {
			swept = now
			o.sweep(now)
		}
	}
	return nil
}

// sweep ends the tunnels that took too long.
func (o *opener) sweep(now time.Time) {
	for i := range o.slots {
		if s := &o.slots[i]; s.stage != idle && now.Sub(s.began) > tunnelLimit {
			o.broken(i, fmt.Errorf("stage %d after %v", s.stage, tunnelLimit))
		}
	}
}

// begin dials the slot's next tunnel, or retires the slot.
func (o *opener) begin(i int) {
	s := &o.slots[i]
	s.stage = idle
	for o.more() {
		began := time.Now()
		fd, err := dial(o.addr)
		if err != nil {
			o.fail(err)
			continue
		}
		*s = slot{fd: fd, stage: connecting, began: began, reply: s.reply[:0]}
		// On loopback the handshake is over when connect returns, so the head nearly always goes out at once.
		sent, err := o.sendHead(s)
		if err == nil && sent && o.pending {
			o.held = append(o.held, fd)
			continue
		}
		events := uint32(unix.EPOLLIN)
		if !sent {
			events = unix.EPOLLOUT
		}
		if err == nil {
			err = o.watch(fd, events, i, 0)
		}
		if err == nil {
			return
		}
		closeFD(fd)
		o.fail(err)
	}
	s.stage = idle
	o.active--
}

// sendHead reports whether the head is out; without an error it is to be tried again.
func (o *opener) sendHead(s *slot) (bool, error) {
	n, err := unix.Write(s.fd, o.head)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("connect: %w", err)
	case n != len(o.head):
		return false, errors.New("head sent in part")
	}
	s.stage = waitReply
	return true, nil
}

// step follows one event.
func (o *opener) step(i int, s *slot) {
	if s.stage == connecting {
		o.connected(i, s)
		return
	}
	n, err := unix.Read(s.fd, o.buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
	case err != nil:
		o.broken(i, fmt.Errorf("stage %d: %w", s.stage, err))
	case n <= 0:
		o.broken(i, fmt.Errorf("stage %d: closed by the relay after %.40q", s.stage, s.reply))
	case s.stage == waitReply:
		o.replied(i, s, o.buf[:n])
	default:
		o.echoed(i, s, n)
	}
}

// connected sends the head that could not go out at once.
func (o *opener) connected(i int, s *slot) {
	sent, err := o.sendHead(s)
	switch {
	case err != nil:
		o.broken(i, err)
	case sent && o.pending:
		o.hold(s.fd)
		o.begin(i)
	case sent:
		if err := o.change(s.fd, unix.EPOLLIN, i); err != nil {
			o.broken(i, err)
		}
	}
}

// hold keeps a watched tunnel.
func (o *opener) hold(fd int) {
	_ = unix.EpollCtl(o.loop.fd, unix.EPOLL_CTL_DEL, fd, nil) // it was watched
	o.held = append(o.held, fd)
}

var (
	httpOK  = []byte(" 200 ")
	headEnd = []byte("\r\n\r\n")
)

const maxReply = 4 << 10

// replied takes in a piece of the relay's reply, and sends the first bytes once it is whole.
func (o *opener) replied(i int, s *slot, data []byte) {
	s.reply = append(s.reply, data...)
	if !bytes.HasSuffix(s.reply, headEnd) {
		if len(s.reply) > maxReply || bytes.Contains(s.reply, headEnd) {
			o.broken(i, fmt.Errorf("not a reply's head: %.60q", s.reply))
		}
		return
	}
	if len(s.reply) < 14 || !bytes.Equal(s.reply[8:13], httpOK) {
		o.broken(i, fmt.Errorf("refused: %.60q", s.reply))
		return
	}
	s.setup = time.Since(s.began)
	if n, err := unix.Write(s.fd, o.echo); err != nil || n != len(o.echo) {
		o.broken(i, fmt.Errorf("first %d bytes: %w", n, err))
		return
	}
	s.stage = waitEcho
}

// echoed takes in n bytes of the echo, and ends a tunnel that has done its work.
func (o *opener) echoed(i int, s *slot, n int) {
	if s.echo += n; s.echo < len(o.echo) {
		return
	}
	o.setup = append(o.setup, int64(s.setup))
	o.whole = append(o.whole, int64(time.Since(s.began)))
	if o.keep {
		o.hold(s.fd)
	} else {
		closeFD(s.fd)
	}
	o.begin(i)
}

// broken ends a tunnel that failed.
func (o *opener) broken(i int, err error) {
	closeFD(o.slots[i].fd)
	o.fail(err)
	o.begin(i)
}
