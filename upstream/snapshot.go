package upstream

import "time"

// GatewayState is whether a gateway gets exchanges, from a closed set.
type GatewayState string

// The states.
const (
	StateUp          GatewayState = "up"
	StateHalfOpen    GatewayState = "half_open"   // it was ejected or unreachable, and gets one exchange at a time
	StateEjected     GatewayState = "ejected"     // it fails or is slow, and gets none while another gateway can serve
	StateUnreachable GatewayState = "unreachable" // no connection to it could be made, nor TLS; tried last
)

// gatewayStates are all states.
var gatewayStates = [...]GatewayState{StateUp, StateHalfOpen, StateEjected, StateUnreachable}

// GatewayStatus is what is known of one gateway at a moment, made to be shown as JSON. It
// shows no credential. Attempts, rates, times and failures are those of the last 10
// seconds, probes of the health target among them.
type GatewayStatus struct {
	Name   string       `json:"name"`
	Pool   string       `json:"pool"`
	Vendor string       `json:"vendor"`
	URL    string       `json:"url"`
	State  GatewayState `json:"state"`
	// Since is when it went up or down.
	Since time.Time `json:"since"`
	// Cause and Advice say why it is not up and what to do; empty when it is.
	Cause  Cause  `json:"cause,omitempty"`
	Advice string `json:"advice,omitempty"`
	// NextTrial is when an ejected gateway may be tried again.
	NextTrial time.Time `json:"next_trial,omitzero"`
	// Attempts are those that served or failed through the gateway's fault; SuccessRate is
	// the share of the former, from 0 to 1, and null without any.
	Attempts    int64    `json:"attempts"`
	SuccessRate *float64 `json:"success_rate"`
	// MeanSeconds is the mean time to open a tunnel; 0 without any.
	MeanSeconds float64 `json:"mean_connect_seconds"`
	// Failures counts all failures by cause, those of targets and customers among them.
	Failures map[Cause]int64 `json:"failures"`
	// Connections are open to it, or being opened.
	Connections int64            `json:"connections"`
	Endpoints   []EndpointStatus `json:"endpoints"`
	// Resolution is what the name servers say of its name; null if it has none.
	Resolution *Resolution `json:"resolution"`
}

// Snapshot is what is known of the gateways now, in the order of Options.Gateways.
func (p *Pool) Snapshot() []GatewayStatus {
	now := time.Now()
	all := make([]GatewayStatus, 0, len(p.gateways))
	for _, g := range p.gateways {
		all = append(all, g.status(now))
	}
	return all
}

func (g *gateway) status(now time.Time) GatewayStatus {
	m := momentOf(now)
	t := g.health.window.sum(m)
	s := GatewayStatus{
		Name: g.Name, Pool: g.Pool, Vendor: g.Vendor.Name, URL: g.String(),
		Attempts: t.attempts(), MeanSeconds: t.mean().Seconds(), Failures: map[Cause]int64{},
		Connections: g.conns.Load(), Endpoints: []EndpointStatus{},
	}
	if g.endpoints != nil {
		s.Endpoints, s.Resolution = g.endpoints.status()
	}
	if t.attempts() > 0 {
		rate := t.rate()
		s.SuccessRate = &rate
	}
	for i, n := range g.health.window.failures(m) {
		if n > 0 {
			s.Failures[causes[i]] = n
		}
	}
	v, state, until := g.health.judged(now)
	s.State, s.Since, s.Cause = state, v.changed.UTC(), v.cause
	if state != StateUp {
		s.Advice = g.advice(v.cause, v.lastErr)
	}
	if left := until.left(now); state == StateEjected && left > 0 {
		s.NextTrial = now.Add(left).UTC()
	}
	return s
}

// judged is the judgement, the state and the end of the back-off, at one moment.
func (h *health) judged(now time.Time) (judgement, GatewayState, moment) {
	h.overseer.mu.Lock()
	defer h.overseer.mu.Unlock()
	until := moment(h.until.Load())
	switch {
	case h.state == stateUp:
		return h.judgement, StateUp, 0
	case until <= momentOf(now):
		return h.judgement, StateHalfOpen, until
	case h.state == stateUnreachable:
		return h.judgement, StateUnreachable, until
	default:
		return h.judgement, StateEjected, until
	}
}
