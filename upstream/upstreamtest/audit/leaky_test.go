package audit

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"maskrelay/masking"
	"maskrelay/upstream/upstreamtest"
)

// naive is a forwarding proxy without a mask, but for what its holes leave closed. Its
// answers to faults are those that the real relay would give.
type naive struct {
	gateway Gateway
	login   string // for the vendor, in base64
	holes   map[string]bool
	n       int // refusals so far

	ln    net.Listener
	conns sync.WaitGroup
	mu    sync.Mutex // guards n and live
	live  map[net.Conn]bool
}

const naive502 = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 33\r\nContent-Type: text/plain\r\n" +
	"Proxy-Status: Proxy; error=destination_unavailable\r\n\r\nThe target could not be reached.\n"

func startNaive(to Gateway, login string, holes map[string]bool) (*Relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &naive{gateway: to, login: login, holes: holes, ln: ln, live: map[net.Conn]bool{}}
	p.conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.conns.Go(func() { p.serve(c) })
		}
	})
	return &Relay{Bare: ln.Addr().String(), Known: masking.NewMarks(to.Brand), Close: func() {
		_ = ln.Close()
		p.mu.Lock()
		for c := range p.live {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.conns.Wait()
	}}, nil
}

func (p *naive) hold(c net.Conn) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[c] = true
	return func() {
		_ = c.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.live, c)
	}
}

// serve carries one exchange.
func (p *naive) serve(c net.Conn) {
	defer p.hold(c)()
	br := bufio.NewReader(c)
	in, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	v, err := net.Dial("tcp", net.JoinHostPort(p.gateway.Host, p.gateway.Port))
	if err != nil {
		return
	}
	defer p.hold(v)()
	if p.gateway.Scheme == HTTPS {
		v = tls.Client(v, &tls.Config{RootCAs: p.gateway.Roots, ServerName: p.gateway.Host, MinVersion: tls.VersionTLS12})
	}
	vr := bufio.NewReader(v)
	var out *http.Response
	if _, err := io.WriteString(v, p.head(in)); err == nil {
		out, err = http.ReadResponse(vr, in)
		for err == nil && out.StatusCode < 200 && out.StatusCode != 101 {
			out, err = http.ReadResponse(vr, in)
		}
	}
	if err != nil || out == nil {
		p.refuse(c, &http.Response{Status: "000 nothing", StatusCode: 502})
		return
	}
	switch {
	case in.Method == http.MethodConnect && out.StatusCode/100 == 2:
		answer := masking.Established
		if p.holes["reason"] {
			answer = "HTTP/1.1 " + out.Status + "\r\n\r\n"
		}
		if p.holes["header"] {
			answer = "HTTP/1.1 200 Connection established\r\nVia: " + out.Header.Get("Via") + "\r\n\r\n"
		}
		_, _ = io.WriteString(c, answer)
		p.carry(c, br, v, vr)
	case out.StatusCode >= 300:
		p.refuse(c, out)
	default:
		body, _ := io.ReadAll(out.Body)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	}
}

