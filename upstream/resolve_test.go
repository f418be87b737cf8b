package upstream

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errLookup = errors.New("no name server")

func addrs(ss ...string) []netip.Addr {
	out := make([]netip.Addr, len(ss))
	for i, s := range ss {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

func testEndpoints(lookup lookupFunc) *endpoints {
	return newEndpoints(Gateway{Host: "gw.example", Port: "7777"}, lookup, 5*time.Second)
}

func TestEndpointsSpreadOverAllAddresses(t *testing.T) {
	e := testEndpoints(func(context.Context, string, string) ([]netip.Addr, error) {
		return addrs("192.0.2.1", "192.0.2.2", "2001:db8::1"), nil
	})
	first := map[string]int{}
	for range 30 {
		got, err := e.get(t.Context())
		must(t, err)
		if len(got) != 3 {
			t.Fatalf("%d addresses", len(got))
		}
		first[got[0].String()]++
	}
	for _, a := range []string{"192.0.2.1:7777", "192.0.2.2:7777", "[2001:db8::1]:7777"} {
		if first[a] != 10 {
			t.Errorf("%s came first %d times of 30", a, first[a])
		}
	}
}

func TestEndpointsAskOnceAtATime(t *testing.T) {
	var asked atomic.Int32
	answer := make(chan struct{})
	e := testEndpoints(func(context.Context, string, string) ([]netip.Addr, error) {
		asked.Add(1)
		<-answer
		return addrs("192.0.2.1"), nil
	})
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if _, err := e.get(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return asked.Load() == 1 })
	close(answer)
	all.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestEndpointsOutliveTheirNameServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, broken := 0, false
		e := testEndpoints(func(context.Context, string, string) ([]netip.Addr, error) {
			if asked++; broken {
				return nil, errLookup
			}
			return addrs("192.0.2.1"), nil
		})
		get := func() {
			t.Helper()
			if got, err := e.get(t.Context()); err != nil || got[0].String() != "192.0.2.1:7777" {
				t.Fatalf("%v, %v", got, err)
			}
		}
		get()
		get()
		if asked != 1 {
			t.Errorf("asked %d times within the TTL", asked)
		}
		broken = true
		time.Sleep(resolveTTL + time.Second) // synctest's clock
		get()
		get()
		if asked != 2 {
			t.Errorf("asked %d times, a failure is not remembered", asked)
		}
	})
}

func TestEndpointsFailure(t *testing.T) {
	tests := map[string]lookupFunc{
		"error": func(context.Context, string, string) ([]netip.Addr, error) { return nil, errLookup },
		"empty": func(context.Context, string, string) ([]netip.Addr, error) { return nil, nil },
	}
	for name, lookup := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := testEndpoints(lookup).get(t.Context()); err == nil {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestEndpointsWaitersObeyTheirContext(t *testing.T) {
	release := make(chan struct{})
	asking := make(chan struct{})
	e := testEndpoints(func(context.Context, string, string) ([]netip.Addr, error) {
		close(asking)
		<-release
		return addrs("192.0.2.1"), nil
	})
	var first sync.WaitGroup
	first.Go(func() { _, _ = e.get(t.Context()) })
	<-asking
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.get(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(release)
	first.Wait()
}
