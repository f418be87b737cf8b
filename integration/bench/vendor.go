//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// vendorLogin is what the stand-in for the vendor demands.
const vendorLogin = "vendor:password"

// The host in a CONNECT says what its tunnel does.
const (
	echoTarget   = "echo.target.example:443"
	sourceTarget = "source.target.example:443" // sends zeros
	sinkTarget   = "sink.target.example:443"   // takes everything
	silentTarget = "silent.target.example:443" // gets no reply
)

// basic returns the value of a Basic credentials field.
func basic(login string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login))
}

// connectHead returns a whole CONNECT request.
func connectHead(target, login string) string {
	return fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: %s\r\n\r\n", target, target, basic(login))
}

// getHead returns a whole plain request of the http cell.
func getHead(login string) string {
	return fmt.Sprintf("GET http://shop.target.example/1k HTTP/1.1\r\nHost: shop.target.example\r\nProxy-Authorization: %s\r\n\r\n", basic(login))
}

var (
	tunnelOpen = []byte("HTTP/1.1 200 OK\r\n\r\n")
	wrongLogin = []byte("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"vendor\"\r\nContent-Length: 0\r\n\r\n")
	pageBody   = bytes.Repeat([]byte{'x'}, 1024)
	page       = append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(pageBody)), pageBody...)
	// Field names differ in case: HAProxy writes them small.
	wantedLogin = []byte("uthorization: " + basic(vendorLogin) + "\r\n")
)

// vendor is the state of the vendor's process. Its connections are spread over loops; each belongs to one.
type vendor struct {
	loops    []*vendorLoop
	listener int          // -1 before the first
	silent   atomic.Int64 // connections that wait for a reply
}

// vendorLoop is one thread and its connections.
type vendorLoop struct {
	*vendor
	*loop
	conns []vendorConn // by descriptor
}

// vendorConn is one connection's state: how it goes on after its head, and a head that came in pieces.
type vendorConn struct {
	mode mode
	head []byte
}

type mode uint8

const (
	modeHead mode = iota // nothing, or plain requests so far
	modeEcho
	modeSilent
)

const (
	kindConn = iota
	kindListener
)

func runVendor() error {
	limit, err := raiseFileLimit()
	if err != nil {
		return err
	}
	v := &vendor{listener: -1}
	for range runtime.NumCPU() {
		l, err := newLoop()
		if err != nil {
			return err
		}
		own := &vendorLoop{vendor: v, loop: l, conns: make([]vendorConn, min(limit, 1<<20))}
		v.loops = append(v.loops, own)
		go own.run()
	}
	return serveOrders(v.carryOut)
}

func (v *vendor) carryOut(o order) (answer, error) {
	switch o.Op {
	case "listen":
		addr, err := netip.ParseAddrPort(o.Addr)
		if err != nil {
			return answer{}, err
		}
		return v.listen(addr)
	case "silent":
		return answer{Done: v.silent.Load()}, nil
	}
	return answer{}, fmt.Errorf("unknown order %q", o.Op)
}

// listen begins to listen at addr and stops at the address before.
func (v *vendor) listen(addr netip.AddrPort) (answer, error) {
	fd, addr, err := listen(addr)
	if err != nil {
		return answer{}, err
	}
	for _, l := range v.loops {
		if err := l.watch(fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, fd, kindListener); err != nil {
			return answer{}, err
		}
	}
	if v.listener >= 0 {
		closeFD(v.listener)
	}
	v.listener = fd
	return answer{Addr: addr.String()}, nil
}

// run serves one loop's connections until the process ends.
func (l *vendorLoop) run() {
	runtime.LockOSThread()
	for {
		events, err := l.wait(time.Minute)
		if err != nil {
			fmt.Fprintln(os.Stderr, "vendor:", err)
			os.Exit(1)
		}
		for _, ev := range events {
			if ev.Pad == kindListener {
				l.accept(int(ev.Fd))
			} else if !l.serve(int(ev.Fd)) {
				l.drop(int(ev.Fd))
			}
		}
	}
}

// acceptBatch bounds what one loop takes at once, so that the other gets its share.
const acceptBatch = 16

