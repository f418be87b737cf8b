package upstream

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/upstream/vendor"
)

// ward is a pool whose gateways' health is played with on a clock of the test's own.
type ward struct {
	*testing.T
	pool *Pool
	now  time.Time
}

func newWard(t *testing.T, gateways int) *ward {
	t.Helper()
	p := literalPool(t, gateways, Options{Notify: func(Event) {}})
	p.overseer.spread = func(d time.Duration) time.Duration { return d }
	return &ward{T: t, pool: p, now: time.Now().Add(time.Hour)} // long up: the first back-off is the first
}

func (w *ward) health(i int) *health { return &w.pool.gateways[i].health }

func (w *ward) wait(d time.Duration) { w.now = w.now.Add(d) }

// serve and fail play n attempts, one after the other.
func (w *ward) serve(i, n int) { w.attempts(i, n, nil) }

func (w *ward) fail(i, n int, c Cause) {
	w.attempts(i, n, &ConnectError{Gateway: w.pool.gateways[i].Name, Phase: PhaseConnect, Cause: c, Err: io.EOF})
}

// miss plays n connections that were refused.
func (w *ward) miss(i, n int) {
	w.attempts(i, n, &ConnectError{Gateway: w.pool.gateways[i].Name, Phase: PhaseDial, Cause: CauseRefused, Err: syscall.ECONNREFUSED})
}

func (w *ward) attempts(i, n int, e *ConnectError) {
	for range n {
		w.wait(time.Millisecond)
		w.health(i).report(e, time.Millisecond, w.now)
	}
}

func (w *ward) state(i int) GatewayState {
	_, state, _ := w.health(i).judged(w.now)
	return state
}

func (w *ward) want(states ...GatewayState) {
	w.Helper()
	var got []GatewayState
	for i := range w.pool.gateways {
		got = append(got, w.state(i))
	}
	if !slices.Equal(got, states) {
		w.Errorf("%v, want %v", got, states)
	}
}

// events are those sent since the last call, "g0 down server".
func (w *ward) events() (all []Event) {
	for {
		select {
		case e := <-w.pool.overseer.events.queue:
			all = append(all, e)
		default:
			return all
		}
	}
}

func (w *ward) wantEvents(want ...string) {
	w.Helper()
	got := []string{}
	for _, e := range w.events() {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Gateway, e.Kind, e.Cause)))
	}
	if !slices.Equal(got, want) {
		w.Errorf("events %q, want %q", got, want)
	}
}

const (
	up, half, out, gone = StateUp, StateHalfOpen, StateEjected, StateUnreachable
)

// eject has a gateway ejected for its failures in a row.
func (w *ward) eject(i int) {
	w.Helper()
	w.fail(i, failuresInRow, CauseServer)
	if w.state(i) != out {
		w.Fatalf("not ejected but %s", w.state(i))
	}
}

