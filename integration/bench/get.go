//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// getter is one connection of the http cell. Proxies that close it after each response make it dial again, which is then in the figures.
type getter struct {
	fd    int
	began time.Time
	got   []byte
}

// getLoop is one thread's share of the http cell.
type getLoop struct {
	*opening
	*loop
	getters []getter
	samples []int64
}

// get repeats one request on each of Workers connections for a time.
func (g *generator) get(o order, addr netip.AddrPort) (answer, error) {
	start := time.Now()
	work := newOpening(o, addr)
	work.left.Store(1 << 40)
	loops := make([]*getLoop, min(runtime.NumCPU(), o.Workers))
	ended := make(chan error, len(loops))
	for i := range loops {
		l, err := newLoop()
		if err != nil {
			return answer{}, err
		}
		defer l.close()
		loops[i] = &getLoop{opening: work, loop: l, getters: make([]getter, (o.Workers+i)/len(loops))}
	}
	for _, l := range loops {
		go func() { ended <- l.run() }()
	}
	var errs []error
	for range loops {
		errs = append(errs, <-ended)
	}
	var samples []int64
	for _, l := range loops {
		samples = append(samples, l.samples...)
	}
	a := answer{Done: int64(len(samples)), Failed: work.failed.Load(), Took: time.Since(start), Whole: latencyOf(samples)}
	if work.first != nil {
		a.First = work.first.Error()
	}
	return a, errors.Join(errs...)
}

func (l *getLoop) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range l.getters {
		l.getters[i].fd = -1
		l.redial(i)
	}
	defer func() {
		for _, c := range l.getters {
			if c.fd >= 0 {
				closeFD(c.fd)
			}
		}
	}()
	for time.Now().Before(l.until) && l.failed.Load() < hopeless {
		events, err := l.wait(100 * time.Millisecond)
		if err != nil {
			return err
		}
		for _, ev := range events {
			c := &l.getters[ev.Fd]
			if err := l.step(c); err != nil {
				l.fail(err)
				l.redial(int(ev.Fd))
			} else if c.fd < 0 {
				l.redial(int(ev.Fd))
			}
		}
	}
	return nil
}

// redial replaces a getter's connection and asks on it once it can be written to.
func (l *getLoop) redial(i int) {
	c := &l.getters[i]
	if c.fd >= 0 {
		closeFD(c.fd)
	}
	*c = getter{fd: -1, got: c.got[:0]}
	for l.more() {
		fd, err := dial(l.addr)
		if err == nil {
			c.fd = fd
			err = l.watch(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET, i, 0)
		}
		if err == nil {
			return
		}
		l.fail(err)
	}
}

// step goes on with one connection: the first event sends the first request, each whole response the next.
func (l *getLoop) step(c *getter) error {
	if c.began.IsZero() {
		return l.ask(c)
	}
	n, err := unix.Read(c.fd, l.buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return fmt.Errorf("response: %w", err)
	case n <= 0 && len(c.got) == 0:
		closeFD(c.fd) // closed between requests, as HTTP allows
		c.fd = -1
		return nil
	case n <= 0:
		return fmt.Errorf("cut off after %d bytes", len(c.got))
	}
	c.got = append(c.got, l.buf[:n]...)
	whole, err := responseWhole(c.got)
	if err != nil || !whole {
		return err
	}
	l.samples = append(l.samples, int64(time.Since(c.began)))
	if !l.more() {
		return nil
	}
	return l.ask(c)
}

func (l *getLoop) ask(c *getter) error {
	c.got, c.began = c.got[:0], time.Now()
	switch n, err := unix.Write(c.fd, l.head); {
	case errors.Is(err, unix.EAGAIN):
		c.began = time.Time{} // connecting
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		closeFD(c.fd) // closed between requests, as HTTP allows
		c.fd = -1
	case err != nil || n != len(l.head):
		return fmt.Errorf("request: %d bytes sent: %w", n, err)
	}
	return nil
}

// responseWhole reports whether b is a whole response with status 200 and the page, by Content-Length or chunked.
func responseWhole(b []byte) (bool, error) {
	if len(b) > 16<<10 {
		return false, errors.New("response too long")
	}
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return false, nil
	}
	head, body := b[:end+2], b[end+4:]
	if len(head) < 14 || !bytes.Equal(head[8:13], httpOK) {
		return false, fmt.Errorf("%w: %.60q", errRefused, head)
	}
	if _, after, ok := bytes.Cut(head, []byte("ontent-Length: ")); ok || bytes.Contains(head, []byte("content-length: ")) {
		if !ok {
			_, after, _ = bytes.Cut(head, []byte("content-length: "))
		}
		length, err := strconv.Atoi(string(after[:bytes.IndexByte(after, '\r')]))
		if err != nil || length != len(pageBody) {
			return false, fmt.Errorf("content length %.20q", after)
		}
		return len(body) >= length, nil
	}
	if bytes.Contains(head, []byte("chunked")) {
		return bytes.HasSuffix(body, []byte("0\r\n\r\n")), nil
	}
	// No framing: the body ends with the connection.
	return len(body) >= len(pageBody), nil
}
