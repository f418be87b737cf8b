package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Both engines pass the same suite: the reactors, where the system has them, and the pumps.
func TestConformance(t *testing.T) {
	suite := map[string]func(*testing.T){
		"BytesArriveBothWays":                 conformBytesArriveBothWays,
		"EarlyBytesAreOwed":                   conformEarlyBytesAreOwed,
		"HalfCloseFromEitherSide":             conformHalfCloseFromEitherSide,
		"ResetIsPassedOn":                     conformResetIsPassedOn,
		"IdleTunnelEnds":                      conformIdleTunnelEnds,
		"OneWayTrafficKeepsATunnel":           conformOneWayTrafficKeepsATunnel,
		"HalfOpenTunnelEnds":                  conformHalfOpenTunnelEnds,
		"RefusalArrives":                      conformRefusalArrives,
		"CustomerLeavesDuringOpen":            conformCustomerLeavesDuringOpen,
		"CustomerWhoSentAllWaitsForTheAnswer": conformCustomerWhoSentAllWaitsForTheAnswer,
		"CloseKeyCutsOnlyThatKey":             conformCloseKeyCutsOnlyThatKey,
		"DrainWaitsThenCuts":                  conformDrainWaitsThenCuts,
		"DrainEndsWithTheLastTunnel":          conformDrainEndsWithTheLastTunnel,
		"CloseEndsWhatIsOpening":              conformCloseEndsWhatIsOpening,
		"SubmitAfterCloseEndsAtOnce":          conformSubmitAfterCloseEndsAtOnce,
		"UnknownConnectionIsCarried":          conformUnknownConnectionIsCarried,
	}
	maps.Copy(suite, breakingSuite)
	for _, pumps := range []bool{false, true} {
		name := map[bool]string{false: "reactors", true: "pumps"}[pumps]
		t.Run(name, func(t *testing.T) {
			pumpsOnly = pumps
			defer func() { pumpsOnly = false }()
			for name, test := range suite {
				t.Run(name, test)
			}
		})
	}
}

func conformBytesArriveBothWays(t *testing.T) {
	combinations(t, func(t *testing.T, client, peer kind) {
		s := newScene(t, Options{IdleTimeout: time.Minute}, client, peer)
		var moved [2]int64
		var mu sync.Mutex
		s.job.moved = func(sent bool, n int) {
			mu.Lock()
			defer mu.Unlock()
			if sent {
				moved[0] += int64(n)
			} else {
				moved[1] += int64(n)
			}
		}
		up, down := randomBytes(3<<20), randomBytes(1<<20)
		s.job.early = bytes.Clone(up[:1000])
		banner := "220 smtp.example ESMTP\r\n"
		open := s.job.open
		s.job.open = func(ctx context.Context) (Peer, error) {
			p, err := open(ctx)
			p.Early = []byte(banner)
			return p, err
		}
		s.submit()

		var vendorSaw []byte
		var work sync.WaitGroup
		work.Go(func() {
			vendorSaw, _ = io.ReadAll(s.vendor) // until the customer's end of stream
			_, _ = s.vendor.Write(down)
			_ = s.vendor.(interface{ CloseWrite() error }).CloseWrite()
		})
		work.Go(func() {
			_, _ = s.client.Write(up[1000:])
			_ = s.client.(interface{ CloseWrite() error }).CloseWrite()
		})
		expect(t, s.client, greeting+banner)
		got, err := io.ReadAll(s.client)
		work.Wait()
		must(t, err)
		if sha256.Sum256(vendorSaw) != sha256.Sum256(up) {
			t.Errorf("the vendor got %d bytes, not the %d sent", len(vendorSaw), len(up))
		}
		if sha256.Sum256(got) != sha256.Sum256(down) {
			t.Errorf("the customer got %d bytes, not the %d sent", len(got), len(down))
		}
		r := s.ended(Closed)
		if r.Sent != int64(len(up)) || r.Received != int64(len(banner)+len(down)) {
			t.Errorf("counted %d sent, %d received", r.Sent, r.Received)
		}
		if moved != [2]int64{r.Sent, r.Received} {
			t.Errorf("Moved was told %v", moved)
		}
		if r.Duration <= 0 {
			t.Errorf("result %+v", r)
		}
	})
}

