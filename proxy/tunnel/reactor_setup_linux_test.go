//go:build amd64 || arm64

package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	request  = "CONNECT target:443 HTTP/1.1\r\nHost: target:443\r\n\r\n"
	accepted = "HTTP/1.1 200 OK\r\n\r\n"
)

var errDenied = errors.New("the gateway denied it")

// readReply is a Reply: interim answers are passed over, 200 opens, others are errors.
func readReply(b []byte) (int, error) {
	n := 0
	for {
		end := bytes.Index(b[n:], []byte("\r\n\r\n"))
		if end < 0 {
			return 0, nil
		}
		head := b[n : n+end]
		n += end + 4
		switch {
		case bytes.HasPrefix(head, []byte("HTTP/1.1 1")):
		case bytes.HasPrefix(head, []byte("HTTP/1.1 200")):
			return n, nil
		default:
			return 0, errDenied
		}
	}
}

// gateway serves each connection with serve, which has its own goroutine, on loopback.
func gateway(t *testing.T, serve func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			running.Go(func() {
				defer func() { _ = c.Close() }()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// readRequest reads the request of the exchange.
func readRequest(c net.Conn) bool {
	b := make([]byte, len(request))
	_, err := io.ReadFull(c, b)
	return err == nil && string(b) == request
}

// echo answers with reply and then says what it hears.
func echo(reply ...string) func(c *net.TCPConn) {
	return func(c *net.TCPConn) {
		if !readRequest(c) {
			return
		}
		for _, r := range reply {
			_, _ = io.WriteString(c, r)
			time.Sleep(time.Millisecond) // so that the pieces come as pieces; whole they would do as well
		}
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	}
}

// refusing is an address where nobody listens, and nobody else can.
func refusing(t *testing.T) netip.AddrPort {
	t.Helper()
	_, addr := bound(t)
	return addr
}

// bound is a socket with a port of loopback.
func bound(t *testing.T) (fd int, addr netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := unix.Getsockname(fd)
	must(t, err)
	return fd, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
}

// journey is a scene whose exchange has ways through gateways.
type journey struct {
	*scene
	mu       sync.Mutex
	failures []string
}

var errNoWay = errors.New("no way is left")

func newJourney(t *testing.T, ways ...netip.AddrPort) *journey {
	t.Helper()
	j := &journey{scene: newScene(t, Options{}, tcpKind, tcpKind)}
	j.job.request, j.job.reply = request, readReply
	j.job.next = func() (Attempt, error) {
		if len(ways) == 0 {
			return Attempt{}, errNoWay
		}
		a := Attempt{Addr: ways[0], Timeout: patience, ReplyTimeout: patience}
		ways = ways[1:]
		return a, nil
	}
	j.job.failed = func(connecting bool, err error) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.failures = append(j.failures, fmt.Sprintf("%t %v", connecting, err))
	}
	return j
}

// alter changes every attempt.
func (j *journey) alter(f func(*Attempt)) {
	next := j.job.next
	j.job.next = func() (Attempt, error) {
		a, err := next()
		f(&a)
		return a, err
	}
}

func (j *journey) failed(want ...string) {
	j.t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.failures, want) {
		j.t.Errorf("Failed was told %q, want %q", j.failures, want)
	}
}

func failure(connecting bool, err error) string { return fmt.Sprintf("%t %v", connecting, err) }

// talk checks that bytes pass both ways, and ends the tunnel.
func (j *journey) talk() Result {
	j.t.Helper()
	send(j.t, j.client, "hello")
	expect(j.t, j.client, "hello")
	halfClose(j.t, j.client)
	expectEOF(j.t, j.client)
	return j.ended(Closed)
}

func TestReplyInPieces(t *testing.T) {
	tests := map[string][]string{
		"whole":              {accepted},
		"byte by byte":       strings.Split(accepted, ""),
		"bytes behind":       {accepted + "banner"},
		"interim":            {"HTTP/1.1 100 Continue\r\n\r\n" + accepted},
		"interim, in pieces": {"HTTP/1.1 103 Early", " Hints\r\n\r\nHTTP/1.1 2", "00 OK\r\n\r\nban", "ner"},
	}
	for name, pieces := range tests {
		t.Run(name, func(t *testing.T) {
			j := newJourney(t, gateway(t, echo(pieces...)))
			j.job.early = []byte("early ")
			j.submit()
			behind := ""
			if strings.Contains(strings.Join(pieces, ""), "banner") {
				behind = "banner"
			}
			expect(t, j.client, greeting+behind+"early ")
			if r := j.talk(); r.Sent != 11 || r.Received != int64(11+len(behind)) {
				t.Errorf("counted %+v", r)
			}
			j.failed()
		})
	}
}

func TestFailover(t *testing.T) {
	silent := func(answer string) func(*net.TCPConn) {
		return func(c *net.TCPConn) { readRequest(c); _, _ = io.WriteString(c, answer) }
	}
	endless := func(c *net.TCPConn) {
		readRequest(c)
		_, _ = io.Copy(c, neverEnding('x'))
	}
	tests := map[string]struct {
		first func(*net.TCPConn) // nil = nobody listens
		want  []string
	}{
		"refused":           {nil, []string{failure(true, syscall.ECONNREFUSED)}},
		"closes":            {silent(""), []string{failure(false, io.EOF)}},
		"closes within":     {silent("HTTP/1.1 2"), []string{failure(false, io.ErrUnexpectedEOF)}},
		"resets":            {func(c *net.TCPConn) { readRequest(c); _ = c.SetLinger(0) }, []string{failure(false, syscall.ECONNRESET)}},
		"resets within":     {func(c *net.TCPConn) { silent("HTTP/1.1 2")(c); _ = c.SetLinger(0) }, []string{failure(false, syscall.ECONNRESET)}},
		"Reply's error":     {silent("HTTP/1.1 407 Who are you\r\n\r\n"), nil},
		"endless an answer": {endless, []string{failure(false, syscall.EMSGSIZE)}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			first := refusing(t)
			if test.first != nil {
				first = gateway(t, test.first)
			}
			j := newJourney(t, first, gateway(t, echo(accepted)))
			j.submit()
			expect(t, j.client, greeting)
			j.talk()
			j.failed(test.want...)
		})
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestNoWayIsLeft(t *testing.T) {
	j := newJourney(t, refusing(t), gateway(t, func(c *net.TCPConn) { readRequest(c) }))
	const reply = "HTTP/1.1 502 Bad Gateway\r\n\r\n"
	j.job.refusal = func(error) []byte { return []byte(reply) }
	send(t, j.client, "unread")
	j.submit()
	expect(t, j.client, reply)
	expectEOF(t, j.client)
	must(t, j.client.Close())
	if r := j.ended(Refused); !errors.Is(r.Err, errNoWay) || r.Duration < 0 {
		t.Errorf("result %+v", r)
	}
	j.failed(failure(true, syscall.ECONNREFUSED), failure(false, io.EOF))
}

// Open may follow ways that did not lead anywhere.
func TestErrBlocksLeadsToOpen(t *testing.T) {
	for _, k := range []kind{tcpKind, tlsKind} {
		t.Run(k.name, func(t *testing.T) {
			j := newJourney(t)
			vendor, upstream := k.pair(t)
			next := []netip.AddrPort{refusing(t)}
			j.job.next = func() (Attempt, error) {
				if len(next) == 0 {
					return Attempt{}, fmt.Errorf("over TLS: %w", ErrBlocks)
				}
				a := Attempt{Addr: next[0], Timeout: patience}
				next = nil
				return a, nil
			}
			j.job.open = func(context.Context) (Peer, error) {
				return Peer{Conn: upstream, Early: []byte("banner")}, nil
			}
			j.job.early = []byte("early")
			j.submit()
			expect(t, j.client, greeting+"banner")
			expect(t, vendor, "early")
			carried := j.engine.reactors.each(func(r *reactor) int { return r.slab.live })
			if want := map[string]int{"tcp": 1, "tls": 0}[k.name]; carried != want {
				t.Errorf("the reactors carry %d tunnels, want %d", carried, want)
			}
			send(t, vendor, "down")
			expect(t, j.client, "down")
			halfClose(t, j.client)
			expectEOF(t, vendor)
			must(t, vendor.Close())
			j.ended(Closed)
			j.failed(failure(true, syscall.ECONNREFUSED))
		})
	}
}

// A request larger than the send buffer goes out as the gateway takes it.
func TestLargeRequest(t *testing.T) {
	large := string(randomBytes(16 << 20))
	start := make(chan struct{})
	addr := gateway(t, func(c *net.TCPConn) {
		<-start
		b := make([]byte, len(large))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != large {
			return
		}
		_, _ = io.WriteString(c, accepted)
		_, _ = io.Copy(c, c)
	})
	j := newJourney(t, addr)
	j.job.request = large
	j.submit()
	until(t, func() bool { return j.phases(asking) == 1 })
	close(start)
	expect(t, j.client, greeting)
	j.talk()
}

// phases is how many connections are in a phase.
func (s *scene) phases(p phase) int { return phases(s.engine, p) }

func phases(e *Engine, p phase) int {
	return e.reactors.each(func(r *reactor) int {
		n := 0
		r.slab.each(func(t *tunnel) {
			if t.phase == p {
				n++
			}
		})
		return n
	})
}

// A way on which nothing is asked: the gateway speaks first.
func TestEmptyRequest(t *testing.T) {
	j := newJourney(t, refusing(t), gateway(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, accepted)
		_, _ = io.Copy(c, c)
	}))
	j.job.request = ""
	j.submit()
	expect(t, j.client, greeting)
	j.talk()
	j.failed(failure(true, syscall.ECONNREFUSED))
}

