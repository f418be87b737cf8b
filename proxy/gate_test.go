package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"maskrelay/masking"
	"maskrelay/proxy/account"
	"maskrelay/proxy/limit"
	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

// fileAccounts is a configuration whose accounts come from a file, and what writes the file.
func fileAccounts(t *testing.T, text string) (use func(*Config), write func(string)) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "accounts.yaml")
	write = func(text string) { must(t, os.WriteFile(name, []byte(text), 0o600)) }
	write(text)
	store, err := account.NewStore(account.StoreConfig{File: name})
	must(t, err)
	return func(c *Config) { c.Accounts = store }, write
}

const customerEntry = "- {name: " + customerName + ", password: " + customerPassword

// TestGate drives each refusal of the gate, by CONNECT and by a plain request.
func TestGate(t *testing.T) { bothWays(t, testGate) }

func testGate(t *testing.T) {
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	for _, one := range []struct {
		name     string
		accounts string // YAML; "" = the customer alone
		config   func(*Config)
		login    string // "" = the customer's
		target   string // "" = target.test:443
		want     Outcome
		status   int
		fault    *vendor.Fault // of a BadParams
	}{
		{name: "client address", config: func(c *Config) { c.AllowFrom = elsewhere }, want: ClientDenied, status: 403},
		{name: "client address before credentials", config: func(c *Config) { c.AllowFrom = elsewhere }, login: "X: y\r\n", want: ClientDenied, status: 403},
		{name: "no credentials", login: "X: y\r\n", want: AuthRequired, status: 407},
		{name: "wrong password", login: basic(customerName, "wrong"), want: AuthFailed, status: 407},
		{name: "account's address", accounts: "accounts:\n" + customerEntry + ", allow_from: [192.0.2.0/24]}\n", want: ClientDenied, status: 403},
		{name: "disabled", accounts: "accounts:\n" + customerEntry + ", disabled: true}\n", want: AccountDisabled, status: 403},
		{name: "expired", accounts: "accounts:\n" + customerEntry + ", expires: 2020-01-01T00:00:00Z}\n", want: AccountExpired, status: 403},
		{name: "parameters", login: basic(customerName+"-country", customerPassword), want: AuthFailed, status: 407},
		{name: "parameters that the vendor cannot do", login: basic(customerName+"-country-us", customerPassword), want: BadParams, status: 400, fault: &vendor.Fault{Kind: vendor.Unavailable, Key: vendor.Country}},
		{name: "no pairs", login: basic(customerName+"-country-us-nope-x", customerPassword), want: BadParams, status: 400, fault: &vendor.Fault{Kind: vendor.Malformed}},
		{name: "a pool that is not his", login: basic(customerName+"-pool-gold", customerPassword), want: BadParams, status: 400, fault: &vendor.Fault{Kind: vendor.Unavailable, Key: vendor.Pool}},
		{name: "target's port", config: func(c *Config) { c.Targets, _ = NewTargets(TargetsConfig{Ports: []uint16{80}}) }, target: "target.test:444", want: TargetDenied, status: 403},
		{name: "target's address", config: func(c *Config) { c.Targets, _ = NewTargets(TargetsConfig{}) }, target: "127.0.0.1:443", want: TargetDenied, status: 403},
		{name: "wrong password before target", config: func(c *Config) { c.Targets, _ = NewTargets(TargetsConfig{}) }, target: "127.0.0.1:443", login: basic(customerName, "wrong"), want: AuthFailed, status: 407},
	} {
		t.Run(one.name, func(t *testing.T) {
			s := setup{config: one.config}
			if one.accounts != "" {
				s.config, _ = fileAccounts(t, one.accounts)
			}
			r := newRig(t, s)
			if one.login == "" {
				one.login = login()
			}
			if one.target == "" {
				one.target = "target.test:443"
			}
			if got := r.server.replies.of(one.want).Status(); got != one.status {
				t.Errorf("%s has status %d in the table, want %d", one.want, got, one.status)
			}
			for _, first := range []string{"CONNECT " + one.target, "GET http://" + one.target + "/"} {
				closing := one.status == 400 || one.status == 403 && first[0] == 'C'
				c := r.dial()
				c.send(first + " HTTP/1.1\r\nHost: target.test\r\n" + one.login + "\r\n")
				c.expect(string(r.server.replyTo(one.want, one.fault).Bytes(closing)))
			}
			for n := range 2 {
				if o := r.outcome(n + 1); o != one.want {
					t.Errorf("outcome %s, want %s", o, one.want)
				}
			}
			if r.vendor.Accepted() != 0 {
				t.Error("the vendor was asked")
			}
		})
	}
}

