package integration

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// gatewayNames are those of a fleet's gateways.
var gatewayNames = []string{"gateway-a", "gateway-b", "gateway-c"}

// balanced is two relays whose gateways are the same by name, and stand in another order.
type balanced struct {
	relays   []*lab.Relay
	gateways map[string]*standIn
	target   string
}

// balancedKeys is how many customers, addresses or sessions there are: that all are with two of three gateways is unlikely, and never happens
// with these names, for hashes are the same each time.
const balancedKeys = 24

func startBalanced(t *testing.T, balance string) *balanced {
	t.Helper()
	b := &balanced{gateways: map[string]*standIn{}, target: startEcho(t)}
	accounts := "accounts:\n"
	for i := range balancedKeys {
		accounts += fmt.Sprintf("  - {name: user%d, password: user-password}\n", i)
	}
	for _, name := range gatewayNames {
		b.gateways[name] = startStandIn(t, upstreamtest.DefaultBrand, [2]int{}, nil)
	}
	for relay := range 2 {
		env := lab.Env{
			"BALANCE": balance, "HEALTH_INTERVAL": "1s", "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accounts), "VENDOR_MARKS": upstreamtest.DefaultBrand,
		}
		for i, name := range gatewayNames {
			if relay == 1 {
				i = len(gatewayNames) - 1 - i
			}
			env[fmt.Sprintf("UPSTREAMS_%d_URL", i)] = fmt.Sprintf("http://%s:%s@%s", operatorName, operatorSecret, b.gateways[name].vendors[0].Addr())
			env[fmt.Sprintf("UPSTREAMS_%d_NAME", i)] = name
			env[fmt.Sprintf("UPSTREAMS_%d_USERNAME", i)] = "{login}{?session:-session-{session}}"
		}
		b.relays = append(b.relays, startRelay(t, env))
	}
	return b
}

// balancedKey is a customer as one exchange shows him.
type balancedKey struct{ user, from string }

// ask opens a tunnel through a relay, and returns which gateway it went to and with which login.
func (b *balanced) ask(t *testing.T, relay *lab.Relay, key balancedKey) (gateway, login string) {
	t.Helper()
	d := net.Dialer{Timeout: clientLimit, LocalAddr: &net.TCPAddr{IP: net.ParseIP(key.from)}}
	conn, err := d.Dial("tcp4", relay.Addr)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, conn)
	defer func() { _ = c.Close() }() // what it did was seen
	if got := c.mustConnect(t, b.target, key.user, "user-password"); got.status != http.StatusOK {
		t.Fatalf("%+v: %+v", key, got)
	}
	if err := c.ping("balanced"); err != nil {
		t.Fatal(err)
	}
	for name, s := range b.gateways {
		for _, told := range s.news(t) {
			if gateway != "" {
				t.Errorf("%+v: %s and %s were asked", key, gateway, name)
			}
			gateway, login = name, told.username
		}
	}
	return gateway, login
}

// place asks for each key, at both relays in turn, and returns the gateways by key. It wants the same at both.
func (b *balanced) place(t *testing.T, keys []balancedKey) map[balancedKey]string {
	t.Helper()
	placed := map[balancedKey]string{}
	for _, key := range keys {
		gateway, login := b.ask(t, b.relays[0], key)
		placed[key] = gateway
		for _, relay := range []*lab.Relay{b.relays[1], b.relays[0]} {
			if g, l := b.ask(t, relay, key); g != gateway || l != login {
				t.Errorf("%+v is with %s as %s, and with %s as %s", key, gateway, login, g, l)
			}
		}
	}
	return placed
}

// TestBalanceOverRelays finds every customer, address or session at the same gateway, whichever relay he comes through.
func TestBalanceOverRelays(t *testing.T) {
	t.Parallel()
	byAddress := func(i int) balancedKey { return balancedKey{fmt.Sprint("user", i%3), fmt.Sprint("127.77.8.", 1+i)} }
	byAccount := func(i int) balancedKey {
		return balancedKey{fmt.Sprint("user", i), fmt.Sprint("127.77.9.", 1+i%3)}
	}
	bySession := func(i int) balancedKey {
		return balancedKey{fmt.Sprintf("user7-session-s%d", i), fmt.Sprint("127.77.10.", 1+i%3)}
	}
	for name, tc := range map[string]struct {
		balance string
		key     func(i int) balancedKey
	}{
		"addresses":                {"ip_hash", byAddress},
		"accounts":                 {"user_hash", byAccount},
		"sessions of round_robin":  {"round_robin", bySession},
		"sessions of least_conn":   {"least_conn", bySession},
		"sessions over addresses":  {"ip_hash", bySession},
		"sessions over an account": {"user_hash", bySession},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBalanced(t, tc.balance)
			var keys []balancedKey
			for i := range balancedKeys {
				keys = append(keys, tc.key(i))
			}
			placed := b.place(t, keys)
			if used := slices.Compact(slices.Sorted(maps.Values(placed))); len(used) != len(gatewayNames) {
				t.Errorf("only %v are used", used)
			}
			b.checkLoss(t, keys, placed)
		})
	}
}

// checkLoss takes a gateway away: its keys alone move, to both others, and come back with it.
func (b *balanced) checkLoss(t *testing.T, keys []balancedKey, placed map[balancedKey]string) {
	t.Helper()
	const lost = "gateway-b"
	s := b.gateways[lost]
	addr := s.vendors[0].Addr()
	if err := s.vendors[0].Close(); err != nil {
		t.Fatal(err)
	}
	b.waitUp(t, lost, 0)
	moved := map[string]int{}
	for key, gateway := range b.place(t, keys) {
		switch {
		case placed[key] == lost && gateway != lost:
			moved[gateway]++
		case placed[key] != gateway:
			t.Errorf("%+v was with %s and is with %s", key, placed[key], gateway)
		}
	}
	if len(moved) != 2 {
		t.Errorf("the lost gateway's keys have moved to %v", moved)
	}
	again, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() }) // what it did was seen
	s.vendors[0], s.seen[0] = again, 0
	b.waitUp(t, lost, 1)
	for key, gateway := range b.place(t, keys) {
		if gateway != placed[key] {
			t.Errorf("%+v was with %s and is with %s", key, placed[key], gateway)
		}
	}
}

// waitUp waits until both relays see a gateway so; probes tell them.
func (b *balanced) waitUp(t *testing.T, gateway string, want float64) {
	t.Helper()
	for _, relay := range b.relays {
		lab.Wait(t, 30*time.Second, "the relays to see the gateway", func() bool {
			up, _ := relay.Metric(t, fmt.Sprintf("maskrelay_upstream_up{upstream=%q}", gateway))
			return up == want
		})
	}
}