// Bytes that came before the tunnel was open are the account's like all others: many
// short tunnels are no way around a bandwidth.
func conformEarlyBytesAreOwed(t *testing.T) {
	const size = 20 << 10 // 20 s
	s := newScene(t, Options{IdleTimeout: time.Minute}, tcpKind, tcpKind)
	s.job.shared = NewShared(1 << 10)
	s.job.early = make([]byte, size)
	open := s.job.open
	s.job.open = func(ctx context.Context) (Peer, error) {
		p, err := open(ctx)
		p.Early = make([]byte, size)
		return p, err
	}
	s.open()
	expect(t, s.client, string(make([]byte, size)))
	expect(t, s.vendor, string(make([]byte, size)))
	for _, sent := range []bool{true, false} {
		until(t, func() bool { return s.job.shared.Owe(sent, 1) > time.Second })
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

func conformHalfCloseFromEitherSide(t *testing.T) {
	combinations(t, func(t *testing.T, client, peer kind) {
		s := newScene(t, Options{IdleTimeout: time.Minute, HalfOpenTimeout: time.Minute}, client, peer)
		s.open()
		halfClose(t, s.vendor)
		expectEOF(t, s.client)
		send(t, s.client, "still talking")
		expect(t, s.vendor, "still talking")
		halfClose(t, s.client)
		expectEOF(t, s.vendor)
		s.ended(Closed)
	})
}

func conformResetIsPassedOn(t *testing.T) {
	for _, fromClient := range []bool{true, false} {
		name := map[bool]string{true: "customer", false: "vendor"}[fromClient]
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Options{}, tcpKind, tcpKind)
			s.open()
			send(t, s.client, "x")
			expect(t, s.vendor, "x")
			breaking, other, want := s.client, s.vendor, ClientReset
			if !fromClient {
				breaking, other, want = s.vendor, s.client, UpstreamReset
			}
			breakOff(t, breaking)
			if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other side read %v, want a reset", err)
			}
			s.ended(want)
		})
	}
}

func conformIdleTunnelEnds(t *testing.T) {
	combinations(t, func(t *testing.T, client, peer kind) {
		s := newScene(t, Options{IdleTimeout: 80 * time.Millisecond}, client, peer)
		s.open()
		s.ended(IdleTimeout)
		if _, err := s.client.Read(make([]byte, 1)); err == nil {
			t.Error("the customer's connection is still open")
		}
	})
}

// A download must not be cut because the customer has nothing to say.
func conformOneWayTrafficKeepsATunnel(t *testing.T) {
	combinations(t, func(t *testing.T, client, peer kind) {
		const idle = 300 * time.Millisecond
		s := newScene(t, Options{IdleTimeout: idle}, client, peer)
		s.open()
		tick := time.NewTicker(idle / 10)
		defer tick.Stop()
		for start := time.Now(); time.Since(start) < 3*idle; <-tick.C {
			send(t, s.vendor, "d")
			expect(t, s.client, "d")
		}
		s.ended(IdleTimeout)
	})
}

func conformHalfOpenTunnelEnds(t *testing.T) {
	combinations(t, func(t *testing.T, client, peer kind) {
		s := newScene(t, Options{IdleTimeout: time.Minute, HalfOpenTimeout: 80 * time.Millisecond}, client, peer)
		s.open()
		halfClose(t, s.client)
		expectEOF(t, s.vendor)
		s.ended(HalfOpen)
	})
}

