package upstreamtest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

const (
	// DefaultRecordLimit is how many received bytes a server keeps, over all its connections.
	DefaultRecordLimit = 64 << 20
	// MaxRecords is how many connections a server lists; later ones are served and counted, but not listed.
	MaxRecords = 1 << 16
	// MaxRequests is how many requests of one connection are listed.
	MaxRequests = 1024
)

// End tells how a peer ended its connection.
type End string

// The endings of a connection, as its server saw them.
const (
	EndOpen  End = "open"  // the peer has not ended it
	EndEOF   End = "eof"   // FIN, or close_notify inside TLS
	EndReset End = "reset" // RST, or a write that met a closed peer
	EndLocal End = "local" // this side closed first
)

// ConnRecord is what one connection received. It lives on after the connection
// and is safe for concurrent use.
type ConnRecord struct {
	remote string
	closed chan struct{}

	mu         sync.Mutex // guards what follows
	received   []byte
	requests   []*RecordedRequest
	end        End
	serverName string
	isClosed   bool
}

// Remote returns the peer's address.
func (r *ConnRecord) Remote() string { return r.remote }

// Received returns a copy of the bytes received so far, in order. Inside TLS they are the decrypted bytes.
func (r *ConnRecord) Received() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.received)
}

// Requests returns the request heads read so far, in order. Callers must not change them.
func (r *ConnRecord) Requests() []*RecordedRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Closed returns a channel that is closed once this side has closed the connection.
func (r *ConnRecord) Closed() <-chan struct{} { return r.closed }

// End returns how the peer ended the connection. A reset after a FIN counts as a reset.
func (r *ConnRecord) End() End {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}

// ServerName returns the name that the peer asked for by TLS SNI, if any.
func (r *ConnRecord) ServerName() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.serverName
}

func (r *ConnRecord) setServerName(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serverName = name
}

// ended notes the peer's ending that err tells of; other errors are not the peer's doing.
func (r *ConnRecord) ended(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		if r.end != EndLocal {
			r.end = EndReset
		}
	case errors.Is(err, io.EOF):
		if r.end == EndOpen {
			r.end = EndEOF
		}
	}
}

// budget hands out a fixed number of bytes and counts what it had to refuse.
type budget struct {
	left    atomic.Int64
	dropped atomic.Int64
}

// take returns how many of n bytes may be kept.
func (b *budget) take(n int) int {
	left := b.left.Add(-int64(n))
	if left >= 0 {
		return n
	}
	over := min(-left, int64(n))
	b.left.Add(over)
	b.dropped.Add(over)
	return n - int(over)
}

// ledger is the bounded memory of one server.
type ledger struct {
	bytes budget // of received bytes
	heads budget // of request heads, kept apart so that a bulk transfer does not hide them

	mu       sync.Mutex // guards what follows
	records  []*ConnRecord
	accepted int
	open     int
}

// newLedger returns a ledger that keeps limit bytes: 0 means [DefaultRecordLimit], below 0 none.
func newLedger(limit int64) *ledger {
	if limit == 0 {
		limit = DefaultRecordLimit
	}
	l := &ledger{}
	l.bytes.left.Store(max(limit, 0))
	l.heads.left.Store(max(limit, 0))
	return l
}

// opened lists a new connection.
func (l *ledger) opened(remote string) *ConnRecord {
	r := &ConnRecord{remote: remote, closed: make(chan struct{}), end: EndOpen}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted++
	l.open++
	if len(l.records) < MaxRecords {
		l.records = append(l.records, r)
	}
	return r
}

// closed ends a record. Later calls for the same record do nothing.
func (l *ledger) closed(r *ConnRecord) {
	r.mu.Lock()
	first := !r.isClosed
	r.isClosed = true
	if r.end == EndOpen {
		r.end = EndLocal
	}
	r.mu.Unlock()
	if !first {
		return
	}
	l.mu.Lock()
	l.open--
	l.mu.Unlock()
	close(r.closed)
}

// add keeps what the budget allows of the bytes that r received.
func (l *ledger) add(r *ConnRecord, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := l.bytes.take(len(p)); n > 0 {
		r.received = append(r.received, p[:n]...)
	}
}

// request lists a request of r if the budget allows.
func (l *ledger) request(r *ConnRecord, req *RecordedRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) < MaxRequests && l.heads.take(len(req.Raw)) == len(req.Raw) {
		r.requests = append(r.requests, req)
	}
}

// list returns the listed records in order of accept.
func (l *ledger) list() []*ConnRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.records)
}

// counts returns how many connections were accepted, and how many are open.
func (l *ledger) counts() (accepted, open int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted, l.open
}

// received joins what all connections received, in order of accept.
func (l *ledger) received() []byte {
	var all []byte
	for _, r := range l.list() {
		r.mu.Lock()
		all = append(all, r.received...)
		r.mu.Unlock()
	}
	return all
}

// dropped returns how many received bytes the limit left out.
func (l *ledger) dropped() int64 { return l.bytes.dropped.Load() }
