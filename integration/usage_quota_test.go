package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// cutLimit is how long after its quota is used up a customer may have tunnels.
const cutLimit = 10 * time.Second

// usedUp is the whole answer to a customer whose quota is used up.
const usedUp = "HTTP/1.1 402 Payment Required\r\nContent-Length: 22\r\nContent-Type: text/plain\r\nProxy-Status: Proxy; error=http_request_denied\r\n\r\nThe quota is used up.\n"

// quotaPair is two relays that share a Redis and have an accounts file each.
type quotaPair struct {
	relays   []*lab.Relay
	files    []string
	redisURL string
}

func quotaAccounts(quota, period string) string {
	return fmt.Sprintf("accounts:\n  - name: metered\n    password: m-password\n    quota: %s\n    quota_period: %s\n  - name: free\n    password: f-password\n", quota, period)
}

func startQuotaPair(t *testing.T, quota, period string, change lab.Env) *quotaPair {
	t.Helper()
	redis, source := lab.StartRedis(t), startSource(t)
	p := &quotaPair{redisURL: redis.URL()}
	for i := range 2 {
		file := writeFile(t, t.TempDir(), "accounts.yaml", quotaAccounts(quota, period))
		env := lab.Env{"UPSTREAM": source, "ACCOUNTS_FILE": file, "REDIS_URL": redis.URL(), "NODE_NAME": fmt.Sprintf("relay%d", i)}
		for name, value := range change {
			env[name] = value
		}
		p.relays, p.files = append(p.relays, startRelay(t, env)), append(p.files, file)
	}
	return p
}

