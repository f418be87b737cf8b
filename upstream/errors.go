package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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

// The causes.
const (
	CauseNone      Cause = "none_usable" // every gateway is full
	CauseResolve   Cause = "resolve"     // name resolution
	CauseRefused   Cause = "refused"     // connection refused or unreachable
	CauseTimeout   Cause = "timeout"     // no answer in time
	CauseTLS       Cause = "tls"         // certificate or handshake
	CauseClosed    Cause = "closed"      // closed or reset before an answer
	CauseMalformed Cause = "malformed"   // not an HTTP/1 answer, or a head over 16 KB
	CauseBody      Cause = "body"        // a 2xx to CONNECT that announces a body
	CauseAuth      Cause = "auth"        // 401, 407: our login was refused
	CauseQuota     Cause = "quota"       // 402
	CauseForbidden Cause = "forbidden"   // 403: the gateway does not serve this target
	CauseRate      Cause = "rate"        // 429
	CauseServer    Cause = "server"      // 5xx
	CauseStatus    Cause = "status"      // any other status
	CauseDenied    Cause = "denied"      // direct://: the target's address is not allowed
	CauseCanceled  Cause = "canceled"    // the customer went away
)

// ConnectError says which gateway failed, where and why. It is for logs and
// metrics: its text holds addresses and must not reach a customer.
type ConnectError struct {
	Gateway string
	Phase   Phase
	Cause   Cause
	Status  int   // the gateway's status code, 0 = none
	Err     error // may be nil

	final bool // another gateway must not be tried
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
	if e.final {
		return false
	}
	switch e.Cause {
	case CauseCanceled, CauseForbidden, CauseStatus, CauseDenied:
		return false
	default:
		return true
	}
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

// statusCause sorts a gateway's refusal by its status code.
func statusCause(status int) Cause {
	switch {
	case status == 401 || status == 407:
		return CauseAuth
	case status == 402:
		return CauseQuota
	case status == 403:
		return CauseForbidden
	case status == 408 || status == 504:
		return CauseTimeout
	case status == 429:
		return CauseRate
	case status >= 500 && status <= 599:
		return CauseServer
	default:
		return CauseStatus
	}
}
