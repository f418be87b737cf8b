//go:build amd64 || arm64

package tunnel

import (
	"net"
	"os"
)

// maxHead bounds the bytes kept of a head that is not whole: a visitor's or an upstream's.
const maxHead = bufferSize

// readsAtOnce is how often a visitor is read from before others get their turn.
const readsAtOnce = 2

// Seat is a visitor's place in the engine. It is his until he leaves it; then it is
// nobody's. The zero Seat is nobody's.
type Seat struct {
	reactor *reactor
	token   uint64
}

// Evict has the visitor's connection closed, soon, if he is a visitor still. It does not
// wait, and anybody may call it at any time.
func (s Seat) Evict() {
	if s.reactor != nil {
		s.reactor.post(func() { s.reactor.evict(s.token) })
	}
}

// waits tells a visitor that his wait for a head begins.
func (r *reactor) waits(t *tunnel) {
	t.setup.waits = true
	t.setup.visitor.Waits(Seat{r, t.token(0)})
}

// visit reads what a visitor has sent and has it judged.
func (r *reactor) visit(t *tunnel) {
	c := &t.sides[0]
	for reads := 0; c.is(readable); reads++ {
		if reads == readsAtOnce {
			r.lineUp(t, 0)
			return
		}
		n, errno := sysRead(c.fd, r.buffer)
		switch {
		case errno == errAgain:
			c.clear(readable)
			return
		case errno != 0, n == 0:
			r.leave(t)
			return
		}
		if n < len(r.buffer) && !c.is(unsure) {
			c.clear(readable)
		}
		b := r.buffer[:n]
		if len(t.setup.head) > 0 {
			t.setup.head = append(t.setup.head, b...)
			b = t.setup.head
		}
		if !r.judge(t, b) {
			return
		}
	}
}

// judge has the visitor judge b until he waits; false if he is none any more.
func (r *reactor) judge(t *tunnel, b []byte) bool {
	fresh := len(t.setup.head) == 0 // b is the reactor's buffer
	answered := false
	for len(b) > 0 {
		v := t.setup.visitor.Head(b)
		b = b[min(v.Consumed, len(b)):]
		switch v.Action {
		case Wait:
			if fresh || answered {
				b = append([]byte(nil), b...)
			}
			return r.keep(t, b, answered)
		case Answer:
			if v.Last {
				r.lastWord(t, v.Reply)
				return false
			}
			if v.Consumed <= 0 {
				panic("a head was answered and not consumed") // it would be for ever
			}
			if n, errno := sysSend(t.sides[0].fd, v.Reply); errno != 0 || n < len(v.Reply) {
				r.leave(t) // he does not even take a short reply
				return false
			}
			answered = true
			t.setup.head = nil
			continue
		case Open:
			if v.Exchange == nil {
				panic("a tunnel without an exchange")
			}
			r.admit(t, v.Exchange, b)
			return false
		case Pass:
			r.pass(t, b)
			return false
		default:
			r.leave(t)
			return false
		}
	}
	t.setup.head = nil
	r.setDeadline(t, t.setup.reception.KeepAlive)
	t.setup.between = true
	r.waits(t)
	return true
}

// keep has a visitor wait for the rest of a head; false if that gets too long. next says
// that the head before it has just been answered.
func (r *reactor) keep(t *tunnel, head []byte, next bool) bool {
	if len(head) > maxHead {
		r.leave(t)
		return false
	}
	t.setup.head = head
	if next || t.setup.between && len(head) > 0 {
		t.setup.between = false
		r.setDeadline(t, t.setup.reception.HeadTimeout)
		if next {
			r.waits(t)
		}
	}
	return true
}

// admit makes a visitor a tunnel to be.
func (r *reactor) admit(t *tunnel, x Exchange, early []byte) {
	t.setup.visitor, t.setup.reception, t.setup.head = nil, nil, nil
	r.visitors.Add(-1)
	r.engine.entered()
	if len(early) > 0 {
		t.setup.head = append([]byte(nil), early...)
	}
	t.exchange, t.start, t.phase = x, r.now, blocked
	r.setDeadline(t, 0)
	r.open(t)
}