func TestHealthTransitions(t *testing.T) {
	tests := map[string]struct {
		gateways int
		play     func(w *ward)
		want     []GatewayState
		events   []string
	}{
		"four in a row are chance": {2, func(w *ward) { w.fail(0, 4, CauseServer) }, []GatewayState{up, up}, nil},
		"five in a row eject":      {2, func(w *ward) { w.fail(0, 5, CauseServer) }, []GatewayState{out, up}, []string{"g0 down server"}},
		"a success between": {2, func(w *ward) {
			w.fail(0, 4, CauseServer)
			w.serve(0, 1)
			w.fail(0, 4, CauseServer)
		}, []GatewayState{up, up}, nil},
		"a target's refusal between does not help": {2, func(w *ward) {
			w.fail(0, 4, CauseServer)
			w.fail(0, 3, CauseForbidden)
			w.fail(0, 1, CauseServer)
		}, []GatewayState{out, up}, []string{"g0 down server"}},
		"failing half": {2, func(w *ward) {
			for range 10 {
				w.serve(0, 1)
				w.fail(0, 1, CauseClosed)
			}
		}, []GatewayState{out, up}, []string{"g0 down closed"}},
		"failing half, too few to tell": {2, func(w *ward) {
			for range 9 {
				w.serve(0, 1)
				w.fail(0, 1, CauseClosed)
			}
		}, []GatewayState{up, up}, nil},
		"failing a third": {2, func(w *ward) {
			for range 100 {
				w.serve(0, 2)
				w.fail(0, 1, CauseClosed)
			}
		}, []GatewayState{up, up}, nil},
		"old failures are forgotten": {2, func(w *ward) {
			for range 15 { // never five in a row
				w.fail(0, 1, CauseClosed)
				w.health(0).inRow.Store(0)
			}
			w.wait(windowSlots * windowSlot)
			w.fail(0, 1, CauseClosed)
			w.serve(0, 19)
			w.fail(0, 1, CauseClosed)
		}, []GatewayState{up, up}, nil},
		"the worst cause is told": {2, func(w *ward) {
			for range 5 {
				w.serve(0, 2)
				w.fail(0, 2, CauseMalformed)
				w.fail(0, 1, CauseClosed)
			}
		}, []GatewayState{out, up}, []string{"g0 down malformed"}},
		"many in a row for a busy one": {2, func(w *ward) {
			w.serve(0, 2000)
			w.fail(0, 19, CauseServer)
		}, []GatewayState{up, up}, nil},
		"enough in a row for a busy one": {2, func(w *ward) {
			w.serve(0, 2000)
			w.fail(0, 25, CauseServer)
		}, []GatewayState{out, up}, []string{"g0 down server"}},
		"failing half after many successes": {2, func(w *ward) {
			w.serve(0, 2000)
			for range 120 {
				w.serve(0, 1)
				w.fail(0, 1, CauseServer)
			}
		}, []GatewayState{out, up}, []string{"g0 down server"}},
		"failing a third after many successes": {2, func(w *ward) {
			w.serve(0, 2000)
			for range 500 {
				w.serve(0, 2)
				w.fail(0, 1, CauseServer)
			}
		}, []GatewayState{up, up}, nil},
		"all failing half after many successes": {3, func(w *ward) {
			for i := range 3 {
				w.serve(i, 2000)
			}
			for range 200 {
				for i := range 3 {
					w.serve(i, 1)
					w.fail(i, 1, CauseServer)
				}
			}
		}, []GatewayState{up, up, up}, nil},
		"the other one's failures of long ago": {2, func(w *ward) {
			w.fail(1, 4, CauseServer)
			w.wait(windowSlots * windowSlot)
			w.fail(0, 5, CauseServer)
		}, []GatewayState{out, up}, []string{"g0 down server"}},
		"refused": {2, func(w *ward) { w.miss(0, 1) }, []GatewayState{gone, up}, []string{"g0 down refused"}},
		"refused once by a busy one": {2, func(w *ward) {
			w.serve(0, 1000)
			w.miss(0, 1)
		}, []GatewayState{up, up}, nil},
		"refused by a busy one": {2, func(w *ward) {
			w.serve(0, 1000)
			w.miss(0, 11)
		}, []GatewayState{gone, up}, []string{"g0 down refused"}},
		"the last one stays": {1, func(w *ward) { w.fail(0, 100, CauseServer) }, []GatewayState{up}, nil},
		"the last one but for unreachable ones stays": {2, func(w *ward) {
			w.miss(1, 1)
			w.events()
			w.fail(0, 100, CauseServer)
		}, []GatewayState{up, gone}, nil},
		"the last one that is unreachable goes": {1, func(w *ward) { w.miss(0, 1) }, []GatewayState{gone}, []string{"g0 down refused"}},
		"ejected ones come back for the last one": {3, func(w *ward) {
			w.eject(0)
			w.miss(1, 1)
			w.events()
			w.miss(2, 1)
		}, []GatewayState{up, gone, gone}, []string{"g2 down refused", "g0 up"}},
		"none does better": {3, func(w *ward) {
			for range 20 {
				for i := range 3 {
					w.fail(i, 1, CauseServer)
				}
			}
		}, []GatewayState{up, up, up}, nil},
		"one of three does better": {3, func(w *ward) {
			w.serve(2, 5)
			w.fail(1, 3, CauseServer)
			w.fail(0, 5, CauseServer)
		}, []GatewayState{out, up, up}, []string{"g0 down server"}},
		"another pool's does not help": {2, func(w *ward) {
			g := w.pool.gateways[0]
			g.siblings = func() []*gateway { return []*gateway{g} }
			w.fail(0, 100, CauseServer)
		}, []GatewayState{up, up}, nil},
		"the back-off ends": {2, func(w *ward) {
			w.eject(0)
			w.events()
			w.wait(backoffMin)
		}, []GatewayState{half, up}, nil},
		"a success while ejected": {2, func(w *ward) {
			w.eject(0)
			w.events()
			w.serve(0, 10)
		}, []GatewayState{out, up}, nil},
		"two trials are not enough": {2, func(w *ward) {
			w.eject(0)
			w.events()
			w.wait(backoffMin)
			w.serve(0, 2)
		}, []GatewayState{half, up}, nil},
		"three trials": {2, func(w *ward) {
			w.eject(0)
			w.wait(backoffMin)
			w.serve(0, 3)
		}, []GatewayState{up, up}, []string{"g0 down server", "g0 up"}},
		"a failed trial starts the count again": {2, func(w *ward) {
			w.eject(0)
			w.events()
			w.wait(backoffMin)
			w.serve(0, 2)
			w.fail(0, 1, CauseServer)
			w.wait(2 * backoffMin)
			w.serve(0, 2)
		}, []GatewayState{half, up}, nil},
		"what began within the back-off is no trial": {2, func(w *ward) {
			w.eject(0)
			w.events()
			w.wait(backoffMin + time.Second)
			for range 5 {
				w.health(0).report(nil, 2*time.Second, w.now)
				w.health(0).report(&ConnectError{Phase: PhaseConnect, Cause: CauseServer}, 2*time.Second, w.now)
			}
		}, []GatewayState{half, up}, nil},
		"a passed probe of the health target": {2, func(w *ward) {
			w.eject(0)
			w.pool.overseer.probed(w.health(0), nil, time.Millisecond, w.now) // too early
			w.want(out, up)
			w.wait(backoffMin + time.Second)
			w.pool.overseer.probed(w.health(0), nil, time.Millisecond, w.now)
		}, []GatewayState{up, up}, []string{"g0 down server", "g0 up"}},
		"two failed probes of the health target": {2, func(w *ward) {
			refused := &ConnectError{Phase: PhaseConnect, Cause: CauseQuota}
			for _, e := range []*ConnectError{refused, nil, refused} {
				w.pool.overseer.probed(w.health(0), e, time.Millisecond, w.now)
			}
			w.want(up, up)
			w.pool.overseer.probed(w.health(0), refused, time.Millisecond, w.now)
		}, []GatewayState{out, up}, []string{"g0 down quota"}},
		"a target's refusal is no trial": {2, func(w *ward) {
			w.eject(0)
			w.events()
			w.wait(backoffMin)
			w.serve(0, 2)
			w.fail(0, 5, CauseForbidden)
		}, []GatewayState{half, up}, nil},
		"a failed trial doubles the back-off": {2, func(w *ward) {
			w.eject(0)
			w.events()
			w.wait(backoffMin)
			w.serve(0, 2)
			w.fail(0, 1, CauseServer)
			w.wait(backoffMin + time.Second)
		}, []GatewayState{out, up}, nil},
		"an unreachable one answers": {2, func(w *ward) {
			w.miss(0, 3)
			w.serve(0, 1)
		}, []GatewayState{up, up}, []string{"g0 down refused", "g0 up"}},
		"an unreachable one refuses": {1, func(w *ward) {
			w.miss(0, 1)
			w.fail(0, 1, CauseAuth)
		}, []GatewayState{up}, []string{"g0 down refused", "g0 up"}},
		"an ejected one goes away": {2, func(w *ward) {
			w.eject(0)
			w.miss(0, 1)
		}, []GatewayState{gone, up}, []string{"g0 down server", "g0 down refused"}},
		"one that comes and goes waits": {2, func(w *ward) {
			w.miss(0, 1)
			w.serve(0, 1)
			w.miss(0, 1)
			w.events()
			w.serve(0, 3)
			w.wait(backoffMin + time.Second)
		}, []GatewayState{gone, up}, nil},
		"one that comes and goes is back in the end": {2, func(w *ward) {
			w.miss(0, 1)
			w.serve(0, 1)
			w.miss(0, 1)
			w.events()
			w.wait(2 * backoffMin)
			w.serve(0, 1)
		}, []GatewayState{up, up}, []string{"g0 up"}},
		"the only one does not wait": {1, func(w *ward) {
			w.miss(0, 1)
			w.serve(0, 1)
			w.miss(0, 1)
			w.events()
			w.serve(0, 1)
		}, []GatewayState{up}, []string{"g0 up"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWard(t, test.gateways)
			test.play(w)
			w.want(test.want...)
			w.wantEvents(test.events...)
		})
	}
}