func TestSourceAndPorts(t *testing.T) {
	peers := make(chan netip.AddrPort, 8)
	addr := gateway(t, func(c *net.TCPConn) {
		peers <- c.RemoteAddr().(*net.TCPAddr).AddrPort()
		echo(accepted)(c)
	})
	source := netip.MustParseAddr("127.0.0.2")
	window := [2]uint16{45000, 45015}
	for _, mapped := range []bool{false, true} {
		j := newJourney(t, addr)
		j.alter(func(a *Attempt) {
			a.Source, a.Ports = source, window
			if mapped { // as resolvers write IPv4 addresses
				a.Source = netip.AddrFrom16(source.As16())
				a.Addr = netip.AddrPortFrom(netip.AddrFrom16(a.Addr.Addr().As16()), a.Addr.Port())
			}
		})
		j.submit()
		expect(t, j.client, greeting)
		j.talk()
		got := <-peers
		if got.Addr() != source {
			t.Errorf("the gateway saw %v", got)
		}
		if hasPortWindow(t) && (got.Port() < window[0] || got.Port() > window[1]) {
			t.Errorf("port %d is not in %v", got.Port(), window)
		}
	}
}

// hasPortWindow reports whether the kernel knows IP_LOCAL_PORT_RANGE.
func hasPortWindow(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer func() { must(t, unix.Close(fd)) }()
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, 45015<<16|45000) == nil
}

// A source that is not this host's is an error of connecting.
func TestForeignSource(t *testing.T) {
	j := newJourney(t, refusing(t))
	j.alter(func(a *Attempt) { a.Source = netip.MustParseAddr("192.0.2.1") })
	j.submit()
	j.ended(Refused)
	j.failed(failure(true, syscall.EADDRNOTAVAIL))
}
