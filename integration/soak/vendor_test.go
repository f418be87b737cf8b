package soak

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"maskrelay/upstream/upstreamtest"
)

// vendorPlan is what a vendor's process is told.
type vendorPlan struct {
	Name, Addr string
	Seed       uint64
	Pause      time.Duration // the longest
	SOCKS      bool          // it speaks SOCKS5
	CertFile   string        // of one that speaks TLS, and its key's; "" = plain TCP
	KeyFile    string
}

// soakVendor is a gateway that does what the targets' names say.
type soakVendor struct {
	vendorPlan
	streams  *streams
	reporter reporter
	secure   *tls.Config // nil = plain TCP
	words    words
}

// runVendor serves until its input ends.
func runVendor() {
	v := &soakVendor{}
	readPlan(&v.vendorPlan)
	v.streams, v.words = newStreams(v.Seed), httpWords
	if v.SOCKS {
		v.words = socksWords
	}
	if v.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(v.CertFile, v.KeyFile)
		if err != nil {
			fatal(err)
		}
		v.secure = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	ln, err := net.Listen("tcp4", v.Addr)
	if err != nil {
		fatal(err)
	}
	v.reporter.tell(report{Side: v.Name})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				fatal(err)
			}
			go v.serve(c.(*net.TCPConn))
		}
	}()
	// The parent kills this process; a parent that is gone does it by Pdeathsig. This bound is for where neither works.
	time.Sleep(24 * time.Hour)
}

// serve serves one connection.
func (v *soakVendor) serve(raw *net.TCPConn) {
	defer closeQuietly(raw)
	var c halfCloser = raw
	if v.secure != nil {
		c = tls.Server(raw, v.secure)
		defer closeQuietly(c)
	}
	r := bufio.NewReader(c)
	if !v.SOCKS {
		v.requests(c, raw, r, "")
		return
	}
	_ = c.SetDeadline(time.Now().Add(tunnelLimit))
	username, password, host, err := socksRequest(c, r)
	if err != nil {
		if errors.Is(err, errSOCKS) {
			v.reporter.tell(report{Side: v.Name, Bad: err.Error()})
		}
		return // probes
	}
	s, ok := parseSpec(host)
	told := report{Side: v.Name, Name: s.String(), Start: time.Now().UnixNano()}
	if told.Session, told.Bad = vendorLogin(username, password, s); !ok {
		told.Bad = fmt.Sprintf("the vendor was asked for %q", host)
	}
	if s.Mode == get || s.Mode == post || s.Mode == abandoned {
		if _, err := io.WriteString(c, v.words.opened); err == nil {
			v.requests(c, raw, r, told.Session)
		}
		return
	}
	v.tunnel(c, raw, r, s, &told)
	told.Stop = time.Now().UnixNano()
	v.reporter.tell(told)
}

// requests answers those of one connection. Of those in a SOCKS5 tunnel the session is known.
func (v *soakVendor) requests(c halfCloser, raw *net.TCPConn, r *bufio.Reader, session string) {
	for {
		// Idle connections of the relay's wait longer than a tunnel lasts.
		_ = c.SetDeadline(time.Now().Add(tunnelLimit))
		request, err := http.ReadRequest(r)
		if err != nil {
			return // tunnels that were given up, idle connections
		}
		s, ok := parseSpec(request.Host)
		if !ok {
			v.reporter.tell(report{Side: v.Name, Bad: fmt.Sprintf("the vendor was asked for %q", request.Host)})
			return
		}
		told := report{Side: v.Name, Name: s.String(), Session: session, Start: time.Now().UnixNano(), Bad: v.checkHead(request)}
		if told.Bad == "" && !v.SOCKS {
			username, password := basicLogin(request.Header.Get("Proxy-Authorization"))
			told.Session, told.Bad = vendorLogin(username, password, s)
		}
		if request.Method == http.MethodConnect {
			v.tunnel(c, raw, r, s, &told)
			told.Stop = time.Now().UnixNano()
			v.reporter.tell(told)
			return
		}
		again := v.plain(c, request, s, &told)
		told.Stop = time.Now().UnixNano()
		v.reporter.tell(told)
		if !again {
			return
		}
	}
}

// checkHead finds what the relay must not say: anything of a customer's.
func (v *soakVendor) checkHead(r *http.Request) string {
	if got := r.Header.Get("Proxy-Authorization"); v.SOCKS && got != "" {
		return fmt.Sprintf("a target received the login %q", got)
	}
	for name, values := range r.Header {
		if text := strings.Join(values, ","); strings.Contains(text, customerMark) {
			return fmt.Sprintf("the vendor received %s: %s", name, text)
		}
		if r.Method == http.MethodConnect && name != "Proxy-Authorization" {
			return "the vendor received " + name + " with a CONNECT"
		}
	}
	return ""
}

