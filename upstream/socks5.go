package upstream

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// What SOCKS5 says on the wire (RFC 1928, RFC 1929).
const (
	socksVersion      = 5
	socksLoginVersion = 1
	socksNoLogin      = 0    // method: no authentication
	socksUserPass     = 2    // method: username and password
	socksNoMethod     = 0xff // none of the methods that were offered
	socksConnect      = 1    // command
	socksIPv4         = 1    // address types
	socksName         = 3
	socksIPv6         = 4
)

// maxSOCKSField is how long a name, a username and a password can be, in bytes.
const maxSOCKSField = 255

// ErrLogin means that a SOCKS5 gateway did not take the login, as an HTTP gateway says
// with a 407: with another one it might serve.
var ErrLogin = errors.New("the login was not taken")

var (
	errSOCKSMethod   = errors.New("no SOCKS5 choice of a method that was offered")
	errSOCKSLogin    = errors.New("no SOCKS5 answer to the login")
	errSOCKSReply    = errors.New("no SOCKS5 reply")
	errSOCKSNoMethod = errors.New("SOCKS5: no acceptable method")
	errSOCKSRefused  = fmt.Errorf("SOCKS5: %w", ErrLogin)
	errSOCKSTooLong  = fmt.Errorf("SOCKS5: %w: its parts are longer than 255 bytes, or cannot be read", ErrLogin)
	errSOCKSTarget   = errors.New("SOCKS5: the target cannot be said")
)

// socksReplies are what the REP codes from 1 on mean (RFC 1928 §6). That the target's
// host is unreachable is often the vendor's word for a name that does not resolve.
var socksReplies = [...]struct {
	cause Cause
	text  string
}{
	{CauseServer, "general failure"},
	{CauseForbidden, "not allowed by the ruleset"},
	{CauseUnreachable, "network unreachable"},
	{CauseUnreachable, "host unreachable"},
	{CauseUnreachable, "connection refused"},
	{CauseTimeout, "TTL expired"},
	{CauseStatus, "command not supported"},
	{CauseStatus, "address type not supported"},
}

// socksStep is the message of ours that the server has not answered yet.
type socksStep uint8

const (
	socksGreets socksStep = iota // with the methods
	socksLogsIn
	socksAsks // for the target
)

// socksWish is what is asked of a SOCKS5 gateway.
type socksWish struct {
	target             string // host:port
	username, password string
	unreadable         bool // there are credentials, but they cannot be read
}

// socks is a SOCKS5 client's handshake, message by message. The target's name is the
// gateway's to resolve. The zero value begins. It does no I/O and is kept in each
// set-up: it is small.
type socks struct {
	step  socksStep
	login bool  // is offered
	fault fault // that makes the handshake end before it says more
}

// fault is what cannot be said in SOCKS5.
type fault uint8

const (
	noFault fault = iota
	loginFault
	targetFault
)

// append appends the message of the step.
func (s *socks) append(b []byte, w socksWish) []byte {
	switch s.step {
	case socksGreets:
		s.login, s.fault = w.username != "" || w.unreadable, w.fault()
		method := byte(socksNoLogin)
		if s.login {
			method = socksUserPass
		}
		return append(b, socksVersion, 1, method)
	case socksLogsIn:
		b = append(append(b, socksLoginVersion, byte(len(w.username))), w.username...)
		return append(append(b, byte(len(w.password))), w.password...)
	default:
		b, _ = appendSOCKSTarget(append(b, socksVersion, socksConnect, 0), w.target)
		return b
	}
}

// fault is what of w cannot be said.
func (w *socksWish) fault() fault {
	if w.unreadable || len(w.username) > maxSOCKSField || len(w.password) > maxSOCKSField {
		return loginFault
	}
	var room [maxSOCKSField + 8]byte
	if _, ok := appendSOCKSTarget(room[:0], w.target); !ok {
		return targetFault
	}
	return noFault
}

// appendSOCKSTarget appends the address type, the address and the port.
func appendSOCKSTarget(b []byte, target string) ([]byte, bool) {
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" || len(host) > maxSOCKSField {
		return b, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return b, false
	}
	switch addr := addrOf(host); {
	case !addr.IsValid():
		b = append(append(b, socksName, byte(len(host))), host...)
	case addr.Is4():
		four := addr.As4()
		b = append(append(b, socksIPv4), four[:]...)
	default:
		sixteen := addr.As16()
		b = append(append(b, socksIPv6), sixteen[:]...)
	}
	return binary.BigEndian.AppendUint16(b, uint16(n)), true
}

