package audit

import (
	"crypto/x509"
	"time"

	"maskrelay/masking"
)

// Schemes of the gateways that the stand-in vendor plays.
const (
	HTTP   = "http"
	HTTPS  = "https"
	SOCKS5 = "socks5"
)

// The ways of a customer's request.
const (
	Connect   = "connect"
	Plain     = "plain"
	Websocket = "websocket"
)

// The listeners that a customer comes to.
const (
	Bare    = "plain listener" // served by the relay's reactor, where there is one
	Secured = "tls listener"
)

// Mark is a text that somebody must not receive.
type Mark struct {
	Name   string // what it is, for people
	Text   string
	Secret bool // the text itself is never shown
}

// Login is a username and a password; both empty = none.
type Login struct{ Username, Password string }

// Gateway is the stand-in vendor's side, for the relay under test to be pointed at.
type Gateway struct {
	Scheme string
	Host   string
	Port   string
	Roots  *x509.CertPool // of https
	Brand  string         // the stand-in's name, which the relay's policy has to know
	// Hasty is that its cases are those that are over only when the relay's limits of time
	// are: short ones spare time. All other cases want limits that no busy machine reaches.
	Hasty bool
}

// Relay is a relay under test. It runs until Close.
type Relay struct {
	Bare, Secured string         // the listeners' host:port
	Roots         *x509.CertPool // of the one with TLS
	Known         *masking.Marks // what the relay itself looks for; nil = nothing
	Close         func()         // ends it and waits for that
}

// Subject is a configuration to be proven: one gateway of the operator's with all that
// belongs to it.
type Subject struct {
	Name     string // of the operator's gateway
	Customer Login  // of the planted customer, his wishes in the username; empty = he sends none
	Vendor   Login  // what the vendor gets for him; empty = none
	Brand    string // the stand-in vendor's name; "" = SuperVendor
	Hidden   []Mark // further marks that no customer may receive
	Private  []Mark // further marks of the customer that neither vendor nor target may receive
	// Words are the operator's own names and domains of his vendor. The stand-in says them
	// wherever a vendor has something to say.
	Words []string
	// OwnLogin is that Customer is also Vendor: the vendor is meant to see it.
	OwnLogin bool
	// Start starts the relay under test. The audit closes it.
	Start func(Gateway) (*Relay, error)
}

// Config is an audit. Subjects is required.
type Config struct {
	Subjects []Subject // each is played by at least one stage of each scheme
	Stages   int       // of each scheme, side by side, and as many for cases that wait; 0 = 8
	// Cases narrows the cases to those for which it is true; nil = all.
	Cases func(name string) bool
	// Patience is how long one exchange may take; it must be more than the relay's own.
	// 0 = 1 min.
	Patience time.Duration
	// Progress is called now and then, one call at a time, with how many exchanges are
	// over and how many there will be. May be nil.
	Progress func(done, total int)
}

const (
	defaultStages   = 8
	defaultPatience = time.Minute
)
