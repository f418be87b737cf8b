package soak

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"maskrelay/integration/lab"
)

// What a run may take beyond its start.
const (
	// fdSlack is what may be open more than at the start: pooled pipes, the log's and the admin server's own.
	fdSlack        = 140
	goroutineSlack = 10
	// rssSlack is what the second half may hold more than the first, after all of its customers have gone. The race detector's own memory is
	// not bounded so closely.
	rssSlack     = 6 << 20
	rssSlackRace = 64 << 20
)

// TestSoak is described by the package. SOAK_TIME is the time of the load, SOAK_SEED the seed.
func TestSoak(t *testing.T) {
	r := startRun(t)
	t.Logf("SOAK_SEED=%d, %v", r.seed, r.length)
	start := r.relay.Usage(t)
	r.load(t, 0)
	middle := r.settle(t, false)
	r.load(t, 1)
	end := r.settle(t, true)
	t.Logf("start %+v, middle %+v, end %+v", start, middle, end)
	slack := int64(rssSlack)
	if raceDetector {
		slack = rssSlackRace
	}
	if grown := end.RSS - middle.RSS; grown > slack {
		t.Errorf("the second half has left %d bytes of memory more than the first, at most %d may be (the first left %d)", grown, slack, middle.RSS-start.RSS)
	}
	if left := end.FDs - start.FDs; left > fdSlack {
		t.Errorf("%d file descriptors are left", left)
	}
	if left := end.Goroutines - start.Goroutines; left > goroutineSlack {
		t.Errorf("%d goroutines are left", left)
	}
	r.books(t)
	r.ledger.show(t, r.seed)
}

// run is one soak.
type run struct {
	seed    uint64
	length  time.Duration // of the load
	ledger  *ledger
	relay   *lab.Relay
	tlsAddr string
	ca      []byte
	file    string // of the accounts
	hash    string // of the capped account's password
	vendors map[string]*child
	addrs   map[string]string // of the vendors
	// vendorKeys are the secure vendor's.
	vendorKeys lab.KeyPair
	reloads    int
	pause      time.Duration
	workers    int // of each process of customers
}

// shortRun is the time of the load without SOAK_TIME; shortPause and longPause bound the pauses of idle tunnels and stalled readers.
const (
	shortRun   = 12 * time.Second
	shortPause = 1500 * time.Millisecond
	longPause  = 5 * time.Second
)

func startRun(t *testing.T) *run {
	t.Helper()
	r := &run{seed: rand.Uint64(), length: shortRun, pause: shortPause, workers: shortWorkers, ledger: newLedger(), vendors: map[string]*child{}, addrs: map[string]string{}}
	if text := os.Getenv("SOAK_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
		r.seed = seed
	}
	if text := os.Getenv("SOAK_TIME"); text != "" {
		length, err := time.ParseDuration(text)
		if err != nil || length < time.Second || length > 24*time.Hour {
			t.Fatalf("SOAK_TIME: %q is not a time between 1s and 24h", text)
		}
		r.length, r.pause, r.workers = length, longPause, longWorkers
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost) // the race detector makes it dear enough
	if err != nil {
		t.Fatal(err)
	}
	r.hash = string(hash)
	r.vendorKeys = lab.NewKeyPair(t, t.TempDir(), "127.0.0.1")
	for _, g := range gateways {
		r.addrs[g.name] = lab.FreeAddr(t)
		r.startVendor(t, g.name)
	}
	r.startRelay(t)
	return r
}

// gateways are the relay's.
var gateways = []struct{ name, scheme, pool string }{
	{steadyVendor, "http", "default"}, {killedVendor, "http", "default"}, {socksVendor, "socks5", socksPool}, {secureVendor, "https", securePool},
}

const vendorUser, vendorPassword = "vendor-user", "vendor-password"

func (r *run) startVendor(t *testing.T, name string) {
	t.Helper()
	plan := vendorPlan{Name: name, Addr: r.addrs[name], Seed: r.seed, Pause: r.pause, SOCKS: name == socksVendor}
	if name == secureVendor {
		plan.CertFile, plan.KeyFile = r.vendorKeys.CertFile, r.vendorKeys.KeyFile
	}
	v := startChild(t, "vendor", name, plan, r.ledger)
	v.await(t, v.ready, 10*time.Second, "it to listen")
	r.vendors[name] = v
}

