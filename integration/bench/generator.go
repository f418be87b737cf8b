//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// generator is the state of the generator's process. It is for one goroutine.
type generator struct {
	held    []int
	streams []int
	movers  sync.WaitGroup // one of each stream
	moved   atomic.Int64
}

func runGenerator() error {
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	return serveOrders((&generator{}).carryOut)
}

func (g *generator) carryOut(o order) (answer, error) {
	addr, err := netip.ParseAddrPort(o.Addr)
	if err != nil && o.Addr != "" {
		return answer{}, err
	}
	switch o.Op {
	case "rate":
		return g.rate(o, addr)
	case "hold":
		return g.hold(o, addr)
	case "release":
		return g.release(), nil
	case "ping":
		return g.ping(o, addr)
	case "bulk":
		return g.bulk(o, addr)
	case "moved":
		return answer{Bytes: g.moved.Load()}, nil
	case "get":
		return g.get(o, addr)
	case "try":
		return g.try(o, addr)
	}
	return answer{}, fmt.Errorf("unknown order %q", o.Op)
}

// newOpening begins with now.
func newOpening(o order, addr netip.AddrPort) *opening {
	return &opening{addr: addr, head: []byte(o.Head), echo: zeros[:min(max(o.Echo, 1), 4096)], until: time.Now().Add(o.For)}
}

// rate opens, uses and closes tunnels for a time.
func (g *generator) rate(o order, addr netip.AddrPort) (answer, error) {
	start := time.Now()
	work := newOpening(o, addr)
	work.left.Store(1 << 40)
	openers, err := work.openAll(o.Workers)
	if err != nil {
		return answer{}, err
	}
	return summary(work, openers, time.Since(start)), nil
}

// hold opens Count more tunnels and keeps them. With Pending they wait for their reply.
func (g *generator) hold(o order, addr netip.AddrPort) (answer, error) {
	start := time.Now()
	work := newOpening(o, addr)
	work.keep, work.pending = true, o.Pending
	work.left.Store(int64(o.Count))
	openers, err := work.openAll(o.Workers)
	if err != nil {
		return answer{}, err
	}
	a := summary(work, openers, time.Since(start))
	a.Done = 0
	for _, op := range openers {
		g.held = append(g.held, op.held...)
		a.Done += int64(len(op.held))
	}
	return a, nil
}

// summary puts the loops' samples together.
func summary(work *opening, openers []*opener, took time.Duration) answer {
	var setup, whole []int64
	for _, op := range openers {
		setup = append(setup, op.setup...)
		whole = append(whole, op.whole...)
	}
	a := answer{Done: int64(len(whole)), Failed: work.failed.Load(), Took: took, Setup: latencyOf(setup), Whole: latencyOf(whole)}
	if work.first != nil {
		a.First = work.first.Error()
	}
	return a
}

// release closes the held tunnels and streams; Failed is how many the relay had closed before.
func (g *generator) release() answer {
	var a answer
	for _, fd := range g.held {
		var b [1]byte
		if _, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
			a.Failed++
		}
		closeFD(fd)
	}
	for _, fd := range g.streams {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // ends the mover; ENOTCONN if the relay was first
	}
	g.movers.Wait()
	for _, fd := range g.streams {
		closeFD(fd)
	}
	g.held, g.streams = nil, nil
	return a
}

// openOne opens one blocking tunnel.
func openOne(addr netip.AddrPort, head string) (int, error) {
	fd, err := dial(addr)
	if err != nil {
		return -1, err
	}
	if err := openOn(fd, head); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

func openOn(fd int, head string) error {
	if err := awaitConnect(fd); err != nil {
		return err
	}
	limit := unix.Timeval{Sec: 10}
	err := errors.Join(unix.SetNonblock(fd, false),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err != nil {
		return err
	}
	if _, err := write(fd, []byte(head)); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	// Byte by byte, so that nothing of the tunnel is taken.
	reply := make([]byte, 0, 256)
	for b := make([]byte, 1); !bytes.HasSuffix(reply, headEnd); reply = append(reply, b...) {
		if n, err := read(fd, b); err != nil || n == 0 || len(reply) >= maxReply {
			return fmt.Errorf("reply %.60q: closed or %w", reply, err)
		}
	}
	if len(reply) < 14 || !bytes.Equal(reply[8:13], httpOK) {
		return fmt.Errorf("%w: %.60q", errRefused, reply)
	}
	return nil
}

var errRefused = errors.New("refused")

// awaitConnect waits for the end of a connect.
func awaitConnect(fd int) error {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(set, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("connect: timeout or %w", err)
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		return nil
	}
}

// ping sends one byte after the other through a tunnel of its own for a time; Whole is how long each was on its way there and back.
func (g *generator) ping(o order, addr netip.AddrPort) (answer, error) {
	fd, err := openOne(addr, o.Head)
	if err != nil {
		return answer{}, err
	}
	defer closeFD(fd)
	var samples []int64
	b := []byte{'!'}
	for end := time.Now().Add(o.For); ; {
		start := time.Now()
		if start.After(end) {
			break
		}
		if _, err := write(fd, b); err != nil {
			return answer{}, fmt.Errorf("ping: %w", err)
		}
		if n, err := read(fd, b); err != nil || n != 1 {
			return answer{}, fmt.Errorf("ping: %d bytes, %w", n, err)
		}
		samples = append(samples, int64(time.Since(start)))
	}
	return answer{Done: int64(len(samples)), Whole: latencyOf(samples)}, nil
}

// try opens one tunnel and uses it for one byte. Failed is 1 and First says why when that does not work; Done is 1 when it was an answer
// other than 200, rather than silence or a broken connection.
func (g *generator) try(o order, addr netip.AddrPort) (answer, error) {
	fd, err := openOne(addr, o.Head)
	if err != nil {
		a := answer{Failed: 1, First: err.Error()}
		if errors.Is(err, errRefused) {
			a.Done = 1
		}
		return a, nil
	}
	defer closeFD(fd)
	b := []byte{'!'}
	if _, err := write(fd, b); err != nil {
		return answer{Failed: 1, First: err.Error()}, nil
	}
	if n, err := read(fd, b); err != nil || n != 1 || b[0] != '!' {
		return answer{Failed: 1, First: fmt.Sprintf("echo of %d bytes, %v", n, err)}, nil
	}
	return answer{Done: 1}, nil
}

// bulk opens Count tunnels and moves zeros through them until release.
func (g *generator) bulk(o order, addr netip.AddrPort) (answer, error) {
	g.moved.Store(0)
	for range o.Count {
		fd, err := openOne(addr, o.Head)
		if err != nil {
			g.release()
			return answer{}, err
		}
		g.streams = append(g.streams, fd)
		move := discard
		if o.Upload {
			move = func(fd int) (int, error) { return write(fd, zeros[:]) }
		}
		g.movers.Go(func() { g.move(fd, move) })
	}
	return answer{}, nil
}

// move ends when the stream's descriptor is shut down, when the relay closes it, or when nothing moved for ten seconds.
func (g *generator) move(fd int, once func(int) (int, error)) {
	for {
		n, err := once(fd)
		if err != nil || n == 0 {
			return
		}
		g.moved.Add(int64(n))
	}
}
