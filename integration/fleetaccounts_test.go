package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// actsWithin is how soon a change must act on open tunnels everywhere.
const actsWithin = 5 * time.Second

// api sends one request to a relay's API and wants the status.
func api(t *testing.T, r *lab.Relay, method, path, body string, want int) map[string]any {
	t.Helper()
	status, answer, err := r.Ask(method, "/api/v1/accounts"+path, body)
	if err != nil || status != want {
		t.Fatalf("%s %s: %d %s %v, want %d", method, path, status, answer, err, want)
	}
	checkNoMarks(t, method+" "+path, answer, secrets())
	if len(answer) == 0 {
		return nil
	}
	var object map[string]any
	if err := json.Unmarshal(answer, &object); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, answer)
	}
	return object
}

// TestFleetCloseConnections closes an account's tunnels on all relays by one request.
func TestFleetCloseConnections(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetConfig{relays: 3, customers: map[string]string{"alice": "max_conns: 50", "bob": "max_conns: 50"}})
	f.checkClose(t, "alice")
	api(t, f.relays[0], http.MethodDelete, "/nobody/connections", "", http.StatusNotFound)

	// Without Redis the relay that is asked can do its own part alone, and says so.
	here, there := f.mustOpen(t, f.relays[0], "bob"), f.mustOpen(t, f.relays[1], "bob")
	f.redis.Freeze(t)
	t.Cleanup(func() { f.redis.Thaw(t) })
	answer := api(t, f.relays[0], http.MethodDelete, "/bob/connections", "", http.StatusServiceUnavailable)
	if text := fmt.Sprint(answer["error"]); !strings.HasPrefix(text, "1 connections closed here") {
		t.Errorf("answer without Redis: %v", answer)
	}
	if !ends(here, actsWithin) {
		t.Error("the tunnel of the relay that was asked is still open")
	}
	mustLive(t, there)
}

// checkClose opens a tunnel of name and one of another customer on each relay, has those of name closed at the first relay, and finds
// them closed on all and the others alive.
func (f *relayFleet) checkClose(t *testing.T, name string) {
	t.Helper()
	api(t, f.relays[0], http.MethodDelete, "/"+name+"/connections", "", http.StatusOK)
	var closed []*client
	for _, r := range f.relays {
		closed = append(closed, f.fill(t, r, name, 1)...)
	}
	others := f.tunnels(t) - len(closed)
	answer := api(t, f.relays[0], http.MethodDelete, "/"+name+"/connections", "", http.StatusOK)
	for i, c := range closed {
		if !ends(c, actsWithin) {
			t.Errorf("the tunnel of %s is still open", f.relays[i].Name)
		}
	}
	if answer["closed"] != 1.0 {
		t.Errorf("answer %v of the relay with one tunnel", answer)
	}
	lab.Wait(t, actsWithin, "the others' tunnels alone", func() bool { return f.tunnels(t) == others })
	for _, r := range f.relays {
		f.fill(t, r, name, 1) // he may come back
	}
}

// TestFleetAccountsFile changes the file of one of two relays.
func TestFleetAccountsFile(t *testing.T) {
	t.Parallel()
	c := fleetConfig{customers: map[string]string{"alice": "max_conns: 10", "bob": "max_conns: 10"}}
	f := newFleet(t, &c)
	dir := t.TempDir()
	other := f.start(t, c, "other")
	c.env["ACCOUNTS_FILE"] = writeFile(t, dir, "accounts.yaml", c.accounts())
	changed := f.start(t, c, "changed")
	f.meet(t)
	here, there := f.mustOpen(t, changed, "alice"), f.mustOpen(t, other, "alice")
	stays := f.mustOpen(t, changed, "bob")
	writeFile(t, dir, "accounts.yaml", fleetConfig{customers: map[string]string{"alice": "disabled: true", "bob": "max_conns: 10"}}.accounts())
	changed.Signal(t, syscall.SIGHUP)
	if !ends(here, actsWithin) {
		t.Error("the tunnel of a disabled account is still open")
	}
	f.wantStatus(t, changed, "alice", http.StatusForbidden)
	f.wantStatus(t, other, "alice", http.StatusOK)
	mustLive(t, there, stays)
}

