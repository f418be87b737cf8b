package upstream

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// What this host is short of is nobody else's fault: no gateway and no address is blamed,
// and none of the others is asked for what they cannot give.
func TestShortageBlamesNobody(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENOSPC} {
		t.Run(errno.Error(), func(t *testing.T) {
			p := literalPool(t, 2, Options{})
			s := startSetup(p)
			next(t, s)
			s.Failed(true, errno)
			wantEnd(t, s, "", PhasePick, CauseNone)
			var failure *ConnectError
			if _, err := s.Next(); !errors.As(err, &failure) || !errors.Is(err, errno) {
				t.Errorf("error %v", err)
			}
			wantNothingHeld(t, p)
			for _, g := range p.gateways {
				if !g.health.usable(time.Now()) || g.endpoints.addrs[0].failing() {
					t.Errorf("%s is blamed", g.Name)
				}
			}
		})
	}
}

// An address that was refused before the shortage is blamed all the same.
func TestShortageAfterARefusal(t *testing.T) {
	p := resolvedPool(t, Options{}, "192.0.2.1", "192.0.2.2")
	s := startSetup(p)
	first := next(t, s)
	s.Failed(true, syscall.ECONNREFUSED)
	next(t, s)
	s.Failed(true, syscall.EMFILE)
	wantEnd(t, s, "gw", PhasePick, CauseNone)
	for _, ep := range p.gateways[0].endpoints.addrs {
		if ep.failing() != (ep.addr == first.Addr) {
			t.Errorf("%s failing: %t", ep.addr, ep.failing())
		}
	}
	wantNothingHeld(t, p)
}

// The blocking way says it in its own words.
func TestShortageOfADialer(t *testing.T) {
	var w way
	w.start(append(w.buf[:0], &endpoint{family: new(family)}), 0, momentOf(time.Now().Add(time.Hour)))
	w.missed(&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}, true, time.Now())
	if failure := w.failure(false); failure.Phase != PhasePick || failure.retryable() || blameOf(failure) != blameNothing {
		t.Errorf("failure %v", failure)
	}
}
