package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/proxy/guess"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/usage"
)

// farLimiter is a limiter whose answers take a wait, or do not come at all.
type farLimiter struct {
	*limit.Memory
	down   atomic.Bool
	waited atomic.Int64
}

func (l *farLimiter) AcquireNow(lease *limit.Lease, key string, caps limit.Caps) error {
	return fmt.Errorf("far away: %w", limit.ErrWouldBlock)
}

func (l *farLimiter) Acquire(ctx context.Context, key string, caps limit.Caps) (*limit.Lease, error) {
	l.waited.Add(1)
	if l.down.Load() {
		return nil, fmt.Errorf("far away: %w", limit.ErrUnavailable)
	}
	return l.Memory.Acquire(ctx, key, caps)
}

// What a limiter cannot say at once it says on the other way, and all else is as ever.
func TestLimiterThatWaits(t *testing.T) { bothWays(t, testLimiterThatWaits) }

func testLimiterThatWaits(t *testing.T) {
	far := &farLimiter{}
	r := newRig(t, setup{
		accounts: customerName + ":" + customerPassword + ":1",
		config:   func(c *Config) { far.Memory = c.Limiter.(*limit.Memory); c.Limiter = far },
	})
	echo := startEcho(t)
	first, second := r.dial(), r.dial()
	first.connect(echo.Addr())
	first.echoes()
	second.send(connectTo(echo.Addr()))
	second.expect(r.reply(CapConns, false))
	must(t, first.Close())
	eventually(t, "a slot is free", func() bool { return r.limiter.InUse(customerName) == 0 })
	far.down.Store(true)
	second.send(connectTo(echo.Addr()))
	second.expect(r.reply(LimitsDown, true))
	second.ends()
	if status := r.server.replies.of(LimitsDown).Status(); status != 503 {
		t.Errorf("status %d", status)
	}
	if n := far.waited.Load(); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

// slowLimiter is a farLimiter that tells when it is asked, and answers when it may.
type slowLimiter struct {
	farLimiter
	asked, answer chan struct{}
}

func (l *slowLimiter) Acquire(ctx context.Context, key string, caps limit.Caps) (*limit.Lease, error) {
	l.asked <- struct{}{}
	<-l.answer
	return l.farLimiter.Acquire(ctx, key, caps)
}

// What changes while a customer is being admitted holds for him, too.
func TestChangedWhileAdmitted(t *testing.T) { bothWays(t, testChangedWhileAdmitted) }

func testChangedWhileAdmitted(t *testing.T) {
	for name, one := range map[string]struct {
		entry string
		want  Outcome
	}{
		"password": {"- {name: " + customerName + ", password: another}\n", AuthFailed},
		"disabled": {customerEntry + ", disabled: true}\n", AccountDisabled},
		"networks": {customerEntry + ", allow_from: [192.0.2.0/24]}\n", ClientDenied},
		"removed":  {"- {name: second, password: other}\n", AuthFailed},
		"nothing":  {customerEntry + "}\n", OK},
	} {
		t.Run(name, func(t *testing.T) {
			use, write := fileAccounts(t, "accounts:\n"+customerEntry+"}\n")
			slow := &slowLimiter{asked: make(chan struct{}), answer: make(chan struct{})}
			r := newRig(t, setup{config: func(c *Config) { use(c); slow.Memory = c.Limiter.(*limit.Memory); c.Limiter = slow }})
			c := r.dial()
			c.send(connectTo(startEcho(t).Addr()))
			<-slow.asked
			write("accounts:\n" + one.entry)
			must(t, r.server.Reload())
			slow.answer <- struct{}{}
			if one.want == OK {
				c.expect(string(established))
				c.echoes()
				return
			}
			c.expect(r.reply(one.want, r.server.replies.of(one.want).Status() == 403))
			if n := r.limiter.InUse(customerName) + r.server.slots.InUse(); n != 0 {
				t.Errorf("%d slots and leases are held by who was refused", n)
			}
		})
	}
}

// usedUp keeps a customer's counter exhausted, as Books do.
func usedUp(t *testing.T, s *setup) (books *usage.Books, server **Server) {
	t.Helper()
	meter := usage.NewMeter()
	server = new(*Server)
	var quota atomic.Int64
	quota.Store(1000)
	books = usage.NewBooks(usage.BooksConfig{
		Meter: meter, Ledger: usage.NewMemory(), Node: "here",
		Quota:     func(string) (usage.Quota, bool) { return usage.Quota{Bytes: quota.Load()}, true },
		Exhausted: func(name string) { (*server).QuotaUsed(name) },
	})
	s.config = func(c *Config) { c.Meter = meter }
	return books, server
}

// A quota that is used up ends what is open, and refuses what comes.
func TestQuotaUsed(t *testing.T) { bothWays(t, testQuotaUsed) }

func testQuotaUsed(t *testing.T) {
	var s setup
	books, server := usedUp(t, &s)
	r := newRig(t, s)
	*server = r.server
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); books.Run(ctx) }()
	defer func() { stop(); <-done }()

	c, plain := r.dial(), r.dial()
	c.connect(startEcho(t).Addr())
	c.echoes()
	plain.get(r.judge.URL() + "/notype")
	c.send(strings.Repeat("x", 2000))
	c.breaks()
	plain.breaks()
	eventually(t, "the tunnel is logged", func() bool { return len(r.log.exchanges()) == 2 })
	if last := r.log.exchanges()[1]; last["outcome"] != string(QuotaUsed) || last["status"] != 200.0 {
		t.Errorf("logged as %v", last)
	}
	for _, head := range []string{connectTo("target.test:443"), request("GET", r.judge.URL()+"/")} {
		again := r.dial()
		again.send(head)
		again.expect(r.reply(QuotaUsed, false))
	}
	if status := r.server.replies.of(QuotaUsed).Status(); status != 402 {
		t.Errorf("status %d", status)
	}
}

