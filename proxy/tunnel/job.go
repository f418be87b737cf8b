package tunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
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
	Failed        Ending = "failed"            // a method of the Exchange panicked; Result.Err says how. Refused, if it was not open yet
)

// Peer is the upstream side of a tunnel, open. Conn is a *net.TCPConn, a *tls.Conn
// over one, or any other net.Conn (which then costs a buffer while it waits).
type Peer struct {
	Conn  net.Conn
	Early []byte // bytes from the upstream that were read already
}

// Attempt is one try to reach the upstream. The engine connects, writes what the
// exchange's AppendRequest says, and gives its Reply what comes back.
type Attempt struct {
	Addr         netip.AddrPort
	Source       netip.Addr    // bound to; invalid = any
	Ports        [2]uint16     // window of local ports, low and high; 0, 0 = the kernel's range
	Timeout      time.Duration // until the connection stands
	ReplyTimeout time.Duration // from then until Reply is content
	Limit        time.Duration // for both together, which no wait exceeds; 0 = none
}

// ErrBlocks is what Next returns when only Open can go on.
var ErrBlocks = errors.New("tunnel: the way to the upstream cannot be opened without blocking")

// ErrAsksMore is what Reply returns when the upstream has answered a part of the
// handshake, of which nothing is left over, and waits for more: AppendRequest says what,
// and Reply begins with what comes after that.
var ErrAsksMore = errors.New("tunnel: the upstream waits for more")

// Exchange is what a tunnel is opened for. The engine calls its methods one at a time,
// with the exception of Moved, and none after Done. Only Open may block: the others are
// called by goroutines that serve thousands of tunnels.
type Exchange interface {
	// Key is whose tunnel it is, for Engine.CloseKey; may be empty.
	Key() string
	// Next is the next way to try. ErrBlocks: Open knows. Any other error: there is no
	// (further) one, and it becomes Result.Err.
	Next() (Attempt, error)
	// AppendRequest appends to b what is to be written to the upstream of the last Next:
	// first, and after each ErrAsksMore. It may be asked twice for the same.
	AppendRequest(b []byte) []byte
	// Connected is called when the connection of the last Next stands, and the request was
	// written or has begun to be.
	Connected()
	// Reply looks at all that the upstream has sent so far, which grows from call to
	// call. n > 0: the tunnel is open, and b[n:] are its first bytes. 0 and no error:
	// more is needed. ErrAsksMore: all of b is done with, and the handshake goes on with
	// AppendRequest. Any other error: this way is closed; Next is asked for another.
	Reply(b []byte) (n int, err error)
	// Failed says why the way of the last Next is closed: while connecting, or after.
	// err is a syscall.Errno (EMSGSIZE: an answer without an end), io.EOF,
	// io.ErrUnexpectedEOF, os.ErrDeadlineExceeded, or context.Canceled when the customer
	// has left or the tunnel was ended from outside.
	Failed(connecting bool, err error)
	// Open opens the upstream side, and may take its time. Its context ends when the
	// customer leaves, or the tunnel is ended from outside; Open must return soon
	// after. It sets its own deadline otherwise. What it returns is the engine's.
	Open(ctx context.Context) (Peer, error)
	// Opened is called when the upstream is open, before the greeting is written.
	Opened() Terms
	// Refusal is what the customer gets when the upstream could not be opened; empty =
	// nothing.
	Refusal(error) []byte
	// Moved is told of every move: n payload bytes from the customer (sent) or to him.
	// The two directions may be told of at the same time.
	Moved(sent bool, n int)
	// Done is called exactly once, when both sockets are closed.
	Done(Result)
}

// Terms are those of an open tunnel. The zero value is a silent, unlimited one.
type Terms struct {
	Greeting []byte  // written to the customer before all else; not modified
	Shared   *Shared // the bandwidth of which the tunnel has its share; nil = no limit
}

// Job is one tunnel to be. Submit takes ownership of it.
type Job struct {
	Client   net.Conn // as Peer.Conn
	Early    []byte   // bytes from the customer that were read already
	Peer     *Peer    // the upstream side, if it is open already
	Exchange Exchange
}

// Result is how a tunnel went. Byte counts are of tunnel payload.
type Result struct {
	Ending   Ending
	Err      error         // why it could not be opened; nil unless Refused, ClientGone or Failed
	Sent     int64         // from the customer to the upstream
	Received int64         // from the upstream to the customer
	Duration time.Duration // Submit, or the head's judgement, to end
}
