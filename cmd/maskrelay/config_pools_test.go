package main

import (
	"strings"
	"testing"
)

// TestAccountsPools: a pool without a gateway is an error of the accounts file, told with its place, unless the gateways are wrong.
func TestAccountsPools(t *testing.T) {
	file := writeFile(t, "accounts:\n- name: alice\n  password: x\n  pool: oxi\n- {name: bob, password: x, pools: [default, smart]}\n- {name: carl, password: x, pool: default}\n")
	for _, c := range []struct{ upstream, want string }{
		{"http://gw.vendor.example:7777", file + `:4:9: pool "oxi": no gateway is in it; there are default` + "\n" +
			file + `:5:35: pools "smart": no gateway is in it; there are default`},
		{"http://gw.vendor.example", "MASKRELAY_UPSTREAM: the port is missing; write scheme://host:port"},
	} {
		_, err := LoadConfig(environ(nil, map[string]string{"UPSTREAM": c.upstream, "ACCOUNTS_FILE": file}))
		if err == nil || err.Error() != c.want {
			t.Errorf("got\n%v\nwant\n%s", err, c.want)
		}
	}
}

// TestPoolCheck: the hook's accounts and the API's are checked as the file's are.
func TestPoolCheck(t *testing.T) {
	cfg, bad := poolsConfig(t, `{"pool":"oxi","pools":["oxy","smart"]}`)
	const want = "pool \"oxi\": no gateway is in it; there are default, oxy\npools \"smart\": no gateway is in it; there are default, oxy"
	for where, check := range map[string]error{
		"store": cfg.accountStore().Check(bad), "hook": cfg.hookConfig().Check(bad), "API": cfg.poolCheck()(bad),
	} {
		if check == nil || check.Error() != want {
			t.Errorf("%s: %v", where, check)
		}
	}
	if _, good := poolsConfig(t, `{"pool":"oxy","pools":["default"]}`); cfg.poolCheck()(good) != nil {
		t.Error("pools that have gateways are refused")
	}
	if _, none := poolsConfig(t, `{}`); cfg.poolCheck()(none) != nil {
		t.Error("no pool is refused")
	}
	if err := cfg.poolCheck()(bad); strings.Contains(err.Error(), "alice") {
		t.Errorf("the name is told by others: %v", err)
	}
}
