package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// literalPool is a pool of n gateways with literal addresses, g0 on.
func literalPool(t *testing.T, n int, o Options) *Pool {
	t.Helper()
	for i := range n {
		o.Gateways = append(o.Gateways, gatewayOf(t, fmt.Sprintf("g%d", i), fmt.Sprintf("http://u:p@192.0.2.%d:7000", i+1)))
	}
	return newPool(t, o)
}

// resolvedPool is a pool of one gateway whose name has these addresses already.
func resolvedPool(t *testing.T, o Options, all ...string) *Pool {
	t.Helper()
	o.Lookup = func(context.Context, string, string) ([]netip.Addr, error) { return addrs(all...), nil }
	o.Gateways = []Gateway{gatewayOf(t, "gw", "http://gw.example:7000")}
	p := newPool(t, o)
	if _, err := p.gateways[0].endpoints.get(t.Context()); !errors.Is(err, errNoSource) {
		must(t, err)
	}
	return p
}

func wantNothingHeld(t *testing.T, p *Pool) {
	t.Helper()
	for _, g := range p.gateways {
		if n := g.conns.Load(); n != 0 {
			t.Errorf("%s: %d connections are still counted", g.Name, n)
		}
	}
	p.ports.mu.Lock()
	defer p.ports.mu.Unlock()
	for key, l := range p.ports.lanes {
		if n := l.inUse.Load(); n != 0 {
			t.Errorf("from %s to %s: %d ports are still counted", key.source, key.to, n)
		}
	}
}

func next(t *testing.T, s *Setup) Dial {
	t.Helper()
	d, err := s.Next()
	must(t, err)
	return d
}

// wantEnd checks that the set-up has failed for good, and why. gateway "" = any.
func wantEnd(t *testing.T, s *Setup, gateway string, phase Phase, cause Cause) {
	t.Helper()
	for range 2 { // it stays so
		_, err := s.Next()
		var failure *ConnectError
		if !errors.As(err, &failure) || gateway != "" && failure.Gateway != gateway || failure.Phase != phase || failure.Cause != cause {
			t.Fatalf("error %v, want %s: %s: %s", err, gateway, phase, cause)
		}
	}
}

const established = "HTTP/1.1 200 OK\r\n\r\n"

func TestSetupOpens(t *testing.T) {
	p := literalPool(t, 1, Options{})
	var s Setup
	for _, request := range []Request{{Target: "a.example:443"}, {Target: "b.example:1", Authorization: "Basic b3du"}} {
		s.Start(p, nil)
		d := next(t, &s)
		login := "Basic dTpw"
		if request.Authorization != "" {
			login = request.Authorization
		}
		want := "CONNECT " + request.Target + " HTTP/1.1\r\nHost: " + request.Target + "\r\nProxy-Authorization: " + login + "\r\n\r\n"
		written := string(s.AppendRequest([]byte("before "), request))
		if written != "before "+want || d.Addr.String() != "192.0.2.1:7000" || d.Source.IsValid() || d.Ports != [2]uint16{} {
			t.Errorf("step %+v with\n%q, want\n%q", d, written, want)
		}
		if d.Timeout <= 0 || d.Timeout > 2*time.Second || d.ReplyTimeout != 5*time.Second || time.Until(d.Deadline) > 7*time.Second {
			t.Errorf("timeouts %s, %s", d.Timeout, d.ReplyTimeout)
		}
		answer := "HTTP/1.1 100 Continue\r\n\r\n" + established + "early"
		for end := range len(answer) - len("early") {
			if n, err := s.Reply([]byte(answer[:end])); n != 0 || err != nil {
				t.Fatalf("after %d bytes: %d, %v", end, n, err)
			}
		}
		n, err := s.Reply([]byte(answer))
		if err != nil || answer[n:] != "early" {
			t.Fatalf("%d, %v", n, err)
		}
		held := s.Opened()
		if held.Gateway() != "g0" || p.gateways[0].conns.Load() != 1 {
			t.Errorf("held %q, %d counted", held.Gateway(), p.gateways[0].conns.Load())
		}
		s.Reset() // the tunnel's connection is not the set-up's any more
		if p.gateways[0].conns.Load() != 1 {
			t.Error("Reset released what was handed out")
		}
		held.Release()
		wantNothingHeld(t, p)
	}
	if n := connectedCount(t, p, "g0"); n != 2 {
		t.Errorf("%d set-ups counted", n)
	}
}

