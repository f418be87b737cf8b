package upstream

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	uploadBufferSize = 32 << 10 // of a body, read at once
	chunkRoom        = 16       // left before it for a chunk's framing
	// The head waits a moment for the body's first bytes, which mostly came with the
	// customer's, and takes them along if they are few.
	firstBytesWait = 5 * time.Millisecond
	maxFirstBytes  = 4 << 10
)

var uploadBuffers = sync.Pool{New: func() any { return new([chunkRoom + uploadBufferSize + 2]byte) }}

var errNotWanted = errors.New("upstream: the answer came before the body")

// upload sends a request's body, in a goroutine of its own. All methods but run may be
// called on a nil one, which is complete.
type upload struct {
	x       *plainExchange
	request *http.Request
	expects bool          // waits for a 100
	may     chan struct{} // closed when it need not wait any longer
	release func()        // closes may, once
	begun   bool          // guarded by x.mu: the body may be read

	first   chan struct{} // closed when the first bytes are in piece, or readErr says why not
	taken   chan bool     // told once, after the head was written, whether piece went with it
	piece   []byte
	readErr error

	ended  bool  // guarded by x.mu
	err    error // guarded by x.mu
	wanted bool  // guarded by x.mu; false = nobody wants the body any more
}

// sendHead writes the head and starts to send the body, if there is one. From then on
// the answer's head has no deadline until the body is sent.
func (x *plainExchange) sendHead(head []byte) error {
	_ = x.conn.SetDeadline(time.Now().Add(x.patience))
	if !hasBody(x.r.Request) {
		_, err := x.conn.Write(head)
		return err
	}
	_ = x.conn.SetReadDeadline(time.Time{})
	u := &upload{
		x: x, request: x.r.Request, wanted: true,
		may: make(chan struct{}), first: make(chan struct{}), taken: make(chan bool, 1),
	}
	u.release = sync.OnceFunc(func() { close(u.may) })
	u.expects = hasToken(u.request.Header["Expect"], "100-continue")
	x.upload = u
	if u.expects {
		u.taken <- false
		if _, err := x.conn.Write(head); err != nil {
			return err // nothing reads the body
		}
		x.t.bodies.Go(u.run)
		return nil
	}
	x.t.bodies.Go(u.run)
	along, err := u.firstBytes()
	if err == nil {
		_, err = x.conn.Write(append(head, along...))
	}
	u.taken <- err == nil && len(along) > 0
	return err
}

// firstBytes are those that go with the head; the error is the body's.
func (u *upload) firstBytes() ([]byte, error) {
	timer := time.NewTimer(firstBytesWait)
	defer timer.Stop()
	select {
	case <-u.first:
	case <-timer.C:
		return nil, nil
	}
	switch {
	case u.readErr != nil && !errors.Is(u.readErr, io.EOF):
		return nil, u.readErr
	case len(u.piece) > maxFirstBytes:
		return nil, nil
	}
	return u.piece, nil
}

// proceed lets the body go: the target has asked for it.
func (u *upload) proceed() {
	if u != nil {
		u.release()
	}
}

// refuse ends the upload of a body that is still held back.
func (u *upload) refuse() {
	if u == nil {
		return
	}
	u.x.mu.Lock()
	if u.expects && !u.begun {
		u.wanted = false
	}
	u.x.mu.Unlock()
	u.release()
}

// complete reports whether all of the body was sent. Valid once the upload is over.
func (u *upload) complete() bool {
	if u == nil {
		return true
	}
	u.x.mu.Lock()
	defer u.x.mu.Unlock()
	return u.ended && u.err == nil
}

// sendError is why the body could not be sent; nil if it was, or there is none.
func (x *plainExchange) sendError() error {
	if x.upload == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.upload.err
}

// run sends the body and then sees to the connection as far as that is its part.
func (u *upload) run() {
	err := u.await()
	cut := false // the connection is of no use
	if err == nil {
		cut, err = u.send()
	}
	x := u.x
	x.mu.Lock()
	u.ended, u.err = true, err
	over := x.over
	switch {
	case over || x.headCame:
	case err == nil:
		_ = x.conn.SetReadDeadline(time.Now().Add(x.patience))
	case !cut:
		// The gateway has closed, but may have said why.
		_ = x.conn.SetReadDeadline(time.Now().Add(plainGraceAfterCut))
	}
	if cut {
		_ = x.conn.Close()
	}
	x.mu.Unlock()
	if over {
		x.part()
	}
}

// await waits until the body may be sent.
func (u *upload) await() error {
	if u.expects {
		timer := time.NewTimer(plainContinueAfter)
		select {
		case <-u.may:
		case <-timer.C:
		}
		timer.Stop()
	}
	u.x.mu.Lock()
	defer u.x.mu.Unlock()
	if !u.wanted {
		return errNotWanted
	}
	u.begun = true
	return nil
}

// send copies the body. cut reports that the connection must not be used any further:
// the customer's part failed, or the gateway takes nothing.
func (u *upload) send() (cut bool, err error) {
	buf := uploadBuffers.Get().(*[chunkRoom + uploadBufferSize + 2]byte)
	defer uploadBuffers.Put(buf)
	chunked, left := u.request.ContentLength <= 0, u.request.ContentLength
	for first := true; chunked || left > 0; first = false {
		room := buf[chunkRoom : chunkRoom+uploadBufferSize]
		if !chunked {
			room = room[:min(int64(len(room)), left)]
		}
		n, readErr := u.request.Body.Read(room)
		left -= int64(n)
		out := room[:n]
		if chunked && n > 0 {
			out = frameChunk(buf, n)
		}
		if first && u.offer(out, readErr) {
			out = nil
		}
		if err := u.write(out); err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded), err
		}
		switch {
		case readErr == nil:
		case !errors.Is(readErr, io.EOF):
			return true, readErr
		case chunked:
			err := u.writeTrailer()
			return errors.Is(err, os.ErrDeadlineExceeded), err
		case left > 0:
			return true, io.ErrUnexpectedEOF
		}
	}
	return false, nil
}

// offer lets the body's first bytes go with the head, and reports whether they did.
func (u *upload) offer(piece []byte, err error) bool {
	u.piece, u.readErr = piece, err
	close(u.first)
	return <-u.taken
}

// frameChunk makes a chunk of the n bytes behind the room at the start of buf.
func frameChunk(buf *[chunkRoom + uploadBufferSize + 2]byte, n int) []byte {
	var size [chunkRoom]byte
	line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	start := chunkRoom - len(line)
	copy(buf[start:], line)
	copy(buf[chunkRoom+n:], "\r\n")
	return buf[start : chunkRoom+n+2]
}

// writeTrailer ends a chunked body.
func (u *upload) writeTrailer() error {
	end, err := appendFields([]byte("0\r\n"), u.request.Trailer, func(name string) bool { return !validTrailer(name) })
	if err != nil {
		return err
	}
	return u.write(append(end, "\r\n"...))
}

func (u *upload) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_ = u.x.conn.SetWriteDeadline(time.Now().Add(u.x.patience))
	_, err := u.x.conn.Write(b)
	return err
}
