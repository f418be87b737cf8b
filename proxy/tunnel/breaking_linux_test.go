package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// breakingSuite is the part of the conformance suite that needs Linux's view of send
// queues.
var breakingSuite = map[string]func(*testing.T){
	"SlowReaderIsNotIdle":              conformSlowReaderIsNotIdle,
	"EarlyAnswerToAnUploadArrives":     conformEarlyAnswerToAnUploadArrives,
	"TailArrivesThoughTheVendorIsGone": conformTailArrivesThoughTheVendorIsGone,
	"CutWithBytesOutstandingIsAReset":  conformCutWithBytesOutstandingIsAReset,
	"NobodyDownloadsForTheDead":        conformNobodyDownloadsForTheDead,
	"TheDeadCostNoDownload":            conformTheDeadCostNoDownload,
	"PanicEndsOneTunnelOnly":           conformPanicEndsOneTunnelOnly,
}

// Bytes that leave a full send buffer keep a tunnel, though no write ends meanwhile.
func conformSlowReaderIsNotIdle(t *testing.T) {
	limits := map[string]Options{
		"idle":      {IdleTimeout: 150 * time.Millisecond},
		"half-open": {IdleTimeout: time.Minute, HalfOpenTimeout: 150 * time.Millisecond},
	}
	for name, o := range limits {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, o, tcpKind, tcpKind)
			must(t, s.client.(*net.TCPConn).SetReadBuffer(64<<10))
			s.open()
			if name == "half-open" {
				halfClose(t, s.client)
				expectEOF(t, s.vendor)
			}
			const size = 8 << 20
			go func() {
				_, _ = s.vendor.Write(make([]byte, size))
				_ = s.vendor.(*net.TCPConn).CloseWrite()
			}()
			buf := make([]byte, 64<<10)
			got := 0
			tick := time.NewTicker(20 * time.Millisecond) // 3.2 MB/s at the most
			defer tick.Stop()
			for {
				n, err := s.client.Read(buf)
				got += n
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				<-tick.C
			}
			if got != size {
				t.Errorf("the customer got %d of %d bytes", got, size)
			}
		})
	}
}

// A target that refuses an upload says so and closes; the answer must arrive.
func conformEarlyAnswerToAnUploadArrives(t *testing.T) {
	const answer = "HTTP/1.1 413 Content Too Large\r\n\r\n"
	for range 20 {
		s := newScene(t, Options{IdleTimeout: time.Minute}, tcpKind, tcpKind)
		s.open()
		go func() {
			b := make([]byte, 64<<10)
			for {
				if _, err := s.client.Write(b); err != nil {
					return
				}
			}
		}()
		_, err := io.ReadFull(s.vendor, make([]byte, 200<<10))
		must(t, err)
		send(t, s.vendor, answer)
		halfClose(t, s.vendor)
		must(t, s.vendor.Close()) // bytes are unread: this is a reset
		expect(t, s.client, answer)
		must(t, s.client.Close())
		s.result()
	}
}

// What was passed on with its end arrives though the customer goes on talking.
func conformTailArrivesThoughTheVendorIsGone(t *testing.T) {
	s := newScene(t, Options{IdleTimeout: time.Minute}, tcpKind, tcpKind)
	must(t, s.client.(*net.TCPConn).SetReadBuffer(32<<10))
	s.open()
	const size = 1 << 20
	_, err := s.vendor.Write(make([]byte, size))
	must(t, err)
	must(t, s.vendor.Close())
	until(t, func() bool { return s.inspect().halves == 1 }) // the relay has taken it all
	send(t, s.client, "a")
	until(t, func() bool {
		deaf := s.inspect().deaf
		if !deaf {
			_, _ = s.client.Write([]byte("b"))
		}
		return deaf
	})
	got, err := io.ReadAll(s.client)
	if err != nil || len(got) != size {
		t.Errorf("the customer got %d of %d bytes, %v", len(got), size, err)
	}
	must(t, s.client.Close())
	s.ended(UpstreamReset)
}

// A customer who has closed gets his tunnel closed, however much the vendor still sends:
// he leaves bytes in a send queue that never empties.
func conformNobodyDownloadsForTheDead(t *testing.T) {
	for name, shared := range map[string]*Shared{"unlimited": nil, "a share of a bandwidth": NewShared(100_000)} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Options{IdleTimeout: time.Minute}, tcpKind, tcpKind)
			s.job.shared = shared
			s.open()
			must(t, s.client.Close())
			expectEOF(t, s.vendor)
			var sending sync.WaitGroup
			defer sending.Wait()
			defer func() { _ = s.vendor.Close() }()
			sending.Go(func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for piece := make([]byte, 1000); ; <-tick.C {
					if _, err := s.vendor.Write(piece); err != nil {
						return
					}
				}
			})
			s.ended(ClientReset)
		})
	}
}

// What a vendor sends is paid for: nothing is taken of it once the customer is gone.
func conformTheDeadCostNoDownload(t *testing.T) {
	s := newScene(t, Options{IdleTimeout: time.Minute}, tcpKind, tcpKind)
	s.open()
	must(t, s.client.Close())
	expectEOF(t, s.vendor)
	const most = 64 << 20 // the queues on the way, and more; a second's worth is ten times that
	taken := 0
	for piece := make([]byte, 64<<10); taken < most; {
		n, err := s.vendor.Write(piece)
		taken += n
		if err != nil {
			break
		}
	}
	if taken >= most {
		t.Errorf("the relay took %d bytes for nobody", taken)
	}
	_ = s.vendor.Close()
	s.ended(ClientReset)
}

