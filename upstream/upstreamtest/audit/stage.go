package audit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"

	"maskrelay/masking"
	"maskrelay/upstream/upstreamtest"
)

// customerAddr is where the customer comes from, so that his address is told from the
// others' on the same machine, where that can be had; else any.
const customerAddr = "127.83.0.9"

// exitWait bounds how long the vendor's connections are waited for after the customer's.
const exitWait = 60 * time.Millisecond

// stage is a relay under test with all that stands around it. One exchange at a time is on it.
type stage struct {
	config  *Config
	subject *Subject
	scheme  string
	brand   string

	vendor *upstreamtest.Vendor // nil with SOCKS5
	socks  *upstreamtest.SOCKS  // nil with the others
	echo   *upstreamtest.Target // of tunnels
	site   *upstreamtest.Judge  // of plain requests and websockets
	relay  *Relay
	from   *net.TCPAddr // the customer's address; nil = any

	toCustomer *watch // what he must not receive
	toVendor   *watch
	toTarget   *watch
}

// secrets of the customer's that are the same in every audit.
const (
	customerAgent = "Mozilla/5.0 (X11; audit-agent-5e1f)"
	judgedValue   = "judged-value-5e1f"
	plainAgent    = "Mozilla/5.0 (X11; Linux x86_64)" // of requests that the target is to get
)

func newStage(c *Config, s *Subject, t *troupe) (_ *stage, err error) {
	st := &stage{config: c, subject: s, scheme: t.scheme, brand: s.Brand}
	if st.brand == "" {
		st.brand = upstreamtest.DefaultBrand
	}
	defer func() {
		if err != nil {
			st.close()
		}
	}()
	if st.echo, err = upstreamtest.StartEcho(); err != nil {
		return nil, err
	}
	if st.site, err = upstreamtest.StartJudge(upstreamtest.JudgeConfig{}); err != nil {
		return nil, err
	}
	gateway, err := st.startVendor()
	if err != nil {
		return nil, err
	}
	gateway.Hasty = t.hasty
	if st.relay, err = s.Start(gateway); err != nil {
		return nil, fmt.Errorf("audit: the relay under test: %w", err)
	}
	st.from = loopback(customerAddr)
	st.watchAll()
	return st, nil
}

// loopback is an address to dial from, nil if this machine does not have it.
func loopback(ip string) *net.TCPAddr {
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return nil
	}
	_ = l.Close()
	return &net.TCPAddr{IP: net.ParseIP(ip)}
}

func (st *stage) startVendor() (Gateway, error) {
	g := Gateway{Scheme: st.scheme, Brand: st.brand}
	login := st.subject.Vendor
	var addr string
	if st.scheme == SOCKS5 {
		var err error
		if st.socks, err = upstreamtest.StartSOCKS(upstreamtest.SOCKSConfig{Username: login.Username, Password: login.Password}); err != nil {
			return g, err
		}
		addr = st.socks.Addr()
	} else {
		config := upstreamtest.VendorConfig{Username: login.Username, Password: login.Password, Brand: st.brand}
		if st.scheme == HTTPS {
			var err error
			if config.TLS, g.Roots, err = certificate(); err != nil {
				return g, err
			}
		}
		var err error
		if st.vendor, err = upstreamtest.StartVendor(config); err != nil {
			return g, err
		}
		addr = st.vendor.Addr()
	}
	var err error
	g.Host, g.Port, err = net.SplitHostPort(addr)
	return g, err
}

