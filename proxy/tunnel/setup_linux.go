//go:build amd64 || arm64

package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// notSentLow bounds the bytes that wait in a send queue before the network has asked
// for them. A reader that stalls then costs a tenth of the memory (TCP_NOTSENT_LOWAT).
const notSentLow = 128 << 10

// begin starts the tunnel of a Job.
func (r *reactor) begin(t *tunnel, a *arrival) {
	if a.peer < 0 {
		r.open(t)
		return
	}
	t.sides[1].fd = a.peer
	if r.stopping {
		r.abort(t, Drained)
		return
	}
	if errno := sysWatch(r.epoll, a.peer, t.token(1)); errno != 0 {
		r.fail(t, fmt.Errorf("tunnel: watch: %w", errno))
		return
	}
	t.sides[1].set(readable | writable)
	r.opened(t, a.early)
}

// open tries the exchange's ways to the upstream until one is under way.
func (r *reactor) open(t *tunnel) {
	if r.stopping {
		r.abort(t, Drained)
		return
	}
	if r.lookOut(t, 0) {
		return
	}
	for {
		a, err := t.exchange.Next()
		switch {
		case errors.Is(err, ErrBlocks):
			r.openBlocking(t)
			return
		case err != nil:
			r.refuse(t, err)
			return
		}
		errno := r.dial(t, &a)
		if errno == 0 {
			return
		}
		t.exchange.Failed(true, errno)
	}
}

// dial begins a connection.
func (r *reactor) dial(t *tunnel, a *Attempt) syscall.Errno {
	// Resolvers write IPv4 addresses as IPv6 ones, for which the host may have no sockets.
	a.Addr = netip.AddrPortFrom(a.Addr.Addr().Unmap(), a.Addr.Port())
	a.Source = a.Source.Unmap()
	fd, errno := sysSocket(a.Addr.Addr())
	if errno != 0 {
		return errno
	}
	if errno = prepare(fd, a); errno == 0 {
		errno = sysConnect(fd, a.Addr)
	}
	if errno == 0 || errno == unix.EINPROGRESS {
		t.sides[1] = socket{fd: fd}
		errno = sysWatch(r.epoll, fd, t.token(1))
	}
	if errno != 0 {
		sysClose(fd)
		t.sides[1] = socket{fd: -1}
		return errno
	}
	t.phase = connecting
	t.setup.reply, t.setup.limit = a.ReplyTimeout, 0
	if a.Limit > 0 {
		t.setup.limit = r.now + int64(a.Limit)
	}
	r.setDeadline(t, a.Timeout)
	return 0
}

// prepare sets what a socket needs before it connects. Options for a long life come
// later, if the life gets long.
func prepare(fd int32, a *Attempt) syscall.Errno {
	errno := sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if errno == 0 {
		errno = sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLow)
	}
	if errno == 0 && a.Source.IsValid() {
		// Without it bind chooses a port that no other destination may share.
		_ = sysSetInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		errno = sysBind(fd, a.Source)
	}
	if errno == 0 && a.Ports[1] != 0 {
		// Kernels before 6.3 have no windows, and use the whole range.
		_ = sysSetInt(fd, unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, uint32(a.Ports[1])<<16|uint32(a.Ports[0]))
	}
	return errno
}

// season gives an upstream socket the options that only a long-lived one needs.
func season(fd int32, silence time.Duration) {
	_ = sysSetInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60)
	_ = sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15)
	_ = sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4)
	_ = sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, uint32(silence.Milliseconds()))
}

// connected writes the request when the connection stands. Sending tells whether it
// does: the socket's pending error is the call's.
func (r *reactor) connected(t *tunnel) {
	s := &t.sides[1]
	if !s.is(writable) {
		return
	}
	r.scratch = t.exchange.AppendRequest(r.scratch[:0])
	n, errno := sysSend(s.fd, r.scratch)
	switch {
	case errno == errAgain, errno == unix.ENOTCONN:
		s.clear(writable)
		return
	case errno != 0:
		r.tryNext(t, s.is(broken), errno)
		return
	}
	t.exchange.Connected()
	r.setDeadline(t, t.setup.patience(r.now))
	if n < len(r.scratch) {
		t.phase = asking
		t.setup.bytes = append([]byte(nil), r.scratch[n:]...)
		s.clear(writable)
		return
	}
	r.awaitAnswer(t)
}

// awaitAnswer waits for what the upstream says. That may take long, and there may be
// many who wait: what is not needed for it is given back.
func (r *reactor) awaitAnswer(t *tunnel) {
	t.phase = replying
	t.setup.bytes = nil
	if len(t.setup.head) == 0 {
		r.lighten(t)
	}
	r.hear(t)
}

