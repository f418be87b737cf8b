package vendor

// Cause is why a gateway refused, from a closed set: a metric label and a log field.
type Cause string

// The causes. Those that speak of the target or of the customer's wishes say nothing
// against the gateway.
const (
	CauseAuth        Cause = "auth"               // the operator's login is wrong, or this host may not use it
	CauseQuota       Cause = "quota"              // the operator's balance or traffic is used up
	CauseThreads     Cause = "threads"            // too many connections at once for the operator's plan
	CauseRate        Cause = "rate"               // too many requests a second
	CauseParams      Cause = "params"             // the login's parameters are not to the vendor's liking
	CauseNoExit      Cause = "no_exit"            // no exit for what was asked
	CauseSession     Cause = "session_lost"       // the session's exit is gone
	CauseForbidden   Cause = "forbidden"          // the vendor does not serve this target
	CauseTargetDNS   Cause = "target_dns"         // the target's name does not resolve
	CauseUnreachable Cause = "target_unreachable" // the target does not answer the exit
	CauseTimeout     Cause = "timeout"
	CauseServer      Cause = "server" // the gateway's own trouble, 5xx
	CauseStatus      Cause = "status" // anything else
)

// Causes are all of them.
func Causes() []Cause {
	return []Cause{
		CauseAuth, CauseQuota, CauseThreads, CauseRate, CauseParams, CauseNoExit, CauseSession, CauseForbidden,
		CauseTargetDNS, CauseUnreachable, CauseTimeout, CauseServer, CauseStatus,
	}
}

// Answer is a gateway's refusal.
type Answer struct {
	Status int
	Reason string                   // of the status line
	Header func(name string) string // the first value of a field, "" without; may be nil
	Body   []byte                   // the beginning of the body, as far as it came; may be nil
}

// Verdict is what an answer means.
type Verdict struct {
	Cause Cause
	// Own reports whether more than the status, or the preset, says that the gateway made the answer
	// itself, and not a target.
	Own bool
	// Advice is a sentence for the operator: what to do; it has no capital and no full
	// stop. Empty = nothing special.
	Advice string
}