// addrOf is the address that host is, invalid for a name. An IPv4 address that is
// written as an IPv6 one is IPv4.
func addrOf(host string) netip.Addr {
	if last := host[len(host)-1]; strings.IndexByte(host, ':') < 0 && (last < '0' || last > '9') {
		return netip.Addr{} // spares most names the error
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// look looks at all that has come in answer to the step's message. n > 0: the tunnel is
// open, and b[n:] is the target's. more: the step is done, and the next message is due.
// Neither, and no failure: the answer is not complete. It never needs more than 262
// bytes, and is done with an answer at the first byte that cannot be one.
func (s *socks) look(b []byte) (n int, more bool, failure *ConnectError) {
	if s.fault != noFault && len(b) > 0 {
		return 0, false, s.fault.failure()
	}
	switch s.step {
	case socksGreets:
		more, failure = s.chosen(b)
	case socksLogsIn:
		more, failure = s.admitted(b)
	default:
		n, failure = s.replied(b)
	}
	return n, more, failure
}

func (f fault) failure() *ConnectError {
	if f == loginFault {
		return socksFailure(CauseAuth, 0, errSOCKSTooLong)
	}
	return socksFailure(CauseTargetDNS, 0, errSOCKSTarget)
}

func socksFailure(cause Cause, rep int, err error) *ConnectError {
	return &ConnectError{Phase: PhaseConnect, Cause: cause, Status: rep, Err: err}
}

// chosen reads the server's choice of a method: there was one on offer.
func (s *socks) chosen(b []byte) (more bool, failure *ConnectError) {
	offered := byte(socksNoLogin)
	if s.login {
		offered = socksUserPass
	}
	switch {
	case len(b) > 0 && b[0] != socksVersion:
		return false, socksFailure(CauseMalformed, 0, errSOCKSMethod)
	case len(b) < 2:
		return false, nil
	case b[1] == socksNoMethod:
		return false, socksFailure(CauseAuth, 0, errSOCKSNoMethod)
	case b[1] != offered || len(b) > 2: // it speaks out of turn
		return false, socksFailure(CauseMalformed, 0, errSOCKSMethod)
	}
	s.step = socksAsks
	if s.login {
		s.step = socksLogsIn
	}
	return true, nil
}

// admitted reads the answer to the login (RFC 1929 §2).
func (s *socks) admitted(b []byte) (more bool, failure *ConnectError) {
	switch {
	case len(b) > 0 && b[0] != socksLoginVersion:
		return false, socksFailure(CauseMalformed, 0, errSOCKSLogin)
	case len(b) < 2:
		return false, nil
	case b[1] != 0:
		return false, socksFailure(CauseAuth, 0, errSOCKSRefused)
	case len(b) > 2:
		return false, socksFailure(CauseMalformed, 0, errSOCKSLogin)
	}
	s.step = socksAsks
	return true, nil
}

// replied reads the reply to CONNECT. The address in it is of no interest. A refusal is
// known by its second byte: not every server sends the rest.
func (s *socks) replied(b []byte) (n int, failure *ConnectError) {
	switch {
	case len(b) > 0 && b[0] != socksVersion:
		return 0, socksFailure(CauseMalformed, 0, errSOCKSReply)
	case len(b) > 1 && b[1] != 0:
		return 0, socksRefusal(int(b[1]))
	case len(b) > 2 && b[2] != 0:
		return 0, socksFailure(CauseMalformed, 0, errSOCKSReply)
	case len(b) < 5:
		if len(b) == 4 && socksReplySize(b[3], 0) == 0 {
			return 0, socksFailure(CauseMalformed, 0, errSOCKSReply)
		}
		return 0, nil
	}
	size := socksReplySize(b[3], b[4])
	switch {
	case size == 0:
		return 0, socksFailure(CauseMalformed, 0, errSOCKSReply)
	case len(b) < size:
		return 0, nil
	}
	return size, nil
}

// socksReplySize is the size of a reply with an address of this type; length is the
// byte after the type. 0 = there is no such type.
func socksReplySize(kind, length byte) int {
	switch kind {
	case socksIPv4:
		return 4 + net.IPv4len + 2
	case socksIPv6:
		return 4 + net.IPv6len + 2
	case socksName:
		return 4 + 1 + int(length) + 2
	default:
		return 0
	}
}

// socksRefusal is what a REP code other than 0 says.
func socksRefusal(rep int) *ConnectError {
	if rep > len(socksReplies) {
		return socksFailure(CauseStatus, rep, fmt.Errorf("SOCKS5: refused with code %d", rep))
	}
	r := socksReplies[rep-1]
	return socksFailure(r.cause, rep, errors.New("SOCKS5: "+r.text))
}

// wish is what r asks of g, a SOCKS5 gateway, as far as it matters for the step: with the
// customer's own login if he brought one, else with the route's.
func (s *socks) wish(g *gateway, route *Route, r Request) socksWish {
	w := socksWish{target: r.Target}
	if s.step == socksAsks {
		return w
	}
	if r.Authorization == "" {
		w.username, w.password = route.credentials(g)
		return w
	}
	var ok bool
	w.username, w.password, ok = basicCredentials(r.Authorization)
	w.unreadable = !ok
	return w
}

// basicCredentials takes a Basic Authorization value apart (RFC 7617 §2).
func basicCredentials(authorization string) (username, password string, ok bool) {
	scheme, token, _ := strings.Cut(authorization, " ")
	b, err := base64.StdEncoding.DecodeString(strings.TrimLeft(token, " "))
	if err != nil || !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	username, password, ok = strings.Cut(string(b), ":")
	return username, password, ok && username != ""
}

// credentials are what login says, for gateways that take them apart.
func (r *Route) credentials(g *gateway) (username, password string) {
	if g.logins == nil {
		return "", ""
	}
	return g.logins.Make(r.choice.Account, r.choice.Params)
}