// Who guesses is sent away; who has been let in from there before is not.
func TestGuessing(t *testing.T) { bothWays(t, testGuessing) }

func testGuessing(t *testing.T) {
	r := newRig(t, setup{
		accounts: customerName + ":" + customerPassword + ",second:other",
		config:   func(c *Config) { c.Logins = guess.New(guess.Config{PerAddress: 3, PerName: 100}) },
	})
	r.dial().get(r.judge.URL() + "/notype") // the customer is known from here
	wrong := "CONNECT target.test:443 HTTP/1.1\r\n" + basic("second", "guess") + "\r\n"
	for range 3 {
		c := r.dial()
		c.send(wrong)
		c.expect(r.reply(AuthFailed, false))
	}
	for _, head := range []string{wrong, "GET " + r.judge.URL() + "/ HTTP/1.1\r\nHost: x\r\n" + basic("second", "other") + "\r\n"} {
		c := r.dial()
		c.send(head)
		c.expect(r.reply(LoginThrottled, false))
	}
	if status := r.server.replies.of(LoginThrottled).Status(); status != 429 {
		t.Errorf("status %d", status)
	}
	r.dial().get(r.judge.URL() + "/notype")
}

// everywhere is a bound on addresses that refuses after so many answers.
type everywhere struct {
	blocks bool
	left   atomic.Int64
}

func (e *everywhere) AdmitNow(key string, addr netip.Addr, most int) error {
	if e.blocks {
		return limit.ErrWouldBlock
	}
	return e.Admit(context.Background(), key, addr, most)
}

func (e *everywhere) Admit(_ context.Context, key string, addr netip.Addr, most int) error {
	if key != customerName || !addr.IsLoopback() || most != 7 {
		return fmt.Errorf("asked for %s, %s, %d", key, addr, most)
	}
	if e.left.Add(-1) < 0 {
		return &limit.ExceededError{Cap: limit.CapMaxIPs, Limit: float64(most), RetryAfter: time.Second}
	}
	return nil
}

func TestTooManyAddresses(t *testing.T) { bothWays(t, testTooManyAddresses) }

func testTooManyAddresses(t *testing.T) {
	for name, blocks := range map[string]bool{"at once": false, "after a wait": true} {
		t.Run(name, func(t *testing.T) {
			bound := &everywhere{blocks: blocks}
			bound.left.Store(1)
			r := newRig(t, setup{config: func(c *Config) { c.Addresses, c.MaxIPs = bound, 7 }})
			r.dial().get(r.judge.URL() + "/notype")
			for _, head := range []string{connectTo("target.test:443"), request("GET", r.judge.URL()+"/")} {
				c := r.dial()
				c.send(head)
				c.expect(r.reply(CapAddresses, strings.HasPrefix(head, "CONNECT")))
			}
			if status := r.server.replies.of(CapAddresses).Status(); status != 403 {
				t.Errorf("status %d", status)
			}
		})
	}
}

// A customer waits for a slot of a full relay if he may, and gets it when one is free.
func TestQueueForASlot(t *testing.T) { bothWays(t, testQueueForASlot) }

func testQueueForASlot(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.MaxConns, c.QueueTimeout = 1, patience }})
	echo := startEcho(t)
	first, second := r.dial(), r.dial()
	first.connect(echo.Addr())
	second.send(connectTo(echo.Addr()))
	eventually(t, "the second waits", func() bool { return r.server.fair.Waiting() == 1 })
	must(t, first.Close())
	second.expect(string(established))
	second.echoes()
}

// An account whose networks change loses the connections that do not come from them.
func TestNarrowedNetworks(t *testing.T) { bothWays(t, testNarrowedNetworks) }

func testNarrowedNetworks(t *testing.T) {
	use, write := fileAccounts(t, "accounts:\n"+customerEntry+"}\n")
	r := newRig(t, setup{config: use})
	tunnel, plain := r.dial(), r.dial()
	tunnel.connect(startEcho(t).Addr())
	plain.get(r.judge.URL() + "/notype")
	write("accounts:\n" + customerEntry + ", allow_from: [127.0.0.0/8]}\n")
	must(t, r.server.Reload())
	tunnel.echoes()
	plain.get(r.judge.URL() + "/notype")
	write("accounts:\n" + customerEntry + ", allow_from: [192.0.2.0/24]}\n")
	must(t, r.server.Reload())
	tunnel.breaks()
	plain.breaks()
	r.idle()
}
