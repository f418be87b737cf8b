package upstream

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"unicode"
)

// dropEchoes removes the field lines of an answer that repeat, in name or value, the login that was sent for
// it: the token of Proxy-Authorization, or what is in it. A mask knows the gateway's own
// login, but not the one that a customer's wishes have made.
func dropEchoes(h http.Header, login string) {
	told := loginEchoes(login)
	if len(told) == 0 {
		return
	}
	repeats := func(value string) bool {
		value = lower(value)
		return slices.ContainsFunc(told, func(s string) bool { return strings.Contains(value, s) })
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

// loginEchoes are what of a Proxy-Authorization value is looked for, in lower case.
func loginEchoes(login string) (told []string) {
	token, ok := strings.CutPrefix(login, "Basic ")
	if !ok || token == "" {
		return nil
	}
	told = append(told, lower(token))
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
