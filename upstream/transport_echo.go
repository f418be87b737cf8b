package upstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"maskrelay/masking"
)

// echoes are what of the login that is sent on a connection is looked for in its answers,
// in lower case.
type echoes [][]byte

// dropEchoes removes the field lines of an answer that repeat, in name or value, the login
// that was sent for it: the token of Proxy-Authorization, or what is in it. A mask knows the
// gateway's own login, but not the one that a customer's wishes have made.
func (e echoes) dropEchoes(h http.Header) {
	if len(e) == 0 {
		return
	}
	var room [256]byte // of most values
	decoded := func(b []byte) bool { return holds(e, b, room[:0]) }
	repeats := func(value string) bool {
		return len(value) >= e.shortest() && (holds(e, value, room[:0]) || masking.OtherReadings(value, decoded)) // no form is shorter
	}
	for name, values := range h {
		if repeats(name) {
			delete(h, name)
			continue
		}
		if !slices.ContainsFunc(values, repeats) {
			continue
		}
		if values = slices.DeleteFunc(values, repeats); len(values) == 0 {
			delete(h, name)
		} else {
			h[name] = values
		}
	}
}

// DropEchoes removes from header what repeats the login that the gateway was sent: some look
// into tunnels to port 80. header is the caller's.
func (c *Conn) DropEchoes(header http.Header) { echoesOf(c.login).dropEchoes(header) }

// Answered makes an answer that came through the tunnel known as one to c's login; see SentLogin.
func (c *Conn) Answered(response *http.Response) *http.Response {
	return withLogin(response, c.login)
}

// shortest is the length of the shortest of them.
func (e echoes) shortest() int {
	n := len(e[0])
	for _, echo := range e[1:] {
		n = min(n, len(echo))
	}
	return n
}

// holds reports whether a value holds one of them. It uses room.
func holds[T string | []byte](e echoes, value T, room []byte) bool {
	var folded []byte
	for _, echo := range e {
		if len(value) < len(echo) {
			continue
		}
		if folded == nil {
			folded = append(room, value...)
			for i, c := range folded {
				folded[i] = lowerASCII(c)
			}
		}
		if bytes.Contains(folded, echo) {
			return true
		}
	}
	return false
}

// echoesOf are those of a Proxy-Authorization value.
func echoesOf(login string) (e echoes) {
	token, ok := strings.CutPrefix(login, "Basic ")
	if !ok || token == "" {
		return nil
	}
	e = append(e, []byte(lower(strings.TrimRight(token, "="))))
	plain, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return e
	}
	username, password, _ := strings.Cut(string(plain), ":")
	if telling(username) {
		e = append(e, []byte(lower(username)))
	}
	if len(password) >= minEcho && strings.TrimSpace(password) == password {
		e = append(e, []byte(lower(password)))
	}
	return e
}

// telling reports whether a username is no plain word, which would be found in innocent text.
func telling(username string) bool {
	return len(username) >= minEcho && strings.TrimSpace(username) == username &&
		strings.ContainsFunc(username, func(r rune) bool { return !unicode.IsLetter(r) })
}

// loginKey is the context key of the login that a request was sent with.
type loginKey struct{}

// withLogin notes in an error's request which login it was sent with.
func withLogin(response *http.Response, login string) *http.Response {
	if login != "" && response.StatusCode >= 400 {
		response.Request = response.Request.WithContext(context.WithValue(response.Request.Context(), loginKey{}, login))
	}
	return response
}

// SentLogin returns, for a GatewayMade, the words of the login that an error is an answer to:
// what must not be in its body. They are secrets.
func SentLogin(response *http.Response) []string {
	login, _ := response.Request.Context().Value(loginKey{}).(string)
	var words []string
	for _, echo := range echoesOf(login) {
		words = append(words, string(echo))
	}
	return words
}
