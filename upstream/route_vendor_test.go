package upstream

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

func parsed(t *testing.T, c GatewayConfig) Gateway {
	t.Helper()
	g, err := ParseGateway(c)
	must(t, err)
	return g
}

// loginOf is username:password of a Proxy-Authorization value.
func loginOf(t *testing.T, authorization string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(authorization, "Basic "))
	must(t, err)
	return string(b)
}

func TestParseGatewayOfAPreset(t *testing.T) {
	tests := map[string]struct {
		config GatewayConfig
		want   string // URL
		login  string // of those who ask for nothing
	}{
		"no URL": {
			GatewayConfig{Vendor: "oxylabs", Username: "bob", Password: "pw"},
			"http://***@pr.oxylabs.io:7777", "customer-bob:pw",
		},
		"prefix pasted": {
			GatewayConfig{Vendor: "oxylabs", Username: "customer-bob", Password: "pw"},
			"http://***@pr.oxylabs.io:7777", "customer-bob:pw",
		},
		"login in the URL": {
			GatewayConfig{Vendor: "oxylabs", URL: "http://bob:pw@"},
			"http://***@pr.oxylabs.io:7777", "customer-bob:pw",
		},
		"SOCKS5": {
			GatewayConfig{Vendor: "oxylabs", URL: "socks5h://", Username: "bob", Password: "pw"},
			"socks5://***@pr.oxylabs.io:7777", "customer-bob:pw",
		},
		"a host of one's own": {
			GatewayConfig{Vendor: "oxylabs", URL: "http://bob:pw@us-pr.oxylabs.io:10000"},
			"http://***@us-pr.oxylabs.io:10000", "customer-bob:pw",
		},
		"no login (passthrough)": {GatewayConfig{Vendor: "oxylabs"}, "http://pr.oxylabs.io:7777", ""},
		"template": {
			GatewayConfig{URL: "http://bob:pw@gw.example:1", Username: "u-{login}{?country:-cc-{country}}", Password: "{password}!"},
			"http://***@gw.example:1", "u-bob:pw!",
		},
		"template without a field": {
			GatewayConfig{URL: "http://gw.example:1", Username: "bob{?country:-cc-{country}}", Password: "pw"},
			"http://***@gw.example:1", "bob:pw",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := parsed(t, test.config)
			if g.String() != test.want || g.Name != g.Host {
				t.Errorf("%s called %s, want %s", g, g.Name, test.want)
			}
			if got := loginOf(t, g.authorization()); got != test.login {
				t.Errorf("login %q, want %q", got, test.login)
			}
			if test.login != "" && !strings.Contains(strings.Join(g.Secrets(), " "), strings.TrimPrefix(g.authorization(), "Basic ")) {
				t.Errorf("the token is no secret: %q", g.Secrets())
			}
		})
	}
}

func TestParseGatewayPresetErrors(t *testing.T) {
	const secret = "hunter2secret"
	tests := map[string]struct {
		config   GatewayConfig
		want     string
		template bool // a *vendor.TemplateError
		password bool // of the password's
	}{
		"no such scheme":    {GatewayConfig{Vendor: "oxylabs", URL: "https://"}, "no https gateway", false, false},
		"near":              {GatewayConfig{Vendor: "oxilabs"}, "oxylabs", false, false},
		"direct":            {GatewayConfig{Vendor: "oxylabs", URL: Direct}, "no vendor", false, false},
		"unknown field":     {GatewayConfig{URL: "http://bob:" + secret + "@gw.example:1", Username: "{login}-{contry}"}, "position 9", true, false},
		"missing brace":     {GatewayConfig{URL: "http://bob@gw.example:1", Password: secret + "{?country:x"}, "password template", true, true},
		"no login for it":   {GatewayConfig{URL: "http://gw.example:1", Username: "{login}-x", Password: secret}, "no login by itself", false, false},
		"nothing by itself": {GatewayConfig{URL: "http://gw.example:1", Username: "{?country:{country}}", Password: secret}, "no login for customers who ask for nothing", false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseGateway(test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows a secret: %v", err)
			}
			var template *vendor.TemplateError
			if errors.As(err, &template) != test.template || test.template && template.Password != test.password {
				t.Errorf("%#v", err)
			}
		})
	}
}

