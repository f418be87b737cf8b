package proxy

import (
	"sync/atomic"
	"testing"

	"maskrelay/proxy/account"
)

// Without memory for another connection nobody new gets in; who is in stays, and the relay stays ready.
func TestRelayFullOfMemory(t *testing.T) {
	var full atomic.Bool
	r := newRig(t, setup{config: func(c *Config) { c.Full = full.Load }, accounts: customerName + ":" + customerPassword + ",second:other"})
	echo := startEcho(t)
	tunnel, plain := r.dial(), r.dial()
	tunnel.connect(echo.Addr())
	plain.get(r.judge.URL() + "/notype")

	full.Store(true)
	c := r.dial()
	c.send(connectTo(echo.Addr()))
	c.expect(r.reply(RelayFull, true))
	c.ends()
	c = r.dial()
	c.send(request("GET", r.judge.URL()+"/"))
	c.expect(r.reply(RelayFull, false))
	tunnel.echoes()
	plain.get(r.judge.URL() + "/notype")
	// Another account on a connection that has its slot already needs no more memory.
	plain.send("GET " + r.judge.URL() + "/notype HTTP/1.1\r\nHost: x\r\n" + basic("second", "other") + "\r\n")
	plain.answer("GET")
	if reasons := r.server.NotReady(); len(reasons) > 0 {
		t.Errorf("a full relay is not ready: %v", reasons)
	}
	if n := r.limiter.InUse(customerName); n != 1 {
		t.Errorf("%d leases held, the refused ones among them; want 1", n)
	}

	full.Store(false)
	c.connect(echo.Addr()) // the same connection
	c.echoes()
}

// The file descriptors bound what MaxConns says, and what is lent of them is refused to customers until it comes back.
func TestRelayFullOfFiles(t *testing.T) {
	r := newRig(t, setup{config: func(c *Config) { c.FilePairs = 2 }})
	spare := r.server.Spare()
	if n := r.server.slots.Max(); n != 2 {
		t.Errorf("%d connections are taken, want 2", n)
	}
	if !spare.TryTake() {
		t.Fatal("nothing to spare")
	}
	echo := startEcho(t)
	r.dial().connect(echo.Addr())
	c := r.dial()
	c.send(connectTo(echo.Addr()))
	c.expect(r.reply(RelayFull, true))
	spare.Put()
	c = r.dial()
	c.connect(echo.Addr())
	if spare.TryTake() {
		t.Error("a descriptor in use is lent")
	}
}

func TestBandwidthOf(t *testing.T) {
	use, write := fileAccounts(t, "accounts:\n"+customerEntry+", bandwidth: 10MB}\n- {name: second, password: other}\n")
	r := newRig(t, setup{config: func(c *Config) { use(c); c.Bandwidth = 5000 }})
	want := func(key string, rate int64) {
		t.Helper()
		if got := r.server.bandwidthOf(key); got != rate {
			t.Errorf("%s has %d, want %d", key, got, rate)
		}
	}
	want(customerName, 10_000_000)
	want("second", 5000)
	want("192.0.2.1", 5000)
	write("accounts:\n" + customerEntry + "}\n- {name: second, password: other, bandwidth: 1MiB}\n")
	must(t, r.server.Reload())
	want(customerName, 5000)
	want("second", 1<<20)

	open := &Server{config: Config{Auth: AuthOpen, Bandwidth: 7000}}
	if got := open.bandwidthOf("192.0.2.1"); got != 7000 {
		t.Errorf("open: %d, want 7000", got)
	}
	nobody, err := account.NewStore(account.StoreConfig{})
	must(t, err)
	none := &Server{config: Config{Auth: AuthAccounts, Accounts: nobody}}
	if got := none.bandwidthOf("nobody"); got != 0 {
		t.Errorf("without a default: %d, want 0", got)
	}
}