func TestSetupZeroValues(t *testing.T) {
	var held Held
	held.Release()
	if held.Gateway() != "" {
		t.Error("nothing has a name")
	}
	var s Setup
	s.Failed(true, io.EOF)
	if n, err := s.Reply([]byte(established)); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	if b := s.AppendRequest([]byte("x"), Request{Target: "t.example:1"}); string(b) != "x" {
		t.Errorf("%q is to be written to nobody", b)
	}
	if s.Opened() != (Held{}) {
		t.Error("something is held")
	}
	if _, err := s.Next(); err == nil {
		t.Error("a set-up that was not started has a step")
	}
	s.Reset()
}

// step is what happens to one dial of a set-up.
type step struct {
	connecting bool
	err        error  // nil: the gateway answers
	answer     string // then
}

func TestSetupFailures(t *testing.T) {
	tests := map[string]struct {
		step    step
		phase   Phase
		cause   Cause
		goes    bool // another gateway is tried
		down    bool
		counted bool // in failures_total
	}{
		"refused":        {step{true, syscall.ECONNREFUSED, ""}, PhaseDial, CauseRefused, true, true, true},
		"unreachable":    {step{true, syscall.EHOSTUNREACH, ""}, PhaseDial, CauseRefused, true, true, true},
		"dial timeout":   {step{true, os.ErrDeadlineExceeded, ""}, PhaseDial, CauseTimeout, true, true, true},
		"kernel timeout": {step{true, syscall.ETIMEDOUT, ""}, PhaseDial, CauseTimeout, true, true, true},
		"left dialling":  {step{true, context.Canceled, ""}, PhaseDial, CauseCanceled, false, false, false},
		"left waiting":   {step{false, context.Canceled, ""}, PhaseConnect, CauseCanceled, false, false, false},
		"reset":          {step{false, syscall.ECONNRESET, ""}, PhaseConnect, CauseClosed, true, false, true},
		"closed":         {step{false, io.EOF, ""}, PhaseConnect, CauseClosed, true, false, true},
		"cut":            {step{false, io.ErrUnexpectedEOF, ""}, PhaseConnect, CauseClosed, true, false, true},
		"silent":         {step{false, os.ErrDeadlineExceeded, ""}, PhaseConnect, CauseTimeout, true, false, true},
		"login":          {step{false, nil, "HTTP/1.1 407 x\r\n\r\n"}, PhaseConnect, CauseAuth, true, false, true},
		"body":           {step{false, nil, "HTTP/1.1 200 x\r\nContent-Length: 5\r\n\r\n"}, PhaseConnect, CauseBody, true, false, true},
		"not HTTP":       {step{false, nil, "SSH-2.0-x\r\n"}, PhaseConnect, CauseMalformed, true, false, true},
		"too long":       {step{false, nil, "HTTP/1.1 200 " + strings.Repeat("x", maxReplyHead)}, PhaseConnect, CauseMalformed, true, false, true},
		"long, but ends": {step{false, nil, "HTTP/1.1 200 " + strings.Repeat("x", maxReplyHead) + "\r\n\r\n"}, PhaseConnect, CauseMalformed, true, false, true},
		"target refused": {step{false, nil, "HTTP/1.1 403 x\r\n\r\n"}, PhaseConnect, CauseForbidden, false, false, true},
		"odd status":     {step{false, nil, "HTTP/1.1 302 x\r\n\r\n"}, PhaseConnect, CauseStatus, false, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := literalPool(t, 2, Options{})
			var s Setup
			s.Start(p, nil)
			next(t, &s)
			take(t, &s, test.step) // with Connected below, without it here
			wantNothingHeld(t, p)
			if down := !p.gateways[0].health.usable(time.Now()); down != test.down {
				t.Errorf("down: %t", down)
			}
			want := 0.0
			if test.counted {
				want = 1
			}
			if n := failedCount(t, p, "g0", test.cause); n != want {
				t.Errorf("counted %g times", n)
			}
			if !test.goes {
				wantEnd(t, &s, "g0", test.phase, test.cause)
				return
			}
			if d := next(t, &s); d.Addr.String() != "192.0.2.2:7000" {
				t.Errorf("then %s", d.Addr)
			}
			if !test.step.connecting {
				s.Connected()
			}
			take(t, &s, test.step)
			wantEnd(t, &s, "g1", test.phase, test.cause)
			wantNothingHeld(t, p)
		})
	}
}