func TestRouteGoesWhereTheWishesCanBeServed(t *testing.T) {
	byCountry := GatewayConfig{URL: "http://bob:pw@gw.example:1", Username: "{login}{?country:-cc-{country}}{?session:-s-{session}}"}
	fixed := GatewayConfig{Name: "fixed", URL: "http://bob:pw@gw.example:1"}
	var gateways []Gateway
	for _, name := range []string{"c1", "c2"} {
		byCountry.Name = name
		gateways = append(gateways, parsed(t, byCountry))
	}
	gateways = append([]Gateway{parsed(t, fixed)}, gateways...)
	for _, balance := range []string{RoundRobin, LeastConn, IPHash, UserHash} {
		t.Run(balance, func(t *testing.T) {
			p := newPool(t, Options{Gateways: gateways, Balance: balance})
			for i := range 50 {
				r := route(t, p, Choice{Account: "alice", Client: clientAddr(i), Params: vendor.Params{Country: "us"}})
				g := r.pick(new(attempts), time.Now())
				if g.Name == "fixed" {
					t.Fatal("to a gateway that cannot say the country")
				}
				if got := loginOf(t, r.login(g)); got != "bob-cc-us:pw" {
					t.Errorf("login %q", got)
				}
			}
			_, err := p.Route(Choice{Params: vendor.Params{Country: "us", City: "albany"}})
			var fault *vendor.Fault
			if !errors.As(err, &fault) || fault.Kind != vendor.Unavailable {
				t.Errorf("error %v", err)
			}
			if got := loginOf(t, p.plain.login(p.gateways[1])); got != "bob:pw" {
				t.Errorf("without wishes %q", got)
			}
		})
	}
}

// A session has one gateway and one name at the vendor, on every relay, and the vendor
// does not see the customer's name for it.
func TestSessionsAreTheSameOnEveryRelay(t *testing.T) {
	relay := func() *Pool {
		var gateways []Gateway
		for _, name := range []string{"a", "b", "c"} {
			gateways = append(gateways, parsed(t, GatewayConfig{Name: name, Vendor: "oxylabs", Username: "bob", Password: "pw"}))
		}
		return newPool(t, Options{Gateways: gateways})
	}
	one, two := relay(), relay()
	seen := map[string]bool{}
	for _, session := range []string{"shoes1", "shoes2", "shoes3", "shoes4", "shoes5", "shoes6"} {
		c := Choice{Account: "alice", Params: vendor.Params{Country: "us", Session: session}}
		first, second := route(t, one, c), route(t, two, c)
		g := first.pick(new(attempts), time.Now())
		for range 5 {
			other := second.pick(new(attempts), time.Now())
			if other.Name != g.Name || second.login(other) != first.login(g) {
				t.Fatalf("%s on one relay, %s on the other", g.Name, other.Name)
			}
		}
		login := loginOf(t, first.login(g))
		if seen[login] || strings.Contains(login, session) {
			t.Errorf("login %q", login)
		}
		seen[login] = true
	}
}

// The vendor's word for its own trouble decides where to try again.
func TestOxylabsAccountIsNotAskedTwice(t *testing.T) {
	f := startFleet(t, nil, upstreamtest.Loud(407, "AUTH_FAILED"), opens, opens)
	var gateways []Gateway
	for i, login := range []string{"bob", "bob", "eve"} {
		gateways = append(gateways, parsed(t, GatewayConfig{
			Name: string(rune('a' + i)), Vendor: "oxylabs", URL: f.vendors[i].URL(), Username: login, Password: "pw", Weight: 3 - i,
		}))
	}
	p := newPool(t, Options{Gateways: gateways})
	c, err := p.Connect(t.Context(), Request{Target: "target.example:443"})
	must(t, err)
	defer c.Release()
	defer func() { _ = c.Close() }()
	if c.Gateway != "c" || f.vendors[0].Accepted() != 1 || f.vendors[1].Accepted() != 0 {
		t.Errorf("through %s; the one with the same login was asked %d times", c.Gateway, f.vendors[1].Accepted())
	}
}