func TestEveryOutcomeHasItsReply(t *testing.T) {
	r := newReplies(testBrand)
	for outcome, status := range statusOf {
		if r[status] == nil || r.of(outcome).Status() != status {
			t.Errorf("%s: no reply with status %d", outcome, status)
		}
	}
	if r.of("unheard of").Status() != 502 {
		t.Error("an unknown outcome is not a 502")
	}
}

func TestConnectionCap(t *testing.T) { bothWays(t, testConnectionCap) }

func testConnectionCap(t *testing.T) {
	r := newRig(t, setup{accounts: customerName + ":" + customerPassword + ":2"})
	echo := startEcho(t)
	first, second, third := r.dial(), r.dial(), r.dial()
	first.connect(echo.Addr())
	second.get(r.judge.URL() + "/notype") // an idle connection counts, once
	second.get(r.judge.URL() + "/notype")
	third.send(connectTo(echo.Addr()))
	third.expect(r.reply(CapConns, false))
	third.send(request("GET", r.judge.URL()+"/"))
	third.expect(r.reply(CapConns, false))
	must(t, first.Close())
	eventually(t, "a slot is free", func() bool { return r.limiter.InUse(customerName) == 1 })
	third.connect(echo.Addr()) // the same connection
	third.echoes()
	if n := r.limiter.InUse(customerName); n != 2 {
		t.Errorf("%d in use, want 2", n)
	}
}

func TestConnectionRate(t *testing.T) { bothWays(t, testConnectionRate) }

func testConnectionRate(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.Defaults = limit.Caps{ConnRate: 0.001, ConnBurst: 2} }})
	for n := range 3 {
		c := r.dial()
		c.send(request("GET", r.judge.URL()+"/notype"))
		if n == 2 {
			c.expect(r.reply(CapRate, false))
			continue
		}
		c.answer("GET")
		c.get(r.judge.URL() + "/notype") // no new connection
	}
}

func TestRelayFull(t *testing.T) { bothWays(t, testRelayFull) }

func testRelayFull(t *testing.T) {
	r := newRig(t, setup{
		config:   func(c *Config) { c.MaxConns = 1 },
		accounts: customerName + ":" + customerPassword + ",second:other",
	})
	held := r.dial()
	held.get(r.judge.URL() + "/notype")
	c := r.dial()
	c.send(connectTo("target.test:443"))
	c.expect(r.reply(RelayFull, true))
	c.ends()
	if reasons := r.server.NotReady(); len(reasons) > 0 {
		t.Errorf("a full relay is not ready: %v", reasons)
	}
	// Another account on the connection that has the slot takes it over.
	held.send("GET " + r.judge.URL() + "/notype HTTP/1.1\r\nHost: x\r\n" + basic("second", "other") + "\r\n")
	held.answer("GET")
	if a, b := r.limiter.InUse(customerName), r.limiter.InUse("second"); a != 0 || b != 1 {
		t.Errorf("in use: %d and %d, want 0 and 1", a, b)
	}
	must(t, held.Close())
	r.dial().get(r.judge.URL() + "/notype")
}

func TestPassthrough(t *testing.T) { bothWays(t, testPassthrough) }

func testPassthrough(t *testing.T) {
	r := newRig(t, setup{
		config: func(c *Config) { c.Auth, c.Accounts = AuthPassthrough, nil; c.Defaults = limit.Caps{MaxConns: 1} },
		unlike: true, // the login is the vendor's
	})
	echo := startEcho(t)
	own := func(password string) string {
		return "CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: x\r\n" + basic(vendorUsername, password) + "\r\n"
	}
	c := r.dial()
	c.send(own("wrong"))
	c.expect(r.reply(UpstreamAuth, true)) // our words, our realm
	c.ends()
	must(t, c.Close())
	r.idle()
	c = r.dial()
	c.send("GET " + r.judge.URL() + "/ HTTP/1.1\r\nHost: x\r\n" + basic(vendorUsername, "wrong") + "\r\n")
	c.expect(r.reply(UpstreamAuth, false))
	// The stranger's connection lives on, but it is none of the customer's.
	eventually(t, "nothing held", func() bool { return r.server.slots.InUse()+r.limiter.InUse(vendorUsername) == 0 })
	c = r.dial()
	c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\n\r\n")
	c.expect(r.reply(AuthRequired, false))
	c.send(own(vendorPassword))
	c.expect(masking.Established)
	c.echoes()
	for _, conn := range r.vendor.Conns() {
		q := conn.Requests()[0]
		if got := q.Header.Get("Proxy-Authorization") + "\r\n"; !strings.HasSuffix(basic(vendorUsername, "wrong"), got) && !strings.HasSuffix(basic(vendorUsername, vendorPassword), got) {
			t.Errorf("the login was changed: %q", got)
		}
	}
	c = r.dial()
	c.send(own(vendorPassword))
	c.expect(r.reply(CapConns, false)) // caps go by username
	var marks []byte
	for _, c := range r.all() {
		marks = append(marks, c.received()...)
	}
	if strings.Contains(string(marks), r.vendor.Brand()) {
		t.Error("the vendor's realm reached a customer")
	}
}

