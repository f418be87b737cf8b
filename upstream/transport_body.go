package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	maxChunkLine    = 1 << 10  // bytes of a chunk's size with its extensions
	maxTrailerBytes = 16 << 10 // of an answer
)

var errBodyClosed = errors.New("upstream: the answer's body is closed")

// answerBody is an answer's body. It is read by one goroutine at a time; Close may be
// called meanwhile and interrupts it. When it has been read to its end, the connection
// is free for the next request.
type answerBody struct {
	x       *plainExchange
	framing framing
	left    int64 // of the body if its length is known, else of the chunk
	begun   bool  // a chunk was read; a line end follows it
	trailer http.Header

	mu  sync.Mutex // guards what follows and the exchange's buffer
	err error      // that every further Read returns
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.read(p)
	if err != nil {
		b.err = err
		b.x.end(errors.Is(err, io.EOF))
	}
	return n, err
}

// Close implements io.Closer. What was not read is not waited for.
func (b *answerBody) Close() error {
	b.x.interrupt() // no-op if the exchange is over
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = errBodyClosed
		b.x.end(false)
	}
	return nil
}

func (b *answerBody) read(p []byte) (int, error) {
	switch {
	case b.framing.chunked:
		return b.readChunks(p)
	case b.framing.length < 0:
		return b.some(p)
	}
	n, err := b.some(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		return n, io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// some reads at least a byte.
func (b *answerBody) some(p []byte) (int, error) {
	in := &b.x.in
	if in.start == in.end {
		b.x.wait()
	}
	return in.read(p)
}

// readChunks fills p from the chunks that have come, and waits for no more than one.
func (b *answerBody) readChunks(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if b.left == 0 {
			if n > 0 && bytes.IndexByte(b.x.in.buffered()[min(2, len(b.x.in.buffered())):], '\n') < 0 {
				break // the next chunk's line is not all here
			}
			last, err := b.nextChunk()
			if err != nil {
				return n, b.cut(err)
			}
			if last {
				return n, io.EOF
			}
		}
		if n > 0 && b.x.in.start == b.x.in.end {
			break
		}
		m, err := b.some(p[n : n+int(min(int64(len(p)-n), b.left))])
		b.left -= int64(m)
		n += m
		if err != nil {
			return n, b.cut(err)
		}
	}
	return n, nil
}

// cut is err, which is no orderly end in the midst of chunks.
func (b *answerBody) cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// nextChunk reads up to the data of the next chunk. After the last one it reads the
// trailers too.
func (b *answerBody) nextChunk() (last bool, err error) {
	line, err := b.line(maxChunkLine)
	if err != nil {
		return false, err
	}
	if b.begun { // the end of the chunk before
		if len(line) > 0 {
			return false, errAnswerEncoding
		}
		if line, err = b.line(maxChunkLine); err != nil {
			return false, err
		}
	}
	b.begun = true
	if b.left, err = chunkSize(line); err != nil || b.left > 0 {
		return false, err
	}
	return true, b.readTrailer()
}

// line reads a line that ends in CRLF and returns it without.
func (b *answerBody) line(limit int) ([]byte, error) {
	if bytes.IndexByte(b.x.in.buffered(), '\n') < 0 {
		b.x.wait()
	}
	line, err := b.x.in.until(endOfLine, limit)
	if err != nil {
		return nil, err
	}
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return nil, errAnswerEncoding
	}
	return line, nil
}

// chunkSize reads the size of a chunk: up to 15 hexadecimal digits, then blanks and an
// extension, which nobody needs (RFC 9112 §7.1.1).
func chunkSize(line []byte) (int64, error) {
	var n int64
	for i, c := range line {
		var digit byte
		switch {
		case '0' <= c && c <= '9':
			digit = c - '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			digit = c | 0x20 - 'a' + 10
		default:
			rest := bytes.TrimLeft(line[i:], " \t")
			if i == 0 || len(rest) > 0 && rest[0] != ';' {
				return 0, errAnswerEncoding
			}
			return n, nil
		}
		if i >= 15 {
			return 0, errAnswerEncoding
		}
		n = n<<4 | int64(digit)
	}
	if len(line) == 0 {
		return 0, errAnswerEncoding
	}
	return n, nil
}

// readTrailer reads the trailer section. Fields that may not stand in one are left out.
func (b *answerBody) readTrailer() error {
	var section strings.Builder
	for {
		line, err := b.line(maxTrailerBytes)
		if err != nil {
			return err
		}
		if section.Len()+len(line)+2 > maxTrailerBytes {
			return errAnswerTooLong
		}
		if len(line) == 0 {
			break
		}
		section.Write(line)
		section.WriteString("\n")
	}
	if section.Len() == 0 {
		return nil
	}
	came, _, err := parseFields(section.String())
	if err != nil {
		return errAnswerTrailer
	}
	trailer := make(http.Header, len(came))
	for name, values := range came {
		if validTrailer(name) {
			trailer[name] = values
		}
	}
	for name := range b.trailer {
		if _, ok := trailer[name]; !ok {
			trailer[name] = nil // announced, and did not come
		}
	}
	b.trailer = trailer
	return nil
}

// wait gives the next read its time.
func (x *plainExchange) wait() {
	if x.idle > 0 {
		_ = x.conn.SetReadDeadline(time.Now().Add(x.idle))
	}
}
