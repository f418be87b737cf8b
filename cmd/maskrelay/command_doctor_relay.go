package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"maskrelay/upstream"
)

// maxRelayHead bounds what is read of the relay's answer, in bytes.
const maxRelayHead = 64 << 10

// doctorListener is where the relay's own way begins.
type doctorListener struct {
	address string // "" = the relay has no listener
	tls     bool
	own     bool   // it is LISTEN's or TLS_LISTEN's, on this machine
	pool    string // of gateways, that it is bound to; "" = none
}

// doctorListenerOf is the listener that --relay names, or the first that the environment has. What the environment says of a
// listener on the port of --relay holds for that, too.
func doctorListenerOf(cfg *Config, relay string) (doctorListener, error) {
	host, port, err := net.SplitHostPort(relay)
	if relay != "" && (err != nil || host == "" || port == "") {
		return doctorListener{}, errors.New("not an address; write host:port")
	}
	var known []doctorListener
	add := func(address, text string, secure bool) {
		_, pool, _ := strings.Cut(text, "@")
		known = append(known, doctorListener{address: address, tls: secure, own: true, pool: pool})
	}
	for _, l := range cfg.Listen {
		add(l.fromHere(), fmt.Sprint(l), false)
	}
	for _, l := range cfg.TLS.TLSListen {
		add(l.fromHere(), fmt.Sprint(l), true)
	}
	switch {
	case relay == "" && len(known) == 0:
		return doctorListener{}, nil
	case relay == "":
		return known[0], nil
	}
	named := doctorListener{address: relay, tls: len(cfg.Listen) == 0}
	for _, l := range known {
		if strings.HasSuffix(l.address, ":"+port) {
			named.tls, named.pool, named.own = l.tls, l.pool, l.address == relay
			break
		}
	}
	return named, nil
}

// relayTrip is the way through the relay's own listener.
type relayTrip struct {
	d      *doctorRun
	part   doctorPart
	source netip.Addr // this host's address, as the relay sees it
	works  bool       // the gateways did, just before
	params bool       // the hop parameters failed, just before
	ready  string     // what the relay itself says, "" = it is ready or was not asked
}

// paramsFailed reports whether the customer's parameters failed before.
func paramsFailed(r *doctorReport) bool {
	return slices.ContainsFunc(r.Parts, func(p doctorPart) bool {
		return slices.ContainsFunc(p.Hops, func(h doctorHop) bool { return h.Cause == badParameters })
	})
}

// throughRelay takes the request the customer's whole way. r holds the parts before it.
func (d *doctorRun) throughRelay(ctx context.Context, r *doctorReport) doctorPart {
	t := &relayTrip{d: d, part: doctorPart{Kind: "relay", Name: d.listener.address}, works: gatewaysWork(r), params: paramsFailed(r)}
	switch c := &d.customer; {
	case d.listener.address == "":
		t.skip("listener", "the environment has no listener")
		return t.part
	case c.mode != AuthOpen && !c.complete():
		t.skip("exchange", c.missing)
		return t.part
	}
	t.askReady(ctx)
	conn := t.dial(ctx)
	if conn == nil {
		return t.part
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := t.greet(conn); err != nil {
		t.fail("listener", err, "the relay closed the connection: look at its log", time.Now())
		return t.part
	}
	way := conn
	if d.listener.tls {
		if way = t.secure(ctx, conn); way == nil {
			return t.part
		}
	}
	t.exchange(ctx, way)
	return t.part
}

// gatewaysWork reports whether no hop of any gateway failed.
func gatewaysWork(r *doctorReport) bool {
	return !slices.ContainsFunc(r.Parts, func(p doctorPart) bool { return p.Kind == "gateway" && p.failed() != nil })
}

func (t *relayTrip) add(h doctorHop) { t.part.Hops = append(t.part.Hops, h) }

func (t *relayTrip) skip(name, why string) {
	t.add(doctorHop{Hop: name, Result: upstream.HopSkipped, Detail: why})
}

func (t *relayTrip) ok(name, detail string, began time.Time) {
	t.add(doctorHop{Hop: name, Result: upstream.HopOK, Detail: detail, Milliseconds: milliseconds(time.Since(began))})
}

// fail notes an I/O error.
func (t *relayTrip) fail(name string, err error, remedy string, began time.Time) {
	h := doctorHop{Hop: name, Result: upstream.HopFailed, Cause: "closed", Remedy: remedy, Milliseconds: milliseconds(time.Since(began))}
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		h.Cause, h.Detail = "timeout", "no answer in time"
	case errors.As(err, &op):
		h.Detail = op.Err.Error()
	default:
		h.Detail = oneLine(err)
	}
	t.add(h)
}

