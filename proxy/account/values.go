package account

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const maxRate = 1e9

// parseNetwork reads a CIDR, whose host bits are dropped, or an address. IPv4 in
// IPv6 form becomes IPv4.
func parseNetwork(s string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), true
}

// kind is the type of a value in a file or in JSON.
type kind int

const (
	kindOther   kind = iota // a mapping, or text over several lines
	kindNull                // nothing
	kindAlias               // an anchor, an alias or a tag, of which YAML alone has any
	kindString              // in quotes or not
	kindInteger             // digits, or another spelling of a whole number
	kindFloat               // any other number
	kindSpecial             // infinity or not a number
	kindBool                // true or false
	kindList                // whose elements are values of their own
)

// value is what a key is set to, apart from how it was written. Each of the methods
// below returns what it stands for, or the problem, which never quotes it.
type value struct {
	kind kind
	text string // of a string its contents, of a number or bool as it was written
}

// problem says why v is not what was wanted.
func (v value) problem(want string) string {
	switch v.kind {
	case kindNull:
		return "has no value"
	case kindAlias:
		return "anchors, aliases and tags are not supported"
	}
	return want
}

func (v value) string() (s, problem string) {
	switch v.kind {
	case kindString:
		return strings.Clone(v.text), "" // not a piece of the file's text
	case kindInteger, kindFloat, kindSpecial, kindBool:
		return "", "must be a string: put it in quotes"
	}
	return "", v.problem("must be a string on one line")
}

func (v value) whole() (int, string) {
	if v.kind == kindInteger {
		if n, ok := parseWhole(v.text); ok {
			return n, ""
		}
	}
	return 0, v.problem(wantWhole)
}

func (v value) weight() (int, string) {
	if n, problem := v.whole(); problem == "" && n <= MaxWeight {
		return n, ""
	}
	return 0, v.problem("must be a whole number from 0 to " + strconv.Itoa(MaxWeight))
}

func (v value) rate() (float64, string) {
	switch v.kind {
	case kindInteger, kindFloat:
		rate, err := strconv.ParseFloat(v.text, 64)
		if err == nil && !math.Signbit(rate) && rate <= maxRate && !strings.ContainsAny(v.text, "xXoO_") {
			return rate, ""
		}
	}
	return 0, v.problem("must be a number from 0 to 1000000000")
}

// size reads a number of bytes by parse, from the text as it was written: 1e6 and 0x10
// are no sizes.
func (v value) size(parse func(string) (int64, error)) (int64, string) {
	switch v.kind {
	case kindString, kindInteger, kindFloat:
		n, err := parse(v.text)
		if err != nil {
			return 0, err.Error()
		}
		return n, ""
	}
	return 0, v.problem("must be a size such as 10MB")
}

func (v value) period() (string, string) {
	if v.kind == kindString {
		for _, known := range []string{Lifetime, Monthly} {
			if v.text == known {
				return known, ""
			}
		}
	}
	return "", v.problem("must be " + Lifetime + " or " + Monthly)
}

func (v value) time() (time.Time, string) {
	if v.kind == kindString {
		t, err := time.Parse(time.RFC3339, v.text)
		if err == nil && !t.IsZero() {
			return t, ""
		}
	}
	return time.Time{}, v.problem("must be a time such as 2026-12-31T00:00:00Z")
}

func (v value) bool() (set bool, problem string) {
	if v.kind == kindBool {
		return v.text == "true", ""
	}
	return false, v.problem("must be true or false")
}

func (v value) network() (netip.Prefix, string) {
	s, problem := v.string()
	if problem != "" {
		return netip.Prefix{}, problem
	}
	prefix, ok := parseNetwork(s)
	if !ok {
		return netip.Prefix{}, "must be a network such as 203.0.113.0/24, or an address"
	}
	return prefix, ""
}
