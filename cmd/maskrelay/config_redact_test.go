package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// planted is an environment with a different secret in every place that can hold one.
func planted(t *testing.T) (vars map[string]string, secrets []string) {
	t.Helper()
	vars = map[string]string{
		"ACCOUNTS": "alice:Geheim-1,bob:Geheim-2:30", "ADMIN_TOKEN_FILE": writeFile(t, "Geheim-3"), "UPSTREAM": "-",
		"UPSTREAMS_0_URL": "http://Geheim-4:Geheim-5@gw0.example:1", "UPSTREAMS_1_URL_FILE": writeFile(t, "https://Geheim-6:Geheim-7@gw1.example:2\n"),
		"UPSTREAMS_2_URL": "http://gw2.example:3", "UPSTREAMS_2_USERNAME": "Geheim-8", "UPSTREAMS_2_PASSWORD": "Geheim-9",
	}
	vars["REDIS_URL_FILE"] = writeFile(t, "rediss://user:Geheim-10@redis.example:6380/2")
	vars["WEBHOOK_URL"], vars["WEBHOOK_SECRET"] = "https://Geheim-11:Geheim-12@hooks.example/Geheim-13?k=Geheim-14", "Geheim-15"
	for n := 1; n <= 15; n++ {
		secrets = append(secrets, fmt.Sprintf("Geheim-%d", n))
	}
	return vars, secrets
}

func wantNone(t *testing.T, where, text string, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%s shows %s:\n%s", where, s, text)
		}
	}
}

