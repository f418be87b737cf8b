package vendor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/bits"
	"strconv"
	"sync"
)

// sessionRule is what a vendor takes as a session's id.
type sessionRule struct {
	charset  string // "" = a number
	length   int
	min, max uint64
	geo      bool // another place is another session
}

// plainSession is for vendors of whom nothing is known.
var plainSession = sessionRule{charset: charsets["lower"], length: 16}

var charsets = map[string]string{
	"alnum":  "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
	"lower":  "0123456789abcdefghijklmnopqrstuvwxyz",
	"digits": "0123456789",
	"hex":    "0123456789abcdef",
}

// sessionKey derives the key of hashes from what every relay of a fleet has the same.
// Where the password stands literally in its template, the template is the secret; where
// there is none, the vendor's key may stand in the username's.
func sessionKey(c *LoginConfig) []byte {
	if len(c.SessionKey) > 0 {
		return c.SessionKey
	}
	secret := c.Password
	if secret == "" {
		secret = c.PasswordTemplate
	}
	if secret == "" {
		secret = c.UsernameTemplate
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("maskrelay session key\x00" + c.Login))
	return mac.Sum(nil)
}

// hasher makes the keyed hashes of sessions. It is safe for concurrent use.
type hasher struct {
	key  []byte
	pool sync.Pool // of *hashing
}

// hashing is the state of one hash: HMAC is keyed once and then reset.
type hashing struct {
	mac hash.Hash
	buf []byte // the message, then the sum
}

func (h *hasher) get() *hashing {
	if s, ok := h.pool.Get().(*hashing); ok {
		return s
	}
	return &hashing{mac: hmac.New(sha256.New, h.key), buf: make([]byte, 0, 256)}
}

// sum hashes a customer's session: HMAC-SHA256 over account 0 session, and with geo over
// 0 and each of the place's fields. No account, session or field holds a 0. The result
// lives in s until its next sum.
func (s *hashing) sum(account string, p *Params, geo bool) []byte {
	b := append(append(append(s.buf[:0], account...), 0), p.Session...)
	if geo {
		for i := range iSession {
			b = append(append(b, 0), p.at(i)...)
		}
	}
	return s.hash(b)
}

func (s *hashing) hash(message []byte) []byte {
	s.mac.Reset()
	s.mac.Write(message)
	s.buf = s.mac.Sum(message[:0])
	return s.buf
}

// id appends the vendor's id of a session.
func (h *hasher) id(dst []byte, rule *sessionRule, account string, p *Params) []byte {
	s := h.get()
	defer h.pool.Put(s)
	sum := s.sum(account, p, rule.geo)
	if rule.charset == "" {
		return strconv.AppendUint(dst, rule.min+remainder(sum, rule.max-rule.min+1), 10)
	}
	// A byte beyond the last whole multiple of the charset's size is passed over, so that
	// no character is more likely than another. The charset is smaller than 129.
	n := len(rule.charset)
	fair := 256 - 256%n
	for left := rule.length; left > 0; sum = s.hash(sum) {
		for _, c := range sum {
			if int(c) < fair && left > 0 {
				dst = append(dst, rule.charset[int(c)%n])
				left--
			}
		}
	}
	return dst
}

// port is the port of a session.
func (h *hasher) port(r PortRange, geo bool, account string, p *Params) uint16 {
	s := h.get()
	defer h.pool.Put(s)
	return r.From + uint16(remainder(s.sum(account, p, geo), uint64(r.To-r.From)+1))
}

// remainder is the first 128 bits of sum modulo n, which makes the bias n/2^128.
func remainder(sum []byte, n uint64) uint64 {
	hi, lo := binary.BigEndian.Uint64(sum), binary.BigEndian.Uint64(sum[8:])
	_, rest := bits.Div64(hi%n, lo, n)
	return rest
}
