package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// The formats of a line.
const (
	formatColons = "host:port:user:pass"
	formatAt     = "user:pass@host:port"
	formatURL    = "url"
)

var proxyFormats = []string{formatColons, formatAt, formatURL}

const (
	sessionLetters = "abcdefghijklmnopqrstuvwxyz0123456789"
	sessionLen     = 8
)

// touchy are characters that some tools take for their own wherever they stand.
const touchy = ":@/%#;,+ "

// allWarnings are what is worth a second look at the whole list.
func (l *proxyList) allWarnings() []string {
	login := func(what string) {
		l.warn("the %s has a character that some tools take for their own (one of : @ / %% # ; , + and space, or one beyond ASCII); "+
			"letters and digits work everywhere", what)
	}
	if isTouchy(l.question.user) {
		login("name")
	}
	if isTouchy(l.password) {
		login("password")
	}
	if l.door.tls && !l.question.asJSON && l.question.format != formatURL {
		l.warn("the listener is behind TLS, which this format cannot say: choose an https proxy in the tool, or --format %s", formatURL)
	}
	return l.warnings
}

func isTouchy(s string) bool {
	return strings.ContainsAny(s, touchy) || strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

// write writes all lines as they are made.
func (l *proxyList) write(w io.Writer) error {
	out := bufio.NewWriter(w)
	line, between := l.line, ""
	if l.question.asJSON {
		line, between = l.object, ","
	}
	session := func() string { return "" }
	if l.question.sticky != "" {
		session = newSessions(l.question.count).next
	}
	if l.question.asJSON {
		_ = out.WriteByte('[') // out keeps any error for its Flush
	}
	for i := range l.question.count {
		if i > 0 {
			_, _ = out.WriteString(between)
		}
		if i > 0 || l.question.asJSON {
			_ = out.WriteByte('\n')
		}
		text, err := line(l.username(session()))
		if err != nil {
			return err
		}
		if _, err := out.WriteString(text); err != nil {
			return err
		}
	}
	if l.question.asJSON {
		_, _ = out.WriteString("\n]")
	}
	_ = out.WriteByte('\n')
	return out.Flush()
}

// line is the proxy in the format that was asked for.
func (l *proxyList) line(username string) (string, error) {
	switch l.question.format {
	case formatAt:
		return username + ":" + l.password + "@" + l.door.address(), nil
	case formatURL:
		return l.url(username), nil
	}
	return l.door.address() + ":" + username + ":" + l.password, nil
}

// url is the proxy as a URL, in whose userinfo all that could mean something is escaped.
func (l *proxyList) url(username string) string {
	return l.door.scheme() + "://" + escapeAll(username) + ":" + escapeAll(l.password) + "@" + l.door.address()
}

// object is the proxy as JSON on one line.
func (l *proxyList) object(username string) (string, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(struct {
		Scheme   string      `json:"scheme"`
		Host     string      `json:"host"`
		Port     json.Number `json:"port"`
		Username string      `json:"username"`
		Password string      `json:"password"`
		URL      string      `json:"url"`
	}{l.door.scheme(), l.door.host, json.Number(l.door.port), username, l.password, l.url(username)})
	return strings.TrimSuffix(b.String(), "\n"), err
}

// escapeAll escapes everything but RFC 3986's unreserved characters (§2.3): url.UserPassword leaves sub-delims, which mean
// something to shells and lists.
func escapeAll(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// sessions are random session ids, none twice.
type sessions struct{ given map[string]struct{} }

func newSessions(n int) sessions { return sessions{make(map[string]struct{}, n)} }

func (s sessions) next() string {
	for {
		id := randomSession()
		if _, twice := s.given[id]; !twice {
			s.given[id] = struct{}{}
			return id
		}
	}
}

// randomSession is as likely to be any of the ids.
func randomSession() string {
	const fair = 256 - 256%len(sessionLetters) // larger bytes would favour the first letters
	id := make([]byte, 0, sessionLen)
	var random [2 * sessionLen]byte
	for {
		_, _ = rand.Read(random[:]) // never fails: crypto/rand.Read ends the program instead
		for _, b := range random {
			if int(b) < fair {
				id = append(id, sessionLetters[int(b)%len(sessionLetters)])
			}
			if len(id) == sessionLen {
				return string(id)
			}
		}
	}
}
