package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// What the tests of a fleet keep secret beside the others' secrets.
const (
	redisUser     = "relays"
	redisPassword = "s3cret-of-the-redis"
	fleetPassword = "s3cret-of-a-fleets-customer"
	laterPassword = "s3cret-of-a-fleets-customer-later"
)

// fleetTarget is what the vendor of a fleet is asked for; it echoes itself.
const fleetTarget = "shop.target.example:443"

// redisRights are those that package fleet's documentation asks for.
var redisRights = []string{"~maskrelay:*", "&maskrelay:*", "+@all", "-@dangerous", "+info"}

// relayFleet is relays with one Redis and one vendor.
type relayFleet struct {
	redis  *lab.Redis // nil if the caller's environment names another
	vendor *lab.LoadVendor
	relays []*lab.Relay
}

// fleetConfig says what to start. Of the customers each is one line of the accounts file behind the name and the password, which is
// fleetPassword for all.
type fleetConfig struct {
	relays    int
	build     lab.Build // "" is lab.Tested
	customers map[string]string
	env       lab.Env
}

// accounts returns the text of an accounts file.
func (c fleetConfig) accounts() string {
	var text strings.Builder
	text.WriteString("accounts:\n")
	for name, more := range c.customers {
		fmt.Fprintf(&text, "  - {name: %s, password: %q, %s}\n", name, fleetPassword, more)
	}
	return text.String()
}

// startFleet starts a Redis, unless env has REDIS_URL, and relays that find each other. The relays' Redis user has a password. REDIS_DOWN is
// closed unless env says otherwise: then no cap is exceeded, though on a busy machine Redis may seem away for a moment.
func startFleet(t *testing.T, c fleetConfig) *relayFleet {
	t.Helper()
	f := newFleet(t, &c)
	for i := range c.relays {
		f.start(t, c, fmt.Sprint("relay-", i+1))
	}
	f.meet(t)
	return f
}

// newFleet starts what the relays need, and completes c.
func newFleet(t *testing.T, c *fleetConfig) *relayFleet {
	t.Helper()
	f := &relayFleet{vendor: lab.StartLoadVendor(t, fleetPassword, laterPassword, redisPassword)}
	u := url.URL{Scheme: "http", User: url.UserPassword(vendorUser, vendorPassword), Host: f.vendor.Addr}
	env := lab.Env{"UPSTREAM": u.String(), "DRAIN_GRACE": "0s", "REDIS_DOWN": "closed"}
	if len(c.customers) > 0 {
		env["ACCOUNTS_FILE"] = writeFile(t, t.TempDir(), "accounts.yaml", c.accounts())
	}
	if c.env["REDIS_URL"] == "" {
		f.redis = lab.StartRedis(t)
		f.addUser(t)
		env["REDIS_URL"] = f.redis.UserURL(redisUser, redisPassword)
	}
	for name, value := range c.env {
		env[name] = value
	}
	c.env = env
	return f
}

// addUser makes the relays' user.
func (f *relayFleet) addUser(t *testing.T) {
	t.Helper()
	f.redis.AddUser(t, redisUser, redisPassword, redisRights...)
}

// start starts one more relay.
func (f *relayFleet) start(t *testing.T, c fleetConfig, node string) *lab.Relay {
	t.Helper()
	return f.startBy(t, c, node, lab.StartRelay)
}

func (f *relayFleet) startBy(t *testing.T, c fleetConfig, node string, start func(testing.TB, lab.Build, lab.Env) *lab.Relay) *lab.Relay {
	t.Helper()
	build := c.build
	if build == "" {
		build = lab.Tested
	}
	env := lab.Env{"NODE_NAME": node}
	for name, value := range c.env {
		env[name] = value
	}
	r := start(t, build, env)
	t.Cleanup(func() { checkSecrets(t, r) })
	f.relays = append(f.relays, r)
	return r
}

// meet waits until every relay knows of all.
func (f *relayFleet) meet(t *testing.T) {
	t.Helper()
	for _, r := range f.relays {
		lab.Wait(t, 20*time.Second, "the relays to meet", func() bool {
			up, _ := r.Metric(t, "maskrelay_redis_up")
			relays, _ := r.Metric(t, "maskrelay_fleet_relays")
			return up == 1 && int(relays) == len(f.relays)
		})
	}
}

