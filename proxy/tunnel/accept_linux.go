//go:build amd64 || arm64

package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	acceptAtOnce = 256
	maxAway      = 128                   // connections turned away with a word, at once
	acceptPause  = 20 * time.Millisecond // after an error, for resources to come back
	crowdPause   = time.Millisecond      // for those who were told to go to be gone
	crowdPauses  = 20                    // in a row, at most
)

// reactors are an engine's.
type reactors struct {
	all     []*reactor
	unlocks bool          // receive buffers can be held and let go
	next    atomic.Uint32 // whose turn it is

	mu        sync.Mutex // guards what follows
	listeners []*os.File
	accepting sync.WaitGroup
	closed    bool
}

// startReactors starts one reactor for each processor; none where the host refuses.
func startReactors(e *Engine) *reactors {
	rs := &reactors{unlocks: sysUnlocks()}
	n := runtime.GOMAXPROCS(0)
	for range n {
		r, err := newReactor(e, n)
		if err != nil {
			break
		}
		r.now = int64(e.now())
		r.nextScan = r.now + int64(e.tick)
		rs.all = append(rs.all, r)
		e.running.Go(r.run)
	}
	return rs
}

func (rs *reactors) any() bool { return len(rs.all) > 0 }

// submit gives a job of plain TCP connections to a reactor; false if it is for a pump.
func (rs *reactors) submit(e *Engine, j Job) bool {
	if !rs.any() || j.Peer != nil && !isTCP(j.Peer.Conn) {
		return false
	}
	fd, ok := takeFD(j.Client)
	if !ok {
		return false
	}
	a := arrival{client: fd, peer: -1, job: j, start: int64(e.now())}
	result := Result{Ending: Drained}
	if j.Peer != nil {
		if a.peer, ok = takeFD(j.Peer.Conn); !ok {
			result = Result{Ending: Failed, Err: errTaken}
			_ = j.Peer.Conn.Close()
		}
		a.early = j.Peer.Early
	}
	a.job.Client, a.job.Peer = nil, nil
	if ok && rs.choose().push(a) {
		return true
	}
	sysClose(fd)
	if a.peer >= 0 {
		sysClose(a.peer)
	}
	defer e.left()
	j.Exchange.Done(result)
	return true
}

var errTaken = errors.New("tunnel: the upstream's descriptor cannot be had")

func isTCP(c net.Conn) bool {
	_, ok := c.(*net.TCPConn)
	return ok
}

// choose returns a reactor that has the fewest connections. Tunnels stay where they are
// put: two busy ones more on one processor than on the next would be felt for their lives.
func (rs *reactors) choose() *reactor {
	n := uint32(len(rs.all))
	first := rs.next.Add(1)
	best := rs.all[first%n]
	least := best.load.Load()
	for i := uint32(1); i < n && least > 0; i++ {
		r := rs.all[(first+i)%n]
		if load := r.load.Load(); load < least {
			best, least = r, load
		}
	}
	return best
}

// each has every reactor run f, and returns the sum when all have.
func (rs *reactors) each(f func(*reactor) int) int {
	sums := make(chan int, len(rs.all))
	asked := 0
	for _, r := range rs.all {
		if r.post(func() { sums <- f(r) }) {
			asked++
		}
	}
	n := 0
	for range asked {
		n += <-sums
	}
	return n
}

// cut ends the tunnels that which says.
func (rs *reactors) cut(e Ending, which func(Exchange) bool) int {
	return rs.each(func(r *reactor) int {
		n := 0
		r.slab.each(func(t *tunnel) {
			if t.exchange != nil && r.cutOne(t, e, which) {
				n++
			}
		})
		return n
	})
}

func (r *reactor) cutOne(t *tunnel, e Ending, which func(Exchange) bool) bool {
	defer r.rescue(t, t.generation)
	return which(t.exchange) && r.abort(t, e)
}

// stop ends everything; the reactors' goroutines end soon after.
func (rs *reactors) stop() {
	rs.stopServing()
	for _, r := range rs.all {
		r.post(func() {
			r.stopping = true
			r.slab.each(func(t *tunnel) { r.cutAny(t) })
		})
	}
}

func (r *reactor) cutAny(t *tunnel) {
	defer r.rescue(t, t.generation)
	r.abort(t, Drained)
}

// visitors is how many connections wait for a head to be judged.
func (rs *reactors) visitors() int {
	n := int64(0)
	for _, r := range rs.all {
		n += r.visitors.Load()
	}
	return int(n)
}

