package upstream

import (
	"encoding/base64"
	"html"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	blotted = "***"
	// minBlot is the length from which a secret is blotted out inside of words, too.
	minBlot = 4
	// minPart is the length from which a part of a login is a secret by itself.
	minPart = 6
)

// blotter takes secrets out of texts: a vendor may echo the login that it refuses. Not
// safe for concurrent use.
type blotter struct{ secrets []string } // the longest first

// newBlotter knows what is secret of g. authorization is another login, "" = none.
func newBlotter(g Gateway, authorization string) *blotter {
	b := &blotter{}
	b.add(g.username, g.password)
	b.add(g.Secrets()...)
	b.addAuthorization(g.authorization())
	b.addAuthorization(authorization)
	return b
}

// addAuthorization adds a Proxy-Authorization value with all that is in it.
func (b *blotter) addAuthorization(value string) {
	token := strings.TrimPrefix(value, "Basic ")
	b.add(token)
	if plain, err := base64.StdEncoding.DecodeString(token); err == nil {
		username, password, _ := strings.Cut(string(plain), ":")
		b.add(username, password)
		b.addParts(username)
		b.addParts(password)
	}
}

// addParts adds what in a made login looks like a secret of its own, a zone's or a key's
// name that a template holds: long, with a digit. Words stay, a vendor's message needs them.
func (b *blotter) addParts(login string) {
	for _, part := range strings.FieldsFunc(login, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		if len(part) >= minPart && strings.ContainsFunc(part, unicode.IsDigit) {
			b.add(part)
		}
	}
}

// add adds secrets, and the spellings in which they may come back.
func (b *blotter) add(secrets ...string) {
	for _, s := range secrets {
		if s == "" {
			continue
		}
		for _, spelled := range []string{
			s, url.QueryEscape(s), url.PathEscape(s), html.EscapeString(s),
			base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s)),
		} {
			if !slices.Contains(b.secrets, spelled) {
				b.secrets = append(b.secrets, spelled)
			}
		}
	}
	slices.SortStableFunc(b.secrets, func(x, y string) int { return len(y) - len(x) })
}

// short is clean of at most maxToldBytes.
func (b *blotter) short(s string) string {
	s = b.clean(s)
	if len(s) <= maxToldBytes {
		return s
	}
	cut := maxToldBytes
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// shortEnd is short of a text whose end may be missing, with the beginning of a secret
// left at its end.
func (b *blotter) shortEnd(s string) string {
	s = b.clean(s)
	for _, secret := range b.secrets {
		s = blotEnd(s, secret)
	}
	return b.short(s)
}

// clean is s without secrets and on one line that a terminal takes no orders from.
func (b *blotter) clean(s string) string {
	return strings.TrimSpace(b.blot(printable(b.blot(s))))
}

// printable is s on one line, without control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			return '?'
		default:
			return r
		}
	}, s)
}

func (b *blotter) blot(s string) string {
	for _, secret := range b.secrets {
		s = blotOne(s, secret)
	}
	return s
}

// blotOne blots secret out wherever it stands in s, whatever the case; a very short one
// only as a word of its own, or there would be nothing left to read.
func blotOne(s, secret string) string {
	low, find := lower(s), lower(secret)
	var out strings.Builder
	at := 0
	for from := 0; ; {
		i := strings.Index(low[from:], find)
		if i < 0 {
			break
		}
		i += from
		end := i + len(find)
		if len(find) < minBlot && (i > 0 && wordByte(s[i-1]) || end < len(s) && wordByte(s[end])) {
			from = i + 1
			continue
		}
		out.WriteString(s[at:i])
		out.WriteString(blotted)
		at, from = end, end
	}
	return out.String() + s[at:]
}

// blotEnd blots out the beginning of a secret at the end of s.
func blotEnd(s, secret string) string {
	low, find := lower(s), lower(secret)
	for n := min(len(find)-1, len(low)); n >= minBlot; n-- {
		if strings.HasSuffix(low, find[:n]) {
			return s[:len(s)-n] + blotted
		}
	}
	return s
}

// lower is s in lower case, of ASCII, so that no byte moves.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

func wordByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= 0x80
}
