package proxy

import (
	"errors"
	"io"
	"net"
	"time"
)

// incoming reads what a customer sends ahead of net/http, more strictly, and deals it out
// one message at a time: nothing behind a message's end is handed on before net/http asks
// for the next one. Bytes of a body are handed on as they come, a head when all of it has
// come and is in order: net/http would keep a second copy of what is slow to come.
//
// It is used by whoever reads the connection, one after the other. The head belongs to
// the reader until its end and to the request's handler from then on.
type incoming struct {
	state incomingState
	last  bool // no message may follow this one

	head  *[]byte // of the request under way, pooled; nil if nobody needs it
	whole []byte  // what of the head is still to be handed on, once all of it has come
	early *[]byte // pooled; was read before anybody reads from here, and comes first
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
)

// errRefused ends a connection whose customer has been answered, or sends what nobody can
// read. net/http says nothing to an error of reading.
var errRefused = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("proxy: the request is malformed")}

// fieldOrder returns the names of the field lines of the request under way, as the customer
// spelled and ordered them; nil if that is not known. Only the request's handler may ask,
// and nobody may change the slice.
func (c *frontConn) fieldOrder() []string {
	if c.order == nil && c.in.head != nil {
		c.order = c.names.of(*c.in.head, c.in.lines-1)
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
	if n := in.handOn(b); n > 0 {
		return n, nil
	}
	if in.state == atStart && in.last {
		return 0, io.EOF
	}
	for {
		n, refused, err := in.next(c.stream, b)
		if refused != "" {
			c.answer(refused)
			return 0, errRefused
		}
		if n > 0 || in.state == inHead {
			c.headBegins()
		}
		if len(in.unread) > 0 {
			err = nil // it comes again, behind them
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// headBegins notes that some of a message has come. A head that is not all there has its
// time from here on if net/http, which does not see it yet, still grants the time to idle.
func (c *frontConn) headBegins() {
	c.phase.CompareAndSwap(int32(phaseWaiting), int32(phaseHead))
	if c.idled && c.in.state == inHead {
		c.idled = false
		_ = c.SetReadDeadline(time.Now().Add(c.server.config.HeaderTimeout)) // else the read fails
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

// next reads into b and returns how many bytes at its start are to be handed on.
func (in *incoming) next(stream io.Reader, b []byte) (n int, refused Outcome, err error) {
	if in.early != nil {
		refused = in.dealEarly()
		return in.handOn(b), refused, nil
	}
	if n, err = in.read(stream, b); n > 0 {
		if n, refused = in.deal(b[:n]); n == 0 {
			n = in.handOn(b)
		}
	}
	if len(in.whole) > 0 {
		err = nil // it comes again, behind them
	}
	return n, refused, err
}

// handOn moves what it can of a whole head to b and returns how many bytes that is.
func (in *incoming) handOn(b []byte) int {
	n := copy(b, in.whole)
	if in.whole = in.whole[n:]; n > 0 && len(in.whole) == 0 {
		in.headDone()
	}
	return n
}

// headDone notes that all of the head was handed on.
func (in *incoming) headDone() {
	in.whole = nil
	if in.connect {
		in.dropHead() // nobody asks for a tunnel's
	}
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
// handed on; an empty line before a request is not, nor is a head that is not all there, or
// did not come with one read. What is behind the message's end stays with in. A head that
// is not in order is refused.
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
		if in.state == inHead {
			in.head = takeHeadBuffer(len(b))
		}
	}
	if in.state == inHead {
		first := len(*in.head) == 0
		if n, refused = in.takeHead(b); refused != "" {
			return 0, in.refuse(refused)
		}
		switch {
		case in.state == inHead:
			return 0, ""
		case !first:
			in.whole = *in.head
			in.leave(b[n:])
			return 0, ""
		}
		in.headDone()
	}
	n += in.takeBody(b[n:])
	if n < len(b) && in.state != broken { // what follows that is nobody's
		in.leave(b[n:])
	}
	return n, ""
}

// leave makes b come next, before what is unread already.
func (in *incoming) leave(b []byte) {
	if len(b) > 0 {
		in.unread = append(append(make([]byte, 0, len(b)+len(in.unread)), b...), in.unread...)
	}
}

// dealEarly takes up what came before anybody read from here, in its own buffer.
func (in *incoming) dealEarly() Outcome {
	buffer := in.early
	in.early = nil
	b := *buffer
	skipped, refused := in.begin(b)
	if refused != "" || in.state != inHead {
		giveHeadBuffer(buffer)
		return refused
	}
	b = b[:copy(b, b[skipped:])]
	*buffer = b[:0]
	in.head = buffer
	n, refused := in.takeHead(b) // which are there already
	if refused != "" {
		return in.refuse(refused)
	}
	if in.state != inHead {
		in.leave(b[n:])
		in.whole = *in.head
	}
	return ""
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

// dropHead gives the head's buffer back. The handler calls it, and nothing else of in is his:
// net/http may be reading ahead.
func (in *incoming) dropHead() {
	b := in.head
	in.head = nil
	if b != nil {
		giveHeadBuffer(b)
	}
}

// keep adds b to the head.
func (in *incoming) keep(b []byte) {
	if n := len(*in.head) + len(b); n > cap(*in.head) {
		old := in.head
		in.head = takeHeadBuffer(n)
		*in.head = append(*in.head, *old...)
		giveHeadBuffer(old)
	}
	*in.head = append(*in.head, b...)
}
