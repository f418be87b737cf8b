package upstream

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"maskrelay/upstream/vendor"
)

// tell makes events as Run does, each second of d.
func (w *ward) tell(d time.Duration, meanwhile func()) {
	for range int(d / time.Second) {
		if meanwhile != nil {
			meanwhile()
		}
		w.wait(time.Second)
		w.pool.compareAt(w.now)
	}
}

func TestTroubleIsToldOnce(t *testing.T) {
	w := newWard(t, 1)
	quota := func() { w.fail(0, 3, CauseQuota) }
	w.tell(5*time.Minute, quota)
	w.wantEvents("g0 trouble quota")
	// Another cause is another trouble.
	w.tell(time.Second, func() { w.fail(0, 1, CauseRate) })
	w.wantEvents("g0 trouble rate")
	// Not over while it comes and goes.
	for range 10 {
		w.tell(time.Second, quota)
		w.tell(20*time.Second, func() { w.serve(0, 1) })
	}
	w.wantEvents("g0 trouble_over rate")
	// Told again when it lasts.
	w.tell(2*time.Minute, quota)
	again := w.events()
	if len(again) != 1 || again[0].Kind != EventTrouble || again[0].For < troubleAgain || again[0].For > troubleAgain+2*time.Second {
		t.Errorf("%+v", again)
	}
	// Over when it serves and has not been seen for a while; not when nothing happens.
	w.tell(3*time.Minute, nil)
	w.wantEvents()
	w.serve(0, 1)
	w.tell(time.Second, nil)
	w.wantEvents("g0 trouble_over quota")
	// Back soon: told when its time has come.
	w.tell(4*time.Minute, quota)
	w.wantEvents()
	w.tell(4*time.Minute, quota)
	w.wantEvents("g0 trouble quota")
}

func TestWhatIsTrouble(t *testing.T) {
	tests := map[string]struct {
		e     ConnectError
		want  bool
		probe bool // as a probe of the health target
	}{
		"auth":              {ConnectError{Cause: CauseAuth}, true, true},
		"auth with wishes":  {ConnectError{Cause: CauseAuth, wishes: true}, true, true},
		"customer's auth":   {ConnectError{Cause: CauseAuth, own: true}, false, false},
		"quota":             {ConnectError{Cause: CauseQuota}, true, true},
		"customer's quota":  {ConnectError{Cause: CauseQuota, own: true}, false, false},
		"threads":           {ConnectError{Cause: Cause(vendor.CauseThreads)}, true, true},
		"rate":              {ConnectError{Cause: CauseRate}, true, true},
		"params":            {ConnectError{Cause: Cause(vendor.CauseParams), wishes: true}, true, true},
		"no exit":           {ConnectError{Cause: Cause(vendor.CauseNoExit), wishes: true}, true, true},
		"session":           {ConnectError{Cause: Cause(vendor.CauseSession)}, false, false},
		"forbidden":         {ConnectError{Cause: CauseForbidden}, true, true},
		"target's name":     {ConnectError{Cause: Cause(vendor.CauseTargetDNS)}, false, true},
		"target unreached":  {ConnectError{Cause: Cause(vendor.CauseUnreachable)}, false, true},
		"server":            {ConnectError{Cause: CauseServer}, false, false},
		"unknown, a target": {ConnectError{Cause: CauseStatus}, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, probe := range []bool{false, true} {
				w := newWard(t, 1)
				e := test.e
				e.Gateway, e.Phase = "g0", PhaseConnect
				want := test.want
				if probe {
					want = test.probe
					w.pool.overseer.probed(w.health(0), &e, 0, w.now)
				} else {
					w.attempts(0, 1, &e)
				}
				w.tell(time.Second, nil)
				all := w.events()
				if !want && len(all) != 0 {
					t.Errorf("probe %t: %v", probe, all)
				}
				if want && (len(all) != 1 || all[0].Cause != e.Cause || all[0].Advice == "" || all[0].Err == nil) {
					t.Errorf("probe %t: %+v", probe, all)
				}
			}
		})
	}
}

func TestEventsSayWhatToDo(t *testing.T) {
	w := newWard(t, 2)
	w.attempts(0, 1, &ConnectError{Gateway: "g0", Phase: PhaseTLS, Cause: CauseTLS, Status: 0, Err: context.DeadlineExceeded})
	all := w.events()
	if len(all) != 1 || !strings.Contains(all[0].Advice, "certificate") || !strings.Contains(fmt.Sprint(all[0].Err), "upstream g0: tls: tls") {
		t.Errorf("%+v", all)
	}
	w.wait(10 * time.Second)
	w.serve(0, 1)
	if all = w.events(); len(all) != 1 || all[0].For < 10*time.Second || all[0].For > 11*time.Second || all[0].Err != nil {
		t.Errorf("%+v", all)
	}
	w.attempts(1, failuresInRow, &ConnectError{Gateway: "g1", Phase: PhaseConnect, Cause: CauseAuth, Status: 407, Advice: "pay the bill"})
	if all = w.events(); len(all) != 1 || all[0].Advice != "pay the bill" ||
		fmt.Sprint(all[0].Err) != "5 failures in a row: upstream g1: connect: auth (status 407)" {
		t.Errorf("%+v", all)
	}
}

// A gateway that comes and goes all the time is told of ever more rarely.
func TestFlappingDoesNotSpam(t *testing.T) {
	w := newWard(t, 2)
	for range 3600 { // refused and well by turns, for an hour
		w.miss(0, 1)
		w.wait(500 * time.Millisecond)
		w.serve(0, 1)
		w.wait(500 * time.Millisecond)
	}
	if n := len(w.events()); n == 0 || n > 60 {
		t.Errorf("%d events in an hour", n)
	}
}

func TestEventsAreDeliveredInOrderAndOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Cause // only ever one writer
		q := newEvents(func(e Event) {
			got = append(got, e.Cause)
			time.Sleep(time.Minute) // synctest's clock
		})
		ctx, cancel := context.WithCancel(t.Context())
		var delivery sync.WaitGroup
		delivery.Go(func() { q.deliver(ctx) })
		q.send(Event{Cause: "0"})
		synctest.Wait() // the first is being delivered
		for i := range eventQueue + 10 {
			q.send(Event{Cause: Cause(fmt.Sprint(i + 1))}) // never waits
		}
		cancel()
		delivery.Wait()
		if len(got) != eventQueue+1 {
			t.Fatalf("%d events", len(got))
		}
		for i, c := range got {
			if c != Cause(fmt.Sprint(i)) {
				t.Fatalf("event %d is %s", i, c)
			}
		}
	})
}

func TestAdviceForEveryCauseThatEjects(t *testing.T) {
	p := literalPool(t, 1, Options{})
	for _, c := range append(append([]Cause{CauseSlow}, causes[:]...), troubleCauses[:]...) {
		blamed := c == CauseSlow || blameOf(&ConnectError{Phase: PhaseConnect, Cause: c}) == blameGateway
		if blamed && p.gateways[0].advice(c, nil) == "" {
			t.Errorf("%s: no advice", c)
		}
	}
}
