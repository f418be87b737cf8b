package upstream

import "maskrelay/upstream/vendor"

// blame is whom the end of an attempt speaks of.
type blame uint8

const (
	blameNothing blame = iota // it says nothing: the customer left, or nothing was tried
	blameNone                 // it succeeded
	blameOthers               // the target, or what the customer asked for
	blameDoubt                // wishes were refused, or their port did not answer: the customer's doing, or not
	blameGateway              // the gateway
	blameReach                // the gateway: it cannot be reached at all
)

// blameOf sorts an attempt's end. What a customer can bring about at will is never
// blamed on the gateway: refusals of a target, of his wishes, of his own login, and a
// plain request whose target keeps the gateway waiting. A refused login that carried
// wishes is in doubt, because vendors answer 407 to wishes that they do not understand:
// see health.consider. Used-up quotas, threads and rates are the operator's whatever
// was asked, unless the login was the customer's own.
func blameOf(e *ConnectError) blame {
	switch {
	case e == nil:
		return blameNone
	case e.Cause == CauseCanceled, e.Phase == PhasePick, e.Cause == CauseNone:
		return blameNothing
	case e.elsewhere:
		return blameDoubt
	case e.down():
		return blameReach
	}
	switch vendor.Cause(e.Cause) {
	case vendor.CauseAuth:
		if e.wishes && !e.own {
			return blameDoubt
		}
		return blameIf(!e.own)
	case vendor.CauseParams:
		if !e.own {
			return blameDoubt
		}
		return blameOthers
	case vendor.CauseQuota, vendor.CauseThreads, vendor.CauseRate:
		return blameIf(!e.own)
	case vendor.CauseStatus:
		return blameIf(e.Status >= 500 && e.Status <= 599)
	case vendor.CauseTimeout:
		return blameIf(e.Phase != PhaseRequest || e.Status != 0)
	case vendor.CauseServer:
		return blameGateway
	}
	switch e.Cause {
	case CauseClosed, CauseMalformed, CauseBody, CauseRefused, CauseResolve, CauseTLS:
		return blameGateway
	}
	return blameOthers
}

func blameIf(gateway bool) blame {
	if gateway {
		return blameGateway
	}
	return blameOthers
}

// causes are all that an attempt can fail with: the index of a cause is its place in a
// window's counters. The last one stands for any other.
var causes = [...]Cause{
	CauseResolve, CauseRefused, CauseTimeout, CauseTLS, CauseClosed, CauseMalformed, CauseBody,
	CauseAuth, CauseQuota, CauseForbidden, CauseRate, CauseServer, CauseDenied,
	Cause(vendor.CauseThreads), Cause(vendor.CauseParams), Cause(vendor.CauseNoExit), Cause(vendor.CauseSession),
	Cause(vendor.CauseTargetDNS), Cause(vendor.CauseUnreachable), CauseStatus,
}

var causeIndexes = func() map[Cause]int {
	m := make(map[Cause]int, len(causes))
	for i, c := range causes {
		m[c] = i
	}
	return m
}()

// causeIndex is the place of c in causes.
func causeIndex(c Cause) int {
	if i, ok := causeIndexes[c]; ok {
		return i
	}
	return len(causes) - 1
}