// take lets happen what the step says, in vain.
func take(t *testing.T, s *Setup, step step) {
	t.Helper()
	if step.err != nil {
		s.Failed(step.connecting, step.err)
		return
	}
	var failure *ConnectError
	if n, err := s.Reply([]byte(step.answer)); n != 0 || !errors.As(err, &failure) {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestSetupTriesAddressesWithTheirShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resolvedPool(t, Options{DialTimeout: 6 * time.Second, ConnectTimeout: 5 * time.Second},
			"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
		var s Setup
		s.Start(p, nil)
		seen := map[netip.AddrPort]bool{}
		for _, want := range []time.Duration{2 * time.Second, 2 * time.Second, 2 * time.Second} {
			d := next(t, &s)
			if d.Timeout != want || seen[d.Addr] {
				t.Errorf("%s for %s, want %s; had it: %t", d.Addr, d.Timeout, want, seen[d.Addr])
			}
			seen[d.Addr] = true
			time.Sleep(d.Timeout) // synctest's clock
			s.Failed(true, os.ErrDeadlineExceeded)
		}
		wantEnd(t, &s, "gw", PhaseDial, CauseTimeout)
		wantNothingHeld(t, p)
		// The one that was not tried comes first now, and what it does not use is left to the next.
		s.Start(p, nil)
		d := next(t, &s)
		if seen[d.Addr] {
			t.Errorf("%s failed a moment ago and is tried first", d.Addr)
		}
		time.Sleep(time.Second)
		s.Failed(true, syscall.ECONNREFUSED)
		if d := next(t, &s); d.Timeout != 2500*time.Millisecond {
			t.Errorf("share %s", d.Timeout)
		}
		s.Failed(true, context.Canceled)
		wantEnd(t, &s, "gw", PhaseDial, CauseCanceled)
		wantNothingHeld(t, p)
	})
}

func TestSetupObeysItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := literalPool(t, 5, Options{DialTimeout: 2 * time.Second, ConnectTimeout: 5 * time.Second})
		var s Setup
		s.Start(p, nil)
		next(t, &s)
		time.Sleep(6 * time.Second)
		s.Failed(false, os.ErrDeadlineExceeded)
		d := next(t, &s)
		if d.Timeout != time.Second || d.ReplyTimeout != time.Second || time.Until(d.Deadline) != time.Second {
			t.Errorf("with a second left: %s, %s, %s", d.Timeout, d.ReplyTimeout, time.Until(d.Deadline))
		}
		time.Sleep(time.Second + 1)
		s.Failed(true, os.ErrDeadlineExceeded)
		wantEnd(t, &s, "g1", PhaseDial, CauseTimeout)
		wantNothingHeld(t, p)
	})
}

func TestSetupPassesFullGateways(t *testing.T) {
	o := Options{}
	for i := range 3 {
		g := gatewayOf(t, fmt.Sprintf("g%d", i), fmt.Sprintf("http://192.0.2.%d:7000", i+1))
		g.MaxConns = 1
		o.Gateways = append(o.Gateways, g)
	}
	p := newPool(t, o)
	var held []Held
	for range 3 {
		var s Setup
		s.Start(p, nil)
		next(t, &s)
		_, err := s.Reply([]byte(established))
		must(t, err)
		held = append(held, s.Opened())
	}
	var s Setup
	s.Start(p, nil)
	_, err := s.Next()
	var failure *ConnectError
	if !errors.As(err, &failure) || failure.Phase != PhasePick || failure.Cause != CauseNone {
		t.Errorf("error %v", err)
	}
	held[1].Release()
	s.Start(p, nil)
	if d := next(t, &s); d.Addr.String() != "192.0.2.2:7000" {
		t.Errorf("%s, only g1 has room", d.Addr)
	}
	s.Reset()
	held[0].Release()
	held[2].Release()
	wantNothingHeld(t, p)
}

// A full gateway says less than one that failed.
func TestSetupKeepsTheTellingError(t *testing.T) {
	failing, full := gatewayOf(t, "failing", "http://192.0.2.1:1"), gatewayOf(t, "full", "http://192.0.2.2:1")
	full.MaxConns = 1
	p := newPool(t, Options{Gateways: []Gateway{failing, full}})
	p.gateways[1].conns.Add(1)
	var s Setup
	s.Start(p, nil)
	next(t, &s)
	s.Failed(true, syscall.ECONNREFUSED)
	wantEnd(t, &s, "failing", PhaseDial, CauseRefused)
}

func TestSetupSaysWhatBlocks(t *testing.T) {
	hang := make(chan struct{})
	lookup := func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		select {
		case <-hang:
			return addrs("192.0.2.1"), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	tests := map[string]string{
		"name":   "http://gw.example:1",
		"TLS":    "https://192.0.2.1:1",
		"direct": Direct,
	}
	for name, url := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "g", url)}, Lookup: lookup})
			var s Setup
			s.Start(p, nil)
			defer s.Reset()
			for range 2 {
				if d, err := s.Next(); !errors.Is(err, ErrBlocks) {
					t.Fatalf("%+v, %v", d, err)
				}
				wantNothingHeld(t, p)
			}
			if name != "name" {
				return
			}
			close(hang)
			p.gateways[0].endpoints.settle()
			if d := next(t, &s); d.Addr.String() != "192.0.2.1:1" {
				t.Errorf("resolved, but %s", d.Addr)
			}
			s.Reset()
			wantNothingHeld(t, p)
		})
	}
}

