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
	ports, err := newLocalPorts(Options{})
	if err != nil {
		panic(err) // the zero options are valid
	}
	return newEndpoints(Gateway{Host: "gw.example", Port: "7777"}, lookup, 5*time.Second, ports)
}

// get waits for the addresses, all of them.
func (e *endpoints) get(ctx context.Context) ([]netip.AddrPort, error) {
	g := gateway{endpoints: e}
	eps, err := g.await(ctx, make([]*endpoint, 0, resolveMaxAddrs))
	addrs := make([]netip.AddrPort, len(eps))
	for i, ep := range eps {
		addrs[i] = ep.addr
	}
	return addrs, err
}

// report marks an address as reached or not.
func (e *endpoints) report(addr netip.Addr, reached bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ep := range e.addrs {
		if ep.addr.Addr() == addr {
			ep.report(reached, time.Now())
		}
	}
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
		e.close()
		if asked != 1 {
			t.Errorf("asked %d times within the TTL", asked)
		}
		broken = true
		time.Sleep(resolveTTL + time.Second) // synctest's clock
		get()
		e.close()
		get()
		e.close()
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
	e.close()
}

// A name server that hangs costs nobody who can do with the old answer.
func TestEndpointsServeTheOldAnswerWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		first := true
		e := testEndpoints(func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			if first {
				first = false
				return addrs("192.0.2.1"), nil
			}
			select {
			case <-hang:
				return addrs("192.0.2.2"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		_, err := e.get(t.Context())
		must(t, err)
		e.close()
		time.Sleep(resolveTTL + time.Second)
		before := time.Now()
		got, err := e.get(t.Context())
		if err != nil || got[0].Addr() != addrs("192.0.2.1")[0] || time.Since(before) != 0 {
			t.Errorf("%v, %v after %s", got, err, time.Since(before))
		}
		close(hang)
		e.close()
		got, err = e.get(t.Context())
		if err != nil || got[0].Addr() != addrs("192.0.2.2")[0] {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestEndpointsThatFailedComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := addrs("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "192.0.2.1", "192.0.2.2")
		e := testEndpoints(func(context.Context, string, string) ([]netip.Addr, error) { return all, nil })
		_, err := e.get(t.Context())
		must(t, err)
		for _, a := range all[:4] {
			e.report(a, false)
		}
		for range 12 {
			got, err := e.get(t.Context())
			must(t, err)
			if len(got) != 6 || !got[0].Addr().Is4() || !got[1].Addr().Is4() {
				t.Fatalf("order %v", got)
			}
		}
		e.report(all[0], true)
		time.Sleep(addressCooldown / 2)
		seen := 0
		for range 12 {
			got, err := e.get(t.Context())
			must(t, err)
			if got[0].Addr() == all[0] {
				seen++
			}
		}
		if seen == 0 {
			t.Error("an address that was reached again stays last")
		}
		e.close()
	})
}
