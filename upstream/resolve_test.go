package upstream

import (
	"context"
	"errors"
	"net/netip"
	"slices"
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

type lookupFunc = func(ctx context.Context, network, host string) ([]netip.Addr, error)

func testEndpoints(t *testing.T, look lookupFunc) *endpoints {
	t.Helper()
	timeless, err := Options{Lookup: look}.lookup()
	must(t, err)
	return endpointsOf(t, timeless)
}

func endpointsOf(t *testing.T, look lookup) *endpoints {
	t.Helper()
	ports, err := newLocalPorts(Options{})
	must(t, err)
	e := newEndpoints(Gateway{Host: "gw.example", Port: "7777"}, look, ports)
	t.Cleanup(e.close)
	return e
}

// scripted is a name server that says what it was told to say.
type scripted struct {
	mu    sync.Mutex
	found answer
	err   error
	asked int
}

func (s *scripted) say(found answer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found, s.err = found, err
}

// times is how often it was asked since the last call.
func (s *scripted) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

func (s *scripted) lookup(context.Context, string, bool) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.found, s.err
}

// proven says that both families work.
func (e *endpoints) proven(now time.Time) {
	e.families[0].report(true, now)
	e.families[1].report(true, now)
}

// settle waits for the look-up under way.
func (e *endpoints) settle() { e.asks.Wait() }

// get waits for the addresses, all of them.
func (e *endpoints) get(ctx context.Context) ([]netip.AddrPort, error) {
	g := gateway{endpoints: e}
	eps, err := g.await(ctx, make([]*endpoint, 0, resolveMaxAddrs), 0)
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
	e := testEndpoints(t, func(context.Context, string, string) ([]netip.Addr, error) {
		return addrs("192.0.2.1", "192.0.2.2", "2001:db8::1"), nil
	})
	first := map[string]int{}
	_, err := e.get(t.Context())
	must(t, err)
	e.proven(time.Now())
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
	e := testEndpoints(t, func(context.Context, string, string) ([]netip.Addr, error) {
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
		works := answer{addrs: addrs("192.0.2.1"), ttl: 20 * time.Second}
		server := &scripted{found: works}
		e := endpointsOf(t, server.lookup)
		get := func() {
			t.Helper()
			if got, err := e.get(t.Context()); err != nil || got[0].String() != "192.0.2.1:7777" {
				t.Fatalf("%v, %v", got, err)
			}
		}
		wantAsked := func(least, most int) {
			t.Helper()
			synctest.Wait()
			if asked := server.times(); asked < least || asked > most {
				t.Errorf("asked %d times, want %d to %d", asked, least, most)
			}
		}
		get()
		get()
		time.Sleep(14 * time.Second) // synctest's clock
		wantAsked(1, 1)
		began := time.Now()
		server.say(answer{}, errLookup)
		time.Sleep(5*time.Second + 50*time.Millisecond) // to the end of the TTL
		wantAsked(1, 2)
		get()
		time.Sleep(2 * time.Minute)
		wantAsked(4, 7) // after 2, 4, 8, 16 s and then each 30 s
		get()
		_, known := e.status()
		if known.Error != errLookup.Error() || known.Failing.Sub(began) > 5*time.Second || known.TTLSeconds != 20 ||
			time.Since(known.Answered) < 2*time.Minute {
			t.Errorf("known is %+v", known)
		}
		server.say(works, nil)
		time.Sleep(36 * time.Second)
		synctest.Wait()
		if _, known := e.status(); known.Error != "" || !known.Failing.IsZero() || time.Since(known.Answered) > 36*time.Second {
			t.Errorf("then it is %+v", known)
		}
		get()
	})
}

// Without an address somebody waits: the pauses do not grow for him.
func TestEndpointsAskAgainForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		e := endpointsOf(t, func(_ context.Context, _ string, waited bool) (answer, error) {
			if asked++; !waited {
				t.Error("nobody waits?")
			}
			return answer{}, errLookup
		})
		for range 60 {
			if _, err := e.get(t.Context()); !errors.Is(err, errLookup) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if asked < 28 || asked > 40 {
			t.Errorf("asked %d times in a minute", asked)
		}
	})
}

func TestEndpointsKeepTTLs(t *testing.T) {
	tests := map[string]struct{ ttl, least, most time.Duration }{
		"floor":   {0, 3750 * time.Millisecond, 5 * time.Second},
		"given":   {time.Minute, 45 * time.Second, time.Minute},
		"ceiling": {24 * time.Hour, 225 * time.Second, 5 * time.Minute},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			seen := map[time.Duration]bool{}
			for range 10 {
				synctest.Test(t, func(t *testing.T) {
					var at []time.Time
					e := endpointsOf(t, func(context.Context, string, bool) (answer, error) {
						at = append(at, time.Now())
						return answer{addrs: addrs("192.0.2.1"), ttl: test.ttl}, nil
					})
					_, err := e.get(t.Context())
					must(t, err)
					time.Sleep(test.most)
					synctest.Wait()
					if len(at) < 2 {
						t.Fatal("not renewed")
					}
					pause := at[1].Sub(at[0])
					if seen[pause] = true; pause < test.least || pause > test.most {
						t.Errorf("asked again after %s", pause)
					}
				})
			}
			if len(seen) < 5 {
				t.Errorf("%d pauses of 10 differ: all relays would ask at once", len(seen))
			}
		})
	}
}

