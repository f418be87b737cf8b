package soak

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// The gateways beside those of the default pool, each in a pool of its own that customers choose by their usernames.
const (
	socksVendor  = "vendor-socks"  // SOCKS5
	secureVendor = "vendor-secure" // TLS
	socksPool    = "socks"
	securePool   = "secure"
)

// loginTemplate is the gateways' username: vendorLogin takes it apart.
const loginTemplate = "{login}{?country:-cc-{country}}{?session:-sessid-{session}}"

// What a customer wishes for is said by the tunnel's number, so that both ends know.

// pool is the pool that the customer chooses, "" for his own.
func (s spec) pool() string {
	switch s.ID % 6 {
	case 2:
		return socksPool
	case 5:
		return securePool
	}
	return ""
}

func (s spec) country() string { return [...]string{"", "us", "de"}[s.ID/6%3] }

// session is the customer's name of it, "" for none. A vendor must not learn it.
func (s spec) session() string {
	if s.ID/18%2 == 0 {
		return ""
	}
	return fmt.Sprintf("%s_%d", customerMark, s.ID/36%16)
}

// username is the account's name with the wishes behind it.
func (s spec) username(account string) string {
	for _, wish := range [][2]string{{"-session-", s.session()}, {"-country-", s.country()}, {"-pool-", s.pool()}} {
		if wish[1] != "" {
			account += wish[0] + wish[1]
		}
	}
	return account
}

// vendorLogin says what is wrong with the login that a vendor received for a tunnel, and returns the session in it.
func vendorLogin(username, password string, s spec) (session, bad string) {
	want := vendorUser
	if s.country() != "" {
		want += "-cc-" + s.country()
	}
	rest, ok := strings.CutPrefix(username, want)
	if s.session() != "" && ok {
		session, ok = strings.CutPrefix(rest, "-sessid-")
		ok = ok && len(session) == 16 && strings.Trim(session, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
		rest = ""
	}
	if !ok || rest != "" || password != vendorPassword || strings.Contains(session, customerMark) {
		return "", fmt.Sprintf("the vendor's login is %q, %q", username, password)
	}
	return session, ""
}

// basicLogin takes Basic credentials apart.
func basicLogin(value string) (username, password string) {
	token, _ := strings.CutPrefix(value, "Basic ")
	login, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return value, ""
	}
	username, password, _ = strings.Cut(string(login), ":")
	return username, password
}

// words are what a vendor says for yes, and for no.
type words struct {
	opened  string
	answers map[mode]string
}

var httpWords = words{opened: opened, answers: answers}

// socksWords are replies of RFC 1928, but for the garbage.
var socksWords = words{opened: socksReply(0), answers: map[mode]string{
	forbidden: socksReply(2), noLogin: socksReply(1), busy: socksReply(1), withBody: socksReply(7), garbage: "SSH-2.0-vendor\r\n",
}}

func socksReply(code byte) string {
	return string([]byte{5, code, 0, 1, 203, 0, 113, 7, 0, 80})
}

var errSOCKS = errors.New("not what a SOCKS5 client with a login says")

// socksRequest shakes hands up to the request, which is not answered yet.
func socksRequest(c net.Conn, r *bufio.Reader) (username, password, host string, err error) {
	if err := expect(r, "\x05\x01\x02"); err != nil {
		return "", "", "", err
	}
	if _, err := io.WriteString(c, "\x05\x02"); err != nil {
		return "", "", "", err
	}
	if err := expect(r, "\x01"); err != nil {
		return "", "", "", err
	}
	if username, err = counted(r); err == nil {
		password, err = counted(r)
	}
	if err != nil {
		return "", "", "", err
	}
	if _, err := io.WriteString(c, "\x01\x00"); err != nil {
		return "", "", "", err
	}
	if err := expect(r, "\x05\x01\x00\x03"); err != nil {
		return "", "", "", err
	}
	if host, err = counted(r); err == nil {
		_, err = r.Discard(2) // the port
	}
	return username, password, host, err
}

// expect reads exactly these bytes.
func expect(r *bufio.Reader, want string) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("%w: %q", errSOCKS, got)
	}
	return nil
}

// counted reads a string with its length before it.
func counted(r *bufio.Reader) (string, error) {
	n, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

// sessionLocked compares a tunnel's session at the vendor with what that account's session was before: the same, and nobody else's.
func (l *ledger) sessionLocked(e *entry) string {
	for _, v := range e.vendors {
		if v.Session == "" {
			continue
		}
		name := e.customer.Account + " " + e.spec.session()
		if was, ok := l.sessions[name]; ok && was != v.Session {
			return fmt.Sprintf("the session %s is %s at the vendor, and was %s", name, v.Session, was)
		}
		if of, ok := l.owners[v.Session]; ok && of != name {
			return fmt.Sprintf("the session %s at the vendor is that of %s and of %s", v.Session, of, name)
		}
		l.sessions[name], l.owners[v.Session] = v.Session, name
	}
	return ""
}

// misplaced finds vendors of another pool than the customer's.
func (e *entry) misplaced() string {
	for _, v := range e.vendors {
		if want := map[string]string{socksVendor: socksPool, secureVendor: securePool}[v.Side]; want != e.spec.pool() {
			return fmt.Sprintf("a tunnel of the pool %q came to %s", e.spec.pool(), v.Side)
		}
	}
	return ""
}