// pass hands a visitor's connection to whom his front chooses.
func (r *reactor) pass(t *tunnel, unread []byte) {
	v := t.setup.visitor
	conn, err := r.detach(t)
	r.forget(t)
	if err != nil {
		v.Gone()
		r.engine.trouble(err)
		return
	}
	v.Pass(conn, unread)
}

// forget takes a visitor off the books whose socket is no longer here.
func (r *reactor) forget(t *tunnel) {
	if t.setup.visitor != nil {
		r.visitors.Add(-1)
	} else {
		r.engine.away.Add(-1)
	}
	r.dropSetup(t)
	r.vacate(t)
}

// leave closes a visitor's connection.
func (r *reactor) leave(t *tunnel) {
	v := t.setup.visitor
	sysClose(t.sides[0].fd)
	r.forget(t)
	if v != nil {
		v.Gone()
	}
}

// headLate ends a visitor whose head did not come in time.
func (r *reactor) headLate(t *tunnel) {
	n := len(t.setup.head)
	reply := t.setup.visitor.TimedOut(n)
	if len(reply) == 0 {
		r.leave(t)
		return
	}
	r.lastWord(t, reply)
}

// evict closes the visitor who has the seat of a token, if there is one.
func (r *reactor) evict(token uint64) {
	if t := r.slab.find(token); t != nil && t.phase == visiting {
		r.dismissOne(t)
	}
}

// dismiss closes the visitors of whom no byte of a head has come.
func (r *reactor) dismiss() {
	r.slab.each(func(t *tunnel) {
		if t.phase == visiting && len(t.setup.head) == 0 {
			r.dismissOne(t)
		}
	})
}

// dismissOne closes a visitor's connection outside of an event.
func (r *reactor) dismissOne(t *tunnel) {
	defer r.rescue(t, t.generation)
	r.leave(t)
}

// detach makes a net.Conn of the customer's socket, which leaves the reactor.
func (r *reactor) detach(t *tunnel) (*net.TCPConn, error) {
	fd := t.sides[0].fd
	sysUnwatch(r.epoll, fd)
	t.sides[0].fd = -1
	file := os.NewFile(uintptr(fd), "customer")
	conn, err := net.FileConn(file)
	_ = file.Close() // FileConn has a descriptor of its own
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		_ = conn.Close()
		return nil, net.UnknownNetworkError(conn.LocalAddr().Network())
	}
	return tcp, nil
}

// lastWord writes the end of a conversation so that it arrives: closing at once with
// bytes unread would reset the connection and may destroy it (RFC 9112 §9.6).
func (r *reactor) lastWord(t *tunnel, reply []byte) {
	fd := t.sides[0].fd
	n := 0
	if len(reply) > 0 {
		n, _ = sysSend(fd, reply)
	}
	if n < len(reply) || n == 0 || sysShutdown(fd) != 0 {
		r.over(t)
		return
	}
	t.phase = lingering
	t.setup.head, t.setup.bytes = nil, nil
	r.setDeadline(t, lingerTimeout)
	if r.stopping {
		r.over(t)
		return
	}
	r.linger(t)
}

// linger drops what still comes.
func (r *reactor) linger(t *tunnel) {
	c := &t.sides[0]
	for c.is(readable) {
		n, errno := sysRead(c.fd, r.buffer)
		if errno == errAgain {
			c.clear(readable)
			return
		}
		t.setup.dropped += n
		if errno != 0 || n == 0 || t.setup.dropped > lingerBytes {
			r.over(t)
			return
		}
	}
}

// over ends a connection that has no open tunnel.
func (r *reactor) over(t *tunnel) {
	if t.exchange == nil {
		r.leave(t)
		return
	}
	r.finish(t, quietly, t.setup.err)
}
