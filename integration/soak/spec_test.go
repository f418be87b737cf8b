package soak

import (
	"fmt"
	"strings"
)

// mode is what the two ends of a tunnel, or of a plain request, do. Vendors read it from the target's name.
type mode string

const (
	// Both ends send all that they have and half-close.
	both        mode = "both"
	banner      mode = "banner"  // the vendor's first bytes are in its 200's packet
	bulk        mode = "bulk"    // megabytes
	idle        mode = "idle"    // with a long pause in the middle
	vendorStall mode = "vstall"  // the vendor does not read for a while
	clientStall mode = "cstall"  // the customer does not
	upgrade     mode = "ws"      // a websocket handshake instead of a CONNECT
	upFirst     mode = "up"      // the vendor speaks when the customer has half-closed
	downFirst   mode = "down"    // the customer speaks when the vendor has half-closed
	get         mode = "get"     // a plain request without a body
	post        mode = "post"    // and with one
	clientReset mode = "creset"  // the customer resets in the middle
	vendorReset mode = "vreset"  // the vendor does
	abandoned   mode = "abandon" // a plain answer in the middle of which the customer resets

	// The vendor does not open the tunnel.
	silent    mode = "silent"
	leave     mode = "leave" // silent, and the customer does not wait
	forbidden mode = "forbid"
	noLogin   mode = "nologin"
	busy      mode = "busy"
	hangUp    mode = "hangup"
	garbage   mode = "garbage"
	withBody  mode = "body" // a 200 that announces a body
)

// refusing are the vendors' answers that must become a 502.
var refusing = []mode{forbidden, noLogin, busy, hangUp, garbage, withBody}

// orderly reports whether everything must arrive.
func (m mode) orderly() bool {
	switch m {
	case both, banner, bulk, idle, vendorStall, clientStall, upgrade, upFirst, downFirst, get, post:
		return true
	default:
		return false
	}
}

// carries reports whether a tunnel is opened, or a plain request answered.
func (m mode) carries() bool {
	return m.orderly() || m == clientReset || m == vendorReset || m == abandoned
}

// spec is what is to happen in one tunnel or plain request.
type spec struct {
	ID       uint64
	Up, Down int64 // bytes
	Mode     mode
}

const domain = ".soak.example"

func (s spec) String() string { return fmt.Sprintf("s%d-u%d-d%d-%s", s.ID, s.Up, s.Down, s.Mode) }

func (s spec) host() string { return s.String() + domain }

// parseSpec reads a target, host or host:port.
func parseSpec(target string) (spec, bool) {
	name, _, ok := strings.Cut(target, domain)
	if !ok {
		return spec{}, false
	}
	var s spec
	if _, err := fmt.Sscanf(name, "s%d-u%d-d%d-%s", &s.ID, &s.Up, &s.Down, &s.Mode); err != nil {
		return spec{}, false
	}
	return s, s.String() == name
}

// report is what one end tells of a tunnel, a line of JSON on its standard output.
type report struct {
	Side    string // customerSide, or the vendor's name
	Name    string // the spec
	Account string `json:",omitempty"`
	Session string `json:",omitempty"` // that the vendor was told
	Status  int    `json:",omitempty"` // that the customer got
	TLS     bool   `json:",omitempty"`
	Sent    int64
	Got     int64
	End     string // of what it read
	Bad     string `json:",omitempty"` // what must never happen
	Auth    int    `json:",omitempty"` // 407s before
	Cap     int    `json:",omitempty"` // 429s before
	Start   int64  // Unix ns
	Stop    int64
}

const customerSide = "customer"
