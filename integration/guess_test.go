package integration

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// fromBalancer lets tests be the load balancer, which says whose connection it is.
var fromBalancer = lab.Env{"PROXY_PROTOCOL_FROM": "127.0.0.0/8"}

// clientNumber is one of many client addresses.
func clientNumber(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(64 + n>>16), byte(n >> 8), byte(n)})
}

// dialAs connects to a relay that takes this address from its balancer.
func dialAs(addr string, client netip.Addr) (*client, error) {
	c, err := dialProxy(addr)
	if err != nil {
		return nil, err
	}
	family, balancer := "TCP4", "10.4.5.6"
	if client.Is6() {
		family, balancer = "TCP6", "2001:db8::9"
	}
	if _, err := fmt.Fprintf(c, "PROXY %s %s %s 1000 8080\r\n", family, client, balancer); err != nil {
		_ = c.Close() // the first error says more
		return nil, err
	}
	return c, nil
}

// askAs is ask for a client behind the balancer.
func askAs(t testing.TB, addr string, from netip.Addr, name, password string) reply {
	t.Helper()
	c, err := dialAs(addr, from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the answer is read
	got, err := c.connect("shop.target.example:443", name, password)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// startGuessed starts a relay behind the test as its balancer.
func startGuessed(t *testing.T, change lab.Env) *lab.Relay {
	t.Helper()
	env := lab.Env{"UPSTREAM": startSource(t), "ACCOUNTS": "alice:a-password,bob:b-password"}
	for _, more := range []lab.Env{fromBalancer, change} {
		for name, value := range more {
			env[name] = value
		}
	}
	return startRelay(t, env)
}

// TestGuessingFromOneClient: after so many failures a minute a client is refused unseen, in the words of any 429, wherever he is not known.
func TestGuessingFromOneClient(t *testing.T) {
	t.Parallel()
	relay := startGuessed(t, lab.Env{"LOGIN_FAILURES_PER_ADDRESS": "10"})
	home, other := clientNumber(1), clientNumber(2)
	if got := askAs(t, relay.Addr, home, "alice", "a-password"); got.status != http.StatusOK {
		t.Fatalf("before: %+v", got)
	}
	start := time.Now()
	for i := range 10 {
		checkOurReply(t, askAs(t, relay.Addr, home, "guess"+strconv.Itoa(i), "x"), http.StatusProxyAuthRequired)
	}
	if time.Since(start) > 5*time.Second {
		t.Skip("the machine is too slow: a failure is forgiven every six seconds")
	}
	throttled := askAs(t, relay.Addr, home, "guess11", "x")
	checkOurReply(t, throttled, http.StatusTooManyRequests)
	if seconds, err := strconv.Atoi(throttled.header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("Retry-After %q", throttled.header.Get("Retry-After"))
	}
	for _, tc := range []struct {
		what           string
		from           netip.Addr
		name, password string
		status         int
	}{
		{"a customer known from there", home, "alice", "a-password", http.StatusOK},
		{"the same with a wrong password", home, "alice", "wrong", http.StatusProxyAuthRequired},
		{"a customer not known from there", home, "bob", "b-password", http.StatusTooManyRequests},
		{"the same from elsewhere", other, "bob", "b-password", http.StatusOK},
		{"a guess from elsewhere", other, "guess1", "x", http.StatusProxyAuthRequired},
	} {
		if got := askAs(t, relay.Addr, tc.from, tc.name, tc.password); got.status != tc.status {
			t.Errorf("%s: status %d, want %d", tc.what, got.status, tc.status)
		}
	}
	c, err := dialAs(relay.Addr, home)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // everything was read
	checkOurReply(t, c.mustGet(t, "http://shop.target.example/", basic("guess12", "x")), http.StatusTooManyRequests)
	if n, _ := relay.Metric(t, `maskrelay_login_throttled_total{by="address"}`); n != 3 {
		t.Errorf("%v were throttled by address, want 3", n)
	}
	waitOutcomes(t, relay, "", "login_throttled", 3)
}

// TestGuessingFromIPv6 counts a network of 2^64 addresses as one client.
func TestGuessingFromIPv6(t *testing.T) {
	t.Parallel()
	relay := startGuessed(t, lab.Env{"LOGIN_FAILURES_PER_ADDRESS": "3"})
	statuses := ""
	for i := range 5 {
		from := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%x", i+1))
		statuses += strconv.Itoa(askAs(t, relay.Addr, from, "guess"+strconv.Itoa(i), "x").status) + " "
	}
	if statuses != "407 407 407 429 429 " {
		t.Errorf("statuses %s", statuses)
	}
}

// TestGuessingAtOneName floods a name from many addresses: its owner passes where he is known.
func TestGuessingAtOneName(t *testing.T) {
	t.Parallel()
	relay := startGuessed(t, lab.Env{"LOGIN_FAILURES_PER_NAME": "30"})
	home := clientNumber(1)
	if got := askAs(t, relay.Addr, home, "alice", "a-password"); got.status != http.StatusOK {
		t.Fatalf("before: %+v", got)
	}
	seen := map[int]int{}
	for i := range 60 {
		seen[askAs(t, relay.Addr, clientNumber(100+i), "alice", "guess"+strconv.Itoa(i)).status]++
	}
	// One failure is forgiven every two seconds.
	if seen[407] < 30 || seen[429] < 15 || seen[407]+seen[429] != 60 {
		t.Errorf("statuses %v", seen)
	}
	for _, tc := range []struct {
		what   string
		from   netip.Addr
		name   string
		status int
	}{
		{"the owner where he is known", home, "alice", http.StatusOK},
		{"the owner where he is not", clientNumber(3), "alice", http.StatusTooManyRequests},
		{"somebody else", clientNumber(3), "bob", http.StatusOK},
	} {
		if got := askAs(t, relay.Addr, tc.from, tc.name, tc.name[:1]+"-password"); got.status != tc.status {
			t.Errorf("%s: status %d, want %d", tc.what, got.status, tc.status)
		}
	}
	if n, _ := relay.Metric(t, `maskrelay_login_throttled_total{by="name"}`); n != float64(seen[429]+1) {
		t.Errorf("%v were throttled by name, want %d", n, seen[429]+1)
	}
}

// TestMaxIPs counts a customer's addresses within a window.
func TestMaxIPs(t *testing.T) {
	t.Parallel()
	const accounts = "accounts:\n  - name: alice\n    password: a-password\n    max_ips: 2\n  - name: bob\n    password: b-password\n"
	relay := startGuessed(t, lab.Env{"ACCOUNTS": "", "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accounts), "MAX_IPS_WINDOW": "3s", "USER_MAX_IPS": "3"})
	status := func(n int, name string) int {
		return askAs(t, relay.Addr, clientNumber(n), name, name[:1]+"-password").status
	}
	var got []string
	for _, n := range []int{1, 2, 3, 1, 2, 3} {
		got = append(got, strconv.Itoa(status(n, "alice")))
	}
	for _, n := range []int{1, 2, 3, 4} {
		got = append(got, strconv.Itoa(status(n, "bob")))
	}
	if statuses := strings.Join(got, " "); statuses != "200 200 403 200 200 403 200 200 200 403" {
		t.Errorf("statuses %s", statuses)
	}
	checkOurReply(t, askAs(t, relay.Addr, clientNumber(3), "alice", "a-password"), http.StatusForbidden)
	waitOutcomes(t, relay, "alice", "cap_addresses", 3)
	lab.Wait(t, 15*time.Second, "the window to pass for the others", func() bool { return status(3, "alice") == http.StatusOK })
}

// TestMaxIPsOfFleet counts the addresses of two relays together.
func TestMaxIPsOfFleet(t *testing.T) {
	t.Parallel()
	redis := lab.StartRedis(t)
	var relays []*lab.Relay
	for i := range 2 {
		relays = append(relays, startGuessed(t, lab.Env{"REDIS_URL": redis.URL(), "USER_MAX_IPS": "2", "NODE_NAME": "relay" + strconv.Itoa(i)}))
	}
	var got []string
	for i, n := range []int{1, 2, 3, 4, 1, 2, 1} {
		got = append(got, strconv.Itoa(askAs(t, relays[i%2].Addr, clientNumber(n), "alice", "a-password").status))
	}
	if statuses := strings.Join(got, " "); statuses != "200 200 403 403 200 200 200" {
		t.Errorf("statuses %s", statuses)
	}
}

// TestMaxIPsAndOpenTunnels leaves a tunnel alone when its address is not among the lately seen any more.
func TestMaxIPsAndOpenTunnels(t *testing.T) {
	t.Parallel()
	relay := startGuessed(t, lab.Env{"USER_MAX_IPS": "1", "MAX_IPS_WINDOW": "1s"})
	c, err := dialAs(relay.Addr, clientNumber(1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // what it did was seen
	if got := c.mustConnect(t, "shop.target.example:443", "alice", "a-password"); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	lab.Wait(t, 10*time.Second, "another address", func() bool {
		return askAs(t, relay.Addr, clientNumber(2), "alice", "a-password").status == http.StatusOK
	})
	m := &mover{client: c}
	m.mustMove(t, 16, 16)
}
