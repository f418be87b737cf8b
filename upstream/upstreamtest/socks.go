package upstreamtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// What SOCKS5 says on the wire (RFC 1928, RFC 1929).
const (
	socksVersion  = 5
	socksUserPass = 2
	socksNoMethod = 0xff
	socksIPv4     = 1
	socksName     = 3
	socksIPv6     = 4

	socksRefused     = 5 // reply: connection refused
	socksUnreachable = 4 // reply: host unreachable
)

// socksEstablished is the reply to a CONNECT that came off, with the exit's address.
var socksEstablished = []byte{socksVersion, 0, 0, socksIPv4, 203, 0, 113, 77, 0x30, 0x39}

var errSOCKS = errors.New("upstreamtest: not the SOCKS5 of a client")

// SOCKSConfig describes a SOCKS5 gateway. The zero value is an open relay on a free
// loopback port.
type SOCKSConfig struct {
	// Addr is where to listen; default 127.0.0.1:0.
	Addr string
	// Username and Password are required from every connection when Username is not empty
	// (RFC 1929).
	Username, Password string
	// Behaviour is what differs from an honest gateway.
	Behaviour SOCKSBehaviour
	// Dial connects to targets; default a net.Dialer. Tests map names to loopback with it.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// RecordLimit is as in [VendorConfig].
	RecordLimit int64
}

// SOCKSStep is one of the gateway's messages.
type SOCKSStep int

// The messages, in their order. SOCKSDone stands for none of them.
const (
	SOCKSDone   SOCKSStep = iota
	SOCKSMethod           // the choice of a method
	SOCKSLogin            // the answer to username and password
	SOCKSReply            // the reply to CONNECT
)

// SOCKSBehaviour is what a gateway does otherwise than an honest one. It is the same for
// every connection.
type SOCKSBehaviour struct {
	// First is sent as soon as a connection is accepted, ahead of all messages.
	First []byte
	// Say replaces messages, as it is. After a message that refuses, the gateway closes;
	// after a replaced one it goes on as if it had said yes.
	Say map[SOCKSStep][]byte
	// Rep refuses every CONNECT with this code; 0 = serve.
	Rep byte
	// Early is sent in one write with the reply, as a server-first target's greeting.
	Early []byte
	// Chunk sends messages in writes of so many bytes; 0 means in one.
	Chunk int
	// Delay is the wait before every write of a message.
	Delay time.Duration
	// Until is the message in whose place the connection ends, as Then says.
	Until SOCKSStep
	// After is the message behind which it ends, as Then says.
	After SOCKSStep
	Then  Ending
}

// SOCKSRequest is what a client asked for.
type SOCKSRequest struct {
	Username, Password string
	Kind               byte   // the address type: 1 IPv4, 3 a name, 4 IPv6
	Target             string // host:port
}

// SOCKS is a running SOCKS5 gateway. All methods are safe for concurrent use.
type SOCKS struct {
	config SOCKSConfig
	st     *station

	mu        sync.Mutex // guards what follows
	behaviour SOCKSBehaviour
	requests  []SOCKSRequest
}

// StartSOCKS starts a gateway. The caller must Close it.
func StartSOCKS(config SOCKSConfig) (*SOCKS, error) {
	if config.Dial == nil {
		config.Dial = (&net.Dialer{}).DialContext
	}
	st, err := newStation(config.Addr, nil, config.RecordLimit)
	if err != nil {
		return nil, err
	}
	s := &SOCKS{config: config, st: st, behaviour: config.Behaviour}
	st.serve(s.serve)
	return s, nil
}

// SetBehaviour changes what happens to connections accepted from now on.
func (s *SOCKS) SetBehaviour(b SOCKSBehaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour = b
}

// Addr returns the listener's host:port.
func (s *SOCKS) Addr() string { return s.st.Addr().String() }

// URL returns the gateway's URL with its credentials, percent-encoded.
func (s *SOCKS) URL() string {
	u := url.URL{Scheme: "socks5", Host: s.Addr()}
	if s.config.Username != "" {
		u.User = url.UserPassword(s.config.Username, s.config.Password)
	}
	return u.String()
}

// Requests returns what was asked for, in order, [MaxRequests] at most.
func (s *SOCKS) Requests() []SOCKSRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Conns returns a record of every connection in order of accept, open or not, [MaxRecords] at most.
func (s *SOCKS) Conns() []*ConnRecord { return s.st.led.list() }

// Received returns all bytes from all connections, in order of accept.
func (s *SOCKS) Received() []byte { return s.st.led.received() }

// Accepted returns how many connections were ever accepted.
func (s *SOCKS) Accepted() int {
	accepted, _ := s.st.led.counts()
	return accepted
}

// Open returns how many connections are open now.
func (s *SOCKS) Open() int {
	_, open := s.st.led.counts()
	return open
}

// Close stops the gateway: connections are cut, and when it returns all of its goroutines have ended.
func (s *SOCKS) Close() error { return s.st.close() }

// socksConn is one connection's handshake.
type socksConn struct {
	*recorded
	s   *SOCKS
	ctx context.Context
	b   SOCKSBehaviour
}

