package account

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxName     = 64
	maxUsername = 512
)

// CheckName returns an error unless name can be an account's name:
// [A-Za-z0-9_.-]{1,64}, where none of the segments between dashes is one of the
// parameters of a customer's username (country, state, city, zip, asn, session,
// ttl, pool). Names are case-sensitive. The error does not quote the name.
func CheckName(name string) error {
	if problem := nameProblem(name); problem != "" {
		return errors.New("account: name " + problem)
	}
	return nil
}

func nameProblem(name string) string {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, notInName) {
		return fmt.Sprintf("must be 1 to %d of the characters A-Z, a-z, 0-9, '_', '.' and '-'", maxName)
	}
	for segment := range strings.SplitSeq(name, "-") {
		if isParam(segment) {
			return fmt.Sprintf("must not have the segment %q, which is a username parameter", segment)
		}
	}
	return ""
}

func notInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '.' || r == '-')
}

// isParam reports whether s is the key of a username parameter.
func isParam(s string) bool {
	switch s {
	case "country", "state", "city", "zip", "asn", "session", "ttl", "pool":
		return true
	}
	return false
}

// Username is a customer's username, taken apart.
type Username struct {
	// Name is the account's name, not yet checked.
	Name string
	// Params are the parameters after the name, unparsed: "country-us-ttl-10m".
	Params string
}

// SplitUsername splits s at the first "-key-" whose key is a parameter:
// "alice-country-us" is alice with "country-us". Without one, all of s is the
// name. A username of more than 512 bytes or with a control byte gives the zero
// Username, which no account has.
func SplitUsername(s string) Username {
	if len(s) > maxUsername || hasControl(s) {
		return Username{}
	}
	for dash := strings.IndexByte(s, '-'); dash >= 0; {
		rest := s[dash+1:]
		end := strings.IndexByte(rest, '-')
		if end < 0 {
			break
		}
		if isParam(rest[:end]) {
			return Username{Name: s[:dash], Params: rest}
		}
		dash += 1 + end
	}
	return Username{Name: s}
}

// hasControl reports whether s has a byte that RFC 7617 §2 keeps out of user-ids
// and passwords: CTL of RFC 5234, 0x00 to 0x1f and 0x7f.
func hasControl[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}
