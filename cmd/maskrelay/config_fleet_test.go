package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"maskrelay/proxy/fleet"
)

func fleetErrors(t testing.TB) []errorCase {
	cert, key := testCertificate(t)
	const redisURL = "redis://:geheim@r.internal:6379/0"
	return []errorCase{
		{"REDIS_URL", one("REDIS_URL", "http://r.example:6379"), []string{
			`REDIS_URL: not a URL of a Redis; write redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path`}},
		{"REDIS_DOWN", map[string]string{"REDIS_URL": redisURL, "REDIS_DOWN": "shared"}, []string{
			`REDIS_DOWN: "shared" is not one of local_share, open, closed`}},
		{"REDIS_DOWN alone", one("REDIS_DOWN", "local_share"), []string{
			`REDIS_DOWN: has no effect without MASKRELAY_REDIS_URL; leave it out`}},
		{"Redis's roots alone", one("REDIS_CA_FILE", cert), []string{`REDIS_CA_FILE: has no effect without MASKRELAY_REDIS_URL; leave it out`}},
		{"Redis's roots in plain text", map[string]string{"REDIS_URL": redisURL, "REDIS_CA_FILE": cert}, []string{
			`REDIS_CA_FILE: has no effect without rediss:// in MASKRELAY_REDIS_URL; leave it out`}},
		{"Redis's roots missing", map[string]string{"REDIS_URL": "rediss://r.example", "REDIS_CA_FILE": "/nowhere/ca"}, []string{
			`REDIS_CA_FILE: open /nowhere/ca: no such file or directory`}},
		{"Redis's roots none", map[string]string{"REDIS_URL": "rediss://r.example", "REDIS_CA_FILE": key}, []string{
			`REDIS_CA_FILE: no certificate (PEM) in ` + key}},
		{"REDIS_URL's file missing is no second error", map[string]string{"REDIS_URL_FILE": "/nowhere/r", "REDIS_DOWN": "open", "ACCOUNTS_REDIS": "true"}, []string{
			`REDIS_URL_FILE: open /nowhere/r: no such file or directory`}},
		{"NODE_NAME", one("NODE_NAME", "relay 1"), []string{
			`NODE_NAME: "relay 1" is not a name of letters, digits, dots, dashes and underscores, at most 64 of them`}},
		{"ACCOUNTS_REDIS alone", map[string]string{"ACCOUNTS": "-", "ACCOUNTS_REDIS": "true"}, []string{`ACCOUNTS_REDIS: needs MASKRELAY_REDIS_URL`}},
		{"ACCOUNTS_REDIS no bool", one("ACCOUNTS_REDIS", "redis"), []string{`ACCOUNTS_REDIS: "redis" is neither true nor false`}},
		{"ACCOUNTS_REDIS with open", map[string]string{"ACCOUNTS": "-", "ACCOUNTS_REDIS": "true", "REDIS_URL": redisURL, "AUTH": "open", "ALLOW_FROM": "10.0.0.0/8"}, []string{
			`ACCOUNTS_REDIS: has no effect with AUTH=open; leave it out`}},
		{"USAGE_FILE with Redis", map[string]string{"REDIS_URL": redisURL, "USAGE_FILE": "/nowhere/usage.db"}, []string{
			`USAGE_FILE: has no effect with MASKRELAY_REDIS_URL, where usage lies then; leave it out`}},
		{"USAGE_FILE in no directory", one("USAGE_FILE", "/nowhere/usage.db"), []string{`USAGE_FILE: directory /nowhere: no such file or directory`}},
		{"USAGE_FILE a directory", one("USAGE_FILE", "/"), []string{`USAGE_FILE: / is not a regular file`}},
		{"USAGE_FILE below a file", one("USAGE_FILE", "/dev/null/usage.db"), []string{`USAGE_FILE: stat /dev/null/usage.db: not a directory`}},
		{"WEBHOOK_SECRET alone", one("WEBHOOK_SECRET", "geheim"), []string{`WEBHOOK_SECRET: has no effect without MASKRELAY_WEBHOOK_URL; leave it out`}},
		{"WEBHOOK_URL", one("WEBHOOK_URL", "ftp://geheim@h.example"), []string{`WEBHOOK_URL: the scheme is not http or https`}},
		{"WEBHOOK_URL's file missing is no second error", map[string]string{"WEBHOOK_URL_FILE": "/nowhere/w", "WEBHOOK_SECRET": "geheim"}, []string{
			`WEBHOOK_URL_FILE: open /nowhere/w: no such file or directory`}},
		{"USER_QUOTA", one("USER_QUOTA", "50"), []string{`USER_QUOTA: "50" is below 1KB, which one request uses up; is the unit missing?`}},
		{"USER_QUOTA_PERIOD", one("USER_QUOTA_PERIOD", "weekly"), []string{`USER_QUOTA_PERIOD: "weekly" is not one of lifetime, monthly`}},
		{"USER_MAX_IPS", one("USER_MAX_IPS", "-1"), []string{`USER_MAX_IPS: "-1" is not a whole number from 0 to 2147483647`}},
		{"MAX_IPS_WINDOW", one("MAX_IPS_WINDOW", "0s"), []string{`MAX_IPS_WINDOW: 0s is not above 0 and at most 24h`}},
		{"client addresses with open", map[string]string{"ACCOUNTS": "-", "AUTH": "open", "ALLOW_FROM": "10.0.0.0/8", "USER_MAX_IPS": "2"}, []string{
			`USER_MAX_IPS: has no effect with AUTH=open; leave it out`}},
		{"QUEUE_TIMEOUT", one("QUEUE_TIMEOUT", "10m"), []string{`QUEUE_TIMEOUT: 10m is not between 0s and 5m`}},
		{"QUEUE_TIMEOUT below 0", one("QUEUE_TIMEOUT", "-1s"), []string{`QUEUE_TIMEOUT: -1s is not between 0s and 5m`}},
		{"LOGIN_FAILURES", map[string]string{"LOGIN_FAILURES_PER_ADDRESS": "-1", "LOGIN_FAILURES_PER_NAME": "-1"}, []string{
			`LOGIN_FAILURES_PER_ADDRESS: "-1" is not a whole number from 0 to 2147483647`,
			`LOGIN_FAILURES_PER_NAME: "-1" is not a whole number from 0 to 2147483647`}},
		{"LOGIN_FAILURES with passthrough", map[string]string{"ACCOUNTS": "-", "AUTH": "passthrough", "UPSTREAM": "http://a.example:1", "LOGIN_FAILURES_PER_NAME": "9"}, []string{
			`LOGIN_FAILURES_PER_NAME: has no effect with AUTH=passthrough; leave it out`}},
	}
}

