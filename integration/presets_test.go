package integration

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// What a customer calls his session, and what the operator's logins at vendors have in them. None of it may reach the other side.
const (
	customerSession = "WarenkorbA4711"
	operatorName    = "operator4711"
	operatorSecret  = "operators-secret-4711"
)

// otherAccount is a customer whose sessions must not be the first one's.
const otherAccount = "  - {name: bob.b-1, password: plain-password-of-bob}\n"

// vendorWay is how one vendor documents his logins: what an operator has there, what a customer may ask, and what the vendor must get. It is
// written from the vendors' documents and not from the presets. Of an expression, the group is the session.
type vendorWay struct {
	login            string // at the vendor; "" = operatorName
	params           string // behind the account's name
	username, secret string // expressions
	ports            [2]int // of gateways that keep a session by the port
	wrong            string // parameters that the vendor cannot serve
	sentence         string // that the customer then gets
}

const (
	noTTL   = "The username parameter ttl is not available."
	noZip   = "The username parameter zip is not available."
	noASN   = "The username parameter asn is not available."
	noState = "The username parameter state is not available."
	noCity  = "The username parameter city is not available."
	badTTL  = "The username parameter ttl has a value that cannot be used."
	badArea = "The username parameter state has a value that cannot be used."
)

var vendorWays = map[string]vendorWay{
	"brightdata": {login: "brd-customer-" + operatorName + "-zone-static", params: "country-us-state-new_york-city-new_york-session-" + customerSession,
		username: `^brd-customer-operator4711-zone-static-country-us-state-ny-city-newyork-session-([0-9A-Za-z]+)$`,
		wrong:    "country-us-session-a-ttl-10m", sentence: noTTL},
	"oxylabs": {params: "country-us-state-california-city-los_angeles-session-" + customerSession + "-ttl-30m",
		username: `^customer-operator4711-cc-US-st-us_california-city-los_angeles-sessid-([0-9A-Za-z]+)-sesstime-30$`,
		wrong:    "country-us-asn-7922", sentence: noASN},
	"decodo": {params: "ttl-1h-session-" + customerSession + "-city-new_york-country-us",
		username: `^user-operator4711-country-us-city-new_york-session-([0-9A-Za-z]+)-sessionduration-60$`,
		wrong:    "session-a-ttl-25h", sentence: badTTL},
	"iproyal": {params: "country-us-state-california-city-los_angeles-session-" + customerSession + "-ttl-30m",
		secret: `^operators-secret-4711_country-us_state-california_city-losangeles_session-([0-9A-Za-z]{8})_lifetime-30m$`,
		wrong:  "country-us-zip-90001", sentence: noZip},
	"soax": {params: "country-us-state-new_york-city-new_york-session-" + customerSession + "-ttl-5m",
		username: `^package-operator4711-country-us-region-new\+york-city-new\+york-sessionid-([0-9A-Za-z]+)-sessionlength-300$`,
		wrong:    "country-us-asn-7922", sentence: noASN},
	"netnut": {params: "country-us-state-alabama-city-birmingham-session-" + customerSession,
		username: `^operator4711-res_sc-us_alabama_birmingham-sid-([1-9][0-9]{4,8})$`,
		wrong:    "country-nl-session-a-ttl-1h", sentence: noTTL},
	"webshare": {params: "country-us-city-los_angeles-session-" + customerSession,
		username: `^operator4711-us-city_los_angeles-([1-9][0-9]*)$`,
		wrong:    "country-us-state-texas", sentence: noState},
	"packetstream": {params: "country-us-session-" + customerSession,
		secret: `^operators-secret-4711_country-UnitedStates_session-([0-9A-Za-z]+)$`,
		wrong:  "country-us-city-boston", sentence: noCity},
	"geonode": {login: "geonode_" + operatorName, params: "country-us-session-" + customerSession + "-ttl-30m",
		username: `^geonode_operator4711-type-residential-country-us-session-([0-9A-Za-z]+)-lifetime-30$`,
		wrong:    "country-us-zip-90001", sentence: noZip},
	"dataimpulse": {params: "country-us-state-new_jersey-city-newark-zip-07102-session-" + customerSession + "-ttl-30m",
		username: `^operator4711__cr\.us;state\.newjersey;city\.newark;zip\.07102;sessid\.([0-9A-Za-z]+);sessttl\.30$`,
		wrong:    "country-us-asn-7922", sentence: noASN},
	"evomi": {params: "country-us-city-new_york-session-" + customerSession + "-ttl-30m",
		secret: `^operators-secret-4711_country-US_city-new\.york_session-([0-9A-Za-z]{6,10})_lifetime-30$`,
		wrong:  "country-us-session-a-ttl-10s", sentence: badTTL},
	"massive": {params: "country-us-state-california-session-" + customerSession + "-ttl-1h",
		username: `^operator4711-country-US-subdivision-CA-session-([0-9A-Za-z]+)-sessionttl-60$`,
		wrong:    "country-us-state-bavaria", sentence: badArea},
	"nimble": {login: "account-" + operatorName + "-pipeline-shop", params: "country-us-state-california-city-los_angeles-session-" + customerSession,
		username: `^account-operator4711-pipeline-shop-country-US-state-CA-city-los_angeles-session-([0-9A-Za-z]+)$`,
		wrong:    "country-us-zip-90001", sentence: noZip},
	"infatica": {params: "country-us-state-california-city-los_angeles-session-" + customerSession,
		username: `^operator4711_c_US_sd_california_city_los-angeles_s_([0-9A-Za-z]+)$`, ports: [2]int{10000, 10999},
		wrong: "country-us-session-a-ttl-10m", sentence: noTTL},
	"proxyempire": {params: "country-us-state-new_york-city-albany-session-" + customerSession,
		secret: `^wifi;us;;new\+york;albany$`, ports: [2]int{9000, 9158},
		wrong: "country-us-session-a-ttl-10m", sentence: noTTL},
	"froxy": {params: "country-us-state-california-city-los_angeles-session-" + customerSession,
		secret: `^operators-secret-4711;us;california;los\+angeles;$`, ports: [2]int{9000, 9199},
		wrong: "country-us-zip-90001", sentence: noZip},
}

