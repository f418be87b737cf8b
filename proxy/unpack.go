package proxy

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strings"
)

const (
	maxCodings  = 3         // of one body
	maxUnpacked = 256 << 10 // bytes of it that are looked at
)

// unpack is the beginning of a body without its Content-Encoding, as far as it is known and
// b reaches; nil without one, or if b is not what it says.
func unpack(header http.Header, b []byte) []byte {
	codings := strings.Split(strings.ToLower(strings.Join(header["Content-Encoding"], ",")), ",")
	if len(codings) > maxCodings {
		return nil
	}
	var r io.Reader = bytes.NewReader(b)
	packed := false
	for i := len(codings) - 1; i >= 0; i-- { // the last one was applied last
		var err error
		switch strings.TrimSpace(codings[i]) {
		case "", "identity":
			continue
		case "gzip", "x-gzip":
			r, err = gzip.NewReader(r)
		case "deflate":
			r, err = inflate(r)
		default:
			return nil
		}
		if err != nil {
			return nil
		}
		packed = true
	}
	if !packed {
		return nil
	}
	unpacked, _ := io.ReadAll(io.LimitReader(r, maxUnpacked)) // b is a beginning, it ends where it ends
	return unpacked
}

// inflate reads deflate: what the name means, or what some have sent under it (RFC 9110 §8.4.1.2).
func inflate(r io.Reader) (io.Reader, error) {
	br := bufio.NewReader(r)
	if head, _ := br.Peek(2); len(head) == 2 && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(br)
	}
	return flate.NewReader(br), nil
}
