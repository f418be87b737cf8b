package upstream

import (
	"errors"
	"strings"
	"testing"

	"maskrelay/upstream/vendor"
)

// What cannot be said to a SOCKS5 gateway in 255 bytes is refused before it is asked, and
// is no refused login of the operator's.
func TestLoginsTooLongForSOCKS(t *testing.T) {
	long := strings.Repeat("x", 64)
	wishes := vendor.Params{Country: "us", State: long, City: long, Session: "a"}
	for _, scheme := range []string{"http", "socks5"} {
		for name, c := range map[string]GatewayConfig{
			"username": {URL: scheme + "://" + long + ":pw@gw.example:1", Username: "{login}-country-{country}-state-{state}-city-{city}-session-{session}-{login}"},
			"password": {URL: scheme + "://bob:" + long + "@gw.example:1", Password: "{password}{password}_country-{country}_state-{state}_city-{city}_session-{session}"},
		} {
			c.Name, c.Pool = name, name
			short := c
			short.Name, short.Pool, short.URL = "short", name, scheme+"://bob:pw@gw.example:1"
			p := newPool(t, Options{Gateways: []Gateway{parsed(t, c), parsed(t, short)}})
			r, err := p.Route(Choice{Pool: name, Account: "alice", Params: wishes})
			must(t, err)
			if r.eligible.has(0) != (scheme == "http") || !r.eligible.has(1) {
				t.Errorf("%s, %s: eligible %b", scheme, name, r.eligible)
			}
			if scheme == "socks5" {
				twice := c
				twice.Username, twice.Password = strings.Repeat("x", 256)+"{?country:{country}}", "{?country:x}"
				if _, err := ParseGateway(twice); err == nil || !strings.Contains(err.Error(), "255 bytes") {
					t.Errorf("error %v", err)
				}
			}
			alone := newPool(t, Options{Gateways: []Gateway{parsed(t, c)}})
			_, err = alone.Route(Choice{Pool: name, Account: "alice", Params: wishes})
			var fault *vendor.Fault
			if errors.As(err, &fault) != (scheme == "socks5") || fault != nil && *fault != (vendor.Fault{Kind: vendor.Invalid, Key: vendor.City}) {
				t.Errorf("%s, %s: error %v", scheme, name, err)
			}
			_, err = alone.Route(Choice{Pool: name, Account: "alice", Params: vendor.Params{Country: "us", State: "ny", City: "a", Session: "a"}})
			must(t, err)
		}
	}
}