// standIn plays a vendor's gateway on a loopback address of its own: on one port, or on each of a range.
type standIn struct {
	host    string
	ports   []int
	vendors []*upstreamtest.Vendor
	seen    []int // requests of each that news has returned
}

// startStandIn starts one that names itself as the vendor of the preset in all that it says.
func startStandIn(t *testing.T, preset string, ports [2]int, behaviour upstreamtest.Behaviour) *standIn {
	t.Helper()
	if ports[0] == 0 {
		ports[0] = lab.FreePort(t)
		ports[1] = ports[0]
	}
	s := &standIn{host: fmt.Sprintf("127.66.%d.%d", 1+rand.IntN(250), 1+rand.IntN(250))}
	for port := ports[0]; port <= ports[1]; port++ {
		v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{
			Addr: net.JoinHostPort(s.host, strconv.Itoa(port)), Brand: preset, Behaviour: behaviour, RecordLimit: 4 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			checkNoMarks(t, "vendor", v.Received(), customerMarks().With(customerSession, "plain-password-of-bob", "bob.b-1"))
		})
		s.ports, s.vendors = append(s.ports, port), append(s.vendors, v)
	}
	s.seen = make([]int, len(s.vendors))
	return s
}

// env is the relay's configuration for it.
func (s *standIn) env(t *testing.T, preset, login string) lab.Env {
	t.Helper()
	return lab.Env{
		"UPSTREAMS_0_VENDOR": preset, "UPSTREAMS_0_URL": fmt.Sprintf("http://%s:%d", s.host, s.ports[0]), "UPSTREAMS_0_NAME": "shop-a",
		"UPSTREAMS_0_USERNAME": cmp.Or(login, operatorName), "UPSTREAMS_0_PASSWORD": operatorSecret,
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML+otherAccount),
	}
}

