package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// secured tries TLS with the gateway.
func (x *examination) secured(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(ctx, x.g.timeout)
	defer cancel()
	conn, failure := x.dial(limited, x.reached)
	began := time.Now()
	if failure == nil {
		conn, failure = x.g.secure(limited, conn)
	}
	if failure != nil {
		x.fail(HopTLS, failure, nil, began)
		return false
	}
	defer func() { _ = conn.Close() }()
	detail := "TLS"
	if c, ok := conn.(*tls.Conn); ok {
		detail = describeTLS(c.ConnectionState())
	}
	x.ok(HopTLS, detail, began)
	return true
}

// describeTLS is version, name and age of a connection that stands.
func describeTLS(state tls.ConnectionState) string {
	s := tls.VersionName(state.Version)
	if len(state.PeerCertificates) > 0 {
		s += ", " + describeCert(state.PeerCertificates[0])
	}
	return s
}

func describeCert(cert *x509.Certificate) string {
	left := time.Until(cert.NotAfter)
	return fmt.Sprintf("certificate of %s, %d days left", certName(cert), int(left.Hours()/24))
}

func certName(cert *x509.Certificate) string {
	switch {
	case len(cert.DNSNames) > 0:
		return printable(cert.DNSNames[0])
	case len(cert.IPAddresses) > 0:
		return cert.IPAddresses[0].String()
	default:
		return cmp.Or(printable(cert.Subject.CommonName), "nobody")
	}
}

// loginTry is one try with a login.
type loginTry struct {
	hop   string
	route *Route
	port  uint16 // of the gateway; vendors that keep sessions by port have several
}

// tries are the logins to be tried: the operator's, and the customer's if it is another.
func (x *examination) tries(operator, customer string) []loginTry {
	own := loginTry{hop: operator, port: x.reached.Port()}
	var err error
	if own.route, err = x.pool.Route(Choice{Pool: x.g.Pool}); err != nil {
		own.route = nil // the pool's plain route
	}
	list := []loginTry{own}
	if x.c.Params.IsZero() || x.c.Authorization != "" {
		return list
	}
	if x.c.Pool != "" && x.c.Pool != x.g.Pool {
		x.skip(customer, "the customer's exchanges go to pool "+x.c.Pool)
		return list
	}
	if fault := x.g.logins.Fault(x.c.Params); fault != nil {
		x.skip(customer, "not used for these parameters: "+fault.Error())
		return list
	}
	his := loginTry{hop: customer, port: own.port}
	his.route, err = x.pool.Route(Choice{Pool: x.g.Pool, Account: x.c.Account, Params: x.c.Params})
	if err != nil {
		x.skip(customer, "not used for these parameters: "+err.Error())
		return list
	}
	if port, ok := x.g.logins.Port(x.c.Account, x.c.Params); ok {
		his.port = port
	}
	return append(list, his)
}

// tunnels opens one with each login, and looks at the target through the last.
func (x *examination) tunnels(ctx context.Context) {
	var open net.Conn
	for _, a := range x.tries(HopConnect, HopConnectCustomer) {
		conn := x.tunnel(ctx, a)
		if conn == nil {
			continue
		}
		if open != nil {
			_ = open.Close()
		}
		open = conn
	}
	if open == nil {
		x.skip(HopTarget, "there is no tunnel")
		return
	}
	defer func() { _ = open.Close() }()
	x.throughTunnel(ctx, open)
}