func certificate() (*tls.Config, *x509.CertPool, error) {
	ca, err := upstreamtest.NewCA()
	if err != nil {
		return nil, nil, err
	}
	cert, err := ca.Server()
	if err != nil {
		return nil, nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, ca.Pool(), nil
}

// watchAll makes the sets of marks.
func (st *stage) watchAll() {
	s := st.subject
	relay := []Mark{{Name: "Go's HTTP client", Text: "Go-http-client"}, {Name: "the proxy library", Text: "goproxy"}, {Name: "the relay's name", Text: "maskrelay"}}
	login := loginMarks("vendor's", s.Vendor)
	hidden := slices.Concat(relay, login, s.Hidden)
	if st.vendor != nil {
		for _, text := range st.vendor.Marks() {
			if text == s.Vendor.Username || text == s.Vendor.Password || text == basic(s.Vendor) {
				continue // among login, as far as it can be told from innocent text
			}
			hidden = append(hidden, Mark{Name: "the stand-in vendor's " + text, Text: text})
		}
	} else {
		hidden = append(hidden, Mark{Name: "the gateway's address", Text: st.socks.Addr()}, Mark{Name: "the exit's address", Text: "203.0.113.77"})
	}
	private := slices.Concat(relay, s.Private, []Mark{
		{Name: "customer's user agent on CONNECT", Text: customerAgent}, {Name: "value of a field that names the customer", Text: judgedValue},
	})
	if st.from != nil {
		private = append(private, Mark{Name: "customer's address", Text: customerAddr})
	}
	target := slices.Concat(private, login)
	if !s.OwnLogin {
		private = append(private, loginMarks("customer's", s.Customer)...)
		target = slices.Concat(target, loginMarks("customer's", s.Customer))
	}
	var known *masking.Marks
	if st.relay != nil {
		known = st.relay.Known
	}
	st.toCustomer = newWatch("customer", known, hidden)
	st.toVendor = newWatch("vendor", nil, private)
	st.toTarget = newWatch("target", nil, target)
}

// loginMarks are a login's, whole and as Basic sends it.
func loginMarks(whose string, l Login) (marks []Mark) {
	if l.Username == "" {
		return nil
	}
	marks = append(marks, Mark{Name: whose + " credentials in base64", Text: basic(l), Secret: true})
	if len(l.Username) >= minSecret && strings.ContainsFunc(l.Username, func(r rune) bool { return !unicode.IsLetter(r) }) {
		marks = append(marks, Mark{Name: whose + " username", Text: l.Username, Secret: true})
	}
	if len(l.Password) >= minSecret {
		marks = append(marks, Mark{Name: whose + " password", Text: l.Password, Secret: true})
	}
	return marks
}

// minSecret is the length in bytes from which a secret is looked for: shorter ones, and
// usernames that are plain words, stand in innocent text.
const minSecret = 8

func (st *stage) close() {
	if st.relay != nil {
		st.relay.Close()
	}
	for _, c := range []io.Closer{orNil(st.vendor), orNil(st.socks), orNil(st.echo), orNil(st.site)} {
		if c != nil {
			_ = c.Close() // loopback servers: nothing is lost
		}
	}
}

// orNil keeps a nil pointer from becoming an interface that is not nil.
func orNil[T any, P interface {
	*T
	io.Closer
}](p P) io.Closer {
	if p == nil {
		return nil
	}
	return p
}

// behave sets what the vendor does from now on.
func (st *stage) behave(h *upstreamtest.Hostility) {
	if st.socks != nil {
		st.socks.SetBehaviour(*h.SOCKS)
		return
	}
	st.vendor.SetBehaviour(h.HTTP)
}

// gatewayConns are the records of the vendor's connections.
func (st *stage) gatewayConns() []*upstreamtest.ConnRecord {
	if st.socks != nil {
		return st.socks.Conns()
	}
	return st.vendor.Conns()
}

func (st *stage) gatewayOpen() int {
	if st.socks != nil {
		return st.socks.Open()
	}
	return st.vendor.Open()
}

// marker is how many connections each side had when an exchange began.
type marker struct{ vendor, echo, site int }

func (st *stage) marker() marker {
	return marker{len(st.gatewayConns()), len(st.echo.Conns()), len(st.site.Conns())}
}

// settle waits until the exchange's connections have ended, and cuts those that do not.
func (st *stage) settle(ctx context.Context) {
	for deadline := time.Now().Add(exitWait); time.Now().Before(deadline) && ctx.Err() == nil; {
		if st.gatewayOpen()+st.echo.Open() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if st.socks != nil {
		st.socks.Cut()
	} else {
		st.vendor.Cut()
	}
	st.echo.Cut()
	st.site.Cut()
}

// plays reports whether a gateway of a scheme can play h.
func plays(scheme string, h *upstreamtest.Hostility) bool {
	if scheme == SOCKS5 {
		return h.SOCKS != nil
	}
	return h.HTTP != nil
}

var errNoSubject = errors.New("audit: nothing to prove: no gateway has a vendor")

// credentials is the customer's Proxy-Authorization line, "" without.
func (st *stage) credentials() string {
	if st.subject.Customer.Username == "" {
		return ""
	}
	return "Proxy-Authorization: Basic " + basic(st.subject.Customer) + "\r\n"
}

// judgedLines are the fields that proxy judges look at, as a careless customer sends them.
func judgedLines(names []string) string {
	var b strings.Builder
	for _, name := range names {
		value := judgedValue
		if strings.Contains(strings.ToLower(name), "for") || strings.Contains(strings.ToLower(name), "ip") {
			value = customerAddr + ", " + judgedValue
		}
		b.WriteString(name + ": " + value + "\r\n")
	}
	return b.String()
}
