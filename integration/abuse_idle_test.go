package integration

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

const (
	crowdConns = 6000
	crowdAddrs = 120
	// crowdWorth is how many idle connections a relay must bear the pressure of; what one costs is multiplied out for as many.
	crowdWorth = 100_000
	neighbours = 50
	// crowdShare is what of a relay's places the idle connections of one address have, a quarter, and crowdCome how many may be on their way in or out.
	crowdShare = (abuseConns + 384) / 4
	crowdCome  = 50
)

// TestIdleCrowd has thousands connect, begin a head and go quiet, from many addresses and from one. The relay holds no more than it has room for;
// those that waited longest go first, and the neighbours of one address's crowd stay.
func TestIdleCrowd(t *testing.T) {
	for _, tc := range []struct {
		name    string
		address func(i int) string
		secure  bool
		alone   bool
	}{
		{name: "many addresses", address: func(i int) string { return mobAddr(i % crowdAddrs) }},
		{name: "many addresses over TLS", address: func(i int) string { return mobAddr(i % crowdAddrs) }, secure: true},
		{name: "one address", address: func(int) string { return mobAddr(0) }, alone: true},
		{name: "one address over TLS", address: func(int) string { return mobAddr(0) }, secure: true, alone: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startScene(t, lab.Env{"HEADER_TIMEOUT": "30s"}, "")
			addr, text := s.relay.Addr, "C"
			if tc.secure {
				addr, text = s.secure, helloOf(t)[:10]
			}
			s.endure(t, func(m *mob) {
				idle := m.neighbours(s.relay.Addr)
				before := lab.ProcessMemory(t, s.relay.PID()).Now
				held := m.hold(crowdConns, func(i int) (net.Conn, error) { return m.say(addr, tc.address(i), text) })
				room := abuseConns + abuseSpare
				if tc.alone {
					room = crowdShare + crowdCome
				}
				var left []int
				lab.Wait(t, 10*time.Second, "the relay to end those that it has no room for", func() bool {
					left = alive(held)
					return len(left) <= room
				})
				grown := lab.ProcessMemory(t, s.relay.PID()).Now - before
				t.Logf("%d of %d left, the oldest one is number %d", len(left), len(held), slices.Min(append(left, len(held))))
				if !tc.alone { // else most of what has grown is from those who are gone
					each := grown / int64(max(len(left), 1))
					t.Logf("%d bytes each: %.0f MiB for %d, if there were room for so many", each, mib(each*crowdWorth), crowdWorth)
				}
				if first := slices.Min(append(left, crowdConns)); first < crowdConns/2 {
					t.Errorf("number %d is left of %d, of which %d are: it waited longest", first, crowdConns, len(left))
				}
				if n := len(alive(idle)); tc.alone && n < neighbours {
					t.Errorf("the crowd of one address cost others %d of their %d idle connections", neighbours-n, neighbours)
				}
			})
		})
	}
}

// neighbours are idle connections from addresses of their own, kept open after a 407.
func (m *mob) neighbours(addr string) []net.Conn {
	all := m.hold(neighbours, func(i int) (net.Conn, error) {
		return m.say(addr, mobAddr(1000+i), "CONNECT shop.target.example:443 HTTP/1.1\r\nHost: shop.target.example:443\r\n\r\n")
	})
	if len(all) < neighbours {
		m.t.Errorf("%d of %d neighbours could connect", len(all), neighbours)
	}
	for _, c := range all {
		got, err := newClient(m.t, c).readReply()
		if err != nil || got.status != http.StatusProxyAuthRequired {
			m.t.Errorf("a neighbour got %+v %v", got, err)
		}
	}
	return all
}

// TestBurstBesideCrowd fills a relay with idle connections of as many addresses. A customer who then opens several connections at once, as a browser
// does, has more of them than each of the others: that is no reason to end any.
func TestBurstBesideCrowd(t *testing.T) {
	const bursts, atOnce = 5, 20
	s := startScene(t, lab.Env{"HEADER_TIMEOUT": "30s"}, "")
	m := newMob(t)
	defer m.end()
	held := m.hold(crowdConns/2, func(i int) (net.Conn, error) { return m.say(s.relay.Addr, mobAddr(i), "C") })
	lab.Wait(t, 10*time.Second, "the relay to be full of them", func() bool { return len(alive(held)) <= abuseConns+abuseSpare })
	head := "CONNECT shop.target.example:443 HTTP/1.1\r\nHost: shop.target.example:443\r\n" + rogueLogin + basic("calm", "calm-password") + "\r\n\r\n"
	burst := newMob(t)
	defer burst.end()
	for range bursts {
		var all sync.WaitGroup
		for range atOnce / 2 {
			all.Go(func() { burst.ask(s.relay.Addr, calmAddr, head) })
			all.Go(func() { burst.askSecurely(s, calmAddr, head) })
		}
		all.Wait()
	}
	if right, _ := burst.answers(http.StatusOK); right < bursts*atOnce {
		t.Errorf("%v, with %d asked for", burst, bursts*atOnce)
	}
}