func TestEndpointsTakeUsableAddressesOnly(t *testing.T) {
	tests := map[string]struct {
		found []netip.Addr
		want  []string
	}{
		"twice":       {addrs("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), []string{"192.0.2.1:7777", "192.0.2.2:7777"}},
		"unspecified": {addrs("0.0.0.0", "::", "192.0.2.1"), []string{"192.0.2.1:7777"}},
		"multicast":   {addrs("224.0.0.1", "ff02::1", "192.0.2.1"), []string{"192.0.2.1:7777"}},
		"none left":   {addrs("0.0.0.0"), nil},
		"no address":  {[]netip.Addr{{}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := testEndpoints(t, func(context.Context, string, string) ([]netip.Addr, error) { return test.found, nil })
			_, err := e.get(t.Context())
			if (err == nil) != (test.want != nil) {
				t.Fatal(err)
			}
			var got []string
			for _, ep := range e.addrs {
				got = append(got, ep.addr.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
	many := testEndpoints(t, func(context.Context, string, string) ([]netip.Addr, error) {
		all := make([]netip.Addr, 1000)
		for i := range all {
			all[i] = netip.AddrFrom4([4]byte{192, 0, byte(2 + i/250), byte(1 + i%250)})
		}
		return all, nil
	})
	if got, err := many.get(t.Context()); err != nil || len(got) != resolveMaxAddrs {
		t.Errorf("%d addresses, %v", len(got), err)
	}
}

// What nobody said anything about is not forgotten.
func TestEndpointsKeepTheFamilyThatWasNotHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &scripted{found: answer{addrs: addrs("192.0.2.1", "2001:db8::1")}}
		e := endpointsOf(t, server.lookup)
		want := func(all ...string) {
			t.Helper()
			time.Sleep(resolveMinTTL)
			synctest.Wait()
			statuses, _ := e.status()
			var got []string
			for _, s := range statuses {
				got = append(got, netip.MustParseAddrPort(s.Address).Addr().String())
			}
			if !slices.Equal(got, all) {
				t.Errorf("%v, want %v", got, all)
			}
		}
		_, err := e.get(t.Context())
		must(t, err)
		server.say(answer{addrs: addrs("192.0.2.2"), unheard: [2]bool{false, true}, ttl: time.Hour}, nil)
		want("192.0.2.2", "2001:db8::1")
		server.say(answer{addrs: addrs("192.0.2.2")}, nil)
		time.Sleep(resolveMaxRetry) // it asks again soon
		want("192.0.2.2")
	})
}

func TestCloseEndsALookup(t *testing.T) {
	asked := make(chan struct{})
	e := testEndpoints(t, func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, asking, _ := e.ready(nil, 0, time.Now())
	<-asked
	e.close()
	<-asking
	if _, _, err := e.ready(nil, 0, time.Now()); !errors.Is(err, context.Canceled) {
		t.Errorf("after that: %v", err)
	}
}

func TestEndpointsFailure(t *testing.T) {
	tests := map[string]lookupFunc{
		"error": func(context.Context, string, string) ([]netip.Addr, error) { return nil, errLookup },
		"empty": func(context.Context, string, string) ([]netip.Addr, error) { return nil, nil },
	}
	for name, lookup := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := testEndpoints(t, lookup).get(t.Context()); err == nil {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestEndpointsWaitersObeyTheirContext(t *testing.T) {
	release := make(chan struct{})
	asking := make(chan struct{})
	e := testEndpoints(t, func(context.Context, string, string) ([]netip.Addr, error) {
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
	e.settle()
}

// A name server that hangs costs nobody who can do with the old answer.
func TestEndpointsServeTheOldAnswerWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		first := true
		e := testEndpoints(t, func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
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
		e.settle()
		time.Sleep(unknownTTL)
		before := time.Now()
		got, err := e.get(t.Context())
		if err != nil || got[0].Addr() != addrs("192.0.2.1")[0] || time.Since(before) != 0 {
			t.Errorf("%v, %v after %s", got, err, time.Since(before))
		}
		close(hang)
		e.settle()
		got, err = e.get(t.Context())
		if err != nil || got[0].Addr() != addrs("192.0.2.2")[0] {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestEndpointsThatFailedComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := addrs("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "192.0.2.1", "192.0.2.2")
		e := testEndpoints(t, func(context.Context, string, string) ([]netip.Addr, error) { return all, nil })
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
		e.settle()
	})
}
