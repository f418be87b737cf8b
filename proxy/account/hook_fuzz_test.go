package account

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// FuzzHookAnswer: whatever comes back from a hook is an account with valid terms, a refusal, or trouble; never two of them. Who answers
// anything but the agreed yes lets nobody in, and trouble does not quote a password that came with it.
func FuzzHookAnswer(f *testing.F) {
	const planted = "planted-answer-secret"
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + wholeJSON,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"password\":\"" + planted + "\"}",
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"password\":[\"" + planted + "\"]}",
		"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}",
		"HTTP/1.1 204 No Content\r\nuserconns: 5\r\nuserqps: 1.5\r\nuserrate: 10000\r\npools: a,, b\r\npool: a\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nuserconns: 5\r\nuserconns: 6\r\n\r\n", "HTTP/1.1 204 No Content\r\nupstream: http://x/\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nusertotalrate: 1e9\r\nuserconns: -1\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
		"HTTP/1.1 407 \r\n\r\n", "HTTP/1.1 500 Oops\r\n\r\n" + planted,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		for name, read := range map[string]func(string, *http.Response) (*Account, error){"json": jsonAnswer, "headers": headersAnswer} {
			response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
			if err != nil {
				return
			}
			a, err := read("alice", response)
			checkHookAnswer(t, name, response.StatusCode, a, err)
			if err != nil && strings.Contains(err.Error(), planted) {
				t.Fatalf("%s: %v", name, err)
			}
			_ = response.Body.Close()
		}
	})
}

func checkHookAnswer(t *testing.T, style string, status int, a *Account, err error) {
	t.Helper()
	yes := map[string]int{"json": http.StatusOK, "headers": http.StatusNoContent}[style]
	switch {
	case (a == nil) == (err == nil):
		t.Fatalf("%s: %v, %v", style, a, err)
	case status != yes && a != nil, status == yes && errors.Is(err, ErrRefused):
		t.Fatalf("%s: status %d is %v, %v", style, status, a, err)
	case style == "json" && errors.Is(err, ErrRefused) != (status == http.StatusForbidden):
		t.Fatalf("status %d is %v", status, err)
	case a == nil:
		return
	case a.Name != "alice" || a.password != nil:
		t.Fatalf("%s: the account of %q", style, a.Name)
	}
	back, err := ParseJSON("", a.JSON())
	if err != nil || !back.sameTerms(a) {
		t.Fatalf("%s: %s is read as %v, %v", style, a.JSON(), back, err)
	}
}
