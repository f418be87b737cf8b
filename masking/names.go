package masking

import (
	"errors"
	"fmt"
	"strings"
)

// maxPattern bounds one configured header name or prefix.
const maxPattern = 128

// ErrPattern is wrapped by every error about a header name or prefix to strip.
var ErrPattern = errors.New("masking: invalid header name")

// ValidateStrip checks header names and prefixes ("X-Foo-*") as PolicyConfig takes them. It returns one error for each bad entry,
// joined, each naming its entry; nil if all are good.
func ValidateStrip(entries []string) error {
	var errs []error
	for _, e := range entries {
		name := strings.TrimSuffix(e, "*")
		switch {
		case name == "" && e != "":
			errs = append(errs, fmt.Errorf("%w %q: would strip every field", ErrPattern, e))
		case len(e) > maxPattern:
			errs = append(errs, fmt.Errorf("%w %q…: %d bytes, at most %d", ErrPattern, e[:16], len(e), maxPattern))
		case !isToken(name) || strings.Contains(name, "*"):
			errs = append(errs, fmt.Errorf("%w %q: want a field name, or a prefix with * at its end", ErrPattern, e))
		}
	}
	return errors.Join(errs...)
}

// fold writes name into buf in the spelling that names are compared in: lower case, every byte that is no letter or digit a '-'.
// CGI and its heirs hand X-Real-Ip, X_Real_Ip and X.Real.Ip to a program under one name, so they are one field here.
func fold(buf []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case !isAlnum(c):
			c = '-'
		}
		buf = append(buf, c)
	}
	return buf
}

// nameSet is a set of folded names and prefixes. Build it with add, then only read.
type nameSet struct {
	exact     map[string]struct{}
	prefixes  map[string]struct{} // end in '-': looked up at each '-' of a name
	odd       []string            // other prefixes, tried one by one
	suffixes  []string            // begin with '-'
	maxPrefix int                 // bytes in the longest of prefixes, so that a long name costs no more
}

func newNameSet(lists ...string) *nameSet {
	s := &nameSet{exact: map[string]struct{}{}, prefixes: map[string]struct{}{}}
	for _, l := range lists {
		s.add(strings.Fields(l)...)
	}
	return s
}

func (s *nameSet) add(patterns ...string) {
	for _, p := range patterns {
		name, isPrefix := strings.CutSuffix(p, "*")
		folded := string(fold(nil, name))
		switch {
		case !isPrefix:
			s.exact[folded] = struct{}{}
		case strings.HasSuffix(folded, "-"):
			s.prefixes[folded] = struct{}{}
			s.maxPrefix = max(s.maxPrefix, len(folded))
		default:
			s.odd = append(s.odd, folded)
		}
	}
}

// has reports whether a folded name is in the set.
func (s *nameSet) has(folded []byte) bool {
	if _, ok := s.exact[string(folded)]; ok {
		return true
	}
	for i := range folded[:min(len(folded), s.maxPrefix)] {
		if folded[i] != '-' {
			continue
		}
		if _, ok := s.prefixes[string(folded[:i+1])]; ok {
			return true
		}
	}
	for _, p := range s.odd {
		if len(folded) >= len(p) && string(folded[:len(p)]) == p {
			return true
		}
	}
	for _, p := range s.suffixes {
		if len(folded) >= len(p) && string(folded[len(folded)-len(p):]) == p {
			return true
		}
	}
	return false
}