func (r *run) startRelay(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	r.tlsAddr, r.file = lab.FreeAddr(t), filepath.Join(dir, "accounts.yaml")
	r.writeAccounts(t)
	keys := lab.NewKeyPair(t, dir, "127.0.0.1")
	r.ca = keys.CA
	env := lab.Env{
		"ACCOUNTS_FILE": r.file,
		"TLS_LISTEN":    r.tlsAddr, "TLS_CERT_FILE": keys.CertFile, "TLS_KEY_FILE": keys.KeyFile,
		"LOGIN_FAILURES_PER_ADDRESS": "0", "LOGIN_FAILURES_PER_NAME": "0", // the customers' wrong passwords are many, and counted
		"HEADER_TIMEOUT": "5s", "DIAL_TIMEOUT": "2s", "CONNECT_TIMEOUT": "5s", "IDLE_TIMEOUT": "60s",
	}
	for i, g := range gateways {
		env[fmt.Sprintf("UPSTREAMS_%d_URL", i)] = fmt.Sprintf("%s://%s:%s@%s", g.scheme, vendorUser, vendorPassword, r.addrs[g.name])
		env[fmt.Sprintf("UPSTREAMS_%d_NAME", i)] = g.name
		env[fmt.Sprintf("UPSTREAMS_%d_POOL", i)] = g.pool
		env[fmt.Sprintf("UPSTREAMS_%d_USERNAME", i)] = loginTemplate
		if g.scheme == "https" {
			env[fmt.Sprintf("UPSTREAMS_%d_CA_FILE", i)] = r.vendorKeys.CertFile
			env[fmt.Sprintf("UPSTREAMS_%d_WARM", i)] = strconv.Itoa(warmConns)
		}
	}
	r.relay = lab.StartRelayLogging(t, lab.Tested, env, r.ledger)
}

// writeAccounts puts the next version of the accounts file in place of the last.
func (r *run) writeAccounts(t *testing.T) {
	t.Helper()
	bandwidth := []string{"4MB", "40MB", "400MB"}[r.reloads%3]
	text := fmt.Sprintf(`accounts:
  - {name: %s, password: %s, pools: [socks, secure]}
  - {name: %s, password: %q, pools: [socks, secure], max_conns: %d}
  - {name: %s, password: %s, pools: [socks, secure], bandwidth: %s}
  - {name: %s, password: %s, pools: [socks, secure], disabled: %t}
`, usual, password, capped, r.hash, connCap, paced, password, bandwidth, barred, password, r.reloads%2 == 1)
	r.reloads++
	if err := os.WriteFile(r.file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		t.Fatal(err)
	}
}

// processes is how many processes of customers there are; the workers are each one's. The short form leaves processors to the tests beside it.
const (
	processes    = 2
	shortWorkers = 20
	longWorkers  = 40
)

// load runs one half's customers to their end. Meanwhile accounts are reloaded and a vendor is killed.
func (r *run) load(t *testing.T, half uint64) {
	t.Helper()
	length := r.length / 2
	all := make([]*child, 0, processes)
	for i := range uint64(processes) {
		plan := customersPlan{
			Seed: r.seed, Number: half*processes + i, For: length, Workers: r.workers, Addr: r.relay.Addr, TLSAddr: r.tlsAddr, CA: r.ca, Capped: i == 0, BulkUnit: 2 << 20, Pause: r.pause,
		}
		all = append(all, startChild(t, "customers", fmt.Sprintf("customers %d.%d", half, i), plan, r.ledger))
	}
	for _, c := range all {
		c.await(t, c.ready, 10*time.Second, "it to begin")
	}
	r.disturb(t, length)
	for _, c := range all {
		if code := c.ExitCode(t, 2*tunnelLimit); code != 0 {
			t.Errorf("%s ended with exit code %d: %s", c.Name, code, c.Stderr.Bytes())
		}
		c.await(t, c.read, 10*time.Second, "its reports")
	}
}

const (
	reloadEvery = 700 * time.Millisecond
	killEvery   = 6 * time.Second
	downFor     = 1500 * time.Millisecond // of a killed vendor
)

// disturb reloads accounts, kills a vendor and starts it again, and looks at the cap, for the time of the load.
func (r *run) disturb(t *testing.T, length time.Duration) {
	t.Helper()
	end := time.NewTimer(length)
	defer end.Stop()
	reload := time.NewTicker(reloadEvery)
	defer reload.Stop()
	kill := time.NewTicker(min(killEvery, length/2))
	defer kill.Stop()
	var back <-chan time.Time
	for {
		select {
		case <-end.C:
			if back != nil {
				r.revive(t)
			}
			return
		case <-reload.C:
			r.ledger.judgeOld()
			r.writeAccounts(t)
			r.relay.Signal(t, syscall.SIGHUP)
			if n, _ := r.relay.Metric(t, `maskrelay_account_connections{account="`+capped+`"}`); n > connCap {
				t.Errorf("%v connections are counted under a cap of %d", n, connCap)
			}
		case <-kill.C:
			v := r.vendors[killedVendor]
			r.ledger.kill()
			v.Signal(t, syscall.SIGKILL)
			v.await(t, v.read, 10*time.Second, "its end")
			r.ledger.kill()
			back = time.After(downFor)
		case <-back:
			back = nil
			r.revive(t)
		}
	}
}

func (r *run) revive(t *testing.T) {
	t.Helper()
	lab.Wait(t, 10*time.Second, "the killed vendor's port", func() bool { return !lab.Listening(r.addrs[killedVendor]) })
	r.startVendor(t, killedVendor)
	r.ledger.kill()
}

