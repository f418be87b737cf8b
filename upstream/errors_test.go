package upstream

import (
	"testing"

	"maskrelay/upstream/vendor"
)

func TestCauseClasses(t *testing.T) {
	tests := map[class][]Cause{
		classGateway:  {CauseNone, CauseResolve, CauseRefused, CauseTimeout, CauseTLS, CauseClosed, CauseMalformed, CauseBody, CauseServer},
		classAccount:  {CauseAuth, CauseQuota, CauseThreads, CauseRate},
		classWishes:   {CauseParams, CauseNoExit, CauseSession},
		classTarget:   {CauseForbidden, CauseTargetDNS, CauseUnreachable, CauseStatus, CauseDenied},
		classCustomer: {CauseCanceled},
	}
	for want, causes := range tests {
		for _, cause := range causes {
			if got := cause.class(); got != want {
				t.Errorf("%s: class %d, want %d", cause, got, want)
			}
			e := ConnectError{Phase: PhaseConnect, Cause: cause}
			if got := e.retryable(); got != (want < classTarget) {
				t.Errorf("%s: retryable %t", cause, got)
			}
			e.final = true
			if e.retryable() {
				t.Errorf("%s: retryable although final", cause)
			}
		}
	}
}

func TestReached(t *testing.T) {
	for phase, want := range map[Phase]bool{
		PhasePick: false, PhaseResolve: false, PhaseDial: false, PhaseTLS: true, PhaseConnect: true, PhaseRequest: true,
	} {
		if got := (&ConnectError{Phase: phase}).reached(); got != want {
			t.Errorf("%s: reached %t", phase, got)
		}
	}
}

// A preset's causes are causes of ours, and its word counts.
func TestClassifyIsThePresets(t *testing.T) {
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", "http://gw.example:1")}})
	g := p.gateways[0]
	for _, status := range []int{301, 400, 401, 402, 403, 404, 407, 408, 429, 500, 502, 503, 504, 599} {
		a := vendor.Answer{Status: status}
		cause, verdict := g.classify(a)
		if want := g.Vendor.Classify(a); cause != Cause(want.Cause) || verdict != want {
			t.Errorf("%d: %s, %+v, want %+v", status, cause, verdict, want)
		}
	}
	for ours, theirs := range map[Cause]vendor.Cause{
		CauseAuth: vendor.CauseAuth, CauseQuota: vendor.CauseQuota, CauseThreads: vendor.CauseThreads, CauseRate: vendor.CauseRate,
		CauseParams: vendor.CauseParams, CauseNoExit: vendor.CauseNoExit, CauseSession: vendor.CauseSession,
		CauseForbidden: vendor.CauseForbidden, CauseTargetDNS: vendor.CauseTargetDNS, CauseUnreachable: vendor.CauseUnreachable,
		CauseTimeout: vendor.CauseTimeout, CauseServer: vendor.CauseServer, CauseStatus: vendor.CauseStatus,
	} {
		if string(ours) != string(theirs) {
			t.Errorf("%q is %q to package vendor", ours, theirs)
		}
	}
}