// What began before a gateway was ejected, or came back, changes nothing any more.
func TestLateReportsAreIgnored(t *testing.T) {
	w := newWard(t, 2)
	w.eject(0)
	w.wait(backoffMin)
	for range 10 {
		w.health(0).report(nil, backoffMin+time.Second, w.now)
	}
	w.want(half, up)
	w.serve(0, trialsInRow)
	w.want(up, up)
	for range 10 {
		w.wait(time.Millisecond)
		w.health(0).report(&ConnectError{Phase: PhaseConnect, Cause: CauseTimeout}, time.Minute, w.now)
	}
	w.want(up, up)
	if n := w.health(0).window.sum(momentOf(w.now)).attempts(); n != 0 {
		t.Errorf("%d attempts are counted", n)
	}
}

func TestBackoffGrowsAndIsForgotten(t *testing.T) {
	w := newWard(t, 2)
	w.eject(0)
	want := backoffMin
	for range 10 {
		if got := w.health(0).judgement.backoff; got != want {
			t.Errorf("back-off %s, want %s", got, want)
		}
		w.wait(want - 2*time.Millisecond)
		w.want(out, up)
		w.wait(2 * time.Millisecond)
		w.want(half, up)
		w.fail(0, 1, CauseServer)
		want = min(2*want, backoffMax)
	}
	w.wait(backoffMax)
	w.serve(0, trialsInRow)
	w.want(up, up)
	w.wait(2*backoffMax - time.Second)
	w.eject(0)
	if got := w.health(0).judgement.backoff; got != backoffMax {
		t.Errorf("back-off %s soon after the return", got)
	}
	w.wait(backoffMax)
	w.serve(0, trialsInRow)
	w.wait(2 * backoffMax)
	w.eject(0)
	if got := w.health(0).judgement.backoff; got != backoffMin {
		t.Errorf("back-off %s after a calm time", got)
	}
}

