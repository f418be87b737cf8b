package tunnel

import (
	"net"
	"net/netip"
	"time"
)

// Visitor is a customer's connection that has no tunnel yet, as its front sees it. The
// engine reads and writes, the front decides. Methods are called one at a time by a
// goroutine that serves thousands of connections: they must not block.
type Visitor interface {
	// Head judges b: all bytes that have come and were not consumed, never empty. b is
	// valid until Head returns.
	Head(b []byte) Verdict
	// Waits is called when a visitor begins to wait: for his first head, unless it had come
	// with the connection, and after each Answer for the next one. By the seat he can be
	// told to go meanwhile.
	Waits(s Seat)
	// TimedOut is called when a head did not come in time; n bytes of it have. What it
	// returns is written as a last word; may be empty. Gone follows.
	TimedOut(n int) []byte
	// Pass hands the connection over, with the bytes that were read from it and not
	// consumed, which are valid until Pass returns. It is no longer the engine's; no method
	// is called any more.
	Pass(conn *net.TCPConn, unread []byte)
	// Gone is the last call for a visitor that neither became a tunnel nor was passed
	// on: its socket is closed.
	Gone()
}

// Action is what becomes of a visitor.
type Action int

// The actions.
const (
	Wait   Action = iota // for more bytes
	Open                 // a tunnel, for Verdict.Exchange
	Answer               // Verdict.Reply; then the next head, or the end
	Pass                 // somebody else serves it: Visitor.Pass is called
	Drop                 // close without a word
)

// Verdict is the judgement of a head.
type Verdict struct {
	Action   Action
	Consumed int      // bytes of the head; what follows is early data, or the next head
	Exchange Exchange // of Open
	Reply    []byte   // of Answer; written as it is, not modified
	Last     bool     // of Answer: the connection ends with it
}

// Reception is how a listener's connections are received.
type Reception struct {
	// Arrive takes a connection up, from the goroutine that accepts: it must not block.
	// If it returns nil the connection is turned away with the reply, if there is one.
	Arrive func(peer netip.AddrPort) (Visitor, []byte)
	// HeadTimeout is for a head to be complete, KeepAlive for the next one to begin.
	HeadTimeout, KeepAlive time.Duration
	// Crowded reports that connections which were told to go still hold descriptors: new
	// ones are left to the kernel for a moment. May be nil.
	Crowded func() bool
	// Trouble is told of errors of accept, which is then tried again; may be nil.
	Trouble func(error)
}
