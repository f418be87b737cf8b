//go:build amd64 || arm64

package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// full is an address whose listener takes no more connections, and answers none.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, addr := bound(t)
	must(t, unix.Listen(fd, 0))
	for { // until the backlog is full
		c, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

func TestSetupTimeouts(t *testing.T) {
	mute := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
	half := func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 "); mute(c) }
	late := failure(false, os.ErrDeadlineExceeded)
	tests := map[string]struct {
		addr  netip.AddrPort
		large bool
		want  string
	}{
		"connecting":        {full(t), false, failure(true, os.ErrDeadlineExceeded)},
		"no answer":         {gateway(t, mute), false, late},
		"half of an answer": {gateway(t, half), false, late},
		"asking": {gateway(t, func(c *net.TCPConn) {
			_ = c.SetReadBuffer(4 << 10)
			<-t.Context().Done()
		}), true, late},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			j := newJourney(t, test.addr, test.addr, gateway(t, echo(accepted)))
			if test.large {
				j.job.request = strings.Repeat("x", 16<<20)
			}
			const limit = 60 * time.Millisecond
			ways := 0
			j.alter(func(a *Attempt) {
				if ways++; ways < 3 {
					a.Timeout, a.ReplyTimeout = limit, limit
				} else {
					j.job.request = request
				}
			})
			start := time.Now()
			j.submit()
			expect(t, j.client, greeting)
			if d := time.Since(start); d < 2*limit {
				t.Errorf("gave up after %v", d)
			}
			j.talk()
			j.failed(test.want, test.want)
		})
	}
}

// A deadline that had passed before the attempt began is one.
func TestTimeoutInThePast(t *testing.T) {
	j := newJourney(t, full(t))
	j.alter(func(a *Attempt) { a.Timeout = -time.Second })
	j.submit()
	j.ended(Refused)
	j.failed(failure(true, os.ErrDeadlineExceeded))
}

// The customer leaves: the way under way is told, and the gateway's connection closed.
func TestCustomerLeavesDuringSetup(t *testing.T) {
	closed, letGo := make(chan struct{}, 1), make(chan struct{})
	mute := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c); closed <- struct{}{} }
	stuck := func(c *net.TCPConn) {
		_ = c.SetReadBuffer(4 << 10)
		<-letGo
	}
	phasesOf := map[string]struct {
		addr  netip.AddrPort
		phase phase
		size  int
	}{
		"connecting": {full(t), connecting, 100},
		"asking":     {gateway(t, stuck), asking, 16 << 20},
		"replying":   {gateway(t, mute), replying, 100},
	}
	leave := map[string]func(*testing.T, net.Conn){
		"fin":   func(t *testing.T, c net.Conn) { must(t, c.Close()) },
		"reset": breakOff,
	}
	for name, test := range phasesOf {
		for how, goes := range leave {
			t.Run(name+" "+how, func(t *testing.T) {
				j := newJourney(t, test.addr, test.addr)
				j.job.request = strings.Repeat("x", test.size)
				j.job.refusal = func(error) []byte { t.Error("asked for a refusal"); return nil }
				j.submit()
				until(t, func() bool { return j.phases(test.phase) == 1 })
				goes(t, j.client)
				if r := j.ended(ClientGone); !errors.Is(r.Err, context.Canceled) {
					t.Errorf("result %+v", r)
				}
				j.failed(failure(test.phase == connecting, context.Canceled))
				switch test.phase {
				case asking:
					letGo <- struct{}{}
				case replying:
					<-closed
				}
			})
		}
	}
}

// A FIN of one who has said all he has to say is no leaving; a reset is.
func TestFinWithEarlyBytesDoesNotCount(t *testing.T) {
	tests := map[string]struct {
		early  string
		unread string
	}{"early": {"all", ""}, "unread": {"", "all"}}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			proceed := make(chan struct{})
			addr := gateway(t, func(c *net.TCPConn) { <-proceed; echo(accepted)(c) })
			j := newJourney(t, addr)
			j.job.early = []byte(test.early)
			j.submit()
			until(t, func() bool { return j.phases(replying) == 1 })
			if test.unread != "" {
				send(t, j.client, test.unread)
			}
			halfClose(t, j.client)
			// The reactors have seen the FIN when they have been around twice.
			for range 2 {
				if j.phases(replying) != 1 {
					t.Error("the tunnel has ended")
				}
			}
			close(proceed)
			expect(t, j.client, greeting+"all")
			expectEOF(t, j.client)
			j.ended(Closed)
			j.failed()
		})
	}
}