func TestFleetConfig(t *testing.T) {
	cert, _ := testCertificate(t)
	c, err := LoadConfig(environ(goodEnv(), map[string]string{
		"USER_MAX_IPS": "3", "MAX_IPS_WINDOW": "1h", "USER_QUOTA": "50GB", "USER_QUOTA_PERIOD": "monthly",
		"LOGIN_FAILURES_PER_ADDRESS": "0", "LOGIN_FAILURES_PER_NAME": "7", "QUEUE_TIMEOUT": "2s", "ACCOUNTS_REDIS": "true",
		"REDIS_URL": "rediss://u:p@r.example:6380/1", "REDIS_DOWN": "closed", "REDIS_CA_FILE": cert, "NODE_NAME": "relay-7",
		"WEBHOOK_URL": "https://hooks.example/T0/x", "WEBHOOK_SECRET": "s1gn",
	}))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"User", c.User, UserConfig{0, 0, 0, 0, 3, time.Hour, 50_000_000_000, QuotaMonthly}},
		{"Guess", c.Guess, GuessConfig{0, 7}},
		{"QueueTimeout", c.QueueTimeout, 2 * time.Second},
		{"Webhook", c.Webhook, WebhookConfig{"https://hooks.example/T0/x", "s1gn"}},
		{"Redis", c.Redis, RedisConfig{"rediss://u:p@r.example:6380/1", DownClosed, cert, "relay-7"}},
		{"Fleet", *c.Fleet, fleet.Config{URL: "rediss://u:p@r.example:6380/1", CAFile: cert, Node: "relay-7"}},
		{"InRedis", c.Auth.InRedis, true},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			t.Errorf("%s = %v, want %v", f.name, f.got, f.want)
		}
	}
}

// TestUsageFile: what is fit to keep a ledger is taken, and nothing is left behind by looking.
func TestUsageFile(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "usage.db")
	if _, err := LoadConfig(environ(goodEnv(), one("USAGE_FILE", missing))); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	there := writeFile(t, "anything")
	cfg, err := LoadConfig(environ(goodEnv(), one("USAGE_FILE", there)))
	if err != nil || cfg.UsageFile != there {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(there); err != nil || string(data) != "anything" {
		t.Errorf("changed to %q, %v", data, err)
	}
}

func TestUsageFileWithoutPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil { //nolint:gosec // a directory needs its x
		t.Fatal(err)
	}
	err := checkUsageFile(filepath.Join(dir, "usage.db"))
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "directory "+dir) {
		t.Errorf("got %v", err)
	}
}

// TestAccountsInRedisAlone: an empty store is a good start where the fleet holds the accounts.
func TestAccountsInRedisAlone(t *testing.T) {
	cfg, err := LoadConfig(environ(goodEnv(), map[string]string{"ACCOUNTS": "-", "ACCOUNTS_REDIS": "true", "REDIS_URL": "redis://127.0.0.1"}))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Accounts == nil || cfg.Accounts.Len() != 0 || cfg.Fleet == nil || cfg.Fleet.Node == "" {
		t.Errorf("accounts %v, fleet %+v", cfg.Accounts, cfg.Fleet)
	}
}

func TestFleetWarnings(t *testing.T) {
	const quotas = "MASKRELAY_USAGE_FILE: not set, nor is MASKRELAY_REDIS_URL: usage is forgotten when the relay ends, and quotas begin anew"
	const unsigned = "MASKRELAY_WEBHOOK_SECRET: not set: messages are not signed, so that whoever finds the receiver can invent some"
	withQuota := writeFile(t, "accounts:\n  - {name: carol, password: secret, quota: 1GB}\n  - {name: dave, password: secret}\n")
	for _, c := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"quota in memory", one("USER_QUOTA", "50GB"), quotas},
		{"an account's quota in memory", one("ACCOUNTS_FILE", withQuota), quotas},
		{"quota in a file", map[string]string{"USER_QUOTA": "50GB", "USAGE_FILE": filepath.Join(t.TempDir(), "u")}, ""},
		{"quota in Redis", map[string]string{"USER_QUOTA": "50GB", "REDIS_URL": "redis://10.0.0.1"}, ""},
		{"Redis far away", one("REDIS_URL", "redis://:geheim@redis.example.com:6379"), "MASKRELAY_REDIS_URL: redis:// to redis.example.com is plain text for everybody on the way; use rediss://"},
		{"Redis on a socket", one("REDIS_URL", "unix:///run/redis.sock"), ""},
		{"webhook", map[string]string{"WEBHOOK_URL": "http://8.8.8.8/", "WEBHOOK_SECRET": "x"}, "MASKRELAY_WEBHOOK_URL: http:// to 8.8.8.8 is plain text for everybody on the way; use https://"},
		{"webhook next door", map[string]string{"WEBHOOK_URL": "http://receiver:8000", "WEBHOOK_SECRET": "x"}, ""},
		{"webhook unsigned", one("WEBHOOK_URL", "https://h.example/geheim"), unsigned},
		{"hook", map[string]string{"ACCOUNTS": "-", "AUTH": "hook", "AUTH_URL": "http://u:geheim@panel.example.com/a"},
			"MASKRELAY_AUTH_URL: http:// to panel.example.com is plain text for everybody on the way; use https://"},
		{"hook next door", map[string]string{"ACCOUNTS": "-", "AUTH": "hook", "AUTH_URL": "http://[fd00::1]:8000"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := LoadConfig(environ(goodEnv(), c.vars))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(cfg.Warnings(), "\n"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestExposed(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": false, "::1": false, "10.1.2.3": false, "fd00::1": false, "fe80::1": false, "::ffff:192.168.0.1": false,
		"8.8.8.8": true, "2001:db8::1": true, "redis": false, "redis.internal": false, "hook.ns.svc.cluster.local.": false,
		"LOCALHOST": false, "a.example": true, "local.example": true, "": false,
	} {
		if exposed(host) != want {
			t.Errorf("exposed(%q) is not %v", host, want)
		}
	}
}

func TestShownURL(t *testing.T) {
	for _, c := range []struct {
		url      Secret
		withPath bool
		want     string
	}{
		{"", true, ""},
		{"rediss://user:geheim@r.example:6380/1?x=geheim", true, "rediss://***@r.example:6380/1"},
		{"unix://:geheim@/run/r.sock?db=1", true, "unix://***@/run/r.sock"},
		{"https://h.example", false, "https://h.example"},
		{"https://h.example/", false, "https://h.example"},
		{"https://geheim@h.example:8443/geheim?geheim#geheim", false, "https://***@h.example:8443/***"},
		{"https://h.example?geheim", false, "https://h.example/***"},
		{"%geheim", false, "***"},
	} {
		if got := shownURL(c.url, c.withPath); got != c.want {
			t.Errorf("%s: got %s, want %s", c.url.Reveal(), got, c.want)
		}
	}
}
