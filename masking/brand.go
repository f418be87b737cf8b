package masking

import (
	"errors"
	"fmt"
)

// maxBrand is the longest brand in bytes: it stands in a header field of every refusal.
const maxBrand = 64

// fallbackBrand replaces a Brand that did not come from ParseBrand and could break a header field.
const fallbackBrand = Brand("Proxy")

// ErrBrand is wrapped by every error of ParseBrand.
var ErrBrand = errors.New("masking: invalid brand")

// Brand is the name that customers see: the realm of a challenge and the name in Proxy-Status. Make one with ParseBrand.
type Brand string

// ParseBrand accepts 1 to 64 bytes of printable ASCII without '"' and '\'. A space may stand inside, not at the ends.
// The error wraps ErrBrand and says which rule was broken.
func ParseBrand(s string) (Brand, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("%w: empty", ErrBrand)
	case len(s) > maxBrand:
		return "", fmt.Errorf("%w: %d bytes, at most %d", ErrBrand, len(s), maxBrand)
	case s[0] == ' ' || s[len(s)-1] == ' ':
		return "", fmt.Errorf("%w: space at an end", ErrBrand)
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return "", fmt.Errorf("%w: byte 0x%02x at %d", ErrBrand, c, i)
		}
	}
	return Brand(s), nil
}

// structured returns the brand as an item of a structured field (RFC 8941 §3.3): a token if it is one, else a string.
// ParseBrand has kept out the two bytes that a string would have to escape.
func (b Brand) structured() string {
	if isStructuredToken(string(b)) {
		return string(b)
	}
	return `"` + string(b) + `"`
}

// isStructuredToken reports whether s is an sf-token: a letter or '*', then token bytes, ':' and '/'.
func isStructuredToken(s string) bool {
	if s == "" || !isAlpha(s[0]) && s[0] != '*' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isTokenByte(c) && c != ':' && c != '/' {
			return false
		}
	}
	return true
}

func isAlpha(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isAlnum(c byte) bool { return isAlpha(c) || '0' <= c && c <= '9' }

// isTokenByte reports whether c is a tchar of RFC 9110 §5.6.2.
func isTokenByte(c byte) bool {
	if isAlnum(c) {
		return true
	}
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}

// isToken reports whether s is a token of RFC 9110 §5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}