// patience is how long the answer may take from now on.
func (s *setup) patience(now int64) time.Duration {
	if s.limit == 0 {
		return s.reply
	}
	return max(min(s.reply, time.Duration(s.limit-now)), 1)
}

// ask writes the rest of a request.
func (r *reactor) ask(t *tunnel) {
	s := &t.sides[1]
	for s.is(writable) && len(t.setup.bytes) > 0 {
		n, errno := sysSend(s.fd, t.setup.bytes)
		switch {
		case errno == errAgain:
			s.clear(writable)
		case errno != 0:
			r.tryNext(t, false, errno)
			return
		default:
			t.setup.bytes = t.setup.bytes[n:]
		}
	}
	if len(t.setup.bytes) == 0 {
		r.awaitAnswer(t)
	}
}

// hear reads the upstream's answer.
func (r *reactor) hear(t *tunnel) {
	s := &t.sides[1]
	var before []byte // of the answer
	if t.setup != nil {
		before = t.setup.bytes
	}
	for s.is(readable) {
		n, errno := sysRead(s.fd, r.buffer)
		if errno == errAgain {
			s.clear(readable)
			return
		}
		if err := readEnd(n, errno, before); err != nil {
			r.tryNext(t, false, err)
			return
		}
		if n < len(r.buffer) && !s.is(unsure) {
			s.clear(readable)
		}
		b := r.buffer[:n]
		if len(before) > 0 {
			b = append(before, b...)
		}
		head, err := t.exchange.Reply(b)
		switch {
		case errors.Is(err, ErrAsksMore):
			if !r.askMore(t) {
				return
			}
			before = nil
			continue
		case err != nil:
			r.closePeer(t)
			r.open(t)
			return
		case head > 0:
			r.opened(t, b[head:])
			return
		case len(b) > maxHead:
			r.tryNext(t, false, unix.EMSGSIZE)
			return
		case len(before) == 0:
			b = append([]byte(nil), b...)
		}
		before = b
		r.equip(t)
		t.setup.bytes = b
	}
}

