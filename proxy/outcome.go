package proxy

import (
	"errors"
	"net/http"

	"maskrelay/masking"
	"maskrelay/proxy/tunnel"
	"maskrelay/upstream"
)

// Outcome is how an exchange ended: a closed set, the log field, the metric label
// and the key of the reply table.
type Outcome string

// The outcomes.
const (
	OK Outcome = "ok"

	// refused before anything was dialled
	BadRequest      Outcome = "bad_request"
	BadParams       Outcome = "bad_parameters" // of the username
	HeadTimeout     Outcome = "head_timeout"
	HeadTooLarge    Outcome = "head_too_large"
	AuthRequired    Outcome = "auth_required" // no credentials: a browser's first try
	AuthFailed      Outcome = "auth_failed"
	AuthBusy        Outcome = "auth_busy" // too many passwords to check at once
	ClientDenied    Outcome = "client_denied"
	AccountDisabled Outcome = "account_disabled"
	AccountExpired  Outcome = "account_expired"
	LoginThrottled  Outcome = "login_throttled" // too many failed logins from there, or for that name
	QuotaUsed       Outcome = "quota_used"      // refused, or cut when it was used up
	TargetDenied    Outcome = "target_denied"
	CapConns        Outcome = "cap_conns"
	CapRate         Outcome = "cap_rate"
	CapAddresses    Outcome = "cap_addresses" // too many client addresses lately
	LimitsDown      Outcome = "limits_down"   // the fleet's limits cannot be asked, and REDIS_DOWN says closed
	RelayFull       Outcome = "relay_full"

	// the upstream's side
	NoUpstream      Outcome = "no_upstream"
	UpstreamFailed  Outcome = "upstream_failed"
	UpstreamTimeout Outcome = "upstream_timeout"
	UpstreamAuth    Outcome = "upstream_auth" // passthrough: the vendor refused the customer's login

	// ends of what was open
	ClientGone    Outcome = "client_gone"
	ClientReset   Outcome = "client_reset"
	UpstreamReset Outcome = "upstream_reset"
	IdleTimeout   Outcome = "idle_timeout"
	HalfOpen      Outcome = "half_open_timeout"
	Killed        Outcome = "killed"
	Drained       Outcome = "drained"

	Internal Outcome = "internal" // a bug of ours, logged with its type
)

// outcomes are all of them.
var outcomes = []Outcome{
	OK, BadRequest, BadParams, HeadTimeout, HeadTooLarge, AuthRequired, AuthFailed, AuthBusy, ClientDenied, AccountDisabled,
	AccountExpired, LoginThrottled, QuotaUsed, TargetDenied, CapConns, CapRate, CapAddresses, LimitsDown, RelayFull, NoUpstream, UpstreamFailed, UpstreamTimeout,
	UpstreamAuth, ClientGone, ClientReset, UpstreamReset, IdleTimeout, HalfOpen, Killed, Drained, Internal,
}

// statusOf is the one table from outcome to what the customer receives: a status,
// and for each status one reply. Outcomes that are not here send nothing.
var statusOf = map[Outcome]int{
	BadRequest:      http.StatusBadRequest,
	BadParams:       http.StatusBadRequest,
	HeadTimeout:     http.StatusRequestTimeout,
	HeadTooLarge:    http.StatusRequestHeaderFieldsTooLarge,
	AuthRequired:    http.StatusProxyAuthRequired,
	AuthFailed:      http.StatusProxyAuthRequired,
	AuthBusy:        http.StatusServiceUnavailable,
	ClientDenied:    http.StatusForbidden,
	AccountDisabled: http.StatusForbidden,
	AccountExpired:  http.StatusForbidden,
	LoginThrottled:  http.StatusTooManyRequests,
	QuotaUsed:       http.StatusPaymentRequired,
	TargetDenied:    http.StatusForbidden,
	CapConns:        http.StatusTooManyRequests,
	CapRate:         http.StatusTooManyRequests,
	CapAddresses:    http.StatusForbidden,
	LimitsDown:      http.StatusServiceUnavailable,
	RelayFull:       http.StatusServiceUnavailable,
	NoUpstream:      http.StatusServiceUnavailable,
	UpstreamFailed:  http.StatusBadGateway,
	UpstreamTimeout: http.StatusGatewayTimeout,
	UpstreamAuth:    http.StatusProxyAuthRequired,
	Internal:        http.StatusBadGateway,
}

