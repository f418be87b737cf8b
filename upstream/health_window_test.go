package upstream

import (
	"sync"
	"testing"
	"time"
)

func TestWindowSlides(t *testing.T) {
	var w window
	w.start()
	at := func(seconds float64) moment { return moment(seconds * float64(time.Second)) }
	failed := &ConnectError{Phase: PhaseConnect, Cause: CauseServer}
	w.add(at(100.2), sample{blame: blameNone, took: time.Second})
	w.add(at(100.9), sample{blame: blameNone, took: 3 * time.Second})
	w.add(at(101), sample{blame: blameGateway, failure: failed})
	w.add(at(101), sample{blame: blameReach, failure: &ConnectError{Phase: PhaseDial, Cause: CauseRefused}})
	w.add(at(105), sample{blame: blameOthers, failure: &ConnectError{Phase: PhaseConnect, Cause: "unheard of"}})
	tests := []struct {
		at   float64
		want tally
		mean time.Duration
	}{
		{99, tally{}, 0},
		{100, tally{2, 0, 0, 0, 4 * time.Second}, 2 * time.Second},
		{101.5, tally{2, 2, 1, 0, 4 * time.Second}, 2 * time.Second},
		{109.9, tally{2, 2, 1, 0, 4 * time.Second}, 2 * time.Second},
		{110, tally{0, 2, 1, 0, 0}, 0},
		{111, tally{}, 0},
		{1000, tally{}, 0},
	}
	for _, test := range tests {
		if got := w.sum(at(test.at)); got != test.want || got.mean() != test.mean {
			t.Errorf("at %g: %+v, mean %s", test.at, got, got.mean())
		}
	}
	f := w.failures(at(105))
	if f[causeIndex(CauseServer)] != 1 || f[causeIndex(CauseRefused)] != 1 || f[causeIndex(CauseStatus)] != 1 {
		t.Errorf("failures %v", f)
	}
	// The slot of ten seconds ago is used anew; a report that comes after that is lost.
	w.add(at(111), sample{blame: blameNone})
	w.add(at(101), sample{blame: blameGateway, failure: failed})
	if got := w.sum(at(111)); got != (tally{served: 1}) {
		t.Errorf("%+v", got)
	}
	if f := w.failures(at(111)); f[causeIndex(CauseServer)] != 0 {
		t.Errorf("failures %v", f)
	}
	w.clear()
	if got := w.sum(at(111)); got != (tally{}) {
		t.Errorf("cleared: %+v", got)
	}
}

func TestWindowUnderManyReports(t *testing.T) {
	const goroutines, reports = 8, 20_000
	for begun, least := range map[bool]int64{
		true:  goroutines * reports, // nothing is lost
		false: reports,              // but what comes while one of them clears the slot, for as long as it may sleep
	} {
		var w window
		w.start()
		if begun {
			w.add(moment(time.Second), sample{blame: blameOthers, failure: &ConnectError{Cause: CauseStatus}})
		}
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				for i := range reports {
					w.add(moment(time.Second)+moment(i), sample{blame: blameNone, took: 1})
					w.sum(moment(time.Second))
				}
			})
		}
		all.Wait()
		if got := w.sum(moment(time.Second)); got.served > goroutines*reports || got.served < least || int64(got.took) != got.served {
			t.Errorf("begun: %t: %+v", begun, got)
		}
	}
}

func TestTallyDoesWell(t *testing.T) {
	for want, all := range map[bool][]tally{
		true:  {{}, {served: 1}, {served: 4, blamed: 1}, {served: 80, blamed: 20}, {served: 1, doubts: 99}},
		false: {{blamed: 1}, {served: 1, blamed: 1}, {served: 3, blamed: 2}, {served: 50, blamed: 50}, {doubts: 1}},
	} {
		for _, tally := range all {
			if tally.well() != want {
				t.Errorf("%+v: %t", tally, !want)
			}
		}
	}
}
