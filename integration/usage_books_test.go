package integration

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// lostAtMost is how much of the time before a SIGKILL may be missing in the books.
const lostAtMost = 5 * time.Second

// stopRelay ends a relay in order.
func stopRelay(t testing.TB, r *lab.Relay) {
	t.Helper()
	r.Signal(t, syscall.SIGTERM)
	if code := r.ExitCode(t, 30*time.Second); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, r.Stderr.Bytes())
	}
}

// TestUsageFileAfterKill kills a relay while bytes move, twice: what is missing is of the last seconds, and nothing is there twice.
func TestUsageFileAfterKill(t *testing.T) {
	t.Parallel()
	env := lab.Env{"UPSTREAM": startSource(t), "ACCOUNTS": "alice:a-password", "USAGE_FILE": filepath.Join(t.TempDir(), "usage.db"),
		"DRAIN_GRACE": "0s", "DRAIN_TIMEOUT": "1s"}
	var atLeast, atMost figures
	for range 2 {
		relay := startRelay(t, env)
		m := openMover(t, relay.Addr, "alice", "a-password")
		var history []moment
		killed := false
		for start := time.Now(); ; {
			if err := m.move(1000, 3000); err != nil {
				if !killed {
					t.Fatal(err)
				}
				break
			}
			history = append(history, moment{time.Now(), m.figures()})
			if !killed && time.Since(start) > lostAtMost+2*time.Second {
				relay.Signal(t, syscall.SIGKILL)
				killed = true
				atLeast = atLeast.plus(before(history, lostAtMost))
			}
		}
		<-relay.Done()
		atMost = atMost.plus(figures{m.sent, m.received + 3000, 1})

		relay = startRelay(t, env)
		got := usageOf(t, relay, "alice").figures()
		if got.sent < atLeast.sent || got.sent > atMost.sent || got.received < atLeast.received || got.received > atMost.received || got.connections != atMost.connections {
			t.Errorf("booked %+v, want between %+v and %+v", got, atLeast, atMost)
		}
		t.Logf("booked %+v of %+v", got, atMost)
		if atLeast.sent == 0 {
			t.Error("nothing had to be booked")
		}
		// What the file has is certain now: an ordered end adds exactly what moves.
		more := openMover(t, relay.Addr, "alice", "a-password")
		more.mustMove(t, 123, 45_678)
		if err := more.Close(); err != nil {
			t.Fatal(err)
		}
		got = got.plus(more.figures())
		stopRelay(t, relay)
		if after := commandUsage(t, env, "alice"); after != got {
			t.Errorf("after an ordered end %+v, want %+v", after, got)
		}
		atLeast, atMost = got, got
	}
}

// moment is what had moved at a time.
type moment struct {
	at time.Time
	figures
}

// before is what had moved so long before the last moment.
func before(history []moment, d time.Duration) (f figures) {
	end := history[len(history)-1].at.Add(-d)
	for _, m := range history {
		if m.at.After(end) {
			break
		}
		f = m.figures
	}
	return f
}

// commandUsage asks "maskrelay usage" for one account.
func commandUsage(t *testing.T, env lab.Env, account string) figures {
	t.Helper()
	stdout, stderr, code := runRelay(t, env, "", "usage", "--account", account, "--format", "json")
	if code != 0 {
		t.Fatalf("usage: exit code %d: %s", code, stderr)
	}
	return oneRow(t, []byte(stdout), account).figures()
}

// TestUsageCommand compares what moved with every way to ask for it: a running relay, its file once it has ended.
func TestUsageCommand(t *testing.T) {
	t.Parallel()
	env := lab.Env{"UPSTREAM": startSource(t), "ACCOUNTS": "alice:a-password,bob:b-password", "USAGE_FILE": filepath.Join(t.TempDir(), "usage.db"),
		"ADMIN_LISTEN": lab.FreeAddr(t), "DRAIN_GRACE": "0s", "DRAIN_TIMEOUT": "10s"}
	relay := startRelay(t, env)
	one, two := openMover(t, relay.Addr, "alice", "a-password"), openMover(t, relay.Addr, "alice", "a-password")
	bob := openMover(t, relay.Addr, "bob", "b-password")
	one.mustMove(t, 16, 0)
	two.mustMove(t, 1_000, 2_500_000)
	bob.mustMove(t, 777, 1)
	want := map[string]figures{"alice": one.figures().plus(two.figures()), "bob": bob.figures()}
	checkUsage := func() {
		t.Helper()
		for name, f := range want {
			if got := commandUsage(t, env, name); got != f {
				t.Errorf("%s: usage says %+v, moved %+v", name, got, f)
			}
		}
		checkUsageTexts(t, env, want)
	}
	checkUsage()
	for _, m := range []*mover{one, two, bob} {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	waitTunnels(t, relay, 0)
	refused := mustDial(t, relay.Addr) // neither bytes nor a connection of his
	if got := refused.mustConnect(t, "shop.target.example:443", "bob", "wrong"); got.status != http.StatusProxyAuthRequired {
		t.Errorf("%+v", got)
	}
	if _, stderr, code := runRelay(t, lab.Env{"ADMIN_LISTEN": lab.FreeAddr(t), "USAGE_FILE": env["USAGE_FILE"]}, "", "usage"); code != 1 || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("the file of a running relay: exit code %d: %s", code, stderr)
	}
	stopRelay(t, relay)
	checkUsage()
	if _, stderr, code := runRelay(t, lab.Env{"ADMIN_LISTEN": env["ADMIN_LISTEN"]}, "", "usage"); code != 1 || !strings.Contains(stderr, "MASKRELAY_USAGE_FILE") {
		t.Errorf("nobody to ask: exit code %d: %s", code, stderr)
	}
}

