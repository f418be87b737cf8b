package upstream

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"maskrelay/masking"
)

// dropEchoes removes the field lines of an answer that repeat, in name or value, the login that was sent for
// it: the token of Proxy-Authorization, or what is in it. A mask knows the gateway's own
// login, but not the one that a customer's wishes have made.
func dropEchoes(h http.Header, login string) {
	told := loginEchoes(login)
	if len(told) == 0 {
		return
	}
	holds := func(value string) bool {
		value = lower(value)
		return slices.ContainsFunc(told, func(s string) bool { return strings.Contains(value, s) })
	}
	repeats := func(value string) bool {
		return holds(value) || masking.OtherReadings(value, func(b []byte) bool { return holds(string(b)) })
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
func (c *Conn) DropEchoes(header http.Header) { dropEchoes(header, c.login) }

// Answered makes an answer that came through the tunnel known as one to c's login; see SentLogin.
func (c *Conn) Answered(response *http.Response) *http.Response {
	return withLogin(response, c.login)
}

// loginEchoes are what of a Proxy-Authorization value is looked for, in lower case.
func loginEchoes(login string) (told []string) {
	token, ok := strings.CutPrefix(login, "Basic ")
	if !ok || token == "" {
		return nil
	}
	told = append(told, lower(strings.TrimRight(token, "=")))
	plain, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return told
	}
	username, password, _ := strings.Cut(string(plain), ":")
	if telling(username) {
		told = append(told, lower(username))
	}
	if len(password) >= minEcho && strings.TrimSpace(password) == password {
		told = append(told, lower(password))
	}
	return told
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
	return loginEchoes(login)
}
