//go:build amd64 || arm64

package tunnel

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// dialogue is a handshake of several messages: each of ours is answered, and the last
// answer opens the tunnel. An answer ends with its semicolon.
type dialogue struct {
	ours, theirs []string
	at           int
}

var threeSteps = dialogue{ours: []string{"hello", "login", "target"}, theirs: []string{"ok;", "welcome;", "open;"}}

// script makes the exchange of a journey hold the dialogue with each gateway anew.
func (d dialogue) script(j *journey) {
	now := d
	next := j.job.next
	j.job.next = func() (Attempt, error) {
		now.at = 0
		return next()
	}
	j.job.append = func(b []byte) []byte { return append(b, now.ours[now.at]...) }
	j.job.reply = func(b []byte) (int, error) {
		answer, _, whole := strings.Cut(string(b), ";")
		switch {
		case !whole:
			return 0, nil
		case answer+";" != now.theirs[now.at]:
			return 0, errDenied
		case now.at == len(now.ours)-1:
			return len(answer) + 1, nil
		case len(b) > len(answer)+1:
			return 0, errDenied // it spoke out of turn
		}
		now.at++
		return 0, fmt.Errorf("the next step: %w", ErrAsksMore)
	}
}

// hold is the gateway's part up to a step, the last one not included; it reports whether
// the relay held to its own. Answers go out in pieces.
func (d dialogue) hold(c net.Conn, steps int, pieces func(answer string) []string) bool {
	for i := range steps {
		b := make([]byte, len(d.ours[i]))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != d.ours[i] {
			return false
		}
		for _, piece := range pieces(d.theirs[i]) {
			if _, err := io.WriteString(c, piece); err != nil {
				return false
			}
			time.Sleep(time.Millisecond) // so that the pieces come as pieces; whole they would do as well
		}
	}
	return true
}

func whole(answer string) []string { return []string{answer} }

func TestAsksMore(t *testing.T) {
	tests := map[string]struct {
		pieces func(string) []string
		behind string
	}{
		"whole":        {whole, ""},
		"byte by byte": {func(s string) []string { return strings.Split(s, "") }, ""},
		"split before the end": {func(s string) []string {
			return []string{s[:len(s)-1], s[len(s)-1:]}
		}, ""},
		"bytes behind the last": {func(s string) []string {
			return []string{strings.Replace(s, "open;", "open;banner", 1)}
		}, "banner"},
	}
	for name, test := range tests {
		for _, early := range []string{"", "early "} {
			t.Run(name+", "+early+"customer", func(t *testing.T) {
				j := newJourney(t, gateway(t, func(c *net.TCPConn) {
					if threeSteps.hold(c, 3, test.pieces) {
						_, _ = io.Copy(c, c)
						_ = c.CloseWrite()
					}
				}))
				threeSteps.script(j)
				j.job.early = []byte(early)
				j.submit()
				expect(t, j.client, greeting+test.behind+early)
				if r := j.talk(); r.Sent != int64(5+len(early)) || r.Received != int64(5+len(early)+len(test.behind)) {
					t.Errorf("counted %+v", r)
				}
				j.failed()
			})
		}
	}
}

// Each step may be the last that a gateway does: the next gateway starts from the first.
func TestAsksMoreThenFails(t *testing.T) {
	for step := range 3 {
		ends := map[string]struct {
			end  func(c *net.TCPConn)
			want []string
		}{
			"closes":        {func(*net.TCPConn) {}, []string{failure(false, io.EOF)}},
			"closes within": {func(c *net.TCPConn) { _, _ = io.WriteString(c, "o") }, []string{failure(false, io.ErrUnexpectedEOF)}},
			"resets":        {func(c *net.TCPConn) { _ = c.SetLinger(0) }, []string{failure(false, syscall.ECONNRESET)}},
			"denies":        {func(c *net.TCPConn) { _, _ = io.WriteString(c, "no;") }, nil},
		}
		for name, test := range ends {
			t.Run(fmt.Sprintf("%s in step %d", name, step), func(t *testing.T) {
				first := gateway(t, func(c *net.TCPConn) {
					if threeSteps.hold(c, step, whole) {
						_, _ = io.ReadFull(c, make([]byte, len(threeSteps.ours[step])))
						test.end(c)
					}
				})
				second := gateway(t, func(c *net.TCPConn) {
					if threeSteps.hold(c, 3, whole) {
						_, _ = io.Copy(c, c)
						_ = c.CloseWrite()
					}
				})
				j := newJourney(t, first, second)
				threeSteps.script(j)
				j.submit()
				expect(t, j.client, greeting)
				j.talk()
				j.failed(test.want...)
			})
		}
	}
}