func conformRefusalArrives(t *testing.T) {
	for _, k := range []kind{tcpKind, tlsKind} {
		t.Run(k.name, func(t *testing.T) {
			s := newScene(t, Options{}, k, tcpKind)
			const reply = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
			s.job.open = func(context.Context) (Peer, error) { return Peer{}, errVendor }
			s.job.refusal = func(err error) []byte {
				if !errors.Is(err, errVendor) {
					t.Errorf("Refusal got %v", err)
				}
				return []byte(reply)
			}
			// Bytes that nobody reads must not turn the reply into a reset.
			send(t, s.client, "early data that nobody wants")
			s.submit()
			expect(t, s.client, reply)
			must(t, s.client.Close())
			if r := s.ended(Refused); !errors.Is(r.Err, errVendor) {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// waitForCancel is a vendor that never answers.
func waitForCancel(ctx context.Context) (Peer, error) {
	<-ctx.Done()
	return Peer{}, ctx.Err()
}

func conformCustomerLeavesDuringOpen(t *testing.T) {
	leave := map[string]func(t *testing.T, c net.Conn){
		"fin":   func(t *testing.T, c net.Conn) { must(t, c.Close()) },
		"reset": breakOff,
	}
	for name, how := range leave {
		for _, k := range []kind{tcpKind, tlsKind} {
			t.Run(name+"-"+k.name, func(t *testing.T) {
				s := newScene(t, Options{}, k, tcpKind)
				opening := make(chan struct{})
				s.job.open = func(ctx context.Context) (Peer, error) {
					close(opening)
					return waitForCancel(ctx)
				}
				s.job.refusal = func(error) []byte { t.Error("asked for a refusal"); return nil }
				s.submit()
				<-opening
				how(t, s.client)
				s.ended(ClientGone)
			})
		}
	}
}

// printf … | nc: the request and the end of stream come at once, the answer is wanted.
func conformCustomerWhoSentAllWaitsForTheAnswer(t *testing.T) {
	tests := map[string]func(s *scene){
		"bytes read early": func(s *scene) { s.job.early = []byte("all I have to say") },
		"bytes unread":     func(s *scene) { send(s.t, s.client, "all I have to say") },
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, Options{}, tcpKind, tcpKind)
			prepare(s)
			open := s.job.open
			proceed := make(chan struct{})
			s.job.open = func(ctx context.Context) (Peer, error) {
				select {
				case <-ctx.Done():
					return Peer{}, ctx.Err()
				case <-proceed:
					return open(ctx)
				}
			}
			halfClose(t, s.client)
			s.submit()
			// Long enough for a watcher that is wrong to act.
			select {
			case r := <-s.results:
				t.Fatalf("ended early: %+v", r)
			case <-time.After(50 * time.Millisecond):
			}
			close(proceed)
			expect(t, s.client, greeting)
			expect(t, s.vendor, "all I have to say")
			expectEOF(t, s.vendor)
			send(t, s.vendor, "answer")
			halfClose(t, s.vendor)
			expect(t, s.client, "answer")
			s.ended(Closed)
		})
	}
}

func conformCloseKeyCutsOnlyThatKey(t *testing.T) {
	engine := NewEngine(Options{pumpsOnly: pumpsOnly})
	defer engine.Close()
	keys := []string{"alice", "bob", "alice"}
	scenes := make([]*scene, len(keys))
	for i, key := range keys {
		s := newScene(t, Options{}, tcpKind, tcpKind)
		s.engine.Close()
		s.engine, s.job.key = engine, key
		s.open()
		scenes[i] = s
	}
	if n := engine.CloseKey("alice"); n != 2 {
		t.Errorf("cut %d tunnels, want 2", n)
	}
	for _, i := range []int{0, 2} {
		if r := scenes[i].result(); r.Ending != Killed {
			t.Errorf("tunnel %d ended with %q", i, r.Ending)
		}
	}
	send(t, scenes[1].client, "x")
	expect(t, scenes[1].vendor, "x")
}

func conformDrainWaitsThenCuts(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.open()
	ctx, cancel := context.WithCancel(t.Context())
	cuts := make(chan int)
	go func() { cuts <- s.engine.Drain(ctx) }()
	send(t, s.client, "still here")
	expect(t, s.vendor, "still here")
	select {
	case <-cuts:
		t.Fatal("Drain did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	cancel()
	if n := <-cuts; n != 1 {
		t.Errorf("Drain cut %d", n)
	}
	s.ended(Drained)
}

func conformDrainEndsWithTheLastTunnel(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.open()
	cuts := make(chan int)
	go func() { cuts <- s.engine.Drain(t.Context()) }()
	must(t, s.client.Close())
	must(t, s.vendor.Close())
	if n := <-cuts; n != 0 {
		t.Errorf("Drain cut %d", n)
	}
	s.result()
}

func conformCloseEndsWhatIsOpening(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	opening := make(chan struct{})
	s.job.open = func(ctx context.Context) (Peer, error) {
		close(opening)
		return waitForCancel(ctx)
	}
	s.submit()
	<-opening
	s.engine.Close()
	if r := s.result(); r.Ending != Drained {
		t.Errorf("ending %q", r.Ending)
	}
}

func conformSubmitAfterCloseEndsAtOnce(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.engine.Close()
	s.submit()
	if r := s.result(); r.Ending != Drained {
		t.Errorf("ending %q", r.Ending)
	}
	if _, err := s.client.Read(make([]byte, 1)); err == nil {
		t.Error("the customer's connection is still open")
	}
}

// A connection of a kind that is not known is carried too, at the price of a buffer.
func conformUnknownConnectionIsCarried(t *testing.T) {
	s := newScene(t, Options{IdleTimeout: time.Minute}, tcpKind, tcpKind)
	outside, inside := net.Pipe()
	defer func() { _ = outside.Close() }()
	s.job.open = func(context.Context) (Peer, error) { return Peer{Conn: inside}, nil }
	s.open()
	send(t, s.client, "to a pipe")
	expect(t, outside, "to a pipe")
	send(t, outside, "and back")
	expect(t, s.client, "and back")
	must(t, s.client.Close())
	expectEOF(t, outside)
	s.ended(Closed)
}
