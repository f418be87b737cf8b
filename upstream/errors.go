package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"maskrelay/upstream/vendor"
)

// Phase is the step of a set-up that failed.
type Phase string

// The phases, in their order.
const (
	PhasePick    Phase = "pick"    // no gateway could be chosen
	PhaseResolve Phase = "resolve" // the gateway's name
	PhaseDial    Phase = "dial"    // TCP to the gateway
	PhaseTLS     Phase = "tls"     // TLS with the gateway
	PhaseConnect Phase = "connect" // the gateway's answer to CONNECT
	PhaseRequest Phase = "request" // a plain HTTP request through the gateway
)

// Cause is why it failed, from a closed set: a metric label and a log field.
type Cause string

// The causes. Those that a preset's classifier finds have its strings (package vendor).
const (
	CauseNone        Cause = "none_usable"        // every gateway is full
	CauseResolve     Cause = "resolve"            // name resolution
	CauseRefused     Cause = "refused"            // connection refused or unreachable
	CauseTimeout     Cause = "timeout"            // no answer in time
	CauseTLS         Cause = "tls"                // certificate or handshake
	CauseClosed      Cause = "closed"             // closed or reset before an answer
	CauseMalformed   Cause = "malformed"          // not an answer of the gateway's protocol, or a head over 16 KB
	CauseBody        Cause = "body"               // a 2xx to CONNECT that announces a body
	CauseAuth        Cause = "auth"               // our login was refused
	CauseQuota       Cause = "quota"              // the vendor account's traffic or balance is used up
	CauseThreads     Cause = "threads"            // too many connections for the vendor account
	CauseRate        Cause = "rate"               // too many requests a second for the vendor account
	CauseParams      Cause = "params"             // the vendor does not like the login's parameters
	CauseNoExit      Cause = "no_exit"            // the vendor has no exit for what was asked
	CauseSession     Cause = "session_lost"       // the session's exit is gone
	CauseForbidden   Cause = "forbidden"          // the gateway does not serve this target
	CauseTargetDNS   Cause = "target_dns"         // the target's name does not resolve
	CauseUnreachable Cause = "target_unreachable" // the exit does not reach the target
	CauseServer      Cause = "server"             // the gateway's own trouble, 5xx
	CauseStatus      Cause = "status"             // any other status
	CauseDenied      Cause = "denied"             // direct://: the target's address is not allowed
	CauseCanceled    Cause = "canceled"           // the customer went away
)

// class is whom a cause speaks of: it decides who is blamed and where to try again.
type class uint8

const (
	classGateway  class = iota // the gateway's own trouble: blamed, any other may do better
	classAccount               // the operator's account at the vendor: blamed, only another account may do better
	classWishes                // what the customer asked of the vendor: no blame, only another account may do better
	classTarget                // the target: no blame, another gateway would only repeat it
	classCustomer              // he went away
)

func (c Cause) class() class {
	switch c {
	case CauseAuth, CauseQuota, CauseThreads, CauseRate:
		return classAccount
	case CauseParams, CauseNoExit, CauseSession:
		return classWishes
	case CauseForbidden, CauseTargetDNS, CauseUnreachable, CauseDenied, CauseStatus:
		return classTarget
	case CauseCanceled:
		return classCustomer
	default:
		return classGateway
	}
}

// classify says what a refusal means, by the gateway's preset.
func (g *gateway) classify(a vendor.Answer) (Cause, vendor.Verdict) {
	v := g.Vendor.Classify(a)
	return Cause(v.Cause), v
}

// ConnectError says which gateway failed, where and why. It is for logs and
// metrics: its text holds addresses and must not reach a customer.
type ConnectError struct {
	Gateway string
	Phase   Phase
	Cause   Cause
	Status  int    // the gateway's status code, 0 = none
	Advice  string // what the operator can do about it; empty = nothing special
	Err     error  // may be nil

	final  bool // another gateway must not be tried
	own    bool // the login was the customer's own
	wishes bool // the login carried the customer's wishes
	// elsewhere: it was not the gateway's own port that could not be reached, but a session's
	elsewhere bool
	took      time.Duration // from the choice of the gateway to the failure; 0 = not known
}

func (e *ConnectError) Error() string {
	s := fmt.Sprintf("upstream %s: %s: %s", e.Gateway, e.Phase, e.Cause)
	if e.Status != 0 {
		s += fmt.Sprintf(" (status %d)", e.Status)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the underlying error, if any.
func (e *ConnectError) Unwrap() error { return e.Err }

// retryable reports whether another gateway may do better: not when the customer
// is gone, and not when the gateway spoke about the target rather than itself.
func (e *ConnectError) retryable() bool {
	return !e.final && e.Cause.class() < classTarget
}

// reached reports whether a gateway was reached: whether the attempt put a load on it.
func (e *ConnectError) reached() bool {
	return e.Phase != PhasePick && e.Phase != PhaseResolve && e.Phase != PhaseDial
}

// down reports whether the failure says that the gateway itself cannot be reached.
func (e *ConnectError) down() bool {
	if e.Cause == CauseCanceled {
		return false
	}
	return e.Phase == PhaseResolve || e.Phase == PhaseDial || e.Phase == PhaseTLS
}

// netCause sorts an I/O error. The caller's context decides between a customer
// that left and a deadline that passed.
func netCause(ctx context.Context, err error, otherwise Cause) Cause {
	if errors.Is(ctx.Err(), context.Canceled) {
		return CauseCanceled
	}
	return ioCause(err, otherwise)
}

// ioCause sorts an I/O error by itself.
func ioCause(err error, otherwise Cause) Cause {
	var ne net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return CauseCanceled
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &ne) && ne.Timeout():
		return CauseTimeout
	default:
		return otherwise
	}
}