func (l *vendorLoop) accept(listener int) {
	for range acceptBatch {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // none left, or the listener is another by now
		}
		l.conns[fd].mode = modeHead
		if err := l.watch(fd, unix.EPOLLIN, fd, kindConn); err != nil {
			closeFD(fd)
		}
	}
}

func (l *vendorLoop) drop(fd int) {
	if l.conns[fd].mode == modeSilent {
		l.silent.Add(-1)
	}
	l.conns[fd] = vendorConn{}
	closeFD(fd)
}

// serve reports whether the connection goes on.
func (l *vendorLoop) serve(fd int) bool {
	n, err := unix.Read(fd, l.buf)
	if errors.Is(err, unix.EAGAIN) {
		return true
	}
	if err != nil || n <= 0 {
		return false
	}
	c := &l.conns[fd]
	switch c.mode {
	case modeEcho:
		return send(fd, l.buf[:n])
	case modeSilent:
		return true
	}
	data := l.buf[:n]
	if len(c.head) > 0 {
		c.head = append(c.head, data...)
		data = c.head
	}
	for {
		end := bytes.Index(data, []byte("\r\n\r\n")) + 4
		if end < 4 {
			c.head = append(c.head[:0], data...)
			return len(data) < 16<<10
		}
		if !l.request(fd, data[:end]) {
			return false
		}
		data = data[end:]
		if c.mode != modeHead || len(data) == 0 {
			c.head = c.head[:0]
			return len(data) == 0 || c.mode == modeEcho && send(fd, data)
		}
	}
}

// request answers one head and reports whether the connection goes on in this loop.
func (l *vendorLoop) request(fd int, head []byte) bool {
	if !bytes.Contains(head, wantedLogin) {
		_ = send(fd, wrongLogin)
		return false
	}
	target, connect := bytes.CutPrefix(head, []byte("CONNECT "))
	if !connect {
		return send(fd, page)
	}
	c := &l.conns[fd]
	switch {
	case bytes.HasPrefix(target, []byte(echoTarget)):
		c.mode = modeEcho
	case bytes.HasPrefix(target, []byte(silentTarget)):
		c.mode = modeSilent
		l.silent.Add(1)
		return true
	case bytes.HasPrefix(target, []byte(sourceTarget)):
		return send(fd, tunnelOpen) && handOver(l.loop, fd, pour)
	case bytes.HasPrefix(target, []byte(sinkTarget)):
		return send(fd, tunnelOpen) && handOver(l.loop, fd, drain)
	default:
		return false
	}
	return send(fd, tunnelOpen)
}

// send reports whether all of b went out. What is sent here fits any socket's buffer.
func send(fd int, b []byte) bool {
	n, err := unix.Write(fd, b)
	return err == nil && n == len(b)
}

// handOver takes fd out of its loop and gives a blocking copy of it to a goroutine that moves bytes until its peer closes.
// It reports false, so that the loop closes its own.
func handOver(l *loop, fd int, move func(fd int)) bool {
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		return false
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := block(own); err != nil {
		closeFD(own)
		return false
	}
	go func() {
		defer closeFD(own)
		move(own)
	}()
	return false
}

// block makes the system calls on fd wait, at most a minute each.
func block(fd int) error {
	minute := unix.Timeval{Sec: 60}
	return errors.Join(unix.SetNonblock(fd, false),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &minute),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &minute))
}

var zeros [256 << 10]byte

// pour writes zeros until the peer closes.
func pour(fd int) {
	for {
		if _, err := write(fd, zeros[:]); err != nil {
			return
		}
	}
}

// drain takes what comes until the peer closes.
func drain(fd int) {
	for {
		if n, err := discard(fd); err != nil || n == 0 {
			return
		}
	}
}

// discard takes up to 1 MiB from fd without copying it: MSG_TRUNC does that for TCP, and leaves the load's processors to the relay's peers.
func discard(fd int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 1<<20, unix.MSG_TRUNC, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// write and read are for blocking descriptors: calls with a time limit are not restarted after a signal, and the runtime sends many.
func write(fd int, b []byte) (int, error) {
	for {
		if n, err := unix.Write(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func read(fd int, b []byte) (int, error) {
	for {
		if n, err := unix.Read(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
