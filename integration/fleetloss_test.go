package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestFleetAccountsOutliveRedis ends the Redis that has the accounts, and fills an empty one from an export: customers notice nothing.
func TestFleetAccountsOutliveRedis(t *testing.T) {
	t.Parallel()
	c := fleetConfig{env: lab.Env{"ACCOUNTS_REDIS": "true", "REDIS_DOWN": "local_share"}}
	f := newFleet(t, &c)
	tool := lab.Env{"REDIS_URL": c.env["REDIS_URL"]}
	dir := t.TempDir()
	accounts := fleetConfig{customers: map[string]string{"alice": "max_conns: 20", "bob": "conn_rate: 50"}}.accounts()
	command := func(want string, args ...string) {
		t.Helper()
		if stdout, stderr, code := runRelay(t, tool, "", append([]string{"accounts"}, args...)...); code != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("accounts %v: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
	command("2 added", "import", writeFile(t, dir, "accounts.yaml", accounts))
	a, b := f.start(t, c, "a"), f.start(t, c, "b")
	f.meet(t)
	open := []*client{f.mustOpen(t, a, "alice"), f.mustOpen(t, b, "bob")}
	export := filepath.Join(dir, "export.yaml")
	command("", "export", "-o", export)
	checkFileHasNoSecrets(t, export)

	f.redis.Kill(t)
	f.waitRedis(t, 0)
	for _, r := range f.relays {
		f.mustOpen(t, r, "alice")
		f.mustOpen(t, r, "bob")
	}
	late := f.startBy(t, c, "late", lab.StartUnreadyRelay) // knows nobody yet, and refuses nobody as a stranger
	f.wantStatus(t, late, "alice", http.StatusServiceUnavailable)
	f.redis.Restart(t)
	f.addUser(t)
	f.meet(t)
	lab.Wait(t, 20*time.Second, "the relays to see that the accounts are gone", func() bool {
		return lines(a, "import them again") == 1 && lines(b, "import them again") == 1
	})
	if status, answer, err := a.Ask(http.MethodPost, "/api/v1/accounts", newAccount("carol", "")); err != nil || status < 400 {
		t.Errorf("a write before the accounts are back: %d %s %v", status, answer, err)
	}
	f.mustOpen(t, a, "bob")
	command("2 added", "import", export)
	f.known(t, late, "alice")
	late.WaitReadiness(t, http.StatusOK)
	api(t, a, http.MethodPost, "", newAccount("carol", ""), http.StatusCreated)
	f.known(t, b, "carol")
	command("", "export", "-o", export, "--force")
	command("3 unchanged", "import", "--replace", "--dry-run", export)
	mustLive(t, open...)
}

func checkFileHasNoSecrets(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		t.Fatalf("%s: %d bytes, %v", path, len(text), err)
	}
	checkNoMarks(t, path, text, secrets())
}

// TestFleetGoodbye ends a relay in order: what it leased is the others' at once, long before the lease would have run out.
func TestFleetGoodbye(t *testing.T) {
	t.Parallel()
	const most = 20
	f := startFleet(t, fleetConfig{relays: 2, customers: map[string]string{"capped": fmt.Sprint("max_conns: ", most)}})
	leaves, stays := f.relays[0], f.relays[1]
	open := f.fill(t, leaves, "capped", most)
	f.mustRefuse(t, stays, "capped")
	leaves.Signal(t, syscall.SIGTERM)
	lab.Wait(t, 10*time.Second, "the listener to close", func() bool { return !lab.Listening(leaves.Addr) })
	mustLive(t, open...) // and they count as long as they live
	f.mustRefuse(t, stays, "capped")
	closeAll(t, open)
	if code := leaves.ExitCode(t, 10*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	begin := time.Now()
	f.relays = f.relays[1:]
	f.fill(t, stays, "capped", most)
	t.Logf("all %d slots were taken again within %v", most, time.Since(begin).Round(time.Millisecond))
	f.meet(t)

	// A Redis that does not answer holds up no end.
	f.redis.Freeze(t)
	t.Cleanup(func() { f.redis.Thaw(t) })
	stays.Signal(t, syscall.SIGTERM)
	lab.Wait(t, 10*time.Second, "the listener to close", func() bool { return !lab.Listening(stays.Addr) })
	stays.Signal(t, syscall.SIGTERM) // cuts the tunnels
	if code := stays.ExitCode(t, 15*time.Second); code != 0 {
		t.Errorf("exit code %d without Redis", code)
	}
}

// TestFleetAddresses counts a customer's addresses over all relays.
func TestFleetAddresses(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetConfig{relays: 3, customers: map[string]string{"mobile": "max_ips: 2"}})
	from := func(address string, r *lab.Relay) int {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: clientLimit}
		conn, err := d.DialContext(t.Context(), "tcp4", r.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // what it did was seen
		return newClient(t, conn).mustConnect(t, fleetTarget, "mobile", fleetPassword).status
	}
	for i, tc := range []struct {
		address string
		relay   int
		status  int
	}{
		{"127.5.0.1", 0, http.StatusOK},
		{"127.5.0.2", 1, http.StatusOK},
		{"127.5.0.3", 2, http.StatusForbidden},
		{"127.5.0.1", 2, http.StatusOK}, // known everywhere
		{"127.5.0.3", 0, http.StatusForbidden},
	} {
		if got := from(tc.address, f.relays[tc.relay]); got != tc.status {
			t.Errorf("%d: %s at relay %d got %d, want %d", i, tc.address, tc.relay, got, tc.status)
		}
	}
}