// tunnel opens one; nil = in vain. The time is that of the gateway's answer.
func (x *examination) tunnel(ctx context.Context, a loginTry) net.Conn {
	began := time.Now()
	conn, failure := x.reach(ctx, a.port)
	if failure != nil {
		x.fail(a.hop, failure, nil, began)
		return nil
	}
	heard := &hearing{Conn: conn}
	login := x.loginOf(a)
	limited, cancel := context.WithTimeout(ctx, x.pool.options.ConnectTimeout)
	defer cancel()
	began = time.Now()
	request := Request{Target: x.target.address, Authorization: x.c.Authorization, Route: a.route}
	early, failure := x.g.openTunnel(limited, heard, x.pool.routeOr(a.route), request)
	if failure == nil {
		x.ok(a.hop, x.loginText(login)+": tunnel to "+x.target.address, began)
		return &earlyConn{Conn: conn, early: early}
	}
	_ = conn.Close()
	x.overdue(ctx, limited, failure)
	x.fail(a.hop, failure, heard.answer(x.g.Scheme), began)
	return nil
}

// overdue corrects a failure that came of the end of ctx, or of limited, the hop's own.
func (x *examination) overdue(ctx, limited context.Context, failure *ConnectError) {
	if err := limited.Err(); err != nil && failure.Status == 0 {
		failure.Cause, failure.Err = netCause(ctx, err, CauseTimeout), err
	}
}

// reach makes a connection over which the gateway's protocol is spoken.
func (x *examination) reach(ctx context.Context, port uint16) (net.Conn, *ConnectError) {
	limited, cancel := context.WithTimeout(ctx, x.g.timeout)
	defer cancel()
	conn, failure := x.dial(limited, netip.AddrPortFrom(x.reached.Addr(), port))
	if failure != nil {
		return nil, failure
	}
	return x.g.secure(limited, conn)
}

// loginOf is the Proxy-Authorization value of an attempt. From now on it shows nowhere.
func (x *examination) loginOf(a loginTry) string {
	login := cmp.Or(x.c.Authorization, x.pool.routeOr(a.route).login(x.g))
	x.blot.addAuthorization(login)
	return login
}

// loginText says whether there was a login.
func (x *examination) loginText(login string) string {
	switch {
	case x.c.Authorization != "":
		return "with the customer's own login"
	case login == "":
		return "without a login"
	default:
		return "login taken"
	}
}

// requests sends a plain request with each login.
func (x *examination) requests(ctx context.Context) {
	transport := NewTransport(x.pool, nil)
	defer transport.Close()
	for _, a := range x.tries(HopRequest, HopRequestCustomer) {
		x.request(ctx, transport, a)
	}
}

// request sends one, by the relay's own transport.
func (x *examination) request(ctx context.Context, transport *Transport, a loginTry) {
	limited, cancel := context.WithTimeout(ctx, x.g.timeout+x.pool.options.ConnectTimeout)
	defer cancel()
	_ = x.loginOf(a)
	x.refusal = nil
	began := time.Now()
	response, _, err := transport.Do(PlainRequest{
		Request: x.target.request(limited), Route: a.route, Authorization: x.c.Authorization, Key: a.hop,
	})
	if err == nil {
		detail := "GET " + x.target.url.String() + ": " + x.blot.short(response.Status)
		_ = response.Body.Close()
		x.ok(a.hop, detail+ownWord(response.StatusCode), began)
		return
	}
	failure := new(ConnectError)
	if !errors.As(err, &failure) {
		failure = &ConnectError{Phase: PhaseRequest, Cause: ioCause(err, CauseClosed), Err: err}
	}
	x.overdue(ctx, limited, failure)
	x.fail(a.hop, failure, x.refusal, began)
}

// gatewayMade judges plain answers as the relay does, and keeps those that the gateway
// made, for their words.
func (x *examination) gatewayMade(response *http.Response) bool {
	judge := x.c.Options.GatewayMade
	if judge == nil {
		judge = func(r *http.Response) bool { return r.StatusCode == http.StatusProxyAuthRequired }
	}
	if !judge(response) {
		return false
	}
	x.refusal = answerOf(response)
	return true
}

// ownWord tells a target's refusal from a gateway's.
func ownWord(status int) string {
	if status >= 400 {
		return " (the target's own answer: the way works)"
	}
	return ""
}
