package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const (
	mobWorkers = 8
	mobNice    = 15
	mobThreads = 4 * mobWorkers   // more than any mob has workers at a time
	mobLimit   = 10 * time.Second // of one connection of the mob's
	mobMost    = 60_000           // connections that a mob opens
)

// mob is those who abuse a relay. All that they open and start ends with them.
type mob struct {
	t       *testing.T
	stop    chan struct{}
	workers sync.WaitGroup
	opened  atomic.Int64

	mu       sync.Mutex // guards what follows
	conns    map[net.Conn]struct{}
	statuses map[int]int // of the answers that they were given; 0 is none
	oldest   time.Duration
}

func newMob(t *testing.T) *mob {
	return &mob{t: t, stop: make(chan struct{}), conns: map[net.Conn]struct{}{}, statuses: map[int]int{}}
}

// String says what they did.
func (m *mob) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%d connections, answers %v, the oldest lived %v", m.opened.Load(), m.statuses, m.oldest.Round(time.Millisecond))
}

// end ends their connections and waits for all of them.
func (m *mob) end() {
	close(m.stop)
	m.mu.Lock()
	for c := range m.conns {
		_ = c.Close() // that is what ends its owner
	}
	m.mu.Unlock()
	m.workers.Wait()
}

func (m *mob) ended() bool {
	select {
	case <-m.stop:
		return true
	default:
		return false
	}
}

// mobAddr is one of their addresses.
func mobAddr(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/250%250, 1+i%250) }

// dial opens a connection that leaves no port waiting. Only one whose end the mob sees must be closed by leave.
func (m *mob) dial(addr, from string) (net.Conn, error) {
	if m.ended() || m.opened.Add(1) > mobMost {
		return nil, net.ErrClosed
	}
	ctx, cancel := context.WithTimeout(context.Background(), mobLimit)
	defer cancel()
	d := lab.DialerFrom(from)
	c, err := d.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	_ = c.(*net.TCPConn).SetLinger(0) // it is open
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended() {
		_ = c.Close() // nobody else will
		return nil, net.ErrClosed
	}
	m.conns[c] = struct{}{}
	return c, c.SetDeadline(time.Now().Add(mobLimit))
}

// leave closes one.
func (m *mob) leave(c net.Conn) {
	m.mu.Lock()
	delete(m.conns, c)
	m.mu.Unlock()
	_ = c.Close() // the relay may have ended it
}

func (m *mob) answered(status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.statuses[status]++
}

// answers is how many there were with one of the statuses, and how many with others; none is no answer.
func (m *mob) answers(want ...int) (right, other int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for status, n := range m.statuses {
		other += n
		for _, w := range want {
			if w == status {
				right += n
				other -= n
			}
		}
	}
	return right, other
}

// niceThreads run what they are given, on threads that give way to others: the mob's work is that of other machines, and must not be what slows the
// well-behaved customer down. They live as long as the process: a thread that ends takes the children with it that were started on it (Pdeathsig), and one that was
// made to give way cannot be made equal again.
var niceThreads = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	for range mobThreads {
		go func() {
			runtime.LockOSThread()
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, mobNice) // to give way is always allowed
			for job := range jobs {
				job()
			}
		}()
	}
	return jobs
})

// goNice runs f beside the others, as one of the mob's workers.
func (m *mob) goNice(f func()) {
	m.workers.Add(1)
	niceThreads() <- func() {
		defer m.workers.Done()
		f()
	}
}

// work has workers do something again and again until the mob ends. A worker whose connection could not be opened goes on: that is his trouble.
func (m *mob) work(workers int, do func(worker int)) {
	for w := range workers {
		m.goNice(func() {
			for !m.ended() && m.opened.Load() < mobMost {
				do(w)
			}
		})
	}
}

// ask sends a text on a new connection and notes the answer's status.
func (m *mob) ask(addr, from, text string) {
	c, err := m.dial(addr, from)
	if err != nil {
		return
	}
	defer m.leave(c)
	m.askOn(c, text)
}