func TestBackoffsAreSpread(t *testing.T) {
	lo, hi := backoffMax, time.Duration(0)
	for range 1000 {
		d := spread(backoffMin)
		lo, hi = min(lo, d), max(hi, d)
	}
	if lo < 4*time.Second || hi > 6*time.Second || hi-lo < time.Second {
		t.Errorf("from %s to %s", lo, hi)
	}
}

func TestHalfOpenTakesOneAtATime(t *testing.T) {
	w := newWard(t, 2)
	h := w.health(0)
	for range 2 {
		if !h.chosen(w.now) {
			t.Error("an up gateway has trials")
		}
	}
	w.eject(0)
	if h.usable(w.now) || h.chosen(w.now) || h.hopeful(w.now) {
		t.Error("usable within the back-off")
	}
	w.wait(backoffMin)
	take := func(what string) {
		t.Helper()
		if !h.usable(w.now) || !h.chosen(w.now) {
			t.Fatalf("%s: no trial", what)
		}
		if h.usable(w.now) || h.chosen(w.now) || !h.hopeful(w.now) {
			t.Errorf("%s: a second trial at once", what)
		}
	}
	take("first")
	// An exchange that began long ago does not end the trial of another.
	h.report(&ConnectError{Phase: PhaseConnect, Cause: CauseCanceled}, time.Second, w.now)
	if h.usable(w.now) {
		t.Error("the trial was ended by another exchange")
	}
	ends := map[string]*ConnectError{
		"success":         nil,
		"customer left":   {Phase: PhaseConnect, Cause: CauseCanceled},
		"gateway full":    fullError(),
		"target's affair": {Phase: PhaseConnect, Cause: CauseForbidden},
	}
	for what, e := range ends {
		w.wait(time.Second)
		h.report(e, time.Second, w.now)
		take(what)
	}
	w.wait(w.pool.overseer.longest)
	take("given up")
	w.wait(time.Second)
	h.report(&ConnectError{Phase: PhaseConnect, Cause: CauseServer}, time.Second, w.now)
	w.want(out, up)
	if h.usable(w.now) {
		t.Error("usable after a failed trial")
	}
}

