package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
)

// incoming reads what a customer sends ahead of net/http, more strictly, and deals it out
// one message at a time: nothing behind a message's end is handed on before net/http asks
// for the next one. Bytes of a message are handed on as they come, but a line of a head
// only when it is in order, and the head's end only when all of the head is.
//
// It is used by whoever reads the connection, one after the other. The head belongs to
// the reader until its end and to the request's handler from then on.
type incoming struct {
	state incomingState
	last  bool // no message may follow this one

	head  *[]byte // of the request under way, pooled; nil if nobody needs it
	begun int     // where the head's line under way begins
	lines int     // of the head, that are complete
	framing

	left    int64 // of a counted body, or of a chunk; while its size is read, the size so far
	digits  int   // of a chunk's size
	extra   int   // bytes of a chunk's extensions, or of the trailer section
	name    [len("transfer-encoding")]byte
	nameLen int // may exceed name

	unread []byte  // read, and not handed on: of the next message, or what makes net/http refuse a body
	ahead  [1]byte // what unread is a part of while net/http waits for the customer to leave
}

// incomingState is what comes next.
type incomingState uint8

const (
	atStart     incomingState = iota // a message, or the empty line before it
	atBlankLF                        // the empty line's LF
	atFirst                          // a message, after the empty line
	inHead                           // more of a head
	inBody                           // more of a body of known length
	inSize                           // more of a chunk's size
	inExtension                      // more of its extensions
	atSizeLF                         // the LF behind them
	inChunk                          // more of its data
	atChunkCR                        // the CR behind it
	atChunkLF                        // the LF behind that
	atTrailer                        // a trailer field, or the end
	inTrailer                        // more of its name
	inValue                          // more of its value
	atTrailerLF                      // the LF behind it
	atEndLF                          // the message's last byte
	broken                           // nothing that could be read
)

const (
	maxHead       = maxHeadBytes + 4<<10 // in bytes; where net/http draws the line
	maxFieldLines = 256                  // of a head
	maxPooledHead = 8 << 10
)

// heads holds the buffers of heads.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// errRefused ends a connection whose customer has been answered, or sends what nobody can
// read. net/http says nothing to an error of reading.
var errRefused = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("proxy: the request is malformed")}

// fieldOrder returns the names of the field lines of the request under way, as the customer
// spelled and ordered them; nil if that is not known. Only the request's handler may ask,
// and nobody may change the slice.
func (c *frontConn) fieldOrder() []string {
	if c.order == nil && c.in.head != nil {
		c.order = fieldNames(*c.in.head, c.in.lines-1)
		c.in.dropHead()
	}
	return c.order
}

// readMessage is Read once the connection is prepared.
func (c *frontConn) readMessage(b []byte) (int, error) {
	in := &c.in
	if c.aheadOfRequest(b) {
		return 0, c.awaitEnd()
	}
	if in.state == atStart && in.last {
		return 0, io.EOF
	}
	for {
		n, err := in.read(c.stream, b)
		if n > 0 {
			var refused Outcome
			if n, refused = in.deal(b[:n]); refused != "" {
				c.answer(refused)
				return 0, errRefused
			}
		}
		if n > 0 {
			c.phase.CompareAndSwap(int32(phaseWaiting), int32(phaseHead))
		}
		if len(in.unread) > 0 {
			err = nil // it comes again, behind them
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// awaitEnd is net/http's read ahead of the next request: it waits for the customer to
// leave. What he sends instead is not handed on yet. Without TLS a watch does that.
func (c *frontConn) awaitEnd() error {
	if canWatch && !c.listener.secured {
		c.requestRead()
		return nil
	}
	in := &c.in
	if len(in.unread) > 0 {
		return nil
	}
	n, err := c.stream.Read(in.ahead[:])
	in.unread = in.ahead[:n]
	return err
}

// read reads into b what was left unread, else from the stream; of a body of known length
// no more than there is of it.
func (in *incoming) read(stream io.Reader, b []byte) (int, error) {
	if len(in.unread) > 0 {
		n := copy(b, in.unread)
		if in.unread = in.unread[n:]; len(in.unread) == 0 {
			in.unread = nil
		}
		return n, nil
	}
	switch in.state {
	case broken:
		return 0, errRefused
	case inBody:
		b = b[:min(int64(len(b)), in.left)]
	}
	return stream.Read(b)
}

// deal takes up b, which was read, and returns how many bytes at its start are to be
// handed on; an empty line before a request is not. What is behind the message's end stays
// with in. A head that is not in order is refused.
func (in *incoming) deal(b []byte) (n int, refused Outcome) {
	if in.state == broken {
		return len(b), ""
	}
	if in.state < inHead {
		skipped, refused := in.begin(b)
		if refused != "" {
			return 0, refused
		}
		b = b[:copy(b, b[skipped:])]
	}
	if in.state == inHead {
		if n, refused = in.takeHead(b); refused != "" {
			return 0, in.refuse(refused)
		}
	}
	n += in.takeBody(b[n:])
	if n == len(b) || in.state == broken { // what follows is nobody's
		return n, ""
	}
	// What is still unread comes behind.
	in.unread = append(append(make([]byte, 0, len(b)-n+len(in.unread)), b[n:]...), in.unread...)
	return n, ""
}

// begin looks for a message's first byte in b and returns its offset. One empty line
// before it is skipped (RFC 9112 §2.2): old clients end a body with one.
func (in *incoming) begin(b []byte) (skipped int, refused Outcome) {
	for i, c := range b {
		switch {
		case in.state == atStart && c == '\r':
			in.state = atBlankLF
		case in.state == atBlankLF && c == '\n':
			in.state = atFirst
		case in.state != atBlankLF && tokenBytes[c]:
			in.state, in.begun, in.lines, in.framing = inHead, 0, 0, framing{}
			in.head = heads.Get().(*[]byte)
			return i, ""
		default:
			return 0, in.refuse(BadRequest)
		}
	}
	return len(b), ""
}

// refuse makes in deal out nothing any more.
func (in *incoming) refuse(o Outcome) Outcome {
	in.dropHead()
	in.state, in.unread = broken, nil
	return o
}

// dropHead gives the head's buffer back.
func (in *incoming) dropHead() {
	b := in.head
	in.head = nil
	if b != nil && cap(*b) <= maxPooledHead {
		*b = (*b)[:0]
		heads.Put(b)
	}
}