// TestFleetAccountsInRedis manages an account at one relay and sees it act on the other.
func TestFleetAccountsInRedis(t *testing.T) {
	t.Parallel()
	f := startFleet(t, fleetConfig{relays: 2, env: lab.Env{"ACCOUNTS_REDIS": "true"}})
	a, b := f.relays[0], f.relays[1]
	api(t, a, http.MethodPost, "", newAccount("bystander", ""), http.StatusCreated)
	api(t, a, http.MethodPost, "", newAccount("alice", `,"max_conns":3`), http.StatusCreated)
	api(t, a, http.MethodPost, "", newAccount("alice", ""), http.StatusConflict)
	api(t, a, http.MethodPost, "", newAccount("alice2", `,"max_cons":4`), http.StatusUnprocessableEntity)
	if got := api(t, b, http.MethodGet, "/alice", "", http.StatusOK); got["max_conns"] != 3.0 || got["password"] != nil || got["source"] != "redis" {
		t.Errorf("alice as the other relay shows her: %v", got)
	}
	f.known(t, b, "bystander")
	bystander := f.mustOpen(t, b, "bystander")

	// patch has a change act on a tunnel of alice's on the other relay, and brings it back.
	patch := func(change, back string, status int) {
		t.Helper()
		f.known(t, b, "alice")
		c := f.mustOpen(t, b, "alice")
		api(t, a, http.MethodPatch, "/alice", change, http.StatusOK)
		if !ends(c, actsWithin) {
			t.Errorf("%s: the tunnel is still open", change)
		}
		f.wantStatus(t, b, "alice", status)
		api(t, a, http.MethodPatch, "/alice", back, http.StatusOK)
	}
	patch(`{"disabled":true}`, `{"disabled":null}`, http.StatusForbidden)
	patch(`{"allow_from":["10.0.0.0/8"]}`, `{"allow_from":null}`, http.StatusForbidden)
	patch(`{"expires":"2020-01-01T00:00:00Z"}`, `{"expires":null}`, http.StatusForbidden)
	patch(fmt.Sprintf(`{"password":%q}`, laterPassword), fmt.Sprintf(`{"password":%q}`, fleetPassword), http.StatusProxyAuthRequired)
	f.known(t, b, "alice")

	// A cap that is changed holds for the whole fleet.
	api(t, a, http.MethodPatch, "/alice", `{"max_conns":5}`, http.StatusOK)
	c := f.mustOpen(t, b, "alice")
	f.fill(t, a, "alice", 4)
	f.mustRefuse(t, b, "alice")

	api(t, a, http.MethodDelete, "/alice", "", http.StatusNoContent)
	if !ends(c, actsWithin) {
		t.Error("the tunnel of a deleted account is still open")
	}
	f.wantStatus(t, b, "alice", http.StatusProxyAuthRequired)
	api(t, b, http.MethodGet, "/alice", "", http.StatusNotFound)
	lab.Wait(t, actsWithin, "the bystander's tunnel alone", func() bool { return f.tunnels(t) == 1 })
	mustLive(t, bystander)
	checkRedisHasNo(t, f.redis, fleetPassword, laterPassword)
}

// newAccount is the JSON of an account with fleetPassword; more begins with a comma.
func newAccount(name, more string) string {
	return fmt.Sprintf(`{"name":%q,"password":%q%s}`, name, fleetPassword, more)
}

// known waits until a relay lets a customer in whom another one was told of.
func (f *relayFleet) known(t *testing.T, r *lab.Relay, name string) {
	t.Helper()
	lab.Wait(t, actsWithin, name+" to be known", func() bool {
		status, err := askOnce(r.Addr, name, fleetPassword)
		return err == nil && status == http.StatusOK
	})
}

// checkRedisHasNo looks for passwords in everything that Redis keeps.
func checkRedisHasNo(t *testing.T, r *lab.Redis, secrets ...string) {
	t.Helper()
	keys := r.Do(t, "KEYS", "*")
	if len(keys) == 0 {
		t.Error("Redis keeps nothing")
	}
	for _, key := range keys {
		command := map[string][]string{
			"string": {"GET", key}, "hash": {"HGETALL", key}, "zset": {"ZRANGE", key, "0", "-1"}, "set": {"SMEMBERS", key},
			"list": {"LRANGE", key, "0", "-1"}, "stream": {"XRANGE", key, "-", "+"},
		}[r.Do(t, "TYPE", key)[0]]
		if command == nil {
			continue // it has run out
		}
		all := strings.Join(r.Do(t, command...), "\n")
		for _, secret := range secrets {
			if strings.Contains(all, secret) {
				t.Errorf("key %s holds a password in plain text", key)
			}
		}
	}
}
