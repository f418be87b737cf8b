package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestDrainBehindHAProxy stops one of two relays while customers come: none of them may notice.
func TestDrainBehindHAProxy(t *testing.T) {
	t.Parallel()
	s := startStack(t, "haproxy", "squid", nil)
	echo := startEcho(t)
	drained := s.relays[0]
	live := tunnelOn(t, drained, s.customer.Addr(), echo)
	tr := startTraffic(t, s.customer.Addr(), echo, 8)
	tr.waitMore(t, 50)
	drained.Signal(t, syscall.SIGTERM)
	lab.Wait(t, 5*time.Second, "readyz to say so", func() bool {
		status, _, err := drained.Get("/readyz")
		return err == nil && status == http.StatusServiceUnavailable
	})
	lab.Wait(t, 20*time.Second, "the relay to close its listener", func() bool { return !lab.Listening(drained.Addr) })
	tr.waitMore(t, 50)
	tr.end()
	if failed := tr.failures(); len(failed) > 0 {
		t.Errorf("%d new connections failed: %v", len(failed), failed)
	}
	if err := live.ping("still here"); err != nil {
		t.Errorf("the live tunnel of the draining relay: %v", err)
	}
	if !drained.Running() {
		t.Fatalf("the relay ended with a tunnel open:\n%s", drained.Stderr.Bytes())
	}
	if err := live.Close(); err != nil {
		t.Fatal(err)
	}
	if code := drained.ExitCode(t, 10*time.Second); code != 0 {
		t.Errorf("exit code %d after the last tunnel ended, want 0", code)
	}
}

// startSingle starts one relay without load balancer in front of an echoing vendor path: the tap of the customer is where he connects.
func startSingle(t *testing.T, change lab.Env) (relay *lab.Relay, addr string) {
	t.Helper()
	env := lab.Env{"UPSTREAM": startSquid(t).url, "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML)}
	for name, value := range change {
		env[name] = value
	}
	relay = startRelay(t, env)
	return relay, tapCustomer(t, relay.Addr).Addr()
}

func TestSecondSignalCuts(t *testing.T) {
	t.Parallel()
	relay, addr := startSingle(t, lab.Env{"DRAIN_GRACE": "0s", "DRAIN_TIMEOUT": "10m"})
	live, err := tunnel(addr, startEcho(t))
	if err != nil {
		t.Fatal(err)
	}
	relay.Signal(t, syscall.SIGTERM)
	lab.Wait(t, 5*time.Second, "the listener to close", func() bool { return !lab.Listening(relay.Addr) })
	if err := live.ping("after the first"); err != nil {
		t.Fatalf("the first signal cut the tunnel: %v", err)
	}
	relay.Signal(t, syscall.SIGTERM)
	if code := relay.ExitCode(t, 5*time.Second); code != 0 {
		t.Errorf("exit code %d after the second signal, want 0", code)
	}
	if err := live.ping("after the second"); err == nil {
		t.Error("the tunnel outlived the second signal")
	}
}

// TestDrainTimeoutEnds leaves a tunnel open for longer than the relay waits.
func TestDrainTimeoutEnds(t *testing.T) {
	t.Parallel()
	relay, addr := startSingle(t, lab.Env{"DRAIN_GRACE": "0s", "DRAIN_TIMEOUT": "1s"})
	if _, err := tunnel(addr, startEcho(t)); err != nil {
		t.Fatal(err)
	}
	relay.Signal(t, syscall.SIGTERM)
	if code := relay.ExitCode(t, 10*time.Second); code != 0 {
		t.Errorf("exit code %d after DRAIN_TIMEOUT, want 0", code)
	}
}

// TestReload replaces the accounts file in the three ways editors and config maps do, with SIGHUP and without.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := writeFile(t, dir, "accounts.yaml", accountsYAML)
	relay, addr := startSingle(t, lab.Env{"ACCOUNTS_FILE": file})
	echo := startEcho(t)
	live, err := tunnel(addr, echo)
	if err != nil {
		t.Fatal(err)
	}
	statusOf := func(name, password string) int {
		c, err := dialProxy(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // the reply was read
		got, err := c.connect(echo, name, password)
		if err != nil {
			return 0 // an account that is just being removed loses the connection it asks on
		}
		return got.status
	}
	if got := statusOf("bob", "bobs-password"); got != http.StatusProxyAuthRequired {
		t.Fatalf("unknown customer: status %d", got)
	}
	const bob = "  - name: bob\n    password: bobs-password\n"
	writeFile(t, dir, "accounts.yaml", accountsYAML+bob)
	relay.Signal(t, syscall.SIGHUP)
	lab.Wait(t, 10*time.Second, "bob to be known", func() bool { return statusOf("bob", "bobs-password") == http.StatusOK })

	writeFile(t, dir, "accounts.yaml", accountsYAML+bob+"  - nome: carol\n")
	relay.Signal(t, syscall.SIGHUP)
	lab.Wait(t, 10*time.Second, "the refusal to show", func() bool {
		ok, found := relay.Metric(t, "maskrelay_accounts_reload_success")
		return found && ok == 0
	})
	if !relay.Stderr.Contains("accounts.yaml:") {
		t.Errorf("the log does not name file and line:\n%s", relay.Stderr.Bytes())
	}
	if got := statusOf("bob", "bobs-password"); got != http.StatusOK {
		t.Errorf("a refused file changed the accounts: status %d", got)
	}

	renamed := writeFile(t, dir, "new.yaml", accountsYAML)
	if err := os.Rename(renamed, filepath.Join(dir, "accounts.yaml")); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 30*time.Second, "bob to be forgotten without a signal", func() bool { return statusOf("bob", "bobs-password") == http.StatusProxyAuthRequired })
	if err := live.ping("through all that"); err != nil {
		t.Errorf("the live tunnel: %v", err)
	}
	writeFile(t, dir, "accounts.yaml", strings.Replace(accountsYAML, customerName, "someone-else", 1))
	relay.Signal(t, syscall.SIGHUP)
	lab.Wait(t, 10*time.Second, "the removed account to lose its tunnel", func() bool { return live.ping("x") != nil })
}
