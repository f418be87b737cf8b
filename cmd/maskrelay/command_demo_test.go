package main

import "testing"

func TestDemoFlags(t *testing.T) {
	const see = "\nmaskrelay: see `maskrelay demo --help`\n"
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"time", []string{"--for", "-1s"}, "maskrelay: --for -1s is below 0" + see},
		{"addresses", []string{"--listen", "80", "--admin", "x:y"}, `maskrelay: --listen: "80" is not an address; write :8080 or 127.0.0.1:8080; ` +
			`--admin: "x:y": the port is not between 0 and 65535` + see},
		{"one address for both", []string{"--listen", ":9090"}, "maskrelay: --admin 127.0.0.1:9090 is taken by --listen :9090" + see},
		{"argument", []string{"now"}, "maskrelay: unknown command \"now\" for \"maskrelay demo\"" + see},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := runWith(nil, "", append([]string{"demo"}, c.args...)...)
			if got != (ending{exitConfig, "", c.want}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}
