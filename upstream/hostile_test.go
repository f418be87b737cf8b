package upstream

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"maskrelay/upstream/vendor"
)

// Nothing that a program prints by mistake shows a secret.
func TestPrintingShowsNoSecret(t *testing.T) {
	const secret = "hunter2secret"
	c := GatewayConfig{
		URL: "http://" + secret + ":" + secret + "@gw.example:1", Username: "u-{login}" + secret, Password: secret + "{password}",
		SessionKey: []byte(secret + secret),
	}
	g := parsed(t, c)
	p := newPool(t, Options{Gateways: []Gateway{g}})
	route, err := p.Route(Choice{Account: "alice"})
	must(t, err)
	for name, v := range map[string]any{
		"config": c, "config's pointer": &c, "gateway": g, "gateway's pointer": &g, "gateways": []Gateway{g},
		"state": p.gateways[0], "within": struct{ G Gateway }{g}, "config within": struct{ C GatewayConfig }{c},
		"options": Options{Gateways: []Gateway{g}}, "route": route, "snapshot": p.Snapshot(),
		"failure": &ConnectError{Gateway: g.Name, Phase: PhaseConnect, Cause: CauseAuth, Status: 407},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if name == "route" && verb != "%v" {
				continue
			}
			if out := fmt.Sprintf(verb, v); holdsSecret(out, secret, g) {
				t.Errorf("%s of the %s shows it", verb, name)
			}
		}
		if name == "route" || name == "options" || name == "state" {
			continue
		}
		if out, err := json.Marshal(v); err == nil && holdsSecret(string(out), secret, g) {
			t.Errorf("JSON of the %s shows it", name)
		}
	}
}

func holdsSecret(s, secret string, g Gateway) bool {
	for _, form := range append(g.Secrets(), secret, fmt.Sprint([]byte(secret))[1:20], fmt.Sprintf("%#v", []byte(secret))[8:40]) {
		if strings.Contains(s, form) {
			return true
		}
	}
	return false
}

// A preset at another vendor's gateway, or at the port of another scheme, is refused.
func TestPresetAtAWrongGateway(t *testing.T) {
	for url, want := range map[string]string{
		"http://bob:pw@gate.decodo.com:7000": "decodo", "http://bob:pw@RP.Evomi.com:1000": "evomi", "http://bob:pw@superproxy.io:1": "brightdata",
		"http://bob:pw@pr.oxylabs.io:7777": "", "http://bob:pw@us-pr.oxylabs.io:10000": "", "http://bob:pw@notdecodo.com:1": "",
		"http://bob:pw@my.alias.example:7777": "", "http://bob:pw@192.0.2.1:7777": "", "https://bob:pw@pr.oxylabs.io:7777": "",
	} {
		_, err := ParseGateway(GatewayConfig{Vendor: "oxylabs", URL: url})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	for url, want := range map[string]string{
		"http://bob:pw@brd.superproxy.io:22228": "socks5://", "socks5://bob:pw@brd.superproxy.io:33335": "http://",
		"http://bob:pw@brd.superproxy.io:22225": "", "socks5://bob:pw@brd.superproxy.io:22228": "",
	} {
		_, err := ParseGateway(GatewayConfig{Vendor: "brightdata", URL: url})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	if g := parsed(t, GatewayConfig{URL: "http://bob:pw@gate.decodo.com:7000"}); g.Vendor.Name != vendor.Generic {
		t.Error(g.Vendor.Name)
	}
}