// rewrite replaces each relay's accounts file.
func (p *quotaPair) rewrite(t *testing.T, text string) {
	t.Helper()
	for _, file := range p.files {
		if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQuotaCutsEverywhere uses a quota up on two relays together: most of it on the first, next to nothing on the second.
func TestQuotaCutsEverywhere(t *testing.T) {
	t.Parallel()
	for _, period := range []string{"lifetime", "monthly"} {
		t.Run(period, func(t *testing.T) {
			t.Parallel()
			p := startQuotaPair(t, "5MB", period, nil)
			busy := openMover(t, p.relays[0].Addr, "metered", "m-password")
			quiet := openMover(t, p.relays[1].Addr, "metered", "m-password")
			free := openMover(t, p.relays[1].Addr, "free", "f-password")
			quiet.mustMove(t, 1000, 2000)
			free.mustMove(t, 100, 6_000_000)
			busy.mustMove(t, 3_000_000, 1_900_000)
			for _, r := range p.relays { // below the quota, and everything of it known
				lab.Wait(t, cutLimit, "the fleet's total", func() bool {
					used, _ := r.Metric(t, `maskrelay_account_quota_used_bytes{account="metered"}`)
					return used == 4_903_000
				})
			}
			quiet.mustMove(t, 16, 16)
			busy.mustMove(t, 16, 200_000)
			t.Logf("cut after %v where it moved, %v later where it did not", busy.waitCut(t, cutLimit), quiet.waitCut(t, cutLimit))
			for _, r := range p.relays {
				waitOutcomes(t, r, "metered", "quota_used", 1)
				checkUsedUp(t, r)
			}
			free.mustMove(t, 100, 100)
			if got := mustDial(t, p.relays[0].Addr).mustConnect(t, "shop.target.example:443", "free", "f-password"); got.status != http.StatusOK {
				t.Errorf("a customer without a quota: %+v", got)
			}

			p.rewrite(t, quotaAccounts("6MB", period))
			for _, r := range p.relays {
				lab.Wait(t, 5*time.Second, "the raised quota to let him in", func() bool {
					c := mustDial(t, r.Addr)
					return c.mustConnect(t, "shop.target.example:443", "metered", "m-password").status == http.StatusOK && c.Close() == nil
				})
			}
			again := openMover(t, p.relays[1].Addr, "metered", "m-password")
			again.mustMove(t, 16, 900_000) // beyond the new one
			again.waitCut(t, cutLimit)
			lab.Wait(t, cutLimit, "402 on the other relay", func() bool {
				c := mustDial(t, p.relays[0].Addr)
				// What is being opened at that moment is cut without an answer.
				got, err := c.connect("shop.target.example:443", "metered", "m-password")
				return c.Close() == nil && err == nil && got.status == http.StatusPaymentRequired
			})
		})
	}
}

// checkUsedUp asks by CONNECT and plain, with the right password and with a wrong one.
func checkUsedUp(t *testing.T, r *lab.Relay) {
	t.Helper()
	login := "Proxy-Authorization: Basic " + basic("metered", "m-password") + "\r\n\r\n"
	for name, request := range map[string]string{
		"CONNECT": "CONNECT shop.target.example:443 HTTP/1.1\r\nHost: shop.target.example:443\r\n" + login,
		"GET":     "GET http://shop.target.example/ HTTP/1.1\r\nHost: shop.target.example\r\n" + login,
	} {
		if got := rawReply(t, r.Addr, request); got != usedUp {
			t.Errorf("%s: %q, want %q", name, got, usedUp)
		}
	}
	if got := mustDial(t, r.Addr).mustConnect(t, "shop.target.example:443", "metered", "wrong"); got.status != http.StatusProxyAuthRequired {
		t.Errorf("a wrong password where the quota is used up: %+v", got)
	}
}

// TestQuotaOfEveryone gives a quota to accounts that name none, by USER_QUOTA, without Redis.
func TestQuotaOfEveryone(t *testing.T) {
	t.Parallel()
	relay := startRelay(t, lab.Env{"UPSTREAM": startSource(t), "ACCOUNTS": "alice:a-password,bob:b-password", "USER_QUOTA": "1MB", "USER_QUOTA_PERIOD": "monthly"})
	alice, bob := openMover(t, relay.Addr, "alice", "a-password"), openMover(t, relay.Addr, "bob", "b-password")
	bob.mustMove(t, 16, 900_000)
	alice.mustMove(t, 16, 1_100_000)
	alice.waitCut(t, cutLimit)
	bob.mustMove(t, 16, 16)
	waitOutcomes(t, relay, "alice", "quota_used", 1)
	if got := mustDial(t, relay.Addr).mustConnect(t, "shop.target.example:443", "alice", "a-password"); got.status != http.StatusPaymentRequired {
		t.Errorf("beyond the quota: %+v", got)
	}
	if got := mustDial(t, relay.Addr).mustConnect(t, "shop.target.example:443", "bob", "b-password"); got.status != http.StatusOK {
		t.Errorf("below the quota: %+v", got)
	}
	if log := string(relay.Stderr.Bytes()); !strings.Contains(log, "quotas begin anew") {
		t.Error("no warning that usage is forgotten at the end of the process")
	}
}

// TestQuotaSurvives finds a used-up quota used up after a restart, at once.
func TestQuotaSurvives(t *testing.T) {
	t.Parallel()
	env := lab.Env{
		"UPSTREAM": startSource(t), "USAGE_FILE": t.TempDir() + "/usage.db", "DRAIN_GRACE": "0s", "DRAIN_TIMEOUT": "1s",
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", quotaAccounts("1MB", "lifetime")),
	}
	relay := startRelay(t, env)
	m := openMover(t, relay.Addr, "metered", "m-password")
	m.mustMove(t, 16, 1_000_000)
	m.waitCut(t, cutLimit)
	stopRelay(t, relay)
	relay = startRelay(t, env)
	if got := usageOf(t, relay, "metered").figures(); got != m.figures() {
		t.Errorf("after the restart %+v, moved %+v", got, m.figures())
	}
	// The first request may come before the total is read: then it is cut, with or without an answer.
	c := mustDial(t, relay.Addr)
	if got, err := c.connect("shop.target.example:443", "metered", "m-password"); err == nil && got.status == http.StatusOK {
		(&mover{client: c}).waitCut(t, cutLimit)
	}
	if got := mustDial(t, relay.Addr).mustConnect(t, "shop.target.example:443", "metered", "m-password"); got.status != http.StatusPaymentRequired {
		t.Errorf("after the restart: %+v", got)
	}
}
