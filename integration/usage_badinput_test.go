package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// TestBadServicesAreNamed gives variables of the fleet, the hook, usage and webhooks values that cannot work: each is named, no secret is told.
func TestBadServicesAreNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const secret = "never-to-be-told"
	basics := lab.Env{"UPSTREAM": "http://u:p@127.0.0.1:1", "ACCOUNTS": "alice:a-password", "LISTEN": lab.FreeAddr(t), "ADMIN_LISTEN": ""}
	for name, tc := range map[string]struct {
		env   lab.Env
		wants string
	}{
		"redis scheme":      {lab.Env{"REDIS_URL": "http://u:" + secret + "@127.0.0.1:6379"}, "MASKRELAY_REDIS_URL"},
		"redis port":        {lab.Env{"REDIS_URL": "redis://u:" + secret + "@127.0.0.1:99999/0"}, "MASKRELAY_REDIS_URL"},
		"redis database":    {lab.Env{"REDIS_URL": "redis://u:" + secret + "@127.0.0.1:6379/x"}, "MASKRELAY_REDIS_URL"},
		"redis no URL":      {lab.Env{"REDIS_URL": "redis://u:" + secret + "@[::1:6379"}, "MASKRELAY_REDIS_URL"},
		"redis policy":      {lab.Env{"REDIS_URL": "redis://u:" + secret + "@127.0.0.1:6379", "REDIS_DOWN": "maybe"}, "MASKRELAY_REDIS_DOWN"},
		"usage directory":   {lab.Env{"USAGE_FILE": filepath.Join(dir, "none", "usage.db")}, "MASKRELAY_USAGE_FILE"},
		"usage is a folder": {lab.Env{"USAGE_FILE": dir}, "MASKRELAY_USAGE_FILE"},
		"webhook":           {lab.Env{"WEBHOOK_URL": "mailto:u:" + secret + "@h"}, "MASKRELAY_WEBHOOK_URL"},
		"hook without mode": {lab.Env{"AUTH_URL": "http://u:" + secret + "@h/"}, "MASKRELAY_AUTH_URL"},
		"quota":             {lab.Env{"USER_QUOTA": "lots"}, "MASKRELAY_USER_QUOTA"},
		"quota period":      {lab.Env{"USER_QUOTA": "1GB", "USER_QUOTA_PERIOD": "weekly"}, "MASKRELAY_USER_QUOTA_PERIOD"},
		"queue":             {lab.Env{"QUEUE_TIMEOUT": "-1s"}, "MASKRELAY_QUEUE_TIMEOUT"},
		"guesses":           {lab.Env{"LOGIN_FAILURES_PER_NAME": "-1"}, "MASKRELAY_LOGIN_FAILURES_PER_NAME"},
		"max_ips":           {lab.Env{"USER_MAX_IPS": "-1"}, "MASKRELAY_USER_MAX_IPS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := lab.Env{}
			for _, more := range []lab.Env{basics, tc.env} {
				for name, value := range more {
					env[name] = value
				}
			}
			stdout, stderr, code := runRelay(t, env, "", "serve")
			var named bool
			for line := range strings.Lines(stderr) {
				named = named || strings.HasPrefix(line, tc.wants+":")
			}
			if code != 2 || !named || strings.Contains(stdout+stderr, secret) {
				t.Errorf("exit code %d, want 2 and a line for %s:\n%s%s", code, tc.wants, stdout, stderr)
			}
		})
	}
}

// TestUnusableUsageFile starts a relay with the file of one that runs, and with one that is no ledger: it says so and ends at once.
func TestUnusableUsageFile(t *testing.T) {
	t.Parallel()
	held := filepath.Join(t.TempDir(), "usage.db")
	startRelay(t, lab.Env{"UPSTREAM": startSource(t), "ACCOUNTS": "alice:a-password", "USAGE_FILE": held})
	for want, file := range map[string]string{
		"in use by another process": held,
		"no usage file":             writeFile(t, t.TempDir(), "text", strings.Repeat("no ledger ", 10_000)),
	} {
		env := lab.Env{"UPSTREAM": "http://u:p@127.0.0.1:1", "ACCOUNTS": "alice:a-password", "USAGE_FILE": file, "LISTEN": lab.FreeAddr(t), "ADMIN_LISTEN": lab.FreeAddr(t)}
		_, stderr, code := runRelay(t, env, "", "serve")
		if code != 1 || !strings.HasPrefix(stderr, "maskrelay: MASKRELAY_USAGE_FILE: ") || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, want 1 and %q:\n%s", code, want, stderr)
		}
	}
}

// TestOneBadAccountOfMany: a file of 10,000 with one bad account is refused whole, at start and as a change, and what was good goes on.
func TestOneBadAccountOfMany(t *testing.T) {
	t.Parallel()
	file := func(bad string, first string) string {
		var text strings.Builder
		text.WriteString("accounts:\n")
		for i := range 10_000 {
			limit := "quota: 5GB"
			if i == 7_654 {
				limit = bad
			}
			fmt.Fprintf(&text, "  - name: c%d%s\n    password: p%d\n    %s\n", i, first, i, limit)
		}
		return text.String()
	}
	// The line of a bad value: one for the heading, three for each account before, and two of its own.
	const line = 1 + 3*7_654 + 3
	path := writeFile(t, t.TempDir(), "accounts.yaml", file("quota: 5GB", ""))
	relay := startRelay(t, lab.Env{"UPSTREAM": startSource(t), "ACCOUNTS_FILE": path})
	live := openMover(t, relay.Addr, "c1", "p1")
	for name, bad := range map[string]string{"value": "quota: plenty", "key": "quotas: 5GB", "period": "quota_period: weekly", "weight": "weight: 1001", "max_ips": "max_ips: -1"} {
		if err := os.WriteFile(path+".new", []byte(file(bad, "")), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%s:%d", path, line)
		before := len(relay.Stderr.Bytes())
		lab.Wait(t, 20*time.Second, "the refusal of a bad "+name, func() bool {
			return strings.Contains(string(relay.Stderr.Bytes()[before:]), want)
		})
		if ok, _ := relay.Metric(t, "maskrelay_accounts_reload_success"); ok != 0 {
			t.Errorf("%s: reload_success is %v", name, ok)
		}
		live.mustMove(t, 16, 16)
		if got := ask(t, relay.Addr, "c9999", "p9999"); got != http.StatusOK {
			t.Errorf("%s: a good account: status %d", name, got)
		}
		_, stderr, code := runRelay(t, lab.Env{"UPSTREAM": "http://u:p@127.0.0.1:1", "ACCOUNTS_FILE": path}, "", "check")
		if code != 2 || !strings.Contains(stderr, fmt.Sprint(line)) || len(strings.Split(strings.TrimSpace(stderr), "\n")) != 1 {
			t.Errorf("%s: check: exit code %d:\n%.500s", name, code, stderr)
		}
	}
	if err := os.WriteFile(path, []byte(file("quota: 6GB", "")), 0o644); err != nil {
		t.Fatal(err)
	}
	lab.Wait(t, 20*time.Second, "the good file", func() bool {
		ok, _ := relay.Metric(t, "maskrelay_accounts_reload_success")
		return ok == 1
	})
	live.mustMove(t, 16, 16)
}