// head is the request for the vendor.
func (p *naive) head(in *http.Request) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", in.Method, in.RequestURI, in.Host)
	if p.login != "" {
		b.WriteString("Proxy-Authorization: Basic " + p.login + "\r\n")
	}
	for hole, name := range map[string]string{"forwarded": "X-Forwarded-For", "agent": "User-Agent"} {
		if p.holes[hole] {
			b.WriteString(name + ": " + in.Header.Get(name) + "\r\n")
		}
	}
	if p.holes["session"] {
		plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(in.Header.Get("Proxy-Authorization"), "Basic "))
		name, _, _ := strings.Cut(string(plain), ":")
		_, session, _ := strings.Cut(name, "-session-")
		b.WriteString("X-Session: " + session + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// refuse tells the customer of a fault.
func (p *naive) refuse(c net.Conn, out *http.Response) {
	answer := naive502
	p.mu.Lock()
	p.n++
	odd := p.n%2 == 0
	p.mu.Unlock()
	switch {
	case p.holes["body"] && out.Body != nil:
		body, _ := io.ReadAll(out.Body)
		answer = fmt.Sprintf("HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\nProxy-Status: Proxy; error=x\r\n\r\n%s", len(body), body)
	case p.holes["realm"] && out.Header.Get("Proxy-Authenticate") != "":
		answer = strings.Replace(naive502, "Proxy-Status", "Proxy-Authenticate: "+out.Header.Get("Proxy-Authenticate")+"\r\nProxy-Status", 1)
	case p.holes["uniform"] && odd:
		answer = strings.ReplaceAll(naive502, "reached", "attaned")
	case p.holes["passes"] && out.StatusCode == 403:
		answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nProxy-Status: Proxy; error=x\r\n\r\n"
	}
	_, _ = io.WriteString(c, answer)
}

// carry is the tunnel.
func (p *naive) carry(c net.Conn, cr io.Reader, v net.Conn, vr io.Reader) {
	var other sync.WaitGroup
	other.Go(func() {
		_, _ = io.Copy(v, cr)
		_ = v.Close()
	})
	if p.holes["tunnel"] {
		_, _ = io.CopyN(io.Discard, vr, 1)
	}
	_, _ = io.Copy(c, vr)
	_ = c.Close()
	other.Wait()
}

func naiveSubject(holes ...string) Subject {
	set := map[string]bool{}
	for _, h := range holes {
		set[h] = true
	}
	vendor := Login{"vendor-user-1", "vendor-password-1"}
	return Subject{
		Name: "gw", Vendor: vendor, Words: []string{"gw.acme.example"},
		Customer: Login{"planted-customer-session-planted5session", "planted-password"},
		Private:  []Mark{{Name: "customer's session as he gave it", Text: "planted5session"}},
		Start:    func(to Gateway) (*Relay, error) { return startNaive(to, basic(vendor), set) },
	}
}

// TestFindsEachLeak: one hole after the other in a proxy that has none otherwise, as far as
// the cases go that are played here.
func TestFindsEachLeak(t *testing.T) {
	t.Parallel()
	for hole, c := range map[string]struct{ where, mark, problem string }{
		"":          {},
		"reason":    {where: "customer", mark: "the stand-in vendor's " + upstreamtest.DefaultBrand},
		"header":    {where: "customer", mark: "the stand-in vendor's gw-3.supervendor.example"},
		"body":      {where: "customer", mark: "the stand-in vendor's " + upstreamtest.DefaultBrand},
		"realm":     {where: "customer", mark: "the stand-in vendor's SuperVendor residential gateway"},
		"forwarded": {where: "vendor", mark: "field that names the customer"},
		"session":   {where: "vendor", mark: "customer's session as he gave it"},
		"agent":     {where: "vendor", mark: "customer's user agent on CONNECT"},
		"uniform":   {problem: "the reply differs"},
		"passes":    {problem: "403 for a fault"},
		"tunnel":    {problem: "no whole answer"},
	} {
		t.Run("hole "+hole, func(t *testing.T) {
			t.Parallel()
			r, err := Run(t.Context(), Config{
				Subjects: []Subject{naiveSubject(hole)}, Stages: 1, Patience: 2 * time.Second,
				Cases: func(name string) bool { return name == "honest" || name == "407" || name == "403" || name == "502" },
			})
			if err != nil {
				t.Fatal(err)
			}
			keepWay(r, Connect)
			if hole == "" {
				if len(r.Leaks)+len(r.Failures) > 0 {
					t.Fatalf("a proxy without holes: %+v %+v", r.Leaks, r.Failures)
				}
				return
			}
			if r.OK {
				t.Fatal("nothing was found")
			}
			for _, l := range r.Leaks {
				if c.mark != "" && l.Where == c.where && l.Mark == c.mark {
					return
				}
			}
			for _, f := range r.Failures {
				if c.problem != "" && strings.Contains(f.Problem, c.problem) {
					return
				}
			}
			t.Fatalf("not found: %+v %+v", r.Leaks, r.Failures)
		})
	}
}

// keepWay leaves what was found of one way, through gateways that the naive proxy speaks to.
func keepWay(r *Report, way string) {
	var leaks []Leak
	for _, l := range r.Leaks {
		if l.Way == way && l.Scheme != SOCKS5 {
			leaks = append(leaks, l)
		}
	}
	var failures []Failure
	for _, f := range r.Failures {
		if f.Way == way && f.Scheme != SOCKS5 || strings.Contains(f.Problem, "the reply differs") { // which of two is found second is chance
			failures = append(failures, f)
		}
	}
	r.Leaks, r.Failures = leaks, failures
}