func TestSetupOfANameThatFails(t *testing.T) {
	p := newPool(t, Options{
		Gateways: []Gateway{gatewayOf(t, "gw", "http://gw.example:1")},
		Lookup:   func(context.Context, string, string) ([]netip.Addr, error) { return nil, errLookup },
	})
	_, err := p.gateways[0].endpoints.get(t.Context())
	if !errors.Is(err, errLookup) {
		t.Fatal(err)
	}
	var s Setup
	s.Start(p, nil)
	wantEnd(t, &s, "gw", PhaseResolve, CauseResolve)
	wantNothingHeld(t, p)
}

// A connection that stood was lost after that, whatever is said of it.
func TestSetupKnowsWhatStood(t *testing.T) {
	ends := map[string]func(t *testing.T, s *Setup){
		"said to have failed to connect": func(_ *testing.T, s *Setup) { s.Failed(true, syscall.ECONNREFUSED) },
		"nothing said":                   func(*testing.T, *Setup) {},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			p := literalPool(t, 2, Options{})
			var s Setup
			s.Connected() // of nothing
			s.Start(p, nil)
			s.Connected()
			next(t, &s)
			s.Connected()
			if n := p.gateways[0].conns.Load(); n != 1 {
				t.Errorf("%d connections are counted", n)
			}
			end(t, &s)
			if d := next(t, &s); d.Addr.String() != "192.0.2.2:7000" {
				t.Errorf("then %s", d.Addr)
			}
			if n := failedCount(t, p, "g0", CauseClosed); n != 1 {
				t.Errorf("counted %g times", n)
			}
			if !p.gateways[0].health.usable(time.Now()) {
				t.Error("a gateway that was reached is down")
			}
			s.Reset()
			wantNothingHeld(t, p)
		})
	}
}

// Whatever happens in whatever order, nothing stays held and every set-up ends.
func TestSetupHoldsNothingAfterAnyEnd(t *testing.T) {
	o := Options{Ports: [2]int{10000, 11023}, Sources: addrs("198.51.100.1", "198.51.100.2")}
	p := literalPool(t, 4, o)
	p.ports.mu.Lock()
	for _, l := range p.ports.lanes { // so many that windows are used
		l.inUse.Add(400)
	}
	p.ports.mu.Unlock()
	events := []func(s *Setup){
		func(s *Setup) { s.Failed(true, syscall.ECONNREFUSED) },
		func(s *Setup) { s.Failed(true, syscall.EADDRNOTAVAIL) },
		func(s *Setup) { s.Failed(true, syscall.EADDRNOTAVAIL) },
		func(s *Setup) { s.Failed(false, io.EOF) },
		func(s *Setup) { _, _ = s.Reply([]byte("HTTP/1.1 503 x\r\n\r\n")) },
		func(s *Setup) { _, _ = s.Reply([]byte("HTTP/1.1 2")) },
		func(s *Setup) { s.Failed(true, context.Canceled) },
		func(s *Setup) { s.Reset() },
		func(s *Setup) { s.Connected() },
		func(s *Setup) { s.Connected(); s.Connected(); s.Failed(true, syscall.ECONNREFUSED) },
		func(s *Setup) { s.Connected(); s.Failed(false, os.ErrDeadlineExceeded) },
		func(s *Setup) {
			s.Connected()
			if n, err := s.Reply([]byte(established)); n > 0 && err == nil {
				s.Opened().Release()
			}
		},
		func(s *Setup) {
			if n, err := s.Reply([]byte(established)); n > 0 && err == nil {
				s.Opened().Release()
			}
		},
	}
	var s Setup
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		for _, l := range p.ports.lanes {
			l.restUntil.Store(0)
		}
		s.Start(p, nil)
		for steps := 0; ; steps++ {
			if steps > 100 {
				t.Fatal("no end")
			}
			if _, err := s.Next(); err != nil {
				break
			}
			events[r.IntN(len(events))](&s)
		}
	}
	for _, l := range p.ports.lanes {
		l.inUse.Add(-400)
	}
	wantNothingHeld(t, p)
}

func TestAttemptsKnowTheTried(t *testing.T) {
	var s attempts
	members := []int{0, 1, 63, 64, 127, 128, 500, 65}
	for range 2 {
		for i, m := range members {
			if s.has(m) {
				t.Errorf("has %d already", m)
			}
			s.add(m)
			for other := range 600 {
				if s.has(other) != slices.Contains(members[:i+1], other) {
					t.Fatalf("after %v: has %d is %t", members[:i+1], other, s.has(other))
				}
			}
		}
		s.reset()
	}
}