func TestSlowGatewayIsEjected(t *testing.T) {
	tests := map[string]struct {
		own, rest   time.Duration
		n, ofOthers int
		want        GatewayState
	}{
		"slow":             {2 * time.Second, 500 * time.Millisecond, slowSamples, slowSamples, out},
		"not that slow":    {1900 * time.Millisecond, 100 * time.Millisecond, slowSamples, slowSamples, up},
		"others slow, too": {3 * time.Second, time.Second, slowSamples, slowSamples, up},
		"too few":          {9 * time.Second, time.Millisecond, slowSamples - 1, slowSamples, up},
		"others too few":   {9 * time.Second, time.Millisecond, slowSamples, slowSamples/2 - 1, up},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWard(t, 3)
			for range test.n {
				w.health(0).report(nil, test.own, w.now)
			}
			for range test.ofOthers { // each
				w.health(1).report(nil, test.rest, w.now)
				w.health(2).report(nil, test.rest, w.now)
			}
			w.pool.compareAt(w.now)
			w.want(test.want, up, up)
			if test.want == up {
				w.wantEvents()
				return
			}
			w.wantEvents("g0 down slow")
			w.wait(backoffMin + 5*time.Second)
			w.health(0).report(nil, 3*time.Second, w.now)
			w.want(out, up, up) // still slow
			w.wait(2*backoffMin + 5*time.Second)
			w.serve(0, trialsInRow)
			w.want(up, up, up)
		})
	}
}

