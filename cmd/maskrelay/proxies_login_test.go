package main

import (
	"strings"
	"testing"
	"time"

	"maskrelay/proxy/account"
	"maskrelay/upstream"
)

// poolsConfig is a relay with the pools default and oxy, and an account of the given JSON.
func poolsConfig(t testing.TB, data string) (*Config, *account.Account) {
	t.Helper()
	cfg := &Config{Balance: RoundRobin, Timeouts: TimeoutConfig{Dial: time.Second, Connect: time.Second}}
	cfg.Auth.Mode = AuthAccounts
	for _, g := range []upstream.GatewayConfig{
		{URL: "http://u:p@a.example:1"}, {URL: "http://u:p@b.example:1", Pool: "oxy"}, {Name: "second", URL: "http://u:p@b.example:2", Pool: "oxy"},
	} {
		gateway, err := upstream.ParseGateway(g)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Gateways = append(cfg.Gateways, gateway)
	}
	a, err := account.ParseJSON("alice", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return cfg, a
}

// TestServingPool: the customer's wish goes before the account's pool, and that before the listener's.
func TestServingPool(t *testing.T) {
	for _, c := range []struct {
		account, listener, wanted string
		want                      string
		may                       bool
	}{
		{`{}`, "", "", "default", true},
		{`{}`, "oxy", "", "oxy", true},
		{`{"pool":"default"}`, "oxy", "", "default", true},
		{`{"pool":"oxy"}`, "", "oxy", "oxy", true},
		{`{}`, "oxy", "oxy", "oxy", true},
		{`{}`, "", "default", "default", true},
		{`{"pool":"oxy"}`, "", "default", "oxy", false},
		{`{"pool":"oxy","pools":["default"]}`, "", "default", "default", true},
		{`{"pools":["oxy"]}`, "", "oxy", "oxy", true},
		{`{"pools":["oxy"]}`, "", "Oxy", "default", false},
		{"", "", "oxy", "oxy", true},
	} {
		l := proxyList{door: door{pool: c.listener}}
		l.question.wishes.pool = c.wanted
		if c.account != "" {
			_, l.account = poolsConfig(t, c.account)
		}
		if pool, may := l.servingPool(); pool != c.want || may != c.may {
			t.Errorf("%+v: %q, %v", c, pool, may)
		}
	}
}

func TestCheckPools(t *testing.T) {
	for _, c := range []struct{ account, want string }{
		{`{}`, ""},
		{`{"pool":"oxy"}`, ""},
		{`{"pool":"oxi"}`, `--pool: no gateway is in "oxi"; there are default, oxy`},
	} {
		cfg, a := poolsConfig(t, c.account)
		l := proxyList{account: a, question: proxiesQuestion{user: "alice"}}
		if err := checkWishes(cfg, &l); (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%s: %v, want %q", c.account, err, c.want)
		}
	}
}

func TestParams(t *testing.T) {
	q := proxiesQuestion{sticky: "10m", wishes: wishes{country: "us", state: "new_york", city: "albany", zip: "12201", asn: "7922", pool: "oxy"}}
	if got, want := q.params("a1"), "country-us-state-new_york-city-albany-zip-12201-asn-7922-session-a1-ttl-10m-pool-oxy"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := account.SplitUsername("alice-" + q.params("a1")); got.Name != "alice" || got.Params != q.params("a1") {
		t.Errorf("taken apart as %+v", got)
	}
	q = proxiesQuestion{wishes: wishes{zip: "1"}}
	if got := q.params(""); got != "zip-1" {
		t.Errorf("got %s", got)
	}
	if got := (&proxiesQuestion{}).params("a1"); got != "" {
		t.Errorf("a session that nobody asked for: %s", got)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"alice", "bob", "carl"}
	for name, want := range map[string]string{"alcie": "alice", "bop": "bob", "x": "", "Carl": "carl", "something": "", "b": ""} {
		if got := nearest(name, names); got != want {
			t.Errorf("near %s is %q, want %q", name, got, want)
		}
	}
	if got := nearest(strings.Repeat("x", 64), nil); got != "" {
		t.Errorf("of none %q", got)
	}
}
