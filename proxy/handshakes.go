package proxy

import (
	"container/list"
	"errors"
	"runtime"
	"sync"
	"time"
)

// handshakes lets few TLS handshakes compute at once: a signature each, in turn by origin, so that one which floods the
// relay with them waits for itself. Those who wait are strangers, and so bounded in all and for each origin, and wait no
// longer than a head may take. A connection takes its turn only once its ClientHello has come, and gives it back before
// it waits for the customer: being slow keeps nobody from a turn. Use newHandshakes.
type handshakes struct {
	strangers *strangers

	mu      sync.Mutex // guards what follows
	free    int
	lanes   map[origin]*lane
	next    *list.List // of lanes, with somebody in each, in turn
	waiting int
}

// lane is the turns of one origin that are waited for, in order.
type lane struct {
	from  origin
	turns *list.List
	place *list.Element // in handshakes.next
}

// turn is one that is waited for. granted is closed when it comes.
type turn struct {
	granted chan struct{}
	lane    *lane
	place   *list.Element // in the lane; nil once granted
}

var errNoTurn = errors.New("proxy: no turn for a TLS handshake")

// handshakesAtOnce leaves a processor for those who have a connection already.
func handshakesAtOnce() int { return max(runtime.GOMAXPROCS(0)-1, 1) }

func newHandshakes(s *strangers, atOnce int) *handshakes {
	return &handshakes{strangers: s, free: atOnce, lanes: make(map[origin]*lane), next: list.New()}
}

// take waits for x's turn until the deadline, or until x is told to go. The turn is given back with give, once.
func (h *handshakes) take(x *stranger, from origin, deadline time.Time) error {
	t := h.lineUp(from)
	if t == nil {
		return nil
	}
	quits := h.strangers.quits(x)
	defer h.strangers.ends(x)
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-t.granted:
		return nil
	case <-timer.C:
	case <-quits:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.place == nil { // it has come in the meantime
		return nil
	}
	h.leaveLocked(t)
	return errNoTurn
}

// lineUp takes a turn at once, which is nil, or a place in the lane.
func (h *handshakes) lineUp(from origin) *turn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free > 0 {
		h.free--
		return nil
	}
	r := h.lanes[from]
	if r == nil {
		r = &lane{from: from, turns: list.New()}
		r.place = h.next.PushBack(r)
		h.lanes[from] = r
	}
	t := &turn{granted: make(chan struct{}), lane: r}
	t.place = r.turns.PushBack(t)
	h.waiting++
	return t
}

// leaveLocked takes a turn that nobody waits for any more out of its lane.
func (h *handshakes) leaveLocked(t *turn) {
	r := t.lane
	r.turns.Remove(t.place)
	t.place = nil
	h.waiting--
	if r.turns.Len() == 0 {
		h.next.Remove(r.place)
		delete(h.lanes, r.from)
	}
}

// give ends a turn: the next origin's first one has it.
func (h *handshakes) give() {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.next.Front()
	if e == nil {
		h.free++
		return
	}
	h.next.MoveToBack(e)
	t := e.Value.(*lane).turns.Front().Value.(*turn)
	h.leaveLocked(t)
	close(t.granted)
}

// inLine is how many wait for a turn.
func (h *handshakes) inLine() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting
}
