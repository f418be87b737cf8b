//go:build amd64 || arm64

package tunnel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hold keeps the reactors from doing anything until the function returned is called.
func hold(t *testing.T, e *Engine) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	var inside sync.WaitGroup
	for _, r := range e.reactors.all {
		inside.Add(1)
		if !r.post(func() { inside.Done(); <-gate }) {
			t.Fatal("the reactor has ended")
		}
	}
	inside.Wait()
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	return release
}

// sendUrgent sends one byte out of band (TCP urgent data).
func sendUrgent(t *testing.T, c net.Conn) {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, rc.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB|unix.MSG_NOSIGNAL, nil)
		return !errors.Is(err, unix.EAGAIN)
	}))
	must(t, err)
}

// A read ends short at the mark of urgent data though more has come: it is not the end.
func TestUrgentDataHidesNothing(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.open()
	for range 20 {
		release := hold(t, s.engine)
		send(t, s.client, "before")
		sendUrgent(t, s.client)
		send(t, s.client, " and after")
		release()
		expect(t, s.vendor, "before and after")
	}
	halfClose(t, s.client)
	expectEOF(t, s.vendor)
}

// A splice cannot pass the mark of urgent data, and must not take it for the end.
func TestUrgentDataInASplicedStream(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.open()
	data := randomBytes(8 << 20)
	go func() { _, _ = s.client.Write(data) }()
	got := make([]byte, len(data))
	_, err := io.ReadFull(s.vendor, got)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("other bytes came")
	}
	release := hold(t, s.engine) // so that all is there before the relay looks
	send(t, s.client, string(data[:100<<10]))
	sendUrgent(t, s.client)
	send(t, s.client, string(data[:100<<10]))
	halfClose(t, s.client)
	release()
	got, err = io.ReadAll(s.vendor)
	must(t, err)
	if want := append(data[:100<<10:100<<10], data[:100<<10]...); !bytes.Equal(got, want) {
		t.Errorf("the vendor got %d of %d bytes", len(got), len(want))
	}
}

// A reset that a splice is the first to see must not become an orderly end.
func TestResetOfASplicedStreamIsPassedOn(t *testing.T) {
	for _, fromClient := range []bool{true, false} {
		s := newScene(t, Options{}, tcpKind, tcpKind)
		s.open()
		breaking, other, want := s.vendor, s.client, UpstreamReset
		if fromClient {
			breaking, other, want = s.client, s.vendor, ClientReset
		}
		data := randomBytes(8 << 20)
		sent := make(chan error, 1)
		go func() { _, err := breaking.Write(data); sent <- err }()
		got := make([]byte, len(data))
		_, err := io.ReadFull(other, got)
		must(t, err)
		must(t, <-sent)
		if sha256.Sum256(got) != sha256.Sum256(data) {
			t.Error("other bytes came")
		}
		breakOff(t, breaking)
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the other side read %v, want a reset", err)
		}
		s.ended(want)
	}
}

// A tunnel waits for its turn once, however many events it has meanwhile.
func TestOneTurnForEachDirection(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.open()
	const size = 256 << 20
	must(t, s.client.SetDeadline(time.Now().Add(6*patience)))
	must(t, s.vendor.SetDeadline(time.Now().Add(6*patience)))
	for range 4 { // more senders than the relay can follow
		go func() {
			b := make([]byte, 1<<20)
			for range size / len(b) / 4 {
				if _, err := s.vendor.Write(b); err != nil {
					return
				}
			}
		}()
	}
	done := make(chan error, 1)
	go func() { _, err := io.CopyN(io.Discard, s.client, size); done <- err }()
	most := 0
	for {
		select {
		case err := <-done:
			must(t, err)
			if most > 2 {
				t.Errorf("%d turns waited", most)
			}
			return
		default:
			// The reactors are asked at the same time; only one has the tunnel.
			most = max(most, s.engine.reactors.each(func(r *reactor) int { return len(r.ready) }))
		}
	}
}

// What panics in the middle of a splice must not cost a pipe.
func TestPanicWhileSplicingLeavesNoPipe(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	s.job.moved = func(_ bool, n int) {
		if n > bufferSize { // more than a copy moves
			panic("bug")
		}
	}
	s.open()
	go func() {
		b := make([]byte, 1<<20)
		for {
			if _, err := s.vendor.Write(b); err != nil {
				return
			}
		}
	}()
	_, _ = io.Copy(io.Discard, s.client)
	s.ended(Failed)
	if lent := s.engine.reactors.each(func(r *reactor) int { return r.pipes.lent }); lent != 0 {
		t.Errorf("%d pipes are lent", lent)
	}
}
