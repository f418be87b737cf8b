package account

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"
)

// maxHasherBuffer is the most that a hasher keeps for the next use.
const maxHasherBuffer = 8 << 10

// digest is the HMAC-SHA256, under a key of this process, of name, zero byte and
// password. A valid name has no zero byte, so no two pairs share the input.
type digest [sha256.Size]byte

// hasher is what one digest needs.
type hasher struct {
	mac hash.Hash
	in  []byte
	out []byte
}

// digester makes digests. Safe for concurrent use once its key and its hashers' New are set.
type digester struct {
	key     [32]byte  // of all digests; never leaves the process
	hashers sync.Pool // of *hasher
}

func (s *digester) newHasher() any {
	return &hasher{mac: hmac.New(sha256.New, s.key[:]), out: make([]byte, 0, sha256.Size)}
}

func (s *digester) digest(name, password string) (d digest) {
	h := s.hashers.Get().(*hasher)
	h.in = append(h.in[:0], name...)
	h.in = append(h.in, 0)
	h.in = append(h.in, password...)
	h.mac.Reset()
	h.mac.Write(h.in)
	h.out = h.mac.Sum(h.out[:0])
	copy(d[:], h.out)
	clear(h.in)
	if cap(h.in) <= maxHasherBuffer {
		s.hashers.Put(h)
	}
	return d
}
