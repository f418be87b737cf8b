package upstreamtest

import (
	"slices"
	"strings"
)

// Way is a set of the ways in which a customer's request can meet a vendor.
type Way uint8

// The ways.
const (
	ByConnect   Way = 1 << iota // CONNECT, and whatever the tunnel carries
	ByPlain                     // a plain request in absolute-form
	ByWebsocket                 // a websocket handshake, inside a tunnel that a relay opens for it
)

const (
	everyWay  = ByConnect | ByPlain | ByWebsocket
	byTunnels = ByConnect | ByWebsocket
)

// Hostility is one thing that a hostile vendor does, as an audit or a test can ask for it.
type Hostility struct {
	// Name tells it apart. Names never change their meaning.
	Name string
	// Ways are those in which it can be met.
	Ways Way
	// Serves marks a vendor who serves the request in the end: the customer gets his tunnel, or
	// the target's answer, whatever the vendor has added. All others are faults, which a relay
	// turns into a reply of its own.
	Serves bool
	// Breaks marks one of whom the customer may get a beginning only. With Serves it is a tunnel or
	// an answer that does not last, or a tunnel that the vendor keeps to himself; without, it
	// is an answer of the vendor's own that cannot be told from a target's until it has begun. Nothing is
	// promised of what the customer gets but that no mark is in it. Names that end in -1k tell how
	// much of the tunnel the vendor reads first.
	Breaks bool
	// Waits marks one that is over only when the relay's patience is.
	Waits bool
	// HTTP is what an http:// or https:// gateway does; nil = it is nothing for those.
	HTTP Behaviour
	// SOCKS is what a socks5:// gateway does; nil = it is nothing for those.
	SOCKS *SOCKSBehaviour
	// Login marks one of those that happens when the gateway is told a username and a
	// password: to whom there are none it does not happen.
	Login bool
}

// Hostilities returns all of them by name, sorted. The slice is the caller's.
//
// Beside the behaviours of [Behaviours] it has families, whose members are numbered:
// "status-100" to "status-999" (a 1xx is followed by the real answer, a 2xx opens the tunnel,
// a higher one is a refusal that names the vendor everywhere), "page-200" to "page-299" (the
// vendor's own page with that status in answer to a plain request), "reset-at-000" on (the
// connection is reset behind so many bytes of the 200) and "socks-rep-001" to "socks-rep-255".
func Hostilities() []Hostility {
	all := slices.Concat(registered(), headerHostilities(), refusalHostilities(), statusHostilities(), framingHostilities(),
		servedHostilities(), endingHostilities(), tlsHostilities(), socksHostilities())
	slices.SortFunc(all, func(a, b Hostility) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// waiting are the registered behaviours that never come to an end.
var waiting = []string{"silent", "stall", "silent-mid-head", "continue-only", "tunnel-silent", "tunnel-stalled-reader", "tunnel-second-response"}

// tunnelOnly are the registered faults that are none for a plain request: a 2xx in the
// target's place cannot be told from the target's.
var tunnelOnly = []string{"connect-body-length", "connect-body-chunked", "connect-body-chunked0", "folded-line"}

// plainOnly are those that are none for a CONNECT: a sloppy field does not keep a tunnel from opening.
var plainOnly = []string{"no-colon", "nul-in-head"}

// registered are the registered behaviours with what can be said of them.
func registered() []Hostility {
	var all []Hostility
	unmarked := unmarkedRefusals()
	for name, b := range Behaviours() {
		h := Hostility{Name: name, Ways: everyWay, HTTP: b, Waits: slices.Contains(waiting, name)}
		switch {
		case strings.HasPrefix(name, "relay"):
			h.Serves = true
		case strings.HasPrefix(name, "tunnel"):
			h.Serves, h.Breaks, h.Ways = true, true, ByConnect
		case slices.Contains(tunnelOnly, name), unmarked[name]:
			h.Ways = byTunnels
		case slices.Contains(plainOnly, name):
			h.Ways = ByPlain
		}
		all = append(all, h)
	}
	return all
}

// unmarkedRefusals are those of [PresetErrors] that a target could have worded as well.
func unmarkedRefusals() map[string]bool {
	all := map[string]bool{}
	for _, preset := range PresetNames() {
		for _, a := range PresetErrors(preset) {
			if !a.telling() {
				all["preset-"+preset+"-"+a.Name] = true
			}
		}
	}
	return all
}

// telling reports whether the answer, given to a plain request, shows that a gateway made it.
func (a PresetAnswer) telling() bool {
	switch a.Status {
	case 407, 452, 453, 454, 455, 466, 490, 499, 522, 525:
		return true
	}
	code := a.Reason == strings.ToUpper(a.Reason) && strings.Contains(a.Reason, "_")
	return code || len(a.Header) > 0
}
