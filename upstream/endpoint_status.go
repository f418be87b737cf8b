package upstream

import (
	"slices"
	"time"
)

// EndpointStatus is one address of a gateway, made to be shown as JSON.
type EndpointStatus struct {
	Address string `json:"address"` // host:port
	// State is up; failing if it could not be reached when it was last tried; or leaving:
	// no longer one of the name's, and here until its last connection ends.
	State string `json:"state"`
	// Connections are the gateway's, to whatever port, those being opened included.
	Connections int64 `json:"connections"`
	// PortsFree is how many more connections the local ports allow, from all sources and
	// for all gateways with this address; null if not known.
	PortsFree *int64 `json:"ports_free"`
}

// States of an EndpointStatus.
const (
	EndpointUp      = "up"
	EndpointFailing = "failing"
	EndpointLeaving = "leaving"
)

// Resolution is what the name servers say of a gateway's name, made to be shown as JSON.
type Resolution struct {
	// Answered is when the addresses in use were learned; zero = there are none yet.
	Answered time.Time `json:"answered,omitzero"`
	// TTLSeconds is how long they were to be taken, within the floor and the ceiling.
	TTLSeconds float64 `json:"ttl_seconds"`
	// Error is why the latest look-up failed, and Failing since when they have been
	// failing; empty and zero if it did not fail.
	Error   string    `json:"error,omitempty"`
	Failing time.Time `json:"failing,omitzero"`
}

// status is every address, and what is known of the name, nil for an address literal.
func (e *endpoints) status() ([]EndpointStatus, *Resolution) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]EndpointStatus, 0, len(e.addrs)+len(e.gone))
	for i, ep := range e.listedLocked() {
		s := EndpointStatus{Address: ep.addr.String(), State: EndpointUp, Connections: ep.conns.Load()}
		switch {
		case i >= len(e.addrs):
			s.State = EndpointLeaving
		case ep.failing():
			s.State = EndpointFailing
		}
		if e.ports.capacity > 0 {
			free := ep.portsFree()
			s.PortsFree = &free
		}
		all = append(all, s)
	}
	if e.fixed {
		return all, nil
	}
	r := Resolution{Answered: e.answered.UTC(), TTLSeconds: e.ttl.Seconds(), Failing: e.failing.UTC()}
	if e.err != nil {
		r.Error = e.err.Error()
	}
	return all, &r
}

// listedLocked are the addresses in use, then those that are gone but have connections.
func (e *endpoints) listedLocked() []*endpoint {
	all := slices.Clone(e.addrs)
	for _, ep := range e.gone {
		if ep.conns.Load() > 0 {
			all = append(all, ep)
		}
	}
	return all
}
