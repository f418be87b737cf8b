package vendor

import (
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Key is the name of a parameter in a customer's username.
type Key string

// The keys.
const (
	Country Key = "country"
	State   Key = "state"
	City    Key = "city"
	Zip     Key = "zip"
	ASN     Key = "asn"
	Session Key = "session"
	TTL     Key = "ttl"
	Pool    Key = "pool"
)

// Keys returns all keys, in the order in which logins and sentences name them. Pool is
// the last, and the only one that no vendor sees.
func Keys() []Key { return []Key{Country, State, City, Zip, ASN, Session, TTL, Pool} }

// Bounds of values.
const (
	maxPlace = 64 // bytes of a state or city
	minZip   = 2
	maxZip   = 10
	maxID    = 64 // bytes of a session
	maxPool  = 32
	maxTTL   = 30 * 24 * time.Hour
)

// Params are what a customer asks of a vendor, in canonical form: lower case, words
// joined by '_', countries as ISO 3166-1 alpha-2. The zero value asks for nothing.
type Params struct {
	Country, State, City, Zip, ASN string
	Session                        string        // as the customer wrote it
	TTL                            time.Duration // of the session, whole seconds; 0 = not given
	Pool                           string        // of the relay's, no vendor sees it
}

// IsZero reports whether nothing is asked of a vendor; Pool is not the vendor's.
func (p Params) IsZero() bool {
	p.Pool = ""
	return p == Params{}
}

// String is the canonical form: [ParseParams] reads it back. It is what the customer
// wrote, so it does not belong into a login.
func (p Params) String() string {
	var b strings.Builder
	add := func(k Key, v string) {
		if v == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte('-')
		}
		b.WriteString(string(k) + "-" + v)
	}
	add(Country, p.Country)
	add(State, p.State)
	add(City, p.City)
	add(Zip, p.Zip)
	add(ASN, p.ASN)
	add(Session, p.Session)
	if p.TTL > 0 {
		add(TTL, strconv.FormatInt(int64(p.TTL/time.Second), 10)+"s")
	}
	add(Pool, p.Pool)
	return b.String()
}

// ParseParams reads the parameters behind an account's name, "country-us-ttl-10m":
// pairs of a key and a value in any order, each key at most once. A value has no '-' and
// nothing else that a vendor's login could be cut at. "" is no parameters.
//
//	country  ISO 3166-1 alpha-2, any case; uk is gb
//	state    [A-Za-z0-9_]{1,64}, words joined by one '_': new_york
//	city     the same
//	zip      [A-Za-z0-9]{2,10}
//	asn      1 to 4294967295, "as" before it or not
//	session  [A-Za-z0-9_]{1,64}, any name of the customer's
//	ttl      the session's lifetime with its unit, 1s to 30d, whole seconds: 30s, 10m, 1h30m, 7d; needs session
//	pool     [A-Za-z0-9_.]{1,32}
func ParseParams(s string) (Params, *Fault) {
	var p Params
	var seen uint8
	for more := s != ""; more; {
		var name, value string
		name, s, more = strings.Cut(s, "-")
		i := keyIndex(name)
		if i < 0 {
			return Params{}, &Fault{Kind: Malformed}
		}
		key := keyNames[i]
		if seen&(1<<i) != 0 {
			return Params{}, &Fault{Kind: Twice, Key: key}
		}
		seen |= 1 << i
		if more {
			value, s, more = strings.Cut(s, "-")
		}
		if !p.set(key, value) {
			return Params{}, &Fault{Kind: Invalid, Key: key}
		}
	}
	if p.TTL > 0 && p.Session == "" {
		return Params{}, &Fault{Kind: Needs, Key: TTL, Other: Session}
	}
	return p, nil
}

// keyNames are the keys by their index; the vendors' come first.
var keyNames = [...]Key{Country, State, City, Zip, ASN, Session, TTL, Pool}

// Indexes into keyNames.
const (
	iCountry = iota
	iState
	iCity
	iZip
	iASN
	iSession
	iTTL
	vendorKeys // how many of the keys are the vendors' business
)