func TestEffectiveShowsNoSecret(t *testing.T) {
	vars, secrets := planted(t)
	c, err := LoadConfig(environ(goodEnv(), vars))
	if err != nil {
		t.Fatal(err)
	}
	settings := c.Effective()
	wantNone(t, "Effective", fmt.Sprint(settings), secrets)
	wantNone(t, "Config", fmt.Sprintf("%v %+v", c.Upstreams, c.Admin), secrets)
	want := map[string]string{
		"ACCOUNTS":             "alice:***,bob:***:30",
		"ADMIN_TOKEN":          "*** (from " + vars["ADMIN_TOKEN_FILE"] + ")",
		"UPSTREAM":             "",
		"UPSTREAMS_0_URL":      "http://***@gw0.example:1",
		"UPSTREAMS_0_NAME":     "gw0.example",
		"UPSTREAMS_1_URL":      "https://***@gw1.example:2 (from " + vars["UPSTREAMS_1_URL_FILE"] + ")",
		"UPSTREAMS_2_URL":      "http://***@gw2.example:3",
		"UPSTREAMS_2_USERNAME": "***",
		"UPSTREAMS_2_PASSWORD": "***",
		"UPSTREAMS_2_WEIGHT":   "1",
		"REDIS_URL":            "rediss://***@redis.example:6380/2 (from " + vars["REDIS_URL_FILE"] + ")",
		"WEBHOOK_URL":          "https://***@hooks.example/***",
		"WEBHOOK_SECRET":       "***",
		"AUTH_URL":             "",
		"IDLE_TIMEOUT":         "10m",
		"ALLOW_PORTS":          "80,443",
		"LISTEN":               ":8080",
	}
	for _, s := range settings {
		name := strings.TrimPrefix(s.Name, envPrefix)
		if value, ok := want[name]; ok && value != s.Value {
			t.Errorf("%s = %q, want %q", s.Name, s.Value, value)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
	if !slices.IsSortedFunc(settings, func(a, b Setting) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
}

func TestEffectiveOfOneGateway(t *testing.T) {
	c, err := LoadConfig(environ(goodEnv(), nil))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(c.Effective(), Setting{"MASKRELAY_UPSTREAM", "http://***@gw.vendor.example:7777"}) {
		t.Errorf("got %v", c.Effective())
	}
}

// TestErrorsShowNoSecret breaks every secret, and every other variable beside intact secrets.
func TestErrorsShowNoSecret(t *testing.T) {
	vars, secrets := planted(t)
	for name, value := range map[string]string{
		"ACCOUNTS": "alice:Geheim-1:x:y:Geheim-2,Geheim-2", "UPSTREAMS_0_URL": "Geheim-4:Geheim-5", "UPSTREAMS_2_URL": "http://Geheim-8:Geheim-9@",
		"UPSTREAMS_2_PASSWORD": "Geheim-9{}", "UPSTREAMS_2_USERNAME": "Geheim-8:", "ADMIN_TOKEN": "Geheim-3 and more", "UPSTREAM": "http://Geheim-4:Geheim-5@a b:1",
		"REDIS_URL": "redis//Geheim-10", "WEBHOOK_URL": "https://Geheim-11:Geheim-12@:1/Geheim-13", "AUTH_TOKEN": "Geheim-15",
		"LISTEN": "x", "BRAND": "\n", "AUTH": "passthrough", "UPSTREAMS_1_WEIGHT": "x", "IDLE_TIMEOUT": "x", "ADMIN_TOKEN_FILE": "/nowhere/x",
	} {
		broken := map[string]string{name: value}
		for n, v := range vars {
			if _, own := broken[n]; !own {
				broken[n] = v
			}
		}
		_, err := LoadConfig(environ(goodEnv(), broken))
		if err == nil {
			t.Errorf("%s=%q is accepted", name, value)
			continue
		}
		wantNone(t, name, err.Error(), secrets)
		for _, args := range [][]string{{"check"}, {"check", "--json"}, {"serve"}} {
			got := runWith(environ(goodEnv(), broken), "", args...)
			wantNone(t, fmt.Sprint(args, name), got.stdout+got.stderr, secrets)
			if got.code != exitConfig {
				t.Errorf("%v with a bad %s: exit code %d", args, name, got.code)
			}
		}
	}
}

func open(from string) map[string]string {
	return map[string]string{"AUTH": "open", "ACCOUNTS": "-", "ALLOW_FROM": from}
}

func with(vars map[string]string, name, value string) map[string]string {
	vars[name] = value
	return vars
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		name string
		vars map[string]string
		want string
	}{
		{"admin for all", one("ADMIN_LISTEN", ":9090"), "MASKRELAY_ADMIN_LISTEN: :9090 is not loopback: whoever reaches it reads /metrics, " +
			"which name gateways and accounts; keep customers away from it"},
		{"admin off", one("ADMIN_LISTEN", ""), ""},
		{"admin with a token", map[string]string{"ADMIN_LISTEN": "127.0.0.1:9090", "ADMIN_TOKEN": "0123456789abcdef"}, ""},
		{"open behind nobody knows what", open("198.51.100.0/24"), "MASKRELAY_ALLOW_FROM: AUTH=open without MASKRELAY_PROXY_PROTOCOL_FROM: " +
			"behind a balancer everybody has the balancer's address"},
		{"open for half the Internet", with(open("0.0.0.0/1"), "PROXY_PROTOCOL_FROM", "10.0.0.1"), "MASKRELAY_ALLOW_FROM: 0.0.0.0/1 is a large part of the Internet, " +
			"and AUTH=open asks nobody for a password"},
		{"short token", one("ADMIN_TOKEN", "short"), "MASKRELAY_ADMIN_TOKEN: shorter than 16 bytes"},
		{"anyone may send PROXY", one("PROXY_PROTOCOL_FROM", "0.0.0.0/0"), "MASKRELAY_PROXY_PROTOCOL_FROM: holds the whole Internet: anyone can claim any client address"},
		{"private targets", one("ALLOW_PRIVATE", "true"), "MASKRELAY_ALLOW_PRIVATE: customers reach loopback, private and metadata addresses as far as the gateway does"},
		{"all ports", one("ALLOW_PORTS", "*"), "MASKRELAY_ALLOW_PORTS: port 25 is open: mail abuse costs the gateway its addresses"},
		{"preset without a login", map[string]string{"UPSTREAM": "-", "UPSTREAMS_0_VENDOR": "oxylabs"}, "MASKRELAY_UPSTREAMS_0_USERNAME: missing: oxylabs gets no login, " +
			"so it must know this host by its address, and customers can ask for nothing"},
		{"preset without a password", map[string]string{"UPSTREAM": "-", "UPSTREAMS_0_VENDOR": "oxylabs", "UPSTREAMS_0_USERNAME": "u"},
			"MASKRELAY_UPSTREAMS_0_PASSWORD: missing: oxylabs gets a login without a password"},
		{"preset with both", map[string]string{"UPSTREAM": "-", "UPSTREAMS_0_VENDOR": "oxylabs", "UPSTREAMS_0_URL": "socks5://u:p@"}, ""},
		{"mail", one("ALLOW_PORTS", "25,443"), "MASKRELAY_ALLOW_PORTS: port 25 is open: mail abuse costs the gateway its addresses"},
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
