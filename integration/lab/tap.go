package lab

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"maskrelay/masking"
)

// TapConfig says where a tap stands and what must not pass it.
type TapConfig struct {
	Name     string         // for messages
	Listen   string         // default: a free port of 127.0.0.1
	To       string         // where connections go
	From     net.IP         // local address of the connections to To; nil = the system's choice
	Dialer   *masking.Marks // must not be in what the side that dialed the tap receives; nil = not searched
	Listener *masking.Marks // must not be in what To receives; nil = not searched
	Exposed  bool           // what passes is expected to hold the marks: they are reported by Leaks but do not fail the test
}

// Tap is a TCP relay that searches both directions of every connection for marks (see Search), and fails the test at its end
// if one passed. It keeps the first 32 KiB of each direction of the first 4096 connections. Half-close passes; any error ends both sides with RST.
type Tap struct {
	cfg  TapConfig
	ln   net.Listener
	wg   sync.WaitGroup
	mu   sync.Mutex
	ends map[net.Conn]struct{}
	recs []*Record
	leak []masking.Leak
	down bool
}

// Record is the beginning of what passed on one connection.
type Record struct {
	mu       sync.Mutex
	toDialer []byte
	toTarget []byte
}

const (
	recordBytes = 32 << 10
	recordConns = 4096
	leaksKept   = 20
)

// ToDialer returns a copy of the first bytes that the side which dialed the tap received.
func (r *Record) ToDialer() []byte { return r.copyOf(&r.toDialer) }

// ToTarget returns a copy of the first bytes that went to the tap's target.
func (r *Record) ToTarget() []byte { return r.copyOf(&r.toTarget) }

func (r *Record) copyOf(b *[]byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]byte(nil), *b...)
}

func (r *Record) add(b *[]byte, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*b = append(*b, p[:min(len(p), recordBytes-len(*b))]...)
}

// StartTap starts a tap that ends with the test.
func StartTap(t testing.TB, cfg TapConfig) *Tap {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = FreeAddr(t)
	}
	ln, err := net.Listen("tcp4", cfg.Listen)
	if err != nil {
		t.Fatalf("tap %s: %v", cfg.Name, err)
	}
	tap := &Tap{cfg: cfg, ln: ln, ends: map[net.Conn]struct{}{}}
	tap.wg.Go(tap.accept)
	t.Cleanup(func() {
		tap.Close()
		if cfg.Exposed {
			return
		}
		for _, leak := range tap.Leaks() {
			t.Errorf("tap %s: leak: %v", cfg.Name, leak)
		}
	})
	return tap
}

// Addr returns where the tap listens.
func (t *Tap) Addr() string { return t.ln.Addr().String() }

// Close ends the tap and all its connections, and waits.
func (t *Tap) Close() {
	t.mu.Lock()
	t.down = true
	for c := range t.ends {
		reset(c)
	}
	t.mu.Unlock()
	if err := t.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err) // closing a listener of ours cannot fail otherwise
	}
	t.wg.Wait()
}

// Leaks returns the marks that passed so far, at most 20.
func (t *Tap) Leaks() []masking.Leak {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]masking.Leak(nil), t.leak...)
}

// Records returns what is kept of the connections, in the order in which they were accepted.
func (t *Tap) Records() []*Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*Record(nil), t.recs...)
}

// Open returns how many connections pass the tap now.
func (t *Tap) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ends) / 2
}

func (t *Tap) accept() {
	for {
		c, err := t.ln.Accept()
		if err != nil {
			return
		}
		t.wg.Go(func() { t.serve(c) })
	}
}

func (t *Tap) serve(dialer net.Conn) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	if t.cfg.From != nil {
		d.LocalAddr = &net.TCPAddr{IP: t.cfg.From}
	}
	target, err := d.Dial("tcp4", t.cfg.To)
	if err != nil {
		reset(dialer)
		return
	}
	rec := t.enter(dialer, target)
	defer t.leave(dialer, target)
	var wg sync.WaitGroup
	wg.Go(func() {
		t.copy(dialer, target, t.cfg.Dialer, "to the dialing side", func(p []byte) { rec.add(&rec.toDialer, p) })
	})
	t.copy(target, dialer, t.cfg.Listener, "to the target", func(p []byte) { rec.add(&rec.toTarget, p) })
	wg.Wait()
}

func (t *Tap) enter(a, b net.Conn) *Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends[a], t.ends[b] = struct{}{}, struct{}{}
	if t.down {
		reset(a)
		reset(b)
	}
	rec := &Record{}
	if len(t.recs) < recordConns {
		t.recs = append(t.recs, rec)
	}
	return rec
}

func (t *Tap) leave(a, b net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ends, a)
	delete(t.ends, b)
	closeQuietly(a)
	closeQuietly(b)
}

// copy moves one direction to its end, searching it for marks.
func (t *Tap) copy(dst, src net.Conn, marks *masking.Marks, where string, record func([]byte)) {
	var search *Search
	if marks != nil {
		search = NewSearch(where, marks)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			record(buf[:n])
			if search != nil {
				_, _ = search.Write(buf[:n]) // a Search's Write has no errors
			}
			if _, werr := dst.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err == nil {
			continue
		}
		if search != nil {
			t.note(search.Leaks())
		}
		tcp, ok := dst.(*net.TCPConn)
		if errors.Is(err, io.EOF) && ok && tcp.CloseWrite() == nil {
			return
		}
		reset(src)
		reset(dst)
		return
	}
}

func (t *Tap) note(leaks []masking.Leak) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leak = append(t.leak, leaks[:min(len(leaks), leaksKept-len(t.leak))]...)
}

// reset closes c with RST.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a closed connection, which is what is wanted
	}
	closeQuietly(c)
}

// closeQuietly closes a connection whose other errors were seen where it was used.
func closeQuietly(c io.Closer) { _ = c.Close() }