func keyIndex(name string) int {
	for i, k := range keyNames {
		if name == string(k) {
			return i
		}
	}
	return -1
}

// keySet is a set of indexes of vendors' keys.
type keySet uint8

func (s keySet) has(i int) bool { return s&(1<<i) != 0 }

// first is the lowest index of a set that is not empty.
func (s keySet) first() int { return bits.TrailingZeros8(uint8(s)) }

// given is the set of keys that p has.
func (p *Params) given() keySet {
	var s keySet
	for i := range iTTL {
		if p.at(i) != "" {
			s |= 1 << i
		}
	}
	if p.TTL > 0 {
		s |= 1 << iTTL
	}
	return s
}

// at is the canonical value of one of the keys that are text.
func (p *Params) at(i int) string {
	switch i {
	case iCountry:
		return p.Country
	case iState:
		return p.State
	case iCity:
		return p.City
	case iZip:
		return p.Zip
	case iASN:
		return p.ASN
	case iSession:
		return p.Session
	}
	return ""
}

// set reports whether v is a value of k, and takes it.
func (p *Params) set(k Key, v string) (ok bool) {
	switch k {
	case Country:
		p.Country, ok = parseCountry(v)
	case State:
		p.State, ok = parsePlace(v)
	case City:
		p.City, ok = parsePlace(v)
	case Zip:
		p.Zip, ok = strings.ToLower(v), minZip <= len(v) && len(v) <= maxZip && all(v, isAlnum)
	case ASN:
		p.ASN, ok = parseASN(v)
	case Session:
		p.Session, ok = v, 1 <= len(v) && len(v) <= maxID && all(v, isWord)
	case TTL:
		p.TTL, ok = parseTTL(v)
	case Pool:
		p.Pool, ok = v, IsPool(v)
	}
	return ok
}

// IsPool reports whether s can be the name of a pool: [A-Za-z0-9_.]{1,32}.
func IsPool(s string) bool {
	return 1 <= len(s) && len(s) <= maxPool && all(s, func(c byte) bool { return isWord(c) || c == '.' })
}

func parseCountry(v string) (string, bool) {
	if !all(v, isAlnum) { // lower-casing makes ASCII of some letters that are not
		return "", false
	}
	v = strings.ToLower(v)
	if v == "uk" {
		return "gb", true
	}
	return v, isCountry(v)
}

// parsePlace takes words joined by one '_' each. Two in a row, or one at an end, would
// let a value imitate a separator that a vendor uses.
func parsePlace(v string) (string, bool) {
	if v == "" || len(v) > maxPlace || v[0] == '_' || v[len(v)-1] == '_' {
		return "", false
	}
	return strings.ToLower(v), all(v, isWord) && !strings.Contains(v, "__")
}

func parseASN(v string) (string, bool) {
	if len(v) > 2 && lowerByte(v[0]) == 'a' && lowerByte(v[1]) == 's' {
		v = v[2:]
	}
	if len(v) > 10 || !all(v, isDigit) {
		return "", false
	}
	v = strings.TrimLeft(v, "0")
	n, err := strconv.ParseUint(v, 10, 32)
	return v, err == nil && n > 0
}

// parseTTL takes what time.ParseDuration does, without a sign, and whole days.
func parseTTL(v string) (time.Duration, bool) {
	if v == "" || len(v) > 20 || !isDigit(v[0]) {
		return 0, false
	}
	var d time.Duration
	if days, ok := strings.CutSuffix(v, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 8)
		if err != nil {
			return 0, false
		}
		d = time.Duration(n) * 24 * time.Hour
	} else {
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			return 0, false
		}
	}
	return d, time.Second <= d && d <= maxTTL && d%time.Second == 0
}

// all reports whether ok holds for every byte of s.
func all(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isAlnum(c byte) bool { return isDigit(c) || isLower(c) || 'A' <= c && c <= 'Z' }
func isWord(c byte) bool  { return isAlnum(c) || c == '_' }