// told is what the vendor was told in one request.
type told struct {
	username, password string
	port               int
}

// news are the requests since it was called last.
func (s *standIn) news(t *testing.T) []told {
	t.Helper()
	var all []told
	for i, v := range s.vendors {
		n := 0
		for _, conn := range v.Conns() {
			for _, r := range conn.Requests() {
				if n++; n <= s.seen[i] {
					continue
				}
				token, _ := strings.CutPrefix(r.Header.Get("Proxy-Authorization"), "Basic ")
				login, err := base64.StdEncoding.DecodeString(token)
				if err != nil {
					t.Fatal(err)
				}
				username, password, _ := strings.Cut(string(login), ":")
				all = append(all, told{username: username, password: password, port: s.ports[i]})
			}
		}
		s.seen[i] = n
	}
	return all
}

// accepted is how many connections there ever were.
func (s *standIn) accepted() (n int) {
	for _, v := range s.vendors {
		n += v.Accepted()
	}
	return n
}

// operatorMarks must not reach a customer, beside the vendor's own words.
func operatorMarks(words ...string) []string {
	return append([]string{operatorName, operatorSecret, "127.66."}, words...)
}

// TestPresetLogins asks of every vendor, in the three ways that customers have, what he can do, and finds that he was told so in the words that
// he documents, and that a session is the same on another relay and another one for another account.
func TestPresetLogins(t *testing.T) {
	t.Parallel()
	if len(vendorWays) != len(upstreamtest.PresetNames()) {
		t.Errorf("%d vendors of %d", len(vendorWays), len(upstreamtest.PresetNames()))
	}
	for preset, way := range vendorWays {
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			s, judge := startStandIn(t, preset, way.ports, nil), startJudge(t, upstreamtest.JudgeConfig{})
			env := s.env(t, preset, way.login)
			first, second := startRelay(t, env), startRelay(t, env)
			user := customerName + "-" + way.params
			var sessions []string
			for name, do := range waysToAsk(judge) {
				do(t, tapRefusal(t, first, preset), basic(user, customerPassword))
				sessions = append(sessions, way.check(t, name, s.news(t)))
			}
			ask := waysToAsk(judge)["CONNECT"]
			ask(t, tapRefusal(t, second, preset), basic(user, customerPassword))
			sessions = append(sessions, way.check(t, "second relay", s.news(t)))
			for _, id := range sessions {
				if id != sessions[0] || strings.Contains(id, customerSession) || id == "" {
					t.Errorf("the sessions are %q", sessions)
				}
			}
			ask(t, tapRefusal(t, first, preset), basic("bob.b-1-"+way.params, "plain-password-of-bob"))
			if other := way.check(t, "another account", s.news(t)); other == sessions[0] {
				t.Errorf("two accounts share the session %q", other)
			}
			way.checkWrong(t, s, first, judge)
		})
	}
}

// tapRefusal is tapCustomer with the operator's marks.
func tapRefusal(t *testing.T, relay *lab.Relay, words ...string) string {
	t.Helper()
	return lab.StartTap(t, lab.TapConfig{
		Name: "customer", To: relay.Addr, From: net.ParseIP(customerAddress), Dialer: vendorMarks().With(operatorMarks(words...)...),
	}).Addr()
}

