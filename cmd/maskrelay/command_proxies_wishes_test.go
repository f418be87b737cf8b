package main

import (
	"regexp"
	"strings"
	"testing"
)

// wishesEnv is a relay with two pools: what default can do is in its template, oxy can do nothing.
func wishesEnv(t testing.TB) []string {
	t.Helper()
	return proxiesEnv(t, map[string]string{
		"UPSTREAM":             "-",
		"UPSTREAMS_0_URL":      "http://operator:secret@a.example:1",
		"UPSTREAMS_0_USERNAME": "c-{login}{?country:-cc-{country}}{?state:-st-{state}}{?city:-city-{city}}{?asn:-asn-{asn}}{?session:-s-{session}}{?ttl:-t-{ttl_minutes}}",
		"UPSTREAMS_1_URL":      "http://operator:secret@b.example:1",
		"UPSTREAMS_1_POOL":     "oxy",
		"ACCOUNTS":             "bob:bobsecret",
		"ACCOUNTS_FILE":        writeFile(t, "accounts:\n- {name: alice, password: alicesecret, pools: [oxy]}\n- {name: carl, password: carlsecret, pool: oxy}\n"),
	})
}

func TestProxiesWishes(t *testing.T) {
	env := wishesEnv(t)
	for _, c := range []struct {
		args []string
		want string // of the username, behind the name
	}{
		{[]string{"alice", "--country", "US"}, "-country-us"},
		{[]string{"alice", "--asn", "AS7922", "--city", "Winston-Salem", "--state", "North Carolina"}, "-state-north_carolina-city-winston_salem-asn-as7922"},
		{[]string{"alice", "--sticky", "10m"}, "-session-[a-z0-9]{8}-ttl-10m"},
		{[]string{"alice", "--country", "de", "--sticky", "1h"}, "-country-de-session-[a-z0-9]{8}-ttl-1h"},
		{[]string{"alice", "--pool", "oxy"}, "-pool-oxy"},
		{[]string{"alice", "--pool", "default", "--country", "us"}, "-country-us-pool-default"},
		{[]string{"carl", "--pool", "oxy"}, "-pool-oxy"},
	} {
		got := runWith(env, "", append([]string{"proxies", "--user"}, c.args...)...)
		name := c.args[0]
		if !regexp.MustCompile(`^192\.0\.2\.1:8080:`+name+c.want+`:`+name+`secret\n$`).MatchString(got.stdout) || got.code != 0 || got.stderr != "" {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
}

func TestProxiesSessionsAreTheirOwn(t *testing.T) {
	got := runWith(wishesEnv(t), "", "proxies", "--user", "alice", "--sticky", "30m", "--count", "1000")
	seen := map[string]bool{}
	for line := range strings.Lines(got.stdout) {
		seen[line] = true
	}
	if got.code != 0 || len(seen) != 1000 {
		t.Errorf("%d lines of 1000 are their own, %s", len(seen), got.stderr)
	}
}

// TestProxiesWishesThatNobodyCanServe: the error is the flag's, and nothing is printed.
func TestProxiesWishesThatNobodyCanServe(t *testing.T) {
	env := wishesEnv(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"alice", "--country", "usa"}, "--country: "},
		{[]string{"alice", "--country", "zz"}, "--country: "},
		{[]string{"alice", "--city", "são paulo"}, "--city: "},
		{[]string{"alice", "--asn", "none"}, "--asn: The username parameter asn has a value that cannot be used. Do: write a network's number, as 7922\n"},
		{[]string{"alice", "--sticky", "10"}, "--sticky: The username parameter ttl has a value that cannot be used. Do: write a number and a unit, as 30m (1s to 30d)\n"},
		{[]string{"alice", "--sticky", "31d"}, "--sticky: "},
		{[]string{"alice", "--zip", "12201"}, "--zip: "},
		{[]string{"alice", "--pool", "oxy", "--country", "us"}, "--country: "},
		{[]string{"carl", "--sticky", "10m"}, "--sticky: The username parameter session is not available. Do: no gateway of the pool oxy can do that; "},
		{[]string{"bob", "--pool", "oxy"}, `--pool: bob may not choose "oxy"; the account is served by "default" and may choose no other (pools of the account)` + "\n"},
		{[]string{"alice", "--pool", "gold"}, `--pool: alice may not choose "gold"; the account is served by "default" and may choose oxy (pools of the account)` + "\n"},
		{[]string{"alice", "--pool", "o/xy"}, "--pool: "},
	} {
		got := runWith(env, "", append([]string{"proxies", "--user"}, c.args...)...)
		if got.code != exitConfig || got.stdout != "" || !strings.HasPrefix(got.stderr, c.want) || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%v: %+v, want %q", c.args, got, c.want)
		}
	}
}