// askReady asks the running relay itself, where it has an admin listener on this machine.
func (t *relayTrip) askReady(ctx context.Context) {
	admin := t.d.cfg.Admin.AdminListen
	if admin == "" || !t.d.listener.own {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	began := time.Now()
	err := askReady(ctx, admin.fromHere())
	switch {
	case err == nil:
		t.ok("ready", "the relay says it is ready", began)
	case errors.Is(err, syscall.ECONNREFUSED):
		t.skip("ready", "nothing answers at "+envPrefix+"ADMIN_LISTEN")
	default:
		t.ready = oneLine(err)
		t.add(doctorHop{
			Hop: "ready", Result: upstream.HopFailed, Cause: "not_ready", Detail: t.ready, Milliseconds: milliseconds(time.Since(began)),
			Remedy: "the relay itself says why; its log says more",
		})
	}
}

// dial reaches the listener; nil = in vain.
func (t *relayTrip) dial(ctx context.Context) net.Conn {
	began := time.Now()
	dialer := net.Dialer{Timeout: t.d.cfg.Timeouts.Dial}
	conn, err := dialer.DialContext(ctx, "tcp", t.d.listener.address)
	if err == nil {
		if tcp, ok := conn.LocalAddr().(*net.TCPAddr); ok {
			t.source = tcp.AddrPort().Addr().Unmap()
		}
		t.ok("listener", "reached", began)
		return conn
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		remedy := "start it with maskrelay serve, or say where it listens with --relay host:port"
		if !t.d.listener.own {
			remedy = "check --relay, or start the relay there"
		}
		t.add(doctorHop{Hop: "listener", Result: upstream.HopFailed, Cause: "not_running", Detail: "the relay is not running here", Remedy: remedy})
		return nil
	}
	t.fail("listener", err, "check "+envPrefix+"LISTEN or --relay, and the firewall of this host", began)
	return nil
}

// greet sends the PROXY header that the relay requires of a balancer, if this host's address is one's.
func (t *relayTrip) greet(conn net.Conn) error {
	if !slices.ContainsFunc(t.d.cfg.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(t.source) }) {
		return nil
	}
	from, ok := conn.LocalAddr().(*net.TCPAddr)
	to, ok2 := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return nil
	}
	family := "TCP4"
	if !t.source.Is4() {
		family = "TCP6"
	}
	_, err := fmt.Fprintf(conn, "PROXY %s %s %s %d %d\r\n", family, t.source, to.AddrPort().Addr().Unmap(), from.Port, to.Port)
	return err
}

// secure makes TLS with the relay; nil = in vain. Customers verify its certificate against the name they were given, which
// nobody has told here; so it must be the very one of the certificate file, or one that this host trusts for the address.
func (t *relayTrip) secure(ctx context.Context, conn net.Conn) net.Conn {
	began := time.Now()
	host, _, _ := net.SplitHostPort(t.d.listener.address)
	own := leafOf(t.d.cfg)
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if own != nil {
		config.InsecureSkipVerify = true // the bytes are compared below
		config.VerifyConnection = func(s tls.ConnectionState) error {
			if !slices.Equal(s.PeerCertificates[0].Raw, own) {
				return errOtherCert
			}
			return nil
		}
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		remedy := "check that this is the relay's TLS listener, and what is in " + envPrefix + "TLS_CERT_FILE"
		t.add(doctorHop{
			Hop: "tls", Result: upstream.HopFailed, Cause: "tls", Detail: oneLine(err), Remedy: remedy,
			Milliseconds: milliseconds(time.Since(began)),
		})
		return nil
	}
	leaf := secured.ConnectionState().PeerCertificates[0]
	left := time.Until(leaf.NotAfter)
	detail := fmt.Sprintf("%s, %d days left", tls.VersionName(secured.ConnectionState().Version), int(left.Hours()/24))
	if left <= 0 {
		t.add(doctorHop{
			Hop: "tls", Result: upstream.HopFailed, Cause: "tls", Detail: "the relay's certificate has expired: customers refuse it",
			Remedy: "renew the certificate in " + envPrefix + "TLS_CERT_FILE; the relay takes it up by itself",
		})
		return secured
	}
	t.ok("tls", detail, began)
	return secured
}