// A cut with bytes outstanding must not look like an orderly end.
func conformCutWithBytesOutstandingIsAReset(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	must(t, s.client.(*net.TCPConn).SetReadBuffer(32<<10))
	s.job.key = "alice"
	s.open()
	go func() { _, _ = s.vendor.Write(make([]byte, 16<<20)) }()
	until(t, func() bool { return s.inspect().unsent > 256<<10 })
	s.engine.CloseKey("alice")
	if _, err := io.Copy(io.Discard, s.client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the customer read %v, want a reset", err)
	}
	s.ended(Killed)
}

// A socket tells of its reset once. Whichever direction hears it, the other end of the
// tunnel must not get an orderly end. Here an outsider takes the error before the pump
// can, as the write of the other direction may.
func TestResetThatAnotherHasHeardIsAReset(t *testing.T) {
	s := newScene(t, Options{pumpsOnly: true}, tcpKind, tcpKind)
	vendor, upstream := tcpPair(t)
	s.job.open = func(context.Context) (Peer, error) { return Peer{Conn: upstream}, nil }
	must(t, s.client.(*net.TCPConn).SetReadBuffer(32<<10))
	s.open()
	written := make(chan struct{})
	go func() { // until the reset
		defer close(written)
		_, _ = vendor.Write(make([]byte, 64<<20))
	}()
	until(t, func() bool { return s.inspect().unsent > 256<<10 }) // the pump waits for the customer
	breakOff(t, vendor)
	<-written
	rc, err := upstream.(*net.TCPConn).SyscallConn()
	must(t, err)
	until(t, func() bool {
		gone := false
		must(t, rc.Control(func(fd uintptr) { gone = disconnected(fd) }))
		return gone
	})
	must(t, rc.Control(func(fd uintptr) { _, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) }))
	must(t, err)
	if _, err := io.Copy(io.Discard, s.client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the customer read %v, want a reset", err)
	}
	s.ended(UpstreamReset)
}

// A record that never becomes whole must hold neither buffer nor goroutine.
func TestPartialRecordsHoldNothing(t *testing.T) {
	const n = 40
	engine := NewEngine(Options{})
	defer engine.Close()
	scenes := make([]*scene, n)
	for i := range scenes {
		s := newScene(t, Options{}, tlsKind, tcpKind)
		s.engine.Close()
		s.engine = engine
		s.open()
		scenes[i] = s
	}
	for _, s := range scenes {
		until(t, func() bool { return parkedBoth(s) })
	}
	before := runtime.NumGoroutine()
	for _, s := range scenes {
		_, err := rawOf(s.client).Write([]byte{0x17}) // the first byte of a record
		must(t, err)
	}
	until(t, func() bool { return runtime.NumGoroutine() <= before })
	for _, s := range scenes {
		until(t, func() bool { return parkedBoth(s) })
	}
}

// A bug in what a tunnel calls ends that tunnel, and is reported.
func conformPanicEndsOneTunnelOnly(t *testing.T) {
	panics := map[string]func(*script){
		"Open":    func(j *script) { j.open = func(context.Context) (Peer, error) { panic("bug") } },
		"Opened":  func(j *script) { j.opened = func() { panic("bug") } },
		"Moved":   func(j *script) { j.moved = func(bool, int) { panic("bug") } },
		"Refusal": func(j *script) { j.open = failOpen; j.refusal = func(error) []byte { panic("bug") } },
	}
	for name, spoil := range panics {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Options{}, tcpKind, tcpKind)
			s.job.refusal = func(error) []byte { return []byte("sorry") }
			spoil(s.job)
			s.submit()
			_, _ = io.WriteString(s.client, "x")
			r := s.ended(Failed)
			if r.Err == nil || !strings.Contains(r.Err.Error(), "bug") {
				t.Errorf("error %v", r.Err)
			}
			want := ""
			if name == "Open" || name == "Opened" {
				want = "sorry"
			}
			if got, _ := io.ReadAll(s.client); name != "Moved" && string(got) != want { // a reset is an end, too
				t.Errorf("the customer got %q, want %q", got, want)
			}
		})
	}
}

func failOpen(context.Context) (Peer, error) { return Peer{}, errVendor }

// Only a direction that is left alone and drops what it reads is at its end: one that
// still delivers has its time, though the other has become deaf.
func TestOnlyDeaf(t *testing.T) {
	const now, long = time.Minute, int64(time.Minute - lingerTimeout - 1)
	type half struct {
		since int64
		ended bool
	}
	tests := map[string]struct {
		up, down half
		want     bool
	}{
		"nothing":                        {half{}, half{}, false},
		"one has ended":                  {half{}, half{ended: true}, false},
		"deaf, the other delivers":       {half{since: long}, half{}, false},
		"deaf and ended, other delivers": {half{since: long, ended: true}, half{}, false},
		"deaf alone":                     {half{since: long}, half{ended: true}, true},
		"deaf alone since a moment ago":  {half{since: int64(now)}, half{ended: true}, false},
		"the other way round":            {half{ended: true}, half{since: long}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u := &pump{}
			for d, h := range [2]half{test.up, test.down} {
				u.directions[d].deafSince.Store(h.since)
				u.directions[d].ended.Store(h.ended)
			}
			if got := u.onlyDeaf(now); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
