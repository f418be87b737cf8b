package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait of a test.
const patience = 10 * time.Second

const greeting = "HTTP/1.1 200 Connection established\r\n\r\n"

// pumpsOnly keeps tunnels from the reactors, where there are any.
var pumpsOnly bool

// kinds are the connections that a side can be.
type kind struct {
	name string
	pair func(t *testing.T) (outside, inside net.Conn)
}

var (
	tcpKind = kind{"tcp", tcpPair}
	tlsKind = kind{"tls", tlsPair}
)

// combinations are customer × upstream.
func combinations(t *testing.T, f func(t *testing.T, client, peer kind)) {
	t.Helper()
	for _, c := range []kind{tcpKind, tlsKind} {
		for _, p := range []kind{tcpKind, tlsKind} {
			t.Run(c.name+"-"+p.name, func(t *testing.T) { f(t, c, p) })
		}
	}
}

func tcpPair(t *testing.T) (outside, inside net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, l.Close()) }()
	outside, err = net.Dial("tcp", l.Addr().String())
	must(t, err)
	inside, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { _ = outside.Close(); _ = inside.Close() })
	must(t, outside.SetDeadline(time.Now().Add(patience)))
	return outside, inside
}

var selfSigned = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// tlsPair is TLS over TCP, both handshakes done.
func tlsPair(t *testing.T) (outside, inside net.Conn) {
	t.Helper()
	cert, err := selfSigned()
	must(t, err)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	o, i := tcpPair(t)
	client := tls.Client(o, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12})
	server := tls.Server(i, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	failed := make(chan error, 1)
	go func() { failed <- client.Handshake() }()
	must(t, server.Handshake())
	must(t, <-failed)
	return client, server
}

// script is an Exchange as a test wants it. Without next it can only Open.
type script struct {
	client    net.Conn
	early     []byte
	key       string
	greeting  string
	shared    *Shared
	next      func() (Attempt, error)
	request   string
	append    func(b []byte) []byte // instead of request; nil = that
	connected func()
	reply     func(b []byte) (int, error)
	failed    func(connecting bool, err error)
	open      func(ctx context.Context) (Peer, error)
	opened    func()
	refusal   func(error) []byte
	moved     func(sent bool, n int)
	done      func(Result)
}

func (s *script) Key() string { return s.key }

func (s *script) Next() (Attempt, error) {
	if s.next == nil {
		return Attempt{}, ErrBlocks
	}
	return s.next()
}

func (s *script) Connected() {
	if s.connected != nil {
		s.connected()
	}
}

func (s *script) AppendRequest(b []byte) []byte {
	if s.append != nil {
		return s.append(b)
	}
	return append(b, s.request...)
}

func (s *script) Reply(b []byte) (int, error) { return s.reply(b) }

func (s *script) Failed(connecting bool, err error) {
	if s.failed != nil {
		s.failed(connecting, err)
	}
}

func (s *script) Open(ctx context.Context) (Peer, error) { return s.open(ctx) }

func (s *script) Opened() Terms {
	if s.opened != nil {
		s.opened()
	}
	return Terms{Greeting: []byte(s.greeting), Shared: s.shared}
}

func (s *script) Refusal(err error) []byte {
	if s.refusal == nil {
		return nil
	}
	return s.refusal(err)
}

func (s *script) Moved(sent bool, n int) {
	if s.moved != nil {
		s.moved(sent, n)
	}
}

func (s *script) Done(r Result) {
	if s.done != nil {
		s.done(r)
	}
}

func (s *script) job() Job { return Job{Client: s.client, Early: s.early, Exchange: s} }

// scene is an engine with one tunnel between two outside ends.
type scene struct {
	t       *testing.T
	engine  *Engine
	client  net.Conn // the customer
	vendor  net.Conn // what the upstream connection leads to
	results chan Result
	job     *script
}

// newScene prepares a tunnel; submit starts it.
func newScene(t *testing.T, o Options, client, peer kind) *scene {
	t.Helper()
	o.pumpsOnly = o.pumpsOnly || pumpsOnly
	s := &scene{t: t, engine: NewEngine(o), results: make(chan Result, 2)}
	t.Cleanup(s.engine.Close)
	var inside, upstream net.Conn
	s.client, inside = client.pair(t)
	s.vendor, upstream = peer.pair(t)
	s.job = &script{
		client:   inside,
		greeting: greeting,
		open:     func(context.Context) (Peer, error) { return Peer{Conn: upstream}, nil },
		done:     func(r Result) { s.results <- r },
	}
	return s
}

func (s *scene) submit() { s.engine.Submit(s.job.job()) }

// open submits and reads the greeting.
func (s *scene) open() {
	s.t.Helper()
	s.submit()
	expect(s.t, s.client, greeting)
}

func (s *scene) result() Result {
	s.t.Helper()
	select {
	case r := <-s.results:
		return r
	case <-time.After(patience):
		s.t.Fatal("no result")
		return Result{}
	}
}

// ended waits for the result, and for the engine to have forgotten the tunnel.
func (s *scene) ended(want Ending) Result {
	s.t.Helper()
	r := s.result()
	if r.Ending != want {
		s.t.Errorf("ending %q (%v), want %q", r.Ending, r.Err, want)
	}
	until(s.t, func() bool { return s.engine.Count() == 0 })
	select {
	case again := <-s.results:
		s.t.Errorf("Done called again: %+v", again)
	default:
	}
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a state.
func until(t *testing.T, state func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !state() {
		if time.Now().After(deadline) {
			t.Fatal("the state did not come")
		}
		time.Sleep(time.Millisecond)
	}
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("read %q: %v", want, err)
	}
	if string(got) != want {
		t.Fatalf("read %q, want %q", got, want)
	}
}

func expectEOF(t *testing.T, r io.Reader) {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil || len(b) > 0 {
		t.Fatalf("read %q, %v; want the end", b, err)
	}
}

func send(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatalf("write %q: %v", s, err)
	}
}

func halfClose(t *testing.T, c net.Conn) {
	t.Helper()
	must(t, c.(interface{ CloseWrite() error }).CloseWrite())
}

// breakOff resets the connection under c.
func breakOff(t *testing.T, c net.Conn) {
	t.Helper()
	raw := rawOf(c)
	must(t, raw.SetLinger(0))
	must(t, raw.Close())
}

var errVendor = errors.New("the vendor failed")
