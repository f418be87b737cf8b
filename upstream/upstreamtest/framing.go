package upstreamtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// framingKind is how the end of a body is found (RFC 9112 §6.3).
type framingKind int

const (
	noBody framingKind = iota
	byLength
	chunked
	untilClose
)

type framing struct {
	kind   framingKind
	length int64
}

// requestFraming returns the framing of a request's body.
func requestFraming(h http.Header) framing {
	if strings.EqualFold(h.Get("Transfer-Encoding"), "chunked") {
		return framing{kind: chunked}
	}
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil && n > 0 {
		return framing{kind: byLength, length: n}
	}
	return framing{}
}

// responseFraming returns the framing of the body of a response to method.
func responseFraming(method string, status int, h http.Header) framing {
	if method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified {
		return framing{}
	}
	if h.Get("Transfer-Encoding") == "" && h.Get("Content-Length") == "" {
		return framing{kind: untilClose}
	}
	return requestFraming(h)
}

// copyBody copies a body as it is, chunk heads and trailers included, each part as soon as it comes.
func copyBody(dst io.Writer, src *bufio.Reader, f framing) error {
	switch f.kind {
	case byLength:
		body := &io.LimitedReader{R: src, N: f.length}
		if err := copyAsItComes(dst, body); err != nil {
			return err
		}
		if body.N > 0 {
			return io.ErrUnexpectedEOF
		}
		return nil
	case chunked:
		return copyChunks(dst, src)
	case untilClose:
		return copyAsItComes(dst, src)
	default:
		return nil
	}
}

// copyChunks copies a chunked body with its trailer section.
func copyChunks(dst io.Writer, src *bufio.Reader) error {
	for {
		size, err := copyChunkHead(dst, src)
		if err != nil {
			return err
		}
		if size == 0 {
			return copyTrailers(dst, src)
		}
		// The data and its line end.
		if err := copyBody(dst, src, framing{kind: byLength, length: size + 2}); err != nil {
			return err
		}
	}
}

// copyChunkHead copies a chunk's first line and returns the size that it announces.
func copyChunkHead(dst io.Writer, src *bufio.Reader) (int64, error) {
	line, err := src.ReadSlice('\n')
	if err != nil {
		return 0, fmt.Errorf("upstreamtest: chunk head: %w", err)
	}
	digits, _, _ := bytes.Cut(line, []byte(";"))
	size, err := strconv.ParseInt(string(bytes.TrimSpace(digits)), 16, 62)
	if err != nil || size < 0 {
		return 0, fmt.Errorf("upstreamtest: chunk head: %w", errMalformedHead)
	}
	_, err = dst.Write(line)
	return size, err
}

// copyTrailers copies lines up to the empty one.
func copyTrailers(dst io.Writer, src *bufio.Reader) error {
	for total := 0; total <= maxHead; {
		line, err := src.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("upstreamtest: trailers: %w", err)
		}
		total += len(line)
		if _, err := dst.Write(line); err != nil {
			return err
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return nil
		}
	}
	return fmt.Errorf("upstreamtest: trailers: %w", errHeadTooLarge)
}