// replySpecs holds one reply for each status: two causes of one status cannot be
// told apart, but for the customer's own parameters (see faultReplies). Error types are RFC 9209 §2.3's.
var replySpecs = []masking.ReplySpec{
	{Status: 400, Text: "The request is malformed.", ProxyError: "http_request_error"},
	{Status: 402, Text: "The quota is used up.", ProxyError: "http_request_denied"},
	{Status: 403, Text: "The request is not allowed.", ProxyError: "http_request_denied"},
	{Status: 407, Text: "Proxy authentication is required.", ProxyError: "http_request_denied", Challenge: true},
	{Status: 408, Text: "The request took too long.", ProxyError: "http_request_error"},
	{Status: 429, Text: "Too many connections; try again shortly.", ProxyError: "connection_limit_reached", RetryAfter: 1},
	{Status: 431, Text: "The request header is too large.", ProxyError: "http_request_error"},
	{Status: 502, Text: "The target could not be reached.", ProxyError: "destination_unavailable"},
	{Status: 503, Text: "The proxy is busy; try again shortly.", ProxyError: "connection_limit_reached", RetryAfter: 5},
	{Status: 504, Text: "The target did not answer in time.", ProxyError: "http_response_timeout"},
}

// replies are the rendered table.
type replies map[int]*masking.Reply

func newReplies(b masking.Brand) replies {
	r := make(replies, len(replySpecs))
	for _, spec := range replySpecs {
		r[spec.Status] = masking.NewReply(b, spec)
	}
	return r
}

// of is never nil for an outcome with a reply; unknown ones get 502.
func (r replies) of(o Outcome) *masking.Reply {
	if status, ok := statusOf[o]; ok {
		return r[status]
	}
	return r[http.StatusBadGateway]
}

// endsWith reports whether a customer's connection ends with a reply. It depends on the
// status and on what he has sent alone, so that it tells nothing of the cause: where a
// part of his request may have gone to an upstream, or an upstream was to be found first,
// the same status ends it too if the relay itself says so. carries is of his request.
// His wish for the end, HTTP/1.0 and a drain end it in any case.
func endsWith(o Outcome, status int, carries bool) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestHeaderFieldsTooLarge:
		return true
	case http.StatusProxyAuthRequired:
		// Without a login, or with one that cannot be read, no vendor was asked.
		return o == UpstreamAuth && carries
	case http.StatusPaymentRequired, http.StatusTooManyRequests: // the relay's alone
		return false
	}
	return carries
}

// upstreamOutcome sorts a failure of package upstream. passthrough lets a vendor's
// 407 become ours: there the login is the customer's own.
func upstreamOutcome(err error, passthrough bool) (Outcome, string) {
	var failure *upstream.ConnectError
	if !errors.As(err, &failure) {
		return UpstreamFailed, "unknown"
	}
	cause := string(failure.Cause)
	switch failure.Cause {
	case upstream.CauseNone:
		return NoUpstream, cause
	case upstream.CauseTimeout:
		return UpstreamTimeout, cause
	case upstream.CauseDenied:
		return TargetDenied, cause
	case upstream.CauseCanceled:
		return ClientGone, cause
	case upstream.CauseAuth:
		if passthrough && (failure.Status == http.StatusProxyAuthRequired || errors.Is(failure.Err, upstream.ErrLogin)) {
			return UpstreamAuth, cause
		}
	}
	return UpstreamFailed, cause
}

// endings are the outcomes of tunnels that were open.
var endings = map[tunnel.Ending]Outcome{
	tunnel.Closed:        OK,
	tunnel.ClientReset:   ClientReset,
	tunnel.UpstreamReset: UpstreamReset,
	tunnel.ClientGone:    ClientGone,
	tunnel.IdleTimeout:   IdleTimeout,
	tunnel.HalfOpen:      HalfOpen,
	tunnel.Killed:        Killed,
	tunnel.Drained:       Drained,
	tunnel.Failed:        Internal,
}