func TestBlame(t *testing.T) {
	const own, wishes = 1, 2
	fail := func(c Cause, flags int) *ConnectError {
		return &ConnectError{Phase: PhaseConnect, Cause: c, own: flags&own != 0, wishes: flags&wishes != 0}
	}
	tests := map[string]struct {
		e    *ConnectError
		want blame
	}{
		"success":                 {nil, blameNone},
		"left":                    {fail(CauseCanceled, 0), blameNothing},
		"left dialling":           {&ConnectError{Phase: PhaseDial, Cause: CauseCanceled}, blameNothing},
		"full":                    {fullError(), blameNothing},
		"resolve":                 {&ConnectError{Phase: PhaseResolve, Cause: CauseResolve}, blameReach},
		"refused":                 {&ConnectError{Phase: PhaseDial, Cause: CauseRefused}, blameReach},
		"dial timeout":            {&ConnectError{Phase: PhaseDial, Cause: CauseTimeout}, blameReach},
		"TLS":                     {&ConnectError{Phase: PhaseTLS, Cause: CauseTLS}, blameReach},
		"no answer":               {fail(CauseTimeout, 0), blameGateway},
		"closed":                  {fail(CauseClosed, wishes|own), blameGateway},
		"malformed":               {fail(CauseMalformed, 0), blameGateway},
		"body":                    {fail(CauseBody, 0), blameGateway},
		"server":                  {fail(CauseServer, wishes|own), blameGateway},
		"odd 5xx":                 {&ConnectError{Phase: PhaseConnect, Cause: CauseStatus, Status: 599}, blameGateway},
		"odd 4xx":                 {&ConnectError{Phase: PhaseConnect, Cause: CauseStatus, Status: 452}, blameOthers},
		"SOCKS code":              {&ConnectError{Phase: PhaseConnect, Cause: CauseStatus, Status: 7}, blameOthers},
		"login":                   {fail(CauseAuth, 0), blameGateway},
		"login with wishes":       {fail(CauseAuth, wishes), blameDoubt},
		"own login with wishes":   {fail(CauseAuth, own|wishes), blameOthers},
		"customer's login":        {fail(CauseAuth, own), blameOthers},
		"quota":                   {fail(CauseQuota, 0), blameGateway},
		"quota with wishes":       {fail(CauseQuota, wishes), blameGateway},
		"customer's quota":        {fail(CauseQuota, own), blameOthers},
		"threads":                 {fail(Cause(vendor.CauseThreads), wishes), blameGateway},
		"customer's threads":      {fail(Cause(vendor.CauseThreads), own), blameOthers},
		"rate":                    {fail(CauseRate, 0), blameGateway},
		"customer's rate":         {fail(CauseRate, own), blameOthers},
		"params":                  {fail(Cause(vendor.CauseParams), wishes), blameDoubt},
		"customer's params":       {fail(Cause(vendor.CauseParams), own|wishes), blameOthers},
		"no exit":                 {fail(Cause(vendor.CauseNoExit), wishes), blameOthers},
		"session":                 {fail(Cause(vendor.CauseSession), wishes), blameOthers},
		"forbidden":               {fail(CauseForbidden, 0), blameOthers},
		"target's name":           {fail(Cause(vendor.CauseTargetDNS), 0), blameOthers},
		"target":                  {fail(Cause(vendor.CauseUnreachable), 0), blameOthers},
		"denied":                  {fail(CauseDenied, 0), blameOthers},
		"slow site, plain":        {&ConnectError{Phase: PhaseRequest, Cause: CauseTimeout}, blameOthers},
		"gateway's 504, plain":    {&ConnectError{Phase: PhaseRequest, Cause: CauseTimeout, Status: 504}, blameGateway},
		"closed, plain":           {&ConnectError{Phase: PhaseRequest, Cause: CauseClosed}, blameGateway},
		"a cause that is not one": {fail("new", 0), blameOthers},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := blameOf(test.e); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

// A customer who does nothing but fail by his own doing ejects nobody, while others are
// served; alone he ejects nobody if his wishes fail elsewhere, too.
func TestOneCustomerCannotEjectAGateway(t *testing.T) {
	tests := map[string]struct {
		e     ConnectError
		alone bool // it holds even if nobody else is there, and the other gateway is well
	}{
		"his login":     {ConnectError{Cause: CauseAuth, Status: 407, own: true}, true},
		"his quota":     {ConnectError{Cause: CauseQuota, Status: 402, own: true}, true},
		"no exit":       {ConnectError{Cause: Cause(vendor.CauseNoExit), Status: 502, wishes: true}, true},
		"bad target":    {ConnectError{Cause: CauseStatus, Status: 400}, true},
		"dead target":   {ConnectError{Cause: Cause(vendor.CauseUnreachable), Status: 502}, true},
		"his wishes":    {ConnectError{Cause: CauseAuth, Status: 407, wishes: true}, false},
		"his parameter": {ConnectError{Cause: Cause(vendor.CauseParams), Status: 400, wishes: true}, false},
	}
	for name, test := range tests {
		e := test.e
		e.Phase, e.Gateway = PhaseConnect, "g0"
		t.Run(name+", others are served", func(t *testing.T) {
			w := newWard(t, 2)
			for range 10 {
				w.serve(0, 1)
				w.attempts(0, 1000, &e)
			}
			w.want(up, up)
			w.wantEvents()
		})
		t.Run(name+", fails everywhere", func(t *testing.T) {
			w := newWard(t, 2)
			for range 1000 {
				w.attempts(0, 1, &e)
				w.attempts(1, 1, &e)
			}
			w.want(up, up)
		})
		t.Run(name+", alone", func(t *testing.T) {
			w := newWard(t, 2)
			w.attempts(0, 1000, &e)
			if (w.state(0) == up) != test.alone {
				t.Errorf("%s", w.state(0))
			}
		})
	}
}

// A refused login of the operator's is found though every exchange carries wishes.
func TestRefusedLoginWithWishesEjects(t *testing.T) {
	w := newWard(t, 2)
	refused := &ConnectError{Gateway: "g0", Phase: PhaseConnect, Cause: CauseAuth, Status: 407, wishes: true}
	w.serve(0, 100)
	w.attempts(0, 100, refused)
	w.want(up, up)
	w.wait(windowSlots * windowSlot)
	w.attempts(0, 1, refused)
	w.want(out, up)
	w.wantEvents("g0 down auth")
	w.wait(backoffMin)
	w.attempts(0, 1, refused)
	w.want(out, up) // the trial failed
	w.wait(2 * backoffMin)
	w.fail(0, 1, Cause(vendor.CauseParams)) // another's wishes fail no trial
	w.want(half, up)
	w.serve(0, trialsInRow)
	w.want(up, up)
}

// A target that is down costs each gateway the same: none is ejected for it.
func TestDeadTargetEjectsNobody(t *testing.T) {
	w := newWard(t, 3)
	for range 100 {
		for i := range 3 { // the exchange is tried through each
			w.fail(i, 1, CauseServer)
		}
	}
	w.want(up, up, up)
}

func TestZeroHealthIsHealthy(t *testing.T) {
	var h health
	h.report(&ConnectError{Phase: PhaseDial, Cause: CauseRefused}, 0, time.Now())
	if !h.usable(time.Now()) || !h.chosen(time.Now()) || !h.hopeful(time.Now()) {
		t.Error("not healthy")
	}
}
