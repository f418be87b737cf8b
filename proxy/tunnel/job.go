package tunnel

import (
	"context"
	"net"
	"time"
)

// Ending is why a tunnel ended, from a closed set.
type Ending string

// The endings.
const (
	Closed        Ending = "closed"            // both sides closed, everything delivered
	ClientReset   Ending = "client_reset"      // the customer's side broke off
	UpstreamReset Ending = "upstream_reset"    // the upstream side broke off
	ClientGone    Ending = "client_gone"       // the customer left before the tunnel was open
	Refused       Ending = "refused"           // the upstream could not be opened; Result.Err says why
	IdleTimeout   Ending = "idle_timeout"      // no byte either way
	HalfOpen      Ending = "half_open_timeout" // one side closed, no byte from the other
	Killed        Ending = "killed"            // Engine.CloseKey
	Drained       Ending = "drained"           // cut at the end of a drain
	Failed        Ending = "failed"            // a function of the Job panicked; Result.Err says how
)

// Peer is the upstream side of a tunnel. Conn is a *net.TCPConn, a *tls.Conn over
// one, or any other net.Conn (which then costs a buffer while it waits).
type Peer struct {
	Conn    net.Conn
	Early   []byte // bytes from the upstream that were read already
	Name    string // for Result
	Release func() // called once after Conn is closed; may be nil
}

// Job is one tunnel to be. Submit takes ownership of Client.
type Job struct {
	Client net.Conn // as Peer.Conn
	Early  []byte   // bytes from the customer that were read already
	Key    string   // whose tunnel it is, for CloseKey; may be empty

	// Open opens the upstream side. Its context ends when the customer leaves, or
	// the tunnel is closed from outside; Open must return soon after. It sets its own
	// deadline otherwise.
	Open func(ctx context.Context) (Peer, error)
	// Greeting is written to the customer once the upstream is open. May be empty.
	Greeting []byte
	// Refusal is what the customer gets when Open fails. Empty = nothing.
	Refusal func(error) []byte
	// Opened is called when the tunnel is open, before the greeting. May be nil.
	Opened func(Peer)
	// Moved is told of every write: n payload bytes from the customer (sent) or to
	// him, from either direction's goroutine. May be nil; must be quick.
	Moved func(sent bool, n int)
	// Done is called exactly once, when both sockets are closed. Not nil.
	Done func(Result)
}

// Result is how a tunnel went. Byte counts are of tunnel payload.
type Result struct {
	Ending   Ending
	Err      error         // of Open; nil unless Refused, ClientGone or Failed
	Upstream string        // Peer.Name, empty unless opened
	Sent     int64         // from the customer to the upstream
	Received int64         // from the upstream to the customer
	Connect  time.Duration // Submit to open; 0 = never open
	Duration time.Duration // Submit to end
}
