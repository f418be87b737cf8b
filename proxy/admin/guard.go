package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard decides who may use what is not for everyone.
type guard struct {
	token      [sha256.Size]byte // its hash, so that comparing tells nothing of its length
	hasToken   bool
	listenHost string
	compare    func(a, b []byte) int // in constant time
	guesses    *guesses
}

// newGuard returns a guard; an empty token means loopback only.
func newGuard(token, listenHost string) guard {
	return guard{
		token: sha256.Sum256([]byte(token)), hasToken: token != "", listenHost: listenHost,
		compare: subtle.ConstantTimeCompare, guesses: newGuesses(),
	}
}

// refusal is why a request is turned away.
type refusal struct {
	status int
	text   string
}

// check returns nil if r may pass. A browser that some page misuses sends that page's
// origin, or a name that somebody has pointed at this listener; programs send neither.
func (g guard) check(r *http.Request) *refusal {
	peer := peerOf(r.RemoteAddr)
	switch {
	case !fromOwnPage(r):
		return &refusal{http.StatusForbidden, "request from a foreign origin"}
	case !g.hasToken && !peer.IsLoopback():
		return &refusal{http.StatusForbidden, "without a token only loopback peers may use this"}
	case (!g.hasToken || g.onLoopback()) && !g.hostOK(r.Host):
		return &refusal{http.StatusForbidden, "unexpected Host header"}
	case !g.hasToken:
		return nil
	case g.guesses.tooMany(peer):
		return &refusal{http.StatusTooManyRequests, "too many wrong tokens"}
	}
	given := ""
	if lines := r.Header["Authorization"]; len(lines) == 1 {
		given = lines[0]
	}
	if g.tokenOK(given) {
		return nil
	}
	if given != "" { // who has none yet does not guess
		g.guesses.wrong(peer)
	}
	return &refusal{http.StatusUnauthorized, "a bearer token is needed"}
}

// fromOwnPage reports whether r was sent by no page, or by one of this server's own: what a
// browser says of it. That goes for reading, too, and whether or not there is a token.
func fromOwnPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origins, given := r.Header["Origin"]
	if !given {
		return true
	}
	if len(origins) != 1 {
		return false
	}
	u, err := url.Parse(origins[0])
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// onLoopback reports whether the server listens on a loopback address.
func (g guard) onLoopback() bool {
	if strings.EqualFold(g.listenHost, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(g.listenHost)
	return err == nil && ip.Unmap().IsLoopback()
}

// tokenOK compares in constant time: the same steps for whatever was given.
func (g guard) tokenOK(authorization string) bool {
	scheme, given, _ := strings.Cut(authorization, " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(given)))
	same := g.compare(sum[:], g.token[:]) == 1
	return strings.EqualFold(scheme, "Bearer") && same
}

// peerOf is the connection's own address, the zero Addr if there is none; headers are hearsay.
func peerOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
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
