package vendor

import "slices"

// spelling is a FieldSpec, checked and ready.
type spelling struct {
	lookup    lookup
	aliases   map[string]string
	words     string // joins words
	letters   letters
	prefix    string // after the country, before the value; "" = no country
	digits    bool
	maxLength int // 0 = no limit
	needs     keySet
	needsIn   map[string]keySet
	excludes  keySet
	only      []string
}

type lookup uint8

const (
	lookupNone lookup = iota
	lookupCountryNames
	lookupUSCodes
	lookupUSNames
)

type letters uint8

const (
	lettersKeep letters = iota // canonical values are lower case
	lettersLower
	lettersUpper
	lettersTitle
)

// plain is the spelling of a field that a preset says nothing about.
var plain = spelling{words: "_"}

// find is the value that is spelled for the canonical v, and whether there is one.
func (s *spelling) find(v, country string) (string, bool) {
	if alias, ok := s.aliases[v]; ok {
		return alias, true
	}
	switch s.lookup {
	case lookupCountryNames:
		name := countryName(v)
		return name, name != ""
	case lookupUSCodes:
		state, ok := usStates[v]
		return state.code, ok && (country == "us" || country == "")
	case lookupUSNames:
		if country != "us" {
			return v, true
		}
		state, ok := usStates[v]
		return state.name, ok
	default:
		return v, true
	}
}

// takes reports whether v is canonical and the vendor has a spelling for it.
func (s *spelling) takes(v, country string) bool {
	if !all(v, isCanonical) || s.digits && !all(v, isDigit) || s.maxLength > 0 && len(v) > s.maxLength {
		return false
	}
	_, ok := s.find(v, country)
	return ok
}

// append spells v, which takes has allowed. Should it hold a byte that no canonical value
// has, that byte is left out: nothing in a value can become a vendor's separator.
func (s *spelling) append(dst []byte, v, country string) []byte {
	if s.prefix != "" {
		dst = append(plain.append(dst, country, ""), s.prefix...)
	}
	value, ok := s.find(v, country)
	if !ok {
		return dst
	}
	_, trusted := s.aliases[v]
	start, pending := true, false
	for i := range len(value) {
		c := value[i]
		switch {
		case c == '_':
			pending = pending || i > 0
			continue
		case !trusted && !isAlnum(c):
			continue
		}
		if pending {
			dst = append(dst, s.words...)
			start, pending = true, false
		}
		dst = append(dst, s.letters.spell(c, start))
		start = false
	}
	return dst
}

// isCanonical reports whether c may be in a canonical value.
func isCanonical(c byte) bool { return isDigit(c) || isLower(c) || c == '_' }

// spell is a letter's case; start tells the first of a word.
func (l letters) spell(c byte, start bool) byte {
	switch {
	case isLower(c) && (l == lettersUpper || l == lettersTitle && start):
		return c - 'a' + 'A'
	case 'A' <= c && c <= 'Z' && (l == lettersLower || l == lettersTitle && !start):
		return c - 'A' + 'a'
	}
	return c
}

// fault says what is wrong with the field of index i among p's, nil if nothing is.
func (s *spelling) fault(i int, p *Params, given keySet) *Fault {
	if missing := s.needs &^ given; missing != 0 {
		return needs(i, missing)
	}
	if both := s.excludes & given; both != 0 {
		return excludes(i, both.first())
	}
	if s.needsIn != nil {
		if missing := s.needsIn[p.Country] &^ given; missing != 0 {
			return needs(i, missing)
		}
	}
	if s.only != nil && !slices.Contains(s.only, p.Country) {
		return &Fault{Kind: Unavailable, Key: keyNames[i]}
	}
	if !s.takes(p.at(i), p.Country) || i == iCountry && !isCountry(p.Country) {
		return &Fault{Kind: Invalid, Key: keyNames[i]}
	}
	return nil
}
