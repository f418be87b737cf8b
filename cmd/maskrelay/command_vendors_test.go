package main

import (
	"encoding/json"
	"strings"
	"testing"

	"maskrelay/upstream/vendor"
)

func TestVendorsListsAll(t *testing.T) {
	got := runWith(nil, "", "vendors")
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	lines := strings.Split(got.stdout, "\n")
	for i, name := range vendor.Names() {
		if !strings.HasPrefix(lines[i+1], name+" ") {
			t.Errorf("line %d is %q, want %s", i+1, lines[i+1], name)
		}
	}
	for _, want := range []string{
		"iproyal       geo.iproyal.com:12321          country state city session ttl          id, 1s to 7d          IPRoyal residential\n",
		"infatica      pool.infatica.io:10000         country state city session              id, one of 999 ports  Infatica residential and mobile\n",
		"generic       -                              -                                       -                     Any other vendor, ",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no line %q in\n%s", want, got.stdout)
		}
	}
}

func TestVendorsExplainsOne(t *testing.T) {
	for _, c := range []struct {
		name string
		want []string
	}{
		{"oxylabs", []string{
			"oxylabs: Oxylabs residential and mobile\n\nGATEWAY\n  http://pr.oxylabs.io:7777\n  socks5://pr.oxylabs.io:7777\n",
			"\nENVIRONMENT\nMASKRELAY_UPSTREAMS_0_VENDOR=oxylabs\nMASKRELAY_UPSTREAMS_0_USERNAME=USER\nMASKRELAY_UPSTREAMS_0_PASSWORD=PASS\n",
			"  The login may be pasted with customer- before it or without.\n",
			"\n  customer  alice-country-us-state-california-city-los_angeles-session-abc12345-ttl-30m\n  username  customer-USER-cc-US-st-us_california-city-los_angeles-sessid-",
			"\n  state      words joined by _; needs country; only in us\n",
			"\n  ttl        whole 1 to 1440 minutes; 10m without one; needs session; ",
			"\n  407  X-Error-Description holds \"traffic\"         quota\n",
			"\n  quota      top up or raise the limit",
			"\nFROM\n  - https://developers.oxylabs.io/",
			"\nNOT VERIFIED\n  - the words of X-Error-Description",
		}},
		{"WebShare", []string{"\n  session    up to 64 letters, digits and _, sent as a number, 1000000 to 2147483647; needs country; ", "\n  city       words joined by _; needs country\n", "\n  any  X-Webshare-Reason holds \"forbidden\""}},
		{"netnut", []string{"\n  city       words joined by _; needs country; in us it needs state\n", "\n  state      words joined by _; needs country and city; only in us\n"}},
		{"froxy", []string{"\n  and the ports 9001-9199 for sessions\n", "\n  session    up to 64 letters, digits and _, sent as one of the ports 9001-9199; "}},
		{"proxyempire", []string{"ENVIRONMENT\nMASKRELAY_UPSTREAMS_0_VENDOR=proxyempire\nMASKRELAY_UPSTREAMS_0_USERNAME=KEY\n  _URL"}},
		{"infatica", []string{"\n  port      10"}},
		{"dataimpulse", []string{"\n  407  reason TRAFFIC_EXHAUSTED         quota\n", "\n      the plan does not have this gateway port"}},
		{"evomi", []string{"with another place it is another session", "hardsession"}},
		{"brightdata", []string{"\n  - target ports 80, 443, 8080"}},
		{"generic", []string{"MASKRELAY_UPSTREAMS_0_PASSWORD={password}\n", "\nREFUSALS are read by their status\n"}},
	} {
		got := runWith(nil, "", "vendors", c.name)
		if got.code != 0 || got.stderr != "" {
			t.Errorf("%s: %+v", c.name, got)
		}
		for _, want := range c.want {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("%s: no %q in\n%s", c.name, want, got.stdout)
			}
		}
		for line := range strings.Lines(got.stdout) {
			if strings.HasSuffix(line, " \n") {
				t.Errorf("%s: blanks at the end of %q", c.name, line)
			}
			if words := strings.Fields(line); len(line) > vendorTextWidth+1 && len(words) > 3 && !strings.Contains(line, "Proxy-Status") {
				t.Errorf("%s: %d bytes wide: %q", c.name, len(line), line)
			}
		}
	}
}

func TestVendorsJSON(t *testing.T) {
	var all []vendorReport
	decodeStrictly(t, runWith(nil, "", "vendors", "--json"), &all)
	if len(all) != len(vendor.Names()) {
		t.Errorf("%d vendors", len(all))
	}
	for _, r := range all {
		var one vendorReport
		got := runWith(nil, "", "vendors", r.Name, "--json")
		decodeStrictly(t, got, &one)
		if one.Name != r.Name || one.Title == "" || len(one.Environment) == 0 || len(one.Advice) == 0 {
			t.Errorf("%+v", one)
		}
		if strings.Contains(got.stdout, ": null") {
			t.Errorf("%s: a list is null", r.Name)
		}
		for _, p := range one.Parameters {
			if p.Form == "" {
				t.Errorf("%s: %s has no form", r.Name, p.Key)
			}
		}
		for _, e := range one.Examples {
			if !strings.HasPrefix(e.Customer, "alice") || e.Username == "" {
				t.Errorf("%s: example %+v", r.Name, e)
			}
		}
	}
}

func decodeStrictly(t *testing.T, got ending, into any) {
	t.Helper()
	if got.code != 0 || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	d := json.NewDecoder(strings.NewReader(got.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatal(err)
	}
}

func TestVendorsUnknownName(t *testing.T) {
	const see = "maskrelay: see `maskrelay vendors --help`\n"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"vendors", "oxylab"}, "maskrelay: unknown preset \"oxylab\"; did you mean oxylabs?\n" + see},
		{[]string{"vendors", "oxylabs", "soax"}, "maskrelay: accepts at most 1 arg(s), received 2\n" + see},
	} {
		if got := runWith(nil, "", c.args...); got != (ending{exitConfig, "", c.want}) {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
	if got := runWith(nil, "", "vendors", "nobody"); got.code != exitConfig || !strings.Contains(got.stderr, "there are brightdata, ") {
		t.Errorf("%+v", got)
	}
}

func TestWholeUnit(t *testing.T) {
	for _, c := range []struct {
		name string
		ttl  vendor.TTLSpec
		want string
	}{
		{"minutes", vendor.TTLSpec{Units: []vendor.UnitSpec{{Unit: "m", Max: 120}}}, "1m to 2h"},
		{"a day", vendor.TTLSpec{Units: []vendor.UnitSpec{{Unit: "m", Min: 10, Max: 1440}}}, "10m to 24h"},
		{"several", vendor.TTLSpec{Units: []vendor.UnitSpec{{Unit: "h", Max: 168}, {Unit: "s", Min: 30, Max: 59}}}, "30s to 7d"},
		{"odd", vendor.TTLSpec{Units: []vendor.UnitSpec{{Unit: "s", Min: 61, Max: 90}}}, "61s to 90s"},
	} {
		if got := sticky(&vendor.Spec{Username: "{ttl}", TTL: &c.ttl}); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