// Usernames that nobody has checked must not spoil the metrics.
func TestPassthroughOddUsernames(t *testing.T) { bothWays(t, testPassthroughOddUsernames) }

func testPassthroughOddUsernames(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.Auth, c.Accounts = AuthPassthrough, nil }, unlike: true,
		vendor: upstreamtest.VendorConfig{Username: "any", Behaviour: upstreamtest.EarlyData([]byte("banner"))}})
	names := []string{"\xff\xfe", `"\xff\xfe"`, "other", "", strings.Repeat("n", 500), "a b", "ü"}
	for _, name := range names {
		c := r.dial()
		c.send("CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n" + basic(name, "x") + "\r\n")
		c.expect(masking.Established + "banner")
	}
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(r.server))
	if _, err := registry.Gather(); err != nil {
		t.Errorf("metrics: %v", err)
	}
}

func TestOpen(t *testing.T) { bothWays(t, testOpen) }

func testOpen(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) {
		c.Auth, c.Accounts = AuthOpen, nil
		c.AllowFrom = allNetworks()
		c.Defaults = limit.Caps{MaxConns: 1}
	}})
	echo := startEcho(t)
	c := r.dial()
	c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\n\r\n")
	c.expect(masking.Established)
	c.echoes()
	c = r.dial()
	c.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\n\r\n")
	c.expect(r.reply(CapConns, false)) // caps go by address
}

// Removing or disabling an account ends what it has open; others stay.
func TestReloadEndsConnections(t *testing.T) { bothWays(t, testReloadEndsConnections) }

func testReloadEndsConnections(t *testing.T) {
	const others = "\n- {name: second, password: other}\n"
	for name, text := range map[string]string{
		"removed":  "accounts:" + others,
		"disabled": "accounts:\n" + customerEntry + ", disabled: true}" + others,
		"expired":  "accounts:\n" + customerEntry + ", expires: 2020-01-01T00:00:00Z}" + others,
	} {
		t.Run(name, func(t *testing.T) {
			use, write := fileAccounts(t, "accounts:\n"+customerEntry+"}"+others)
			r := newRig(t, setup{config: use})
			echo := startEcho(t)
			tunnel, plain, other := r.dial(), r.dial(), r.dial()
			tunnel.connect(echo.Addr())
			plain.get(r.judge.URL() + "/notype")
			other.send("CONNECT " + echo.Addr() + " HTTP/1.1\r\n" + basic("second", "other") + "\r\n")
			other.expect(masking.Established)

			write("accounts: [")
			if r.server.Reload() == nil {
				t.Error("a bad file is taken")
			}
			tunnel.echoes()
			write(text)
			must(t, r.server.Reload())
			tunnel.breaks()
			plain.breaks()
			other.echoes()
			eventually(t, "its leases are back", func() bool { return r.limiter.InUse(customerName) == 0 })
			if o := r.outcome(2); o != Killed { // after the plain request's
				t.Errorf("outcome %s", o)
			}
		})
	}
}

// An account that ends while the gate is busy with it gets no tunnel.
func TestReloadMeetsTheGate(t *testing.T) { bothWays(t, testReloadMeetsTheGate) }

func testReloadMeetsTheGate(t *testing.T) {
	use, write := fileAccounts(t, "accounts:\n"+customerEntry+"}\n")
	gated := &gatedLimiter{entered: make(chan struct{}, 1), gate: make(chan struct{})}
	r := newRig(t, setup{config: func(c *Config) { use(c); gated.Limiter, c.Limiter = c.Limiter, gated }})
	c := r.dial()
	c.send(connectTo("target.test:443"))
	<-gated.entered
	write("accounts: []\n")
	must(t, r.server.Reload())
	close(gated.gate)
	c.expect(r.reply(AuthFailed, false))
	if n := r.vendor.Accepted(); n != 0 {
		t.Error("the vendor was asked")
	}
}