// Urgent data is no leaving.
func TestUrgentDataDuringSetup(t *testing.T) {
	proceed := make(chan struct{})
	j := newJourney(t, gateway(t, func(c *net.TCPConn) { <-proceed; echo(accepted)(c) }))
	j.submit()
	until(t, func() bool { return j.phases(replying) == 1 })
	sendUrgent(t, j.client)
	for range 2 {
		if j.phases(replying) != 1 {
			t.Error("the tunnel has ended")
		}
	}
	close(proceed)
	expect(t, j.client, greeting)
	j.talk()
}

// A bug in any of the exchange's methods ends that tunnel, and is reported.
func TestPanicDuringSetup(t *testing.T) {
	hello := gateway(t, echo(accepted))
	panics := map[string]struct {
		ways  []netip.AddrPort
		spoil func(*script)
	}{
		"Next":          {nil, func(s *script) { s.next = func() (Attempt, error) { panic("bug") } }},
		"Reply":         {[]netip.AddrPort{hello}, func(s *script) { s.reply = func([]byte) (int, error) { panic("bug") } }},
		"Failed":        {[]netip.AddrPort{refusing(t)}, func(s *script) { s.failed = func(bool, error) { panic("bug") } }},
		"Failed within": {[]netip.AddrPort{gateway(t, func(c *net.TCPConn) { readRequest(c) })}, func(s *script) { s.failed = func(bool, error) { panic("bug") } }},
		"Refusal":       {nil, func(s *script) { s.refusal = func(error) []byte { panic("bug") } }},
		"Opened":        {[]netip.AddrPort{hello}, func(s *script) { s.opened = func() { panic("bug") } }},
		"too many bytes": {[]netip.AddrPort{hello}, func(s *script) {
			s.reply = func(b []byte) (int, error) { return len(b) + 1<<20, nil }
		}},
	}
	for name, test := range panics {
		t.Run(name, func(t *testing.T) {
			j := newJourney(t, test.ways...)
			j.job.refusal = func(error) []byte { return []byte("sorry") }
			test.spoil(j.job)
			j.submit()
			if r := j.ended(Failed); r.Err == nil || !strings.Contains(r.Err.Error(), "tunnel: panic") {
				t.Errorf("result %+v", r)
			}
			want := "sorry"
			if name == "Refusal" {
				want = ""
			}
			if got, _ := io.ReadAll(j.client); string(got) != want { // a reset is an end, too
				t.Errorf("the customer got %q, want %q", got, want)
			}
		})
	}
}

// A panic of Done or Key is told to Trouble; the engine lives on and counts right.
func TestPanicOfDoneAndKey(t *testing.T) {
	troubles := make(chan error, 4)
	j := newJourney(t)
	j.engine.Close()
	j.engine = NewEngine(Options{Trouble: func(err error) { troubles <- err }})
	defer j.engine.Close()
	j.job.done = func(Result) { panic("bug of Done") }
	j.submit()
	if err := <-troubles; !strings.Contains(err.Error(), "bug of Done") {
		t.Errorf("trouble %v", err)
	}
	until(t, func() bool { return j.engine.Count() == 0 })

	k := newJourney(t, gateway(t, echo(accepted)))
	k.engine.Close()
	k.engine = j.engine
	k.engine.Submit(Job{Client: k.job.client, Exchange: keyless{k.job}})
	expect(t, k.client, greeting)
	k.engine.CloseKey("alice")
	k.ended(Failed)
}

// keyless is an exchange with a bug.
type keyless struct{ *script }

func (keyless) Key() string { panic("bug of Key") }