// checkUsageTexts asks for all accounts as table and as CSV.
func checkUsageTexts(t *testing.T, env lab.Env, want map[string]figures) {
	t.Helper()
	text, stderr, code := runRelay(t, env, "", "usage", "--format", "csv", "--since", "1h")
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if code != 0 || err != nil || len(records) != len(want)+1 {
		t.Fatalf("csv: exit code %d: %v\n%s%s", code, err, text, stderr)
	}
	for _, r := range records[1:] {
		f := want[r[0]]
		if r[1] != strconv.FormatInt(f.sent, 10) || r[2] != strconv.FormatInt(f.received, 10) || r[3] != strconv.FormatInt(f.connections, 10) {
			t.Errorf("csv row %q, want %+v", r, f)
		}
	}
	table, stderr, code := runRelay(t, env, "", "usage")
	for _, piece := range []string{"ACCOUNT", "alice", "2.50 MB", "bob", "777 B", "(2 in all)"} {
		if code != 0 || !strings.Contains(table, piece) {
			t.Errorf("table without %q: exit code %d\n%s%s", piece, code, table, stderr)
		}
	}
}

// TestUsageInRedis asks two relays of a fleet, and Redis once both have ended.
func TestUsageInRedis(t *testing.T) {
	t.Parallel()
	p := startQuotaPair(t, "1GB", "lifetime", lab.Env{"DRAIN_GRACE": "0s", "DRAIN_TIMEOUT": "10s"})
	var want figures
	for i, r := range p.relays {
		m := openMover(t, r.Addr, "metered", "m-password")
		m.mustMove(t, 1000+int64(i), 200_000)
		want = want.plus(m.figures())
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		waitTunnels(t, r, 0)
	}
	for _, r := range p.relays {
		lab.Wait(t, 6*time.Second, "the other relay's bytes", func() bool { return usageOf(t, r, "metered").figures() == want })
	}
	late := openMover(t, p.relays[0].Addr, "metered", "m-password")
	late.mustMove(t, 16, 5000)
	want = want.plus(late.figures())
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	waitTunnels(t, p.relays[0], 0)
	for _, r := range p.relays {
		stopRelay(t, r)
	}
	env := lab.Env{"ADMIN_LISTEN": lab.FreeAddr(t), "REDIS_URL": p.redisURL}
	if got := commandUsage(t, env, "metered"); got != want {
		t.Errorf("Redis says %+v, moved %+v", got, want)
	}
}

// TestUsageOfPlainHTTP finds what the log says of plain requests, and of refused ones, in the books too.
func TestUsageOfPlainHTTP(t *testing.T) {
	t.Parallel()
	relay, addr := startSingle(t, nil)
	site := startTarget(t, "")
	c := mustDial(t, addr)
	for i := range 3 {
		if got := c.mustGet(t, site.url("http", targetName, fmt.Sprintf("/bytes?n=%d", 1000*i)), basic(customerName, customerPassword)); got.status != http.StatusOK || len(got.body) != 1000*i {
			t.Fatalf("%d bytes: %+v", 1000*i, got)
		}
	}
	var logged figures
	lab.Wait(t, 10*time.Second, "three lines", func() bool {
		list, err := relay.Exchanges()
		if err != nil {
			t.Fatal(err)
		}
		logged = figures{connections: 1}
		for _, e := range list {
			logged.sent, logged.received = logged.sent+e.Sent, logged.received+e.Received
		}
		return len(list) == 3
	})
	if logged.received < 3000 {
		t.Errorf("the log knows of %d bytes", logged.received)
	}
	if got := usageOf(t, relay, customerName).figures(); got != logged {
		t.Errorf("usage says %+v, the log %+v", got, logged)
	}
}