// An account that expires loses its connections without a reload.
func TestExpiryEndsConnections(t *testing.T) { bothWays(t, testExpiryEndsConnections) }

func testExpiryEndsConnections(t *testing.T) {
	soon := time.Now().Add(1500 * time.Millisecond).UTC().Format(time.RFC3339Nano)
	use, _ := fileAccounts(t, "accounts:\n"+customerEntry+", expires: "+soon+"}\n")
	r := newRig(t, setup{config: use})
	c := r.dial()
	c.connect(startEcho(t).Addr())
	c.breaks()
	r.idle()
}

// A flood of refusals, each kept open, does not keep another customer out.
func TestFloodOfRefusals(t *testing.T) { bothWays(t, testFloodOfRefusals) }

func testFloodOfRefusals(t *testing.T) {
	r := newRig(t, setup{
		config:   func(c *Config) { c.MaxConns = 20 },
		accounts: customerName + ":" + customerPassword + ",greedy:pw:1",
	})
	echo := startEcho(t)
	greedy := "CONNECT " + echo.Addr() + " HTTP/1.1\r\nHost: x\r\n" + basic("greedy", "pw") + "\r\n"
	c := r.dial()
	c.send(greedy)
	c.expect(masking.Established)
	var flood sync.WaitGroup
	for n := range 500 { // more than the relay keeps
		one := r.dial()
		flood.Go(func() {
			refused := greedy
			if n%2 == 0 {
				refused = strings.Replace(greedy, "Proxy-", "No-", 1)
			}
			_, _ = one.raw.Write([]byte(refused)) // may be evicted while it writes
		})
	}
	flood.Wait()
	for range 19 {
		mine := r.dial()
		mine.connect(echo.Addr())
		mine.echoes()
	}
	if n := r.server.open.Load(); n > int64(r.server.maxOpen)+1 {
		t.Errorf("%d connections open, %d at most", n, r.server.maxOpen)
	}
	c.echoes() // business is never evicted
}

// Idle refused connections are closed, the oldest first, when there is no room.
func TestOldestLooseGoesFirst(t *testing.T) { bothWays(t, testOldestLooseGoesFirst) }

func testOldestLooseGoesFirst(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.MaxConns = 1 }, maxOpen: 3})
	held := r.dial()
	held.connect(startEcho(t).Addr())
	var refused []*customer
	for n := range 3 {
		c := r.dial()
		c.send("CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
		c.expect(r.reply(AuthRequired, false))
		eventually(t, "it is idle", func() bool { return r.loose() == min(n+1, 2) && r.allWait() })
		refused = append(refused, c)
	}
	if got := refused[0].breaks(); got != "" {
		t.Errorf("the oldest got %q", got)
	}
	refused[2].send("CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	refused[2].expect(r.reply(AuthRequired, false))
	held.echoes()
	if fmt.Sprint(r.server.NotReady()) != "[]" {
		t.Error("not ready under load")
	}
}

// allWait reports whether net/http waits for a request on each connection that it has:
// until then one that was refused is not at the line's end yet.
func (r *rig) allWait() bool {
	r.server.connsMu.Lock()
	defer r.server.connsMu.Unlock()
	for c := range r.server.conns {
		if c.at() != phaseWaiting {
			return false
		}
	}
	return true
}

func (r *rig) loose() int { return int(r.server.strangers.count.Load()) }

// When nothing can make room a new connection hears 503 and is closed.
func TestRefusedAtAccept(t *testing.T) { bothWays(t, testRefusedAtAccept) }

func testRefusedAtAccept(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.MaxConns = 2 }, maxOpen: 2})
	for range 2 {
		r.dial().connect(startEcho(t).Addr())
	}
	for range 3 {
		c := r.dial()
		c.send(connectTo("target.test:443"))
		c.expect(r.reply(RelayFull, true))
		c.ends()
	}
}

// brokenLimiter is a bug of ours.
type brokenLimiter struct{ limit.Limiter }

func (brokenLimiter) Acquire(context.Context, string, limit.Caps) (*limit.Lease, error) {
	panic("a bug")
}

// A handler that panics ends its own exchange and no more.
func TestPanicEndsOneExchange(t *testing.T) { bothWays(t, testPanicEndsOneExchange) }

func testPanicEndsOneExchange(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.Limiter = brokenLimiter{c.Limiter} }})
	for n := range 2 {
		c := r.dial()
		c.send(connectTo("target.test:443"))
		c.expect(r.reply(Internal, true))
		c.ends()
		if o := r.outcome(n + 1); o != Internal {
			t.Errorf("outcome %s", o)
		}
	}
}
