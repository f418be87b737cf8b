package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// twoVendors is one pool of two vendors.
type twoVendors struct {
	first, second *standIn
	judge         *upstreamtest.Judge
	addr          string // where the customer connects
}

func startTwoVendors(t *testing.T) *twoVendors {
	t.Helper()
	v := &twoVendors{
		first: startStandIn(t, "oxylabs", [2]int{}, nil), second: startStandIn(t, "decodo", [2]int{}, nil), judge: startJudge(t, upstreamtest.JudgeConfig{}),
	}
	env := v.first.env(t, "oxylabs", "")
	env["UPSTREAMS_0_NAME"], env["UPSTREAMS_1_NAME"], env["UPSTREAMS_1_VENDOR"] = "first", "second", "decodo"
	env["UPSTREAMS_1_URL"] = "http://" + v.second.vendors[0].Addr()
	env["UPSTREAMS_1_USERNAME"], env["UPSTREAMS_1_PASSWORD"] = operatorName, operatorSecret
	v.addr = tapRefusal(t, startRelay(t, env), "oxylabs", "decodo")
	return v
}

// with are the customer's credentials with parameters.
func (v *twoVendors) with(params string) string {
	return basic(customerName+"-"+params, customerPassword)
}

// session finds one that is with the first vendor.
func (v *twoVendors) session(t *testing.T) string {
	t.Helper()
	for i := range 64 {
		params := fmt.Sprintf("country-us-session-s%d", i)
		waysToAsk(v.judge)["CONNECT"](t, v.addr, v.with(params))
		v.second.news(t)
		if len(v.first.news(t)) > 0 {
			return params
		}
	}
	t.Fatal("no session is with the first vendor")
	return ""
}

// ask opens a tunnel, and returns what each vendor was told, in his own words.
func (v *twoVendors) ask(t *testing.T, credentials string) (status int, first, second []told) {
	t.Helper()
	got := mustDial(t, v.addr).mustAsk(t, http.MethodConnect, v.judge.Addr(), credentials)
	first, second = v.first.news(t), v.second.news(t)
	for _, told := range first {
		if !regexp.MustCompile(`^customer-operator4711-cc-US-sessid-[0-9A-Za-z]+$`).MatchString(told.username) {
			t.Errorf("the first vendor was told %+v", told)
		}
	}
	for _, told := range second {
		if !regexp.MustCompile(`^user-operator4711-country-us-(session-[0-9A-Za-z]+|asn-7922)$`).MatchString(told.username) {
			t.Errorf("the second vendor was told %+v", told)
		}
	}
	return got.status, first, second
}

// TestVendorsHelpOut: what one vendor refuses for his own reasons the other serves, in his own words; what speaks of the target is not
// tried again; and what only one can do never comes to the other.
func TestVendorsHelpOut(t *testing.T) {
	t.Parallel()
	v := startTwoVendors(t)
	answers := map[string]upstreamtest.PresetAnswer{}
	for _, a := range upstreamtest.PresetErrors("oxylabs") {
		answers[a.Name] = a
	}
	session := v.with(v.session(t))
	// What speaks of the target, or of wishes, blames nobody, so that the first is in use when the others come; those may eject it.
	for i, name := range []string{"403", "504-target", "502-exit", "502-session", "400-params", "407-traffic", "407-login", "500", "504"} {
		helped, met := i >= 2, i < 6
		v.first.vendors[0].SetBehaviour(answers[name].Behaviour())
		for range 3 {
			status, first, second := v.ask(t, session)
			if met && len(first) != 1 {
				t.Errorf("%s: the first vendor was told %+v", name, first)
			}
			if helped && (status != http.StatusOK || len(second) != 1) || !helped && (status != http.StatusBadGateway || len(second) > 0) {
				t.Errorf("%s: status %d, the second vendor was told %+v", name, status, second)
			}
		}
	}
	v.first.vendors[0].SetBehaviour(nil)
	for range 6 {
		if status, first, second := v.ask(t, v.with("country-us-asn-7922")); status != http.StatusOK || len(first) > 0 || len(second) != 1 {
			t.Errorf("a wish that only the second can serve: status %d, %+v, %+v", status, first, second)
		}
	}
}

// portGateways are SOCKS5 gateways on each port of a range, of which a session has one.
type portGateways map[int]*upstreamtest.SOCKS

func startPortGateways(t *testing.T, host string, from, to int) portGateways {
	t.Helper()
	gateways := portGateways{}
	for port := from; port <= to; port++ {
		s, err := upstreamtest.StartSOCKS(upstreamtest.SOCKSConfig{
			Addr: net.JoinHostPort(host, strconv.Itoa(port)), Username: operatorName, Password: operatorSecret + ";us;california;los+angeles;",
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		gateways[port] = s
	}
	return gateways
}

// asked are the ports, one for each request.
func (g portGateways) asked() (ports []int) {
	for port, s := range g {
		for range s.Requests() {
			ports = append(ports, port)
		}
	}
	return ports
}

// TestSessionPortsBySOCKS5: a vendor's session is on its port by SOCKS5, too, in every way and on another relay.
func TestSessionPortsBySOCKS5(t *testing.T) {
	t.Parallel()
	const from, to = 9000, 9199
	judge, host := startJudge(t, upstreamtest.JudgeConfig{}), fmt.Sprintf("127.66.%d.%d", 1+rand.IntN(250), 1+rand.IntN(250))
	gateways := startPortGateways(t, host, from, to)
	env := lab.Env{
		"UPSTREAMS_0_VENDOR": "froxy", "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML+otherAccount),
		"UPSTREAMS_0_URL": (&url.URL{Scheme: "socks5", User: url.UserPassword(operatorName, operatorSecret), Host: net.JoinHostPort(host, strconv.Itoa(from))}).String(),
	}
	const place = "-country-us-state-california-city-los_angeles"
	const session = place + "-session-" + customerSession
	var addr string
	for range 2 {
		addr = tapRefusal(t, startRelay(t, env), "froxy")
		for _, ask := range waysToAsk(judge) {
			ask(t, addr, basic(customerName+session, customerPassword))
		}
	}
	mine := gateways.asked()
	if len(mine) != 6 || len(slices.Compact(slices.Clone(mine))) != 1 || mine[0] == from {
		t.Fatalf("a session is on the ports %v", mine)
	}
	waysToAsk(judge)["CONNECT"](t, addr, basic("bob.b-1"+session, "plain-password-of-bob"))
	waysToAsk(judge)["CONNECT"](t, addr, basic(customerName+place, customerPassword))
	if n := len(gateways[mine[0]].Requests()); n != 6 || len(gateways.asked()) != 8 || len(gateways[from].Requests()) != 1 {
		t.Errorf("with another account's session, and with none, the ports are %v", gateways.asked())
	}
}