// checkSecrets looks for secrets in what a relay shows: its log, its metrics and its arguments.
func checkSecrets(t *testing.T, r *lab.Relay) {
	t.Helper()
	checkLog(t, r.Process)
	if !r.Running() {
		return
	}
	status, metrics, err := r.Get("/metrics")
	if err != nil || status != http.StatusOK {
		t.Errorf("metrics at the end: %d %v", status, err)
	}
	arguments, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID()))
	if err != nil || len(arguments) == 0 {
		t.Errorf("arguments: %q %v", arguments, err)
	}
	checkNoMarks(t, "metrics of "+r.Name, metrics, secrets())
	checkNoMarks(t, "arguments of "+r.Name, arguments, secrets())
}

// tunnels is the sum over the relays.
func (f *relayFleet) tunnels(t *testing.T) (sum int) {
	t.Helper()
	for _, r := range f.relays {
		sum += r.Tunnels(t)
	}
	return sum
}

// sum is a metric's sum over the relays.
func (f *relayFleet) sum(t *testing.T, metric string) (sum float64) {
	t.Helper()
	for _, r := range f.relays {
		sum += r.Sum(t, metric)
	}
	return sum
}

// open asks a relay for one tunnel and returns it if it was given, else nil; status is the answer's.
func (f *relayFleet) open(t *testing.T, r *lab.Relay, name, password string) (c *client, status int) {
	t.Helper()
	c = mustDial(t, r.Addr)
	got := c.mustConnect(t, fleetTarget, name, password)
	if got.status == http.StatusOK {
		if err := c.ping("through the fleet"); err != nil {
			t.Fatal(err)
		}
		return c, got.status
	}
	checkOurReply(t, got, got.status)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return nil, got.status
}

// wantStatus asks for one tunnel, which stays open and is returned if it is given. Unless 503 is wanted it asks again after one.
func (f *relayFleet) wantStatus(t *testing.T, r *lab.Relay, name string, want int) (c *client) {
	t.Helper()
	var got int
	lab.Poll(20*time.Second, func() bool {
		c, got = f.open(t, r, name, fleetPassword)
		return got == want || got != http.StatusServiceUnavailable
	})
	if got != want {
		t.Errorf("%s: %s got status %d, want %d", r.Name, name, got, want)
	}
	return c
}

// mustOpen is wantStatus of what must be given.
func (f *relayFleet) mustOpen(t *testing.T, r *lab.Relay, name string) *client {
	t.Helper()
	c := f.wantStatus(t, r, name, http.StatusOK)
	if c == nil {
		t.FailNow()
	}
	return c
}

// fill opens n tunnels through r. Slots that lie idle with another relay take a moment to come.
func (f *relayFleet) fill(t *testing.T, r *lab.Relay, name string, n int) (all []*client) {
	t.Helper()
	lab.Wait(t, 20*time.Second, fmt.Sprintf("%d tunnels of %s through %s", n, name, r.Name), func() bool {
		for len(all) < n {
			c, status := f.open(t, r, name, fleetPassword)
			if c == nil {
				if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
					t.Fatalf("%s: %s got status %d", r.Name, name, status)
				}
				return false
			}
			all = append(all, c)
		}
		return true
	})
	return all
}

// mustRefuse asks r for tunnels beyond a cap for a while, longer than it believes what Redis said last.
func (f *relayFleet) mustRefuse(t *testing.T, r *lab.Relay, name string) {
	t.Helper()
	const times = 30 // 10 ms apart
	asked := 0
	lab.Wait(t, 20*time.Second, r.Name+" to ask Redis", func() bool {
		switch c, got := f.open(t, r, name, fleetPassword); {
		case c == nil && got == http.StatusServiceUnavailable: // Redis was late
		case c == nil && got == http.StatusTooManyRequests:
			asked++
		default:
			t.Fatalf("%s: %s got status %d beyond his cap", r.Name, name, got)
		}
		return asked >= times
	})
}

// mustLive uses open tunnels once more, however long ago they were opened.
func mustLive(t *testing.T, all ...*client) {
	t.Helper()
	for _, c := range all {
		if err := c.SetDeadline(time.Now().Add(clientLimit)); err != nil {
			t.Fatal(err)
		}
		if err := c.ping("still here"); err != nil {
			t.Errorf("an open tunnel: %v", err)
		}
	}
}

// ends reports whether a tunnel is closed within the limit.
func ends(c *client, limit time.Duration) bool {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return true
	}
	_, err := c.r.ReadByte()
	return err != nil && !os.IsTimeout(err)
}

// closeAll closes tunnels of the customer's.
func closeAll(t *testing.T, all []*client) {
	t.Helper()
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