// waysToAsk are what a customer with credentials can do at addr: each must succeed.
func waysToAsk(judge *upstreamtest.Judge) map[string]func(t *testing.T, addr, credentials string) {
	return map[string]func(t *testing.T, addr, credentials string){
		"CONNECT": func(t *testing.T, addr, credentials string) {
			t.Helper()
			c := mustDial(t, addr)
			if got := c.mustAsk(t, "CONNECT", judge.Addr(), credentials); got.status != http.StatusOK {
				t.Fatalf("CONNECT: %+v", got)
			}
			c.websocket(t, handshake{target: "/ws", host: judge.Addr()})
		},
		"plain": func(t *testing.T, addr, credentials string) {
			t.Helper()
			if got := mustDial(t, addr).mustGet(t, judge.URL()+"/bytes?n=100000", credentials); got.status != http.StatusOK || len(got.body) != 100000 {
				t.Errorf("plain: status %d, %d bytes", got.status, len(got.body))
			}
		},
		"websocket": func(t *testing.T, addr, credentials string) {
			t.Helper()
			mustDial(t, addr).websocket(t, handshake{target: judge.URL() + "/ws", host: judge.Addr(), login: credentials})
		},
	}
}

// mustAsk sends a request without a body, with credentials, and returns the reply.
func (c *client) mustAsk(t *testing.T, method, target, credentials string, lines ...string) reply {
	t.Helper()
	got, err := c.ask(method, target, credentials, lines...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return got
}

func (c *client) ask(method, target, credentials string, lines ...string) (reply, error) {
	lines = append(lines, "Proxy-Authorization: Basic "+credentials)
	if method == http.MethodConnect { // in plain HTTP it would be for the target
		lines = append(lines, customerHeader+": "+customerTrail)
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", method, target, hostOf(target), strings.Join(lines, "\r\n")); err != nil {
		return reply{}, err
	}
	return c.readReplyTo(method)
}

// hostOf is the host and port of a target in authority or absolute form.
func hostOf(target string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(target, "http://"), "/")
	return host
}

// check finds one request, in the vendor's words, and returns its session: the id and, where the vendor keeps it by the port, that.
func (w vendorWay) check(t *testing.T, name string, news []told) string {
	t.Helper()
	if len(news) != 1 {
		t.Fatalf("%s: the vendor was told %+v", name, news)
	}
	got := news[0]
	user := regexp.MustCompile(cmp.Or(w.username, "^"+regexp.QuoteMeta(cmp.Or(w.login, operatorName))+"$")).FindStringSubmatch(got.username)
	secret := regexp.MustCompile(cmp.Or(w.secret, "^"+operatorSecret+"$")).FindStringSubmatch(got.password)
	if user == nil || secret == nil {
		t.Fatalf("%s: the vendor was told %+v", name, got)
	}
	id := strings.Join(append(user[1:], secret[1:]...), "")
	if w.ports[0] != 0 {
		if got.port == w.ports[0] {
			t.Errorf("%s: the session is on the port of those without", name)
		}
		id += ":" + strconv.Itoa(got.port)
	}
	return id
}

// checkWrong asks for what the vendor cannot do: 400 with a sentence that says what, and the vendor is not even dialled.
func (w vendorWay) checkWrong(t *testing.T, s *standIn, relay *lab.Relay, judge *upstreamtest.Judge) {
	t.Helper()
	credentials, addr := basic(customerName+"-"+w.wrong, customerPassword), tapRefusal(t, relay)
	before := s.accepted()
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	for name, got := range map[string]reply{
		"CONNECT":   mustDial(t, addr).mustAsk(t, "CONNECT", judge.Addr(), credentials),
		"plain":     mustDial(t, addr).mustAsk(t, "GET", judge.URL()+"/", credentials),
		"websocket": mustDial(t, addr).mustAsk(t, "GET", judge.URL()+"/ws", credentials, upgrade...),
	} {
		checkOurReply(t, got, http.StatusBadRequest)
		if got.body != w.sentence+"\n" {
			t.Errorf("%s: %q, want %q", name, got.body, w.sentence)
		}
	}
	if n := s.accepted(); n != before || len(s.news(t)) > 0 {
		t.Errorf("the vendor was dialled %d times", n-before)
	}
}