// The time for the answers is one for all of them: a gateway that is slow at each step
// does not get it anew.
func TestAsksMoreSharesTheTime(t *testing.T) {
	var steps atomic.Int32
	addr := gateway(t, func(c *net.TCPConn) {
		for threeSteps.hold(c, 1, whole) { // it asks for the first message for ever
			steps.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
	})
	j := newJourney(t, addr)
	j.alter(func(a *Attempt) { a.ReplyTimeout = 200 * time.Millisecond })
	j.job.append = func(b []byte) []byte { return append(b, threeSteps.ours[0]...) }
	j.job.reply = func(b []byte) (int, error) {
		if !strings.HasSuffix(string(b), ";") {
			return 0, nil
		}
		return 0, ErrAsksMore
	}
	j.submit()
	j.ended(Refused)
	j.failed(failure(false, os.ErrDeadlineExceeded))
	if steps.Load() < 2 {
		t.Errorf("%d steps", steps.Load())
	}
}

// What a connection takes is not there for the answer any more once the time of the
// whole set-up is over.
func TestAnAttemptHasALimit(t *testing.T) {
	j := newJourney(t, gateway(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }))
	j.alter(func(a *Attempt) { a.ReplyTimeout, a.Limit = time.Hour, 100*time.Millisecond })
	j.submit()
	j.ended(Refused)
	j.failed(failure(false, os.ErrDeadlineExceeded))
}

// A customer who leaves between two steps takes his set-up with him.
func TestCustomerLeavesBetweenSteps(t *testing.T) {
	leave := map[string]func(t *testing.T, c net.Conn){
		"fin":   func(t *testing.T, c net.Conn) { must(t, c.Close()) },
		"reset": breakOff,
	}
	for name, how := range leave {
		t.Run(name, func(t *testing.T) {
			between, gone := make(chan struct{}), make(chan struct{})
			j := newJourney(t, gateway(t, func(c *net.TCPConn) {
				if threeSteps.hold(c, 1, whole) {
					_, _ = io.ReadFull(c, make([]byte, len(threeSteps.ours[1])))
					close(between)
					_, _ = c.Read(make([]byte, 1))
					close(gone)
				}
			}))
			threeSteps.script(j)
			j.submit()
			<-between
			how(t, j.client)
			j.ended(ClientGone)
			<-gone
			j.failed(failure(false, context.Canceled))
		})
	}
}

// A later message larger than the send buffer goes out as the gateway takes it.
func TestLargeNextRequest(t *testing.T) {
	large := dialogue{ours: []string{"hello", string(randomBytes(16 << 20)), "target"}, theirs: threeSteps.theirs}
	start := make(chan struct{})
	j := newJourney(t, gateway(t, func(c *net.TCPConn) {
		if !large.hold(c, 1, whole) {
			return
		}
		<-start
		rest := dialogue{ours: large.ours[1:], theirs: large.theirs[1:]}
		if rest.hold(c, 2, whole) {
			_, _ = io.Copy(c, c)
			_ = c.CloseWrite()
		}
	}))
	large.script(j)
	j.submit()
	until(t, func() bool { return j.phases(asking) == 1 })
	close(start)
	expect(t, j.client, greeting)
	j.talk()
}
