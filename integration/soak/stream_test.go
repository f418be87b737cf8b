package soak

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
)

// blockSize is a prime, so that no power of two of bytes lost or sent twice goes unnoticed.
const blockSize = 1<<20 + 7

// streams makes the bytes of all tunnels of a run: each direction is the run's random block, read round and round from a place of its own.
type streams struct{ block []byte }

func newStreams(seed uint64) *streams {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	// Longer than the block by what is compared at once: no piece has to be put together.
	block := make([]byte, blockSize+pieceSize)
	_, _ = rand.NewChaCha8(key).Read(block[:blockSize]) // it has no errors
	copy(block[blockSize:], block)
	return &streams{block: block}
}

// pieceSize is the most that is written or compared at once.
const pieceSize = 64 << 10

// direction of a stream.
type direction uint64

const (
	upward   direction = iota // from the customer
	downward                  // to the customer
)

// stream is one direction of one tunnel: where in the block its next byte is.
type stream struct {
	*streams
	start uint64
	at    int64
}

func (s *streams) of(id uint64, d direction) stream {
	x := id*2 + uint64(d) + 0x9e3779b97f4a7c15 // splitmix64: neighbours lie far apart
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return stream{streams: s, start: (x ^ x>>31) % blockSize}
}

// peek returns the next n bytes, at most pieceSize.
func (s *stream) peek(n int) []byte {
	from := int((s.start + uint64(s.at)) % blockSize)
	return s.block[from : from+min(n, pieceSize)]
}

// next is peek, and moves on.
func (s *stream) next(n int) []byte {
	b := s.peek(n)
	s.at += int64(len(b))
	return b
}

var errWrongByte = errors.New("wrong byte")

// Write compares p with the next bytes of the stream.
func (s *stream) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		want := s.peek(len(p) - done)
		got := p[done : done+len(want)]
		if !bytes.Equal(got, want) {
			i := 0
			for got[i] == want[i] {
				i++
			}
			return done + i, fmt.Errorf("%w: byte %d of the stream is %#x, not %#x (from there %.40q)", errWrongByte, s.at+int64(i), got[i], want[i], got[i:])
		}
		s.at += int64(len(want))
		done += len(want)
	}
	return len(p), nil
}

// How a direction of a tunnel came to its end, as a reader saw it.
const (
	endOrderly = "eof"
	endBroken  = "reset"
	endLate    = "timeout"
)

// endOf names the error of a read or write; others are told as they are.
func endOf(err error) string {
	var timeout net.Error
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return endOrderly
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrUnexpectedEOF):
		return endBroken // io.ErrUnexpectedEOF: TLS or a body that was cut off
	case errors.As(err, &timeout) && timeout.Timeout():
		return endLate
	default:
		return err.Error()
	}
}