// errOtherCert is that the relay shows another certificate than its file holds.
var errOtherCert = errors.New("the relay shows another certificate than the file holds")

// leafOf is the certificate of TLS_CERT_FILE, nil if it cannot be read.
func leafOf(cfg *Config) []byte {
	pair, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile)
	if err != nil || len(pair.Certificate) == 0 {
		return nil
	}
	return pair.Certificate[0]
}

// exchange sends the request as the customer would.
func (t *relayTrip) exchange(ctx context.Context, conn net.Conn) {
	began := time.Now()
	plain := t.d.target.Scheme == "http"
	if err := t.ask(conn, plain); err != nil {
		t.fail("exchange", err, "the relay closed the connection: look at its log", began)
		return
	}
	method := http.MethodConnect
	if plain {
		method = http.MethodGet
	}
	reader := bufio.NewReader(io.LimitReader(conn, maxRelayHead))
	response, err := http.ReadResponse(reader, &http.Request{Method: method})
	if err != nil {
		t.fail("exchange", err, t.onSilence(err), began)
		return
	}
	_ = response.Body.Close()
	made := strings.Contains(response.Header.Get("Proxy-Status"), "; error=") // every refusal of a relay's own has it
	switch {
	case plain && !made:
		t.ok("exchange", fmt.Sprintf("the target answers %d", response.StatusCode), began)
	case !plain && response.StatusCode/100 == 2:
		t.ok("exchange", "the tunnel is open", began)
		t.askTarget(ctx, conn)
	case !made:
		t.add(doctorHop{
			Hop: "exchange", Result: upstream.HopFailed, Cause: "other_server", Status: response.StatusCode, Milliseconds: milliseconds(time.Since(began)),
			Detail: fmt.Sprintf("status %d, and not in this relay's words", response.StatusCode), Remedy: "what listens there is not a maskrelay: check the address",
		})
	default:
		h := t.refused(response.StatusCode)
		h.Milliseconds = milliseconds(time.Since(began))
		t.add(h)
	}
}

// ask writes the request.
func (t *relayTrip) ask(conn net.Conn, plain bool) error {
	var b strings.Builder
	at := t.d.at.String()
	if plain {
		fmt.Fprintf(&b, "GET %s://%s%s HTTP/1.1\r\nHost: %s\r\n", t.d.target.Scheme, t.d.target.Host, t.d.target.RequestURI(), t.d.target.Host)
		b.WriteString("User-Agent: Mozilla/5.0\r\nAccept: */*\r\n")
	} else {
		fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", at, at)
	}
	if c := &t.d.customer; c.complete() {
		b.WriteString("Proxy-Authorization: " + c.authorization() + "\r\n")
	}
	b.WriteString("\r\n")
	_, err := io.WriteString(conn, b.String())
	return err
}

// onSilence is what to do when the relay gave no answer.
func (t *relayTrip) onSilence(err error) string {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the relay took the request and did not answer: raise --timeout; its log has a line of the exchange when it ends"
	case len(t.d.cfg.ProxyFrom) > 0:
		return "the relay closed without an answer: it may require a PROXY header from this host, or refuse one; compare " + envPrefix + "PROXY_PROTOCOL_FROM with what it was started with"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "raise --timeout"
	default:
		return "what listens there speaks no HTTP, or it requires a PROXY header: check the address"
	}
}

// askTarget looks at what comes through the relay's tunnel.
func (t *relayTrip) askTarget(ctx context.Context, conn net.Conn) {
	if t.d.target.Scheme == "tcp" {
		return
	}
	began := time.Now()
	detail, err := upstream.AskTarget(ctx, conn, t.d.target, t.d.roots)
	if err != nil {
		var failure *upstream.ConnectError
		h := doctorHop{
			Hop: "target", Result: upstream.HopFailed, Cause: "closed", Detail: "nothing comes through the open tunnel",
			Remedy: upstream.AdviceOnTarget(err), Milliseconds: milliseconds(time.Since(began)),
		}
		if errors.As(err, &failure) {
			h.Cause = string(failure.Cause)
		}
		t.add(h)
		return
	}
	t.ok("target", detail, began)
}
