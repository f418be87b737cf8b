package upstreamtest

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
)

// Pattern returns a reader of exactly n bytes that are the same in every run and
// repeat nowhere, so that a lost, doubled or swapped block changes their digest.
func Pattern(n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte([]byte("loopback deterministic pattern!!"))), max(n, 0))
}

// PatternDigest returns the SHA-256 of Pattern(n) in hex.
func PatternDigest(n int64) string {
	sum, _, _ := digest(Pattern(n)) // neither the generator nor the hash can fail
	return sum
}

// digest reads r to its end and returns its SHA-256 in hex and its length.
func digest(r io.Reader) (sum string, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
