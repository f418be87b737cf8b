package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard decides who may use profiles and commands.
type guard struct {
	token      [sha256.Size]byte // its hash, so that comparing tells nothing of its length
	hasToken   bool
	listenHost string
}

// newGuard returns a guard; an empty token means loopback only.
func newGuard(token, listenHost string) guard {
	return guard{token: sha256.Sum256([]byte(token)), hasToken: token != "", listenHost: listenHost}
}

// refusal is why a request is turned away.
type refusal struct {
	status int
	text   string
}

// check returns nil if r may pass.
func (g guard) check(r *http.Request) *refusal {
	if isCommand(r) && http.NewCrossOriginProtection().Check(r) != nil {
		return &refusal{http.StatusForbidden, "request from a foreign origin"}
	}
	if g.hasToken {
		if g.tokenOK(r.Header.Get("Authorization")) {
			return nil
		}
		return &refusal{http.StatusUnauthorized, "a bearer token is needed"}
	}
	if !isLoopbackPeer(r.RemoteAddr) {
		return &refusal{http.StatusForbidden, "without a token only loopback peers may use this"}
	}
	if !g.hostOK(r.Host) {
		return &refusal{http.StatusForbidden, "unexpected Host header"}
	}
	return nil
}

// isCommand reports whether r changes something.
func isCommand(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead
}

// tokenOK compares in constant time.
func (g guard) tokenOK(authorization string) bool {
	scheme, given, _ := strings.Cut(authorization, " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(given)))
	same := subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1
	return strings.EqualFold(scheme, "Bearer") && same
}

// isLoopbackPeer looks at the connection's own address; headers are hearsay.
func isLoopbackPeer(remote string) bool {
	ap, err := netip.ParseAddrPort(remote)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// hostOK reports whether the Host header is one under which nobody else's page
// can be served: a browser that was led here by DNS rebinding sends another.
func (g guard) hostOK(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return true
	}
	listen, err := netip.ParseAddr(g.listenHost)
	if g.listenHost == "" || (err == nil && listen.IsUnspecified()) {
		return false
	}
	return strings.EqualFold(host, g.listenHost)
}