func (m *mob) askOn(c net.Conn, text string) {
	sent := make(chan struct{})
	go func() { // the answer may come before all is sent
		defer close(sent)
		_, _ = io.WriteString(c, text) // the relay may have had enough
	}()
	r := bufio.NewReaderSize(c, 512)
	resp, err := http.ReadResponse(r, nil)
	status := 0
	if err == nil {
		status = resp.StatusCode
		_ = resp.Body.Close() // what is left of it goes with the connection
	}
	if !m.ended() {
		m.answered(status)
	}
	_ = c.SetDeadline(time.Now()) // it is open; ends the sending
	<-sent
}

// slow is one connection of a slow attack.
type slow struct {
	conn  net.Conn
	since time.Time
	sent  int
}

// trickle keeps n connections to addr open, sends on each the first bytes of a text at once and then one byte each time that the others have had
// their turn, and opens another in the place of each that the relay ends. It returns when all were opened once.
func (m *mob) trickle(n int, addr string, text string, first int) {
	var opened sync.WaitGroup
	opened.Add(mobWorkers)
	for w := range mobWorkers {
		all := make([]slow, n/mobWorkers)
		m.goNice(func() {
			round := func() {
				for i := range all {
					m.drip(&all[i], addr, mobAddr(w*len(all)+i), text, first)
				}
			}
			round()
			opened.Done()
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-m.stop:
					return
				case <-tick.C:
					round()
				}
			}
		})
	}
	opened.Wait()
}

// drip sends the next byte, if there is one, and begins anew where the relay has ended the connection.
func (m *mob) drip(s *slow, addr, from, text string, first int) {
	if s.conn == nil {
		c, err := m.dial(addr, from)
		if err != nil {
			return
		}
		*s = slow{conn: c, since: time.Now(), sent: first}
		_, _ = io.WriteString(c, text[:first]) // the next write tells
		return
	}
	age := time.Since(s.since)
	next := min(s.sent+1, len(text))
	_, err := io.WriteString(s.conn, text[s.sent:next])
	if err == nil && (next > s.sent || !ended(s.conn)) {
		s.sent = next
		m.aged(age)
		return
	}
	m.leave(s.conn)
	s.conn = nil
}

// aged notes that a connection has lived that long.
func (m *mob) aged(age time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.oldest = max(m.oldest, age)
}

// hold opens n connections, keeps them, and returns those that there are in the order in which they were opened.
func (m *mob) hold(n int, open func(i int) (net.Conn, error)) (all []net.Conn) {
	var next atomic.Int64
	var workers sync.WaitGroup
	var mu sync.Mutex // guards all
	workers.Add(mobWorkers)
	for range mobWorkers {
		m.goNice(func() {
			defer workers.Done()
			for i := int(next.Add(1)) - 1; i < n && !m.ended(); i = int(next.Add(1)) - 1 {
				if c, err := open(i); err == nil {
					mu.Lock()
					all = append(all, c)
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	return all
}

// say dials and sends a text.
func (m *mob) say(addr, from, text string) (net.Conn, error) {
	c, err := m.dial(addr, from)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, text); err != nil {
		m.leave(c)
		return nil, err
	}
	return c, nil
}

// alive returns which of the connections the relay has not ended.
func alive(conns []net.Conn) (which []int) {
	for i, c := range conns {
		if !ended(c) {
			which = append(which, i)
		}
	}
	return which
}

// ended reports whether the relay has ended a connection; what it has sent before is dropped.
func ended(c net.Conn) bool {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	over := false
	b := make([]byte, 4096)
	err = raw.Control(func(fd uintptr) {
		for {
			n, _, err := syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT)
			if n > 0 || errors.Is(err, syscall.EINTR) {
				continue
			}
			over = !errors.Is(err, syscall.EAGAIN)
			return
		}
	})
	return over || err != nil
}