// answers to a CONNECT that open nothing.
var answers = map[mode]string{
	forbidden: "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nvendor",
	noLogin:   "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"vendor\"\r\nContent-Length: 0\r\n\r\n",
	busy:      "HTTP/1.1 503 Service Unavailable\r\nX-Vendor: yes\r\n\r\nvendor",
	garbage:   "SSH-2.0-vendor\r\n",
	withBody:  "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nvendor",
}

const opened = "HTTP/1.1 200 OK\r\n\r\n"

// tunnel plays the vendor's part of a CONNECT and closes.
func (v *soakVendor) tunnel(c halfCloser, raw *net.TCPConn, r *bufio.Reader, s spec, told *report) {
	t := &carrier{
		conn: c, raw: raw, in: r, rng: rand.New(rand.NewPCG(v.Seed, s.ID)),
		out: v.streams.of(s.ID, downward), want: v.streams.of(s.ID, upward),
	}
	if !s.Mode.carries() {
		v.refuse(t, s, told)
		return
	}
	first := v.words.opened
	if s.Mode == banner {
		first += string(t.out.next(int(min(s.Down, 1000))))
		t.sent = int64(len(first) - len(v.words.opened))
		s.Down -= t.sent
	}
	if _, err := io.WriteString(c, first); err != nil {
		told.End = endOf(err)
		return
	}
	if s.Mode == upgrade && !v.handshake(c, r, told) {
		return
	}
	t.fill(told, t.asVendor(s, v.Pause))
}

// refuse answers without opening anything: no byte of the customer's may have come.
func (v *soakVendor) refuse(t *carrier, s spec, told *report) {
	if s.Mode != hangUp && s.Mode != silent && s.Mode != leave {
		if _, err := io.WriteString(t.conn, v.words.answers[s.Mode]); err != nil {
			told.End = endOf(err)
			return
		}
		_ = t.conn.CloseWrite() // its error is drain's
	}
	if s.Mode == hangUp {
		return
	}
	t.fill(told, t.drain(forever))
	if told.Got > 0 && told.Bad == "" {
		told.Bad = fmt.Sprintf("%d bytes of the customer's came before the vendor had opened", told.Got)
	}
}

// handshake answers the websocket request inside a tunnel.
func (v *soakVendor) handshake(c net.Conn, r *bufio.Reader, told *report) bool {
	request, err := http.ReadRequest(r)
	if err != nil {
		told.End = endOf(err)
		return false
	}
	if got := request.Header.Get("Proxy-Authorization"); got != "" {
		told.Bad = "the target received Proxy-Authorization"
	}
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		upstreamtest.AcceptKey(request.Header.Get("Sec-WebSocket-Key")))
	told.End = endOf(err)
	return err == nil
}

// asVendor plays an open tunnel and returns how the customer's direction ended.
func (c *carrier) asVendor(s spec, longest time.Duration) string {
	switch s.Mode {
	case upFirst:
		end := c.drain(forever)
		if end == endOrderly {
			c.sendAll(s.Down)
		}
		return end
	case downFirst:
		c.sendAll(s.Down)
		return c.drain(forever)
	case clientReset:
		sending := make(chan struct{})
		go func() {
			defer close(sending)
			_ = c.send(s.Down) // it breaks off
		}()
		end := c.drain(forever)
		<-sending
		return end
	case vendorReset:
		if end := c.drain(1); end != endOrderly { // so that the tunnel is open at the other end, too
			return end
		}
		_ = c.send(s.Down / 2) // what does not arrive is cut anyway
		c.reset()
		return endBroken
	case idle:
		c.pause = time.Duration(c.rng.Int64N(int64(longest)))
	case vendorStall:
		c.stall = longest/4 + time.Duration(c.rng.Int64N(int64(longest)))
	}
	return c.exchange(s.Down)
}

// plain answers a request in absolute form; true if the connection goes on.
func (v *soakVendor) plain(c net.Conn, r *http.Request, s spec, told *report) bool {
	if told.Bad == "" && slices.ContainsFunc([]string{"Forwarded", "X-Forwarded-For", "Via", "User-Agent"}, func(name string) bool { return r.Header.Get(name) != "" }) {
		told.Bad = fmt.Sprintf("a plain request with %v", r.Header)
	}
	want := v.streams.of(s.ID, upward)
	_, err := io.Copy(&want, r.Body)
	told.Got, told.End = want.at, endOf(err)
	if errors.Is(err, errWrongByte) {
		told.Bad = err.Error()
	}
	if err != nil {
		return false
	}
	response := &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/octet-stream"}},
		Request: r, ContentLength: s.Down, Body: io.NopCloser(&streamBody{stream: v.streams.of(s.ID, downward), left: s.Down, told: &told.Sent}),
	}
	if s.ID%2 == 1 {
		response.ContentLength, response.TransferEncoding = -1, []string{"chunked"}
	}
	return response.Write(c) == nil
}

// streamBody is a plain message's body.
type streamBody struct {
	stream
	left int64
	told *int64 // bytes that were read from it
}

// Read implements io.Reader.
func (b *streamBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.next(int(min(int64(len(p)), b.left))))
	b.left -= int64(n)
	*b.told += int64(n)
	return n, nil
}