// settle waits until nothing of the customers is left in the relay, judges what they did, and returns what the relay holds then. At last the idle
// connections to the vendors must have gone, too.
func (r *run) settle(t *testing.T, last bool) lab.Usage {
	t.Helper()
	var left []string
	if !lab.Poll(30*time.Second, func() bool {
		left = r.leftovers(t, last)
		return len(left) == 0
	}) {
		t.Errorf("all customers have gone, but the relay still has %v", left)
	}
	lab.Poll(10*time.Second, func() bool { return r.ledger.complete() && r.unlogged(t) == "" })
	if why := r.unlogged(t); why != "" {
		t.Error(why)
	}
	r.ledger.judgeAll()
	// The runtime and the pools give back in the background.
	least := r.relay.Usage(t)
	lab.Poll(4*time.Second, func() bool {
		now := r.relay.Usage(t)
		least = lab.Usage{FDs: min(least.FDs, now.FDs), Goroutines: min(least.Goroutines, now.Goroutines), RSS: min(least.RSS, now.RSS), CPU: now.CPU}
		return false
	})
	return least
}

// leftovers are the gauges that are not zero; idle counts connections to vendors that only wait, too.
func (r *run) leftovers(t *testing.T, idle bool) []string {
	t.Helper()
	var left []string
	for series, value := range r.series(t) {
		name, _, _ := strings.Cut(series, "{")
		switch name {
		case "maskrelay_connections", "maskrelay_account_connections", "maskrelay_upstream_connections":
			if strings.Contains(series, secureVendor) && warm(value) {
				continue
			}
			if value != "0" && (idle || name != "maskrelay_upstream_connections") {
				left = append(left, series+" "+value)
			}
		}
	}
	return left
}

// warmConns is how many connections the relay keeps ready to the secure vendor.
const warmConns = 3

// warm reports whether a gauge counts no more than those.
func warm(value string) bool {
	n, err := strconv.Atoi(value)
	return err == nil && n <= warmConns
}

// series are all of the relay's metrics.
func (r *run) series(t *testing.T) map[string]string {
	t.Helper()
	status, body, err := r.relay.Get("/metrics")
	if err != nil || status != 200 {
		t.Fatalf("metrics: status %d: %v", status, err)
	}
	all := map[string]string{}
	for text := range strings.Lines(string(body)) {
		if at := strings.LastIndexByte(text, ' '); at > 0 && text[0] != '#' {
			all[text[:at]] = strings.TrimSpace(text[at+1:])
		}
	}
	return all
}

// unlogged compares the counters of exchanges with the log; empty = they agree.
func (r *run) unlogged(t *testing.T) string {
	t.Helper()
	series := r.series(t)
	logged, _ := r.ledger.exchanges()
	for name, value := range series {
		outcome, ok := strings.CutPrefix(name, `maskrelay_exchanges_total{outcome="`)
		if !ok {
			continue
		}
		outcome = strings.TrimSuffix(outcome, `"}`)
		if want, err := strconv.ParseFloat(value, 64); err != nil || int(want) != logged[outcome] {
			return fmt.Sprintf("the relay counts %s exchanges with outcome %s, its log has %d", value, outcome, logged[outcome])
		}
	}
	return ""
}

// books checks what must be so at the end of a run.
func (r *run) books(t *testing.T) {
	t.Helper()
	series := r.series(t)
	for name, want := range map[string]string{
		"maskrelay_log_lines_dropped_total": "0", "maskrelay_accounts_reload_success": "1", `maskrelay_exchanges_total{outcome="internal"}`: "0",
	} {
		if got := series[name]; got != want {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
	if !r.relay.Running() {
		t.Error("the relay has ended")
	}
	r.relay.Signal(t, syscall.SIGTERM)
	if code := r.relay.ExitCode(t, 60*time.Second); code != 0 {
		t.Errorf("the relay ended with exit code %d", code)
	}
	outcomes, total := r.ledger.exchanges()
	t.Logf("%d exchanges: %v; %d tunnels and plain requests judged, %d bytes compared; %d kills", total, outcomes, r.ledger.judged, r.ledger.bytes, len(r.ledger.kills)/3)
	for _, must := range []string{"ok", "client_reset", "upstream_reset", "client_gone", "auth_failed", "cap_conns", "head_timeout", "upstream_failed", "upstream_timeout", "account_disabled"} {
		if outcomes[must] == 0 {
			t.Errorf("no exchange ended with %s: the run has not tried it", must)
		}
	}
	t.Logf("exchanges by gateway: %v; %d sessions", r.ledger.upstreams, len(r.ledger.sessions))
	for _, g := range gateways {
		if r.ledger.upstreams[g.name] == 0 {
			t.Errorf("no exchange went to %s", g.name)
		}
	}
	if len(r.ledger.sessions) == 0 {
		t.Error("no vendor was told of a session")
	}
}

// show prints the complaints.
func (l *ledger) show(t *testing.T, seed uint64) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.complaints {
		t.Errorf("SOAK_SEED=%d: %s", seed, c)
	}
	if l.more > 0 {
		t.Errorf("and %d more", l.more)
	}
}