// serve shakes hands and then carries bytes.
func (s *SOCKS) serve(ctx context.Context, rc *recorded) {
	s.mu.Lock()
	c := &socksConn{recorded: rc, s: s, ctx: ctx, b: s.behaviour}
	s.mu.Unlock()
	if err := c.SetDeadline(time.Now().Add(defaultHeadTimeout)); err != nil {
		return
	}
	if len(c.b.First) > 0 && c.tell(c.b.First) != nil {
		return
	}
	var r SOCKSRequest
	if !c.greet() || !c.login(&r) {
		return
	}
	rep, target := c.connect(&r)
	if target != nil {
		defer func() { _ = target.Close() }() // the tunnel is over
	}
	reply := socksEstablished
	if rep != 0 {
		reply = []byte{socksVersion, rep, 0, socksIPv4, 0, 0, 0, 0, 0, 0}
	}
	if !c.say(SOCKSReply, reply) || rep != 0 || c.SetDeadline(time.Time{}) != nil {
		return
	}
	tunnel(ctx, c, &peer{Conn: target})
}

// tell writes all of b.
func (c *socksConn) tell(b []byte) error {
	_, err := c.Write(b)
	return err
}

// say sends a message and reports whether the handshake goes on.
func (c *socksConn) say(step SOCKSStep, message []byte) bool {
	if c.b.Until == step {
		finish(c.ctx, c, c.b.Then)
		return false
	}
	if own, ok := c.b.Say[step]; ok {
		message = own
	}
	if step == SOCKSReply {
		message = append(slices.Clone(message), c.b.Early...)
	}
	if writePaced(c.ctx, c, message, pace{chunk: c.b.Chunk, delay: c.b.Delay}) != nil {
		return false
	}
	if c.b.After == step {
		finish(c.ctx, c, c.b.Then)
		return false
	}
	return true
}

// read reads exactly n bytes: what a client says out of turn is left for later.
func (c *socksConn) read(n byte) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

// greet chooses the one method that the gateway knows.
func (c *socksConn) greet() bool {
	head, err := c.read(2)
	if err != nil || head[0] != socksVersion {
		return false
	}
	offered, err := c.read(head[1])
	if err != nil {
		return false
	}
	method := byte(0)
	if c.s.config.Username != "" {
		method = socksUserPass
	}
	if !slices.Contains(offered, method) {
		c.say(SOCKSMethod, []byte{socksVersion, socksNoMethod})
		return false
	}
	return c.say(SOCKSMethod, []byte{socksVersion, method})
}

// login takes username and password, if the gateway wants any.
func (c *socksConn) login(r *SOCKSRequest) bool {
	if c.s.config.Username == "" {
		return true
	}
	if version, err := c.read(1); err != nil || version[0] != 1 {
		return false
	}
	for _, field := range []*string{&r.Username, &r.Password} {
		n, err := c.read(1)
		if err != nil {
			return false
		}
		b, err := c.read(n[0])
		if err != nil {
			return false
		}
		*field = string(b)
	}
	if r.Username != c.s.config.Username || r.Password != c.s.config.Password {
		c.say(SOCKSLogin, []byte{1, 1})
		return false
	}
	return c.say(SOCKSLogin, []byte{1, 0})
}

// connect reads the request and serves it; rep 0 comes with the target's
// connection, if there is to be a tunnel.
func (c *socksConn) connect(r *SOCKSRequest) (rep byte, target net.Conn) {
	if err := c.readRequest(r); err != nil {
		return 1, nil
	}
	c.s.mu.Lock()
	if len(c.s.requests) < MaxRequests {
		c.s.requests = append(c.s.requests, *r)
	}
	c.s.mu.Unlock()
	if c.b.Rep != 0 || c.b.Until == SOCKSReply || c.b.After == SOCKSReply {
		return c.b.Rep, nil // there will be no tunnel
	}
	ctx, cancel := context.WithTimeout(c.ctx, defaultDialTimeout)
	defer cancel()
	conn, err := c.s.config.Dial(ctx, "tcp", r.Target)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return socksUnreachable, nil
	case err != nil:
		return socksRefused, nil
	}
	return 0, conn
}

// readRequest reads a CONNECT.
func (c *socksConn) readRequest(r *SOCKSRequest) error {
	head, err := c.read(4)
	if err != nil || head[0] != socksVersion || head[1] != 1 || head[2] != 0 {
		return errors.Join(errSOCKS, err)
	}
	r.Kind = head[3]
	host := ""
	switch r.Kind {
	case socksName:
		n, err := c.read(1)
		if err != nil {
			return err
		}
		name, err := c.read(n[0])
		if err != nil {
			return err
		}
		host = string(name)
	case socksIPv4, socksIPv6:
		size := map[byte]byte{socksIPv4: net.IPv4len, socksIPv6: net.IPv6len}[r.Kind]
		b, err := c.read(size)
		if err != nil {
			return err
		}
		addr, _ := netip.AddrFromSlice(b)
		host = addr.String()
	default:
		return fmt.Errorf("%w: address type %d", errSOCKS, r.Kind)
	}
	port, err := c.read(2)
	if err != nil {
		return err
	}
	r.Target = net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port))))
	return nil
}