// serve accepts from l until stopServing.
func (rs *reactors) serve(e *Engine, l *net.TCPListener, to Reception) error {
	if !rs.any() {
		return errors.Join(errors.ErrUnsupported, l.Close())
	}
	file, err := l.File() // a descriptor of its own that can be waited for
	_ = l.Close()
	if err != nil {
		return fmt.Errorf("tunnel: listener: %w", err)
	}
	wait, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("tunnel: listener: %w", err)
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed {
		_ = file.Close()
		return net.ErrClosed
	}
	rs.listeners = append(rs.listeners, file)
	a := &acceptor{engine: e, reactors: rs, reception: &to, wait: wait}
	rs.accepting.Go(a.run)
	return nil
}

// stopServing closes the listeners, and visitors who have sent nothing.
func (rs *reactors) stopServing() {
	rs.mu.Lock()
	rs.closed = true
	for _, l := range rs.listeners {
		_ = l.Close()
	}
	rs.listeners = nil
	rs.mu.Unlock()
	rs.accepting.Wait()
	rs.each(func(r *reactor) int { r.dismiss(); return 0 })
}

// acceptor accepts for one listener.
type acceptor struct {
	engine    *Engine
	reactors  *reactors
	reception *Reception
	wait      syscall.RawConn
	batch     []arrival
	errno     syscall.Errno
}

// run ends when the listener is closed.
func (a *acceptor) run() {
	accept := a.accept // a method value is an allocation: once
	for {
		for n := 0; n < crowdPauses && a.crowded(); n++ {
			time.Sleep(crowdPause)
		}
		err := a.wait.Read(accept)
		a.distribute()
		if err != nil {
			return
		}
		if a.errno == errAgain || a.errno == 0 {
			continue
		}
		if a.reception.Trouble != nil {
			a.reception.Trouble(a.errno)
		}
		time.Sleep(acceptPause)
	}
}

// crowded asks the front. A bug in it must not end the listener.
func (a *acceptor) crowded() bool {
	if a.reception.Crowded == nil {
		return false
	}
	defer func() {
		if bug := recover(); bug != nil {
			a.engine.trouble(panicError(bug))
		}
	}()
	return a.reception.Crowded()
}

// accept takes what waits, up to a batch. Those who are turned away count, too: they may
// come as fast as they are.
func (a *acceptor) accept(fd uintptr) bool {
	a.errno = 0
	for range acceptAtOnce {
		if len(a.batch) > 0 && a.crowded() {
			break // the batch must get to where there is room to be made
		}
		conn, peer, errno := sysAccept(int32(fd))
		if errno != 0 {
			a.errno = errno
			break
		}
		v, reply := a.arrive(peer)
		if v == nil && (len(reply) == 0 || a.engine.away.Add(1) > maxAway) {
			if len(reply) > 0 {
				a.engine.away.Add(-1)
			}
			sysClose(conn)
			continue
		}
		a.batch = append(a.batch, arrival{
			client: conn, peer: -1, reception: a.reception, visitor: v, reply: reply, start: int64(a.engine.now()),
		})
	}
	return len(a.batch) > 0 || a.errno != errAgain
}

// arrive asks the front. A bug in it costs one connection and not the listener.
func (a *acceptor) arrive(peer netip.AddrPort) (v Visitor, reply []byte) {
	defer func() {
		if bug := recover(); bug != nil {
			v, reply = nil, nil
			a.engine.trouble(panicError(bug))
		}
	}()
	return a.reception.Arrive(peer)
}

// turnedBack tells a visitor that came too late for any reactor.
func (a *acceptor) turnedBack(v Visitor) {
	defer func() {
		if bug := recover(); bug != nil {
			a.engine.trouble(panicError(bug))
		}
	}()
	v.Gone()
}

// distribute gives the batch to the reactors in equal parts, of a connection each where
// there are few.
func (a *acceptor) distribute() {
	n := len(a.reactors.all)
	for rest := a.batch; len(rest) > 0; {
		share := min(max(len(a.batch)/n, 1), len(rest))
		part := rest[:share]
		rest = rest[share:]
		if a.reactors.choose().push(part...) {
			continue
		}
		for _, one := range part { // the engine has ended
			sysClose(one.client)
			if one.visitor != nil {
				a.turnedBack(one.visitor)
			} else {
				a.engine.away.Add(-1)
			}
		}
	}
	clear(a.batch)
	a.batch = a.batch[:0]
}
