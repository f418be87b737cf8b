package upstream

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"maskrelay/upstream/vendor"
)

// EventKind is what happened to a gateway, from a closed set.
type EventKind string

// The kinds.
const (
	EventDown        EventKind = "down"         // it gets no exchanges while another gateway can
	EventUp          EventKind = "up"           // it gets exchanges again
	EventTrouble     EventKind = "trouble"      // it refuses exchanges for a reason that the operator should know
	EventTroubleOver EventKind = "trouble_over" // it serves again, and has not refused for that reason for a minute
)

// Event is what an operator should know of a gateway. It is for logs: Err holds
// addresses and must not reach a customer. It shows no credential.
type Event struct {
	Gateway string
	Kind    EventKind
	Cause   Cause  // empty with EventUp
	Advice  string // a sentence that says what to do; may be empty
	// For is how long the gateway was down, or how long the trouble has lasted.
	For time.Duration
	Err error // the last failure; with EventUp nil, or why a gateway comes back untried
}

const (
	// eventQueue is how many events wait for a slow Notify; any more are lost.
	eventQueue = 256
	// troubleAgain is when a trouble that lasts, or comes and goes, is told again.
	troubleAgain = 10 * time.Minute
	// troubleCalm is for how long a trouble must not have been seen to be over.
	troubleCalm = time.Minute
)

// errRecalled is why an ejected gateway comes back before its time.
var errRecalled = errors.New("no other gateway of the pool is left")

// events passes events on to Notify, one at a time and in their order.
type events struct {
	notify func(Event) // nil = nobody wants to know
	queue  chan Event
}

func newEvents(notify func(Event)) *events {
	return &events{notify: notify, queue: make(chan Event, eventQueue)}
}

// send never blocks: it is called under locks.
func (q *events) send(e Event) {
	if q.notify == nil {
		return
	}
	select {
	case q.queue <- e:
	default:
	}
}

// deliver calls Notify until ctx ends, and then for what is left.
func (q *events) deliver(ctx context.Context) {
	for {
		select {
		case e := <-q.queue:
			q.notify(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-q.queue:
					q.notify(e)
				default:
					return
				}
			}
		}
	}
}

// advices are for what no preset speaks of: the connection itself. Of all other causes
// each preset has a sentence.
var advices = map[Cause]string{
	CauseResolve:   "check the gateway's host name and this host's name server",
	CauseRefused:   "check the gateway's host and port, and that this host may connect to it",
	CauseTLS:       "check that the gateway speaks TLS on this port, its certificate, and the CA file",
	CauseClosed:    "the gateway hangs up instead of answering: check the scheme and the port, then ask the vendor",
	CauseMalformed: "what answers there is no proxy of this scheme: check the scheme and the port",
	CauseBody:      "the gateway's answers to CONNECT make no sense: check that it is a proxy",
	CauseSlow:      "the gateway takes much longer than the others: see the vendor's status page or choose a nearer one",
}

// advice says what to do about a cause: what the vendor's preset says, or what holds for
// every gateway.
func (g *gateway) advice(c Cause, err error) string {
	var failure *ConnectError
	if errors.As(err, &failure) && failure.Advice != "" && failure.Cause == c {
		return failure.Advice
	}
	return cmp.Or(g.Vendor.Advice(vendor.Cause(c)), advices[c])
}

// troubleCauses are the refusals that an operator should know of, though a gateway that
// refuses so is not down. A target that the vendor does not serve is among them: he can
// open it, or another vendor serves it. From probeTroubles on they are so of the health
// target alone: which targets of customers do not answer is not the operator's affair.
var troubleCauses = [...]Cause{
	CauseAuth, CauseQuota, CauseRate,
	Cause(vendor.CauseThreads), Cause(vendor.CauseParams), Cause(vendor.CauseNoExit),
	CauseForbidden,
	Cause(vendor.CauseTargetDNS), Cause(vendor.CauseUnreachable),
}

const probeTroubles = 7

// troubles are what a gateway's answers say to the operator. Attempts note what they
// see, a goroutine of Run makes events of it.
type troubles struct {
	served atomic.Int64 // moment of the last success, to the second
	seen   [len(troubleCauses)]sighting
}

// sighting is one trouble.
type sighting struct {
	at  atomic.Int64 // moment, the last time
	err atomic.Pointer[ConnectError]

	// Of the goroutine that makes events alone.
	active bool   // told, and not over yet
	begun  moment // while active
	told   moment // the last time
}

func (t *troubles) start() {
	t.served.Store(noMoment)
	for i := range t.seen {
		t.seen[i].at.Store(noMoment)
		t.seen[i].told = noMoment
	}
}

// see notes an attempt's end; nil is a success. A customer's own login is his own affair.
func (t *troubles) see(e *ConnectError, m moment) { t.look(e, m, troubleCauses[:probeTroubles]) }

// seeProbe is see for a probe of the health target.
func (t *troubles) seeProbe(e *ConnectError, m moment) { t.look(e, m, troubleCauses[:]) }

func (t *troubles) look(e *ConnectError, m moment, among []Cause) {
	if e == nil {
		if last := t.served.Load(); last == noMoment || int64(m)-last > int64(time.Second) {
			t.served.Store(int64(m))
		}
		return
	}
	if e.own {
		return
	}
	for i, c := range among {
		if c == e.Cause {
			t.seen[i].at.Store(int64(m))
			t.seen[i].err.Store(e)
			return
		}
	}
}

// tell makes events of what was seen since it was called last.
func (t *troubles) tell(g *gateway, q *events, now time.Time) {
	m := momentOf(now)
	for i := range t.seen {
		s := &t.seen[i]
		at := s.at.Load()
		if at == noMoment {
			continue
		}
		due := s.told == noMoment || time.Duration(m-s.told) >= troubleAgain
		recent := time.Duration(m-moment(at)) < troubleCalm
		switch {
		case recent && due:
			if !s.active {
				s.active, s.begun = true, moment(at)
			}
			s.told = m
			q.send(s.event(g, EventTrouble, troubleCauses[i], m))
		case s.active && !recent && t.served.Load() > at:
			s.active = false
			q.send(s.event(g, EventTroubleOver, troubleCauses[i], m))
		}
	}
}

func (s *sighting) event(g *gateway, kind EventKind, c Cause, m moment) Event {
	e := Event{Gateway: g.Name, Kind: kind, Cause: c, For: time.Duration(m - s.begun)}
	if failure := s.err.Load(); failure != nil {
		e.Err = failure
		if kind == EventTrouble {
			e.Advice = g.advice(c, failure)
		}
	}
	return e
}
