package upstreamtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// waitSeen is for how long one that waits is watched.
const waitSeen = 150 * time.Millisecond

var caseName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]*$`)

func TestHostilityNames(t *testing.T) {
	t.Parallel()
	all := Hostilities()
	seen, ways, socks, families := map[string]bool{}, map[Way]int{}, 0, 0
	for i, h := range all {
		if seen[h.Name] || !caseName.MatchString(h.Name) || i > 0 && all[i-1].Name > h.Name {
			t.Errorf("name %q", h.Name)
		}
		seen[h.Name] = true
		if (h.HTTP == nil) == (h.SOCKS == nil) || h.Ways == 0 || h.Ways&^everyWay != 0 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		if h.SOCKS != nil {
			socks++
		}
		if family.MatchString(h.Name) || strings.HasPrefix(h.Name, "preset-") {
			families++
			continue
		}
		for _, w := range []Way{ByConnect, ByPlain, ByWebsocket} {
			if h.Ways&w != 0 {
				ways[w]++
			}
		}
	}
	for w, n := range ways {
		if n < 60 {
			t.Errorf("way %d: %d behaviours", w, n)
		}
	}
	t.Logf("%d in all, %d of them of families and presets, %d for SOCKS; by way %v", len(all), families, socks, ways)
	for name := range Behaviours() {
		if !seen[name] {
			t.Errorf("%s is registered and left out", name)
		}
	}
	for code := 100; code <= 999; code++ {
		if name := "status-" + itoa(code); !seen[name] {
			t.Errorf("no %s", name)
		}
	}
}

var family = regexp.MustCompile(`^(status|page|reset-at|socks-rep)-\d+$`)

func itoa(n int) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}

// TestHostilitiesAreTrue plays every one of them to a client that knows no more than
// it must, and looks whether what is claimed of it happens.
func TestHostilitiesAreTrue(t *testing.T) {
	t.Parallel()
	s := &stage{echo: startEcho(t), judge: startJudge(t, JudgeConfig{}), ca: must(NewCA())(t)}
	s.cert = must(s.ca.Server())(t)
	for _, h := range Hostilities() {
		t.Run(h.Name, func(t *testing.T) {
			t.Parallel()
			for way, play := range map[Way]func(*testing.T, *performance){ByConnect: playConnect, ByPlain: playPlain, ByWebsocket: playWebsocket} {
				if h.Ways&way == 0 {
					continue
				}
				kinds := []kind{usual}
				if h.SOCKS != nil && !h.Login {
					kinds = append(kinds, anonymous)
				}
				if strings.HasPrefix(h.Name, "tls-") {
					kinds = append(kinds, secured)
				}
				for _, k := range kinds {
					p := s.perform(t, h, k)
					play(t, p)
					p.check(t)
				}
				if h.SOCKS != nil {
					break // the handshake is the same
				}
			}
		})
	}
}

// stage is what all performances share.
type stage struct {
	echo  *Target
	judge *Judge
	ca    *CA
	cert  tls.Certificate
}

// kind is what is special about a gateway.
type kind int

const (
	usual     kind = iota // by SOCKS5 it wants a login
	anonymous             // it wants none
	secured               // it speaks TLS
)

// performance is one hostility before one client.
type performance struct {
	h       Hostility
	k       kind
	s       *stage
	c       net.Conn
	dials   atomic.Int32
	heard   []byte // all that came
	served  bool   // the target's answer came through
	err     error  // that ended it
	got     func() []byte
	aborted error // the TLS handshake's
	brand   *Vendor
}

func (s *stage) perform(t *testing.T, h Hostility, k kind) *performance {
	t.Helper()
	p := &performance{h: h, k: k, s: s}
	reach := func(ctx context.Context, network, addr string) (net.Conn, error) {
		p.dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	addr := ""
	if h.SOCKS != nil {
		config := SOCKSConfig{Username: "u", Password: "p", Behaviour: *h.SOCKS, Dial: reach}
		if k == anonymous {
			config.Username, config.Password = "", ""
		}
		g, err := StartSOCKS(config)
		closing(t, g, err)
		addr, p.got = g.Addr(), g.Received
	} else {
		config := VendorConfig{Behaviour: h.HTTP, Dial: reach, CA: s.ca}
		if k == secured {
			config.TLS = &tls.Config{Certificates: []tls.Certificate{s.cert}}
		}
		v := startVendor(t, config)
		addr, p.got, p.brand = v.Addr(), v.Received, v
	}
	c, err := net.DialTimeout("tcp", addr, testTimeout)
	if errors.Is(err, syscall.ECONNRESET) {
		p.aborted = err // the vendor was quicker than the client
		return p
	}
	p.c = must(c, err)(t)
	t.Cleanup(func() { _ = p.c.Close() })
	if k == secured {
		c := tls.Client(p.c, &tls.Config{RootCAs: s.ca.Pool(), ServerName: "localhost", NextProtos: []string{"http/1.1"}})
		p.deadline(t)
		p.aborted, p.c = c.Handshake(), c
	}
	p.deadline(t)
	return p
}

func (p *performance) deadline(t *testing.T) {
	t.Helper()
	d := testTimeout
	if p.h.Waits {
		d = waitSeen
	}
	if err := p.c.SetDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
}

// say writes; a vendor who left is seen when reading.
func (p *performance) say(s string) { _, _ = io.WriteString(p.c, s) }

// hear reads until enough has come, or the end.
func (p *performance) hear(enough func([]byte) bool) bool {
	buf := make([]byte, 32<<10)
	for p.err == nil && !enough(p.heard) {
		if len(p.heard) > playLimit {
			return false
		}
		var n int
		n, p.err = p.c.Read(buf)
		p.heard = append(p.heard, buf[:n]...)
	}
	return enough(p.heard)
}

// answered reports whether b is a whole final head, or can be none.
func answered(b []byte) bool {
	if n := min(len(b), 7); string(b[:n]) != "HTTP/1."[:n] {
		return true
	}
	m, _ := outcome(string(b))
	return m.first != ""
}

// check compares what happened with what is claimed.
func (p *performance) check(t *testing.T) {
	t.Helper()
	h, timedOut := p.h, p.timedOut()
	switch {
	case h.Waits != timedOut:
		t.Errorf("waits: %v, but ended with %v after %.300q", h.Waits, p.err, p.heard)
	case h.Serves && !h.Breaks && !p.served:
		t.Errorf("does not serve: %v, %.600q", p.err, p.heard)
	case h.Serves && !h.Breaks && p.dials.Load() == 0:
		t.Error("the target was not reached")
	case !h.Serves && (p.served || p.dials.Load() != 0):
		t.Errorf("serves after all: %.300q", p.heard)
	case h.Breaks && p.served && h.Ways&ByPlain != 0 && !strings.Contains(h.Name, "oversized") && !strings.Contains(h.Name, "4k"):
		t.Errorf("breaks nothing: %.300q", p.heard)
	}
}

func (p *performance) timedOut() bool {
	var ne net.Error
	return errors.As(errors.Join(p.err, p.aborted), &ne) && ne.Timeout() || errors.Is(p.err, os.ErrDeadlineExceeded)
}

// open asks for a tunnel to target and reports whether it is open.
func (p *performance) open(t *testing.T, target string) bool {
	t.Helper()
	if p.aborted != nil {
		return false
	}
	if p.h.SOCKS != nil {
		return p.openSOCKS(target)
	}
	p.say("CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n")
	if !p.hear(answered) {
		return false
	}
	m, rest := outcome(string(p.heard))
	p.checkLines(t, "headers-", "field-")
	header := m.header()
	body := slices.ContainsFunc(header["Content-Length"], func(v string) bool { return v != "0" }) || len(header["Transfer-Encoding"]) > 0
	if s := m.status(); s < 200 || s > 299 || !strings.HasPrefix(m.first, "HTTP/1.") || body || len(p.heard)-len(rest) > maxHead/2 {
		return false
	}
	p.heard = []byte(rest)
	return true
}

// checkLines looks for the fields that a case is about.
func (p *performance) checkLines(t *testing.T, headers, field string) {
	t.Helper()
	var lines []string
	if name, ok := strings.CutPrefix(p.h.Name, headers); ok {
		lines = traces()[name]
	} else if name, ok := strings.CutPrefix(p.h.Name, field); ok {
		lines = []string{brandedFields[name]}
	}
	for _, line := range lines {
		if want := p.brand.expand(line + "\r\n"); line == "" || !bytes.Contains(p.heard, want) {
			t.Errorf("%q is not in %.900q", want, p.heard)
		}
	}
}

// openSOCKS is a SOCKS5 client that takes nothing but what RFC 1928 and RFC 1929 allow it.
func (p *performance) openSOCKS(target string) bool {
	host, port, _ := net.SplitHostPort(target)
	request := "\x05\x01\x00\x03" + string(byte(len(host))) + host + portOf(port)
	methods, steps := "\x05\x01\x02", []struct{ want, next string }{{"\x05\x02", "\x01\x01u\x01p"}, {"\x01\x00", request}}
	if p.k == anonymous {
		methods, steps = "\x05\x01\x00", []struct{ want, next string }{{"\x05\x00", request}}
	}
	p.say(methods)
	for _, step := range steps {
		if !p.hear(func(b []byte) bool { return len(b) >= 2 || !strings.HasPrefix(step.want, string(b)) }) || string(p.heard) != step.want {
			return false
		}
		p.heard = nil
		p.say(step.next)
	}
	size := func(b []byte) int {
		switch {
		case len(b) < 5:
			return 5
		case b[3] == socksIPv4:
			return 10
		case b[3] == socksIPv6:
			return 22
		}
		return 7 + int(b[4])
	}
	wrong := func(b []byte) bool {
		good := "\x05\x00\x00"
		return !strings.HasPrefix(string(b), good[:min(len(b), 3)]) || len(b) > 3 && b[3] != 1 && b[3] != 3 && b[3] != 4
	}
	if !p.hear(func(b []byte) bool { return wrong(b) || len(b) >= size(b) }) || wrong(p.heard) {
		return false
	}
	p.heard = p.heard[size(p.heard):]
	return true
}

func portOf(port string) string {
	n, _ := net.LookupPort("tcp", port)
	return string([]byte{byte(n >> 8), byte(n)})
}

// canary is what comes back from a target that was reached.
const canary = "canary 5c1f, the customer's own bytes"

func playConnect(t *testing.T, p *performance) {
	t.Helper()
	if !p.open(t, p.s.echo.Addr()) {
		return
	}
	p.say(canary)
	if p.h.Breaks {
		p.say(strings.Repeat("more", 1<<10))
	}
	p.served = p.hear(func(b []byte) bool { return len(b) >= len(canary) }) && string(p.heard) == canary && p.dials.Load() > 0
	if p.h.Waits {
		p.hear(func([]byte) bool { return false })
	}
}

func playWebsocket(t *testing.T, p *performance) {
	t.Helper()
	if !p.open(t, p.s.judge.Addr()) {
		return
	}
	p.say("GET /ws?raw=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if p.hear(answered) {
		p.checkLines(t, "upgraded-headers-", "upgraded-field-")
		if p.h.Name == "upgraded-reason" && !bytes.Contains(p.heard, []byte("101 SuperVendor switches")) {
			t.Errorf("got %q", p.heard)
		}
		m, _ := outcome(string(p.heard))
		p.say(canary)
		p.served = m.status() == 101 && p.hear(func(b []byte) bool { return bytes.HasSuffix(b, []byte(canary)) }) && p.dials.Load() > 0
	}
	if p.h.Waits {
		p.hear(func([]byte) bool { return false })
	}
}

func playPlain(t *testing.T, p *performance) {
	t.Helper()
	if p.h.SOCKS != nil {
		playConnect(t, p)
		return
	}
	if p.aborted != nil {
		return
	}
	p.say("GET " + p.s.judge.URL() + "/?" + strings.ReplaceAll(canary, " ", "_") + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if !p.hear(answered) {
		return
	}
	m, _ := outcome(string(p.heard))
	if m.status() < 200 || m.status() > 299 {
		return
	}
	if p.h.Serves || p.h.Waits {
		p.hear(func([]byte) bool { return false })
	}
	p.checkLines(t, "headers-", "field-")
	if errors.Is(p.err, io.EOF) {
		p.err = nil
	}
	m, rest := outcome(string(p.heard))
	body := []byte(rest)
	if m.header().Get("Transfer-Encoding") != "" {
		body = unchunk(rest)
	}
	var seen Seen
	p.served = unmarshalSeen(body, &seen) && strings.Contains(seen.Target, "canary_5c1f") && p.dials.Load() > 0
}

// unmarshalSeen reads the judge's page; what a vendor put behind it is not looked at.
func unmarshalSeen(body []byte, seen *Seen) bool {
	return json.NewDecoder(bytes.NewReader(body)).Decode(seen) == nil
}

// unchunk undoes chunks as far as they are whole.
func unchunk(s string) []byte {
	var body []byte
	for {
		line, rest, _ := strings.Cut(s, "\r\n")
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 31)
		if err != nil || n == 0 || int(n)+2 > len(rest) {
			return body
		}
		body, s = append(body, rest[:n]...), rest[n+2:]
	}
}