// readEnd is why nothing more of an answer comes, of which there is a part; nil if n
// bytes came.
func readEnd(n int, errno syscall.Errno, part []byte) error {
	switch {
	case errno != 0:
		return errno
	case n > 0:
		return nil
	case len(part) > 0:
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

// askMore writes the next part of the request, and reports whether all of it is on its
// way. The time for the answers goes on.
func (r *reactor) askMore(t *tunnel) bool {
	r.scratch = t.exchange.AppendRequest(r.scratch[:0])
	n, errno := sysSend(t.sides[1].fd, r.scratch)
	if errno != 0 && errno != errAgain {
		r.tryNext(t, false, errno)
		return false
	}
	if n < len(r.scratch) {
		r.equip(t)
		t.phase = asking
		t.setup.bytes = append([]byte(nil), r.scratch[n:]...)
		t.sides[1].clear(writable)
		return false
	}
	if t.setup != nil {
		t.setup.bytes = nil
		if len(t.setup.head) == 0 {
			r.lighten(t)
		}
	}
	return true
}

// tryNext gives the way under way up, for another one.
func (r *reactor) tryNext(t *tunnel, dialling bool, err error) {
	r.closePeer(t)
	t.exchange.Failed(dialling, err)
	r.open(t)
}

func (r *reactor) closePeer(t *tunnel) {
	r.setDeadline(t, 0)
	sysClose(t.sides[1].fd)
	t.sides[1] = socket{fd: -1}
	r.equip(t)
	t.setup.bytes = nil
	t.phase = blocked
}

// equip makes sure that t has what a set-up may need.
func (r *reactor) equip(t *tunnel) {
	if t.setup == nil {
		t.setup = r.newSetup()
	}
}

// setupLate acts on the end of a phase's time.
func (r *reactor) setupLate(t *tunnel) {
	defer r.rescue(t, t.generation)
	switch t.phase {
	case visiting:
		r.headLate(t)
	case connecting, asking, replying:
		r.tryNext(t, t.phase == connecting, os.ErrDeadlineExceeded)
	case lingering:
		r.over(t)
	}
}

// lookOut ends a set-up whose customer has left, and reports whether it did. A reset
// always says so. A FIN alone may be a half-close by one who has sent all of his and
// waits for the answer: it counts only if nothing of his is still to be delivered.
func (r *reactor) lookOut(t *tunnel, side int) bool {
	c := &t.sides[0]
	if side != 0 || !c.is(hung) {
		return false
	}
	if !c.is(broken) && (t.setup != nil && len(t.setup.head) > 0 || sysPeek(c.fd)) {
		return false
	}
	r.abort(t, ClientGone)
	return true
}

// refuse answers a customer whose upstream could not be opened.
func (r *reactor) refuse(t *tunnel, err error) {
	t.end(Refused)
	t.setup.err = err
	r.setDeadline(t, 0)
	r.lastWord(t, t.exchange.Refusal(err))
}

// openBlocking has Open open the upstream side, in a goroutine of its own.
func (r *reactor) openBlocking(t *tunnel) {
	ctx, cancel := context.WithCancel(context.Background())
	t.setup.cancel = cancel
	t.phase = blocked
	x, token := t.exchange, t.token(0)
	r.engine.running.Go(func() {
		peer, err := openGuarded(ctx, x)
		cancel()
		// The reactor does not end while the tunnel lives.
		r.post(func() { r.cameBack(token, peer, err) })
	})
}

// cameBack takes what Open has opened.
func (r *reactor) cameBack(token uint64, p Peer, err error) {
	t := r.slab.find(token)
	if t == nil {
		return // not possible: a blocked tunnel waits for this
	}
	defer r.rescue(t, t.generation)
	t.setup.cancel = nil
	var bug panicked
	switch {
	case errors.As(err, &bug):
		r.fail(t, bug.error)
	case t.ending != 0: // it was ended meanwhile
		if err == nil {
			_ = p.Conn.Close()
			err = context.Canceled
		}
		r.finish(t, quietly, err)
	case err != nil:
		r.refuse(t, err)
	default:
		r.join(t, p)
	}
}

// join makes p the upstream side, here if it is plain TCP, else in a pump.
func (r *reactor) join(t *tunnel, p Peer) {
	fd, ok := takeFD(p.Conn)
	if !ok {
		r.toPump(t, p)
		return
	}
	t.sides[1] = socket{fd: fd}
	if errno := sysWatch(r.epoll, fd, t.token(1)); errno != 0 {
		r.fail(t, fmt.Errorf("tunnel: watch: %w", errno))
		return
	}
	t.sides[1].set(readable | writable)
	r.opened(t, p.Early)
}

// toPump hands a tunnel over whose upstream is not plain TCP.
func (r *reactor) toPump(t *tunnel, p Peer) {
	x, start, early := t.exchange, t.start, t.setup.head
	conn, err := r.detach(t)
	if err != nil {
		_ = p.Conn.Close()
		r.fail(t, err)
		return
	}
	r.dropSetup(t)
	r.vacate(t)
	r.engine.pump(Job{Client: conn, Early: early, Peer: &p, Exchange: x}, time.Duration(start))
}

// takeFD takes the descriptor out of a plain TCP connection, which is then closed;
// false, and the connection is as it was, if it is another kind.
func takeFD(c net.Conn) (int32, bool) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return -1, false
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return -1, false
	}
	fd := -1
	if rc.Control(func(f uintptr) { fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) }) != nil || err != nil {
		return -1, false
	}
	_ = tcp.Close() // Go's poller forgets the socket; the connection lives on in fd
	return int32(fd), true
}

// opened greets the customer and carries from here on. Bytes that were read early
// ride along.
func (r *reactor) opened(t *tunnel, early []byte) {
	terms := t.exchange.Opened()
	t.phase = carrying
	t.last = r.now
	t.shared = terms.Shared
	var head []byte
	if t.setup != nil {
		head = t.setup.head
	}
	r.scratch = append(append(r.scratch[:0], terms.Greeting...), early...)
	r.dropSetup(t) // early may have been its
	r.pace(t)
	if !r.first(t, 1, r.scratch, len(terms.Greeting)) || !r.first(t, 0, head, 0) {
		return
	}
	if cap(r.scratch) > 2*bufferSize {
		r.scratch = make([]byte, 0, 4<<10)
	}
	r.carry(t)
}

// first sends the first bytes of a direction, of which skip are not payload; false if
// that ended the tunnel.
func (r *reactor) first(t *tunnel, d int, b []byte, skip int) bool {
	if len(b) == 0 {
		return true
	}
	src, dst := &t.sides[d], &t.sides[1-d]
	n, errno := sysSend(dst.fd, b)
	if errno != 0 && errno != errAgain {
		r.breakOff(t, brokenEnding(d != 0), d)
		return false
	}
	if n < len(b) {
		dst.clear(writable)
		src.pending = pend(b[n:])
		src.pending.silent = max(skip-n, 0)
	}
	r.book(t, d, max(n-skip, 0))
	if t.shared != nil && len(b) > skip { // later moves wait for it
		t.shared.take(d, len(b)-skip, r.engine.epoch.Add(r.engine.now()))
	}
	return true
}
