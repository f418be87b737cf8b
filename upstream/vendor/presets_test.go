package vendor_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

// vendors are the presets of vendors, which is all but the generic one.
func vendors(t testing.TB) []*vendor.Preset {
	t.Helper()
	var all []*vendor.Preset
	for _, name := range vendor.Names() {
		if name != vendor.Generic {
			all = append(all, load(t, name))
		}
	}
	return all
}

func load(t testing.TB, name string) *vendor.Preset {
	t.Helper()
	p, err := vendor.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newLogins(t testing.TB, c vendor.LoginConfig) *vendor.Logins {
	t.Helper()
	l, err := vendor.NewLogins(c)
	if err != nil {
		t.Fatalf("%s: %v", c.Preset.Name, err)
	}
	return l
}

func parse(t testing.TB, s string) vendor.Params {
	t.Helper()
	p, fault := vendor.ParseParams(s)
	if fault != nil {
		t.Fatalf("%q: %v", s, fault)
	}
	return p
}

func TestPresetsAreComplete(t *testing.T) {
	want := []string{"brightdata", "dataimpulse", "decodo", "evomi", "froxy", "generic", "geonode", "infatica", "iproyal", "massive",
		"netnut", "nimble", "oxylabs", "packetstream", "proxyempire", "soax", "webshare"}
	if got := vendor.Names(); !slices.Equal(got, want) {
		t.Errorf("presets %v, want %v", got, want)
	}
	for _, p := range vendors(t) {
		s := p.Spec()
		undocumented := len(s.Unverified) > 0 && strings.HasPrefix(s.Unverified[0], "the whole preset: ")
		switch {
		case s.Title == "" || (len(s.Sources) == 0) != undocumented || len(s.Unverified) == 0 || s.Limits.Note == "":
			t.Errorf("%s: title %q, %d sources, %d unverified", p.Name, s.Title, len(s.Sources), len(s.Unverified))
		case p.DefaultURL("http") == "":
			t.Errorf("%s: no gateway", p.Name)
		case s.Session == nil && s.SessionPorts == nil:
			t.Errorf("%s: no session", p.Name)
		case len(p.Marks()) == 0 || len(p.Headers()) == 0:
			t.Errorf("%s: marks %v, headers %v", p.Name, p.Marks(), p.Headers())
		case len(s.Classify) == 0 || len(s.Examples) == 0:
			t.Errorf("%s: %d rules, %d examples", p.Name, len(s.Classify), len(s.Examples))
		}
		for _, mark := range p.Marks() {
			if len(mark) < 5 || mark != strings.ToLower(mark) {
				t.Errorf("%s: the mark %q stands in innocent text too easily", p.Name, mark)
			}
		}
	}
}

// The gateways, as the vendors' documents or public programs have them.
func TestPresetGateways(t *testing.T) {
	for _, c := range []struct{ name, http, https, socks5 string }{
		{"brightdata", "http://brd.superproxy.io:33335", "", "socks5://brd.superproxy.io:22228"},
		{"oxylabs", "http://pr.oxylabs.io:7777", "", "socks5://pr.oxylabs.io:7777"},
		{"decodo", "http://gate.decodo.com:7000", "", "socks5://gate.decodo.com:7000"},
		{"iproyal", "http://geo.iproyal.com:12321", "", ""},
		{"soax", "http://proxy.soax.com:5000", "", "socks5://proxy.soax.com:5000"},
		{"netnut", "http://gw.netnut.net:5959", "", "socks5://gw.netnut.net:9595"},
		{"webshare", "http://p.webshare.io:80", "", "socks5://p.webshare.io:1080"},
		{"packetstream", "http://proxy.packetstream.io:31112", "", "socks5://proxy.packetstream.io:31113"},
		{"geonode", "http://proxy.geonode.io:9000", "", ""},
		{"dataimpulse", "http://gw.dataimpulse.com:823", "", "socks5://gw.dataimpulse.com:824"},
		{"evomi", "http://rp.evomi.com:1000", "https://rp.evomi.com:1001", "socks5://rp.evomi.com:1002"},
		{"massive", "http://network.joinmassive.com:65534", "https://network.joinmassive.com:65535", "socks5://network.joinmassive.com:65533"},
		{"nimble", "http://ip.nimbleway.com:7000", "", ""},
		{"infatica", "http://pool.infatica.io:10000", "", "socks5://pool.infatica.io:10000"},
		{"proxyempire", "http://rotating.proxyempire.io:9000", "", "socks5://rotating.proxyempire.io:9000"},
		{"froxy", "http://proxy.froxy.com:9000", "", "socks5://proxy.froxy.com:9000"},
		{"generic", "", "", ""},
	} {
		p := load(t, c.name)
		for scheme, want := range map[string]string{"http": c.http, "https": c.https, "socks5": c.socks5, "ftp": ""} {
			if got := p.DefaultURL(scheme); got != want {
				t.Errorf("%s: %s at %q, want %q", c.name, scheme, got, want)
			}
		}
	}
}

// documentedLogins are the vendors' own examples; SESSION stands for what takes the place of the customer's session.
var documentedLogins = []struct{ preset, login, password, params, username, secret, session string }{
	{"brightdata", "brd-customer-CID-zone-ZONE", "ZONEPASS", "country-us-state-ny-city-newyork-session-abc123",
		"brd-customer-CID-zone-ZONE-country-us-state-ny-city-newyork-session-SESSION", "ZONEPASS", "[0-9a-z]{12}"},
	{"brightdata", "brd-customer-CID-zone-ZONE", "ZONEPASS", "country-us-zip-12345-asn-AS7922",
		"brd-customer-CID-zone-ZONE-country-us-zip-12345-asn-7922", "ZONEPASS", ""},
	{"oxylabs", "USER", "PASS", "country-US-state-california-city-los_angeles-session-abc12345-ttl-30m",
		"customer-USER-cc-US-st-us_california-city-los_angeles-sessid-SESSION-sesstime-30", "PASS", "[0-9A-Za-z]{10}"},
	{"oxylabs", "customer-USER", "PASS", "country-us-zip-07102", "customer-USER-cc-US-postalcode-07102", "PASS", ""},
	{"decodo", "user-USER", "PASS", "country-us-city-new_york-session-abc123-ttl-30m",
		"user-USER-country-us-city-new_york-session-SESSION-sessionduration-30", "PASS", "[0-9A-Za-z]{12}"},
	{"decodo", "USER", "PASS", "country-us-state-california", "user-USER-country-us-state-us_california", "PASS", ""},
	{"iproyal", "USER", "PASS", "country-us-state-california-city-los_angeles-session-sgn34f3e-ttl-30m",
		"USER", "PASS_country-us_state-california_city-losangeles_session-SESSION_lifetime-30m", "[0-9A-Za-z]{8}"},
	{"iproyal", "USER", "PASS", "session-s-ttl-7d", "USER", "PASS_session-SESSION_lifetime-168h", "[0-9A-Za-z]{8}"},
	{"soax", "ID", "PACKAGE_KEY", "country-us-state-new_york-city-new_york-session-rand123-ttl-300s",
		"package-ID-country-us-region-new+york-city-new+york-sessionid-SESSION-sessionlength-300", "PACKAGE_KEY", "[0-9a-z]{12}"},
	{"netnut", "USER", "PASS", "", "USER-res-any", "PASS", ""},
	{"netnut", "USER", "PASS", "country-us-session-947045456", "USER-res-us-sid-SESSION", "PASS", "[1-9][0-9]{4,8}"},
	{"netnut", "USER", "PASS", "country-nl-city-amsterdam", "USER-res_sc-nl_amsterdam", "PASS", ""},
	{"netnut", "USER", "PASS", "country-us-state-alabama-city-birmingham", "USER-res_sc-us_alabama_birmingham", "PASS", ""},
	{"netnut", "USER", "PASS", "country-gb", "USER-res-uk", "PASS", ""},
	{"webshare", "USER", "PASS", "country-us-city-los_angeles-session-1234", "USER-us-city_los_angeles-SESSION", "PASS", "[1-9][0-9]{6,9}"},
	{"webshare", "USER", "PASS", "country-us", "USER-us-rotate", "PASS", ""},
	{"packetstream", "USER", "PASS", "country-us-session-ab12cd", "USER", "PASS_country-UnitedStates_session-SESSION", "[0-9a-z]{10}"},
	{"geonode", "geonode_ID", "PASS", "country-us-session-xyz-ttl-30m",
		"geonode_ID-type-residential-country-us-session-SESSION-lifetime-30", "PASS", "[0-9a-z]{12}"},
	{"dataimpulse", "USER", "PASS", "country-us-state-newjersey-city-newark-zip-07102-session-abc-ttl-30m",
		"USER__cr.us;state.newjersey;city.newark;zip.07102;sessid.SESSION;sessttl.30", "PASS", "[0-9a-z]{12}"},
	{"dataimpulse", "USER", "PASS", "session-abc-ttl-1h", "USER__sessid.SESSION;sessttl.60", "PASS", "[0-9a-z]{12}"},
	{"evomi", "USER", "PASS", "country-us-city-new_york-session-abc123-ttl-30m",
		"USER", "PASS_country-US_city-new.york_session-SESSION_lifetime-30", "[0-9A-Za-z]{10}"},
	{"evomi", "USER", "PASS", "state-southern_cape", "USER", "PASS_region-southern.cape", ""},
	{"massive", "USER", "API_KEY", "country-us-state-california-session-37-ttl-60m",
		"USER-country-US-subdivision-CA-session-SESSION-sessionttl-60", "API_KEY", "[0-9a-z]{16}"},
	{"massive", "USER", "API_KEY", "country-us-state-ca-city-san_francisco", "USER-country-US-subdivision-CA-city-San Francisco", "API_KEY", ""},
	{"nimble", "ACC-pipeline-PIPE", "PIPEPASS", "country-us-state-ca-city-los_angeles-session-abc",
		"account-ACC-pipeline-PIPE-country-US-state-CA-city-los_angeles-session-SESSION", "PIPEPASS", "[0-9a-z]{16}"},
	{"infatica", "USER", "PASS", "country-us-state-california-city-los_angeles-session-abc123",
		"USER_c_US_sd_california_city_los-angeles_s_SESSION", "PASS", "[0-9a-z]{10}"},
	{"proxyempire", "KEY", "", "country-us-state-new_york-city-albany", "KEY", "wifi;us;;new+york;albany", ""},
	{"proxyempire", "KEY", "", "", "KEY", "wifi;;;;", ""},
	{"froxy", "USER", "PASS", "country-us-state-california-city-los_angeles", "USER", "PASS;us;california;los+angeles;", ""},
}

func TestDocumentedLogins(t *testing.T) {
	for _, c := range documentedLogins {
		t.Run(c.preset+" "+c.params, func(t *testing.T) {
			l := newLogins(t, vendor.LoginConfig{Preset: load(t, c.preset), Login: c.login, Password: c.password})
			params := parse(t, c.params)
			if fault := l.Fault(params); fault != nil {
				t.Fatal(fault)
			}
			username, password := l.Make("alice", params)
			like(t, "username", username, c.username, c.session)
			like(t, "password", password, c.secret, c.session)
		})
	}
}

// like compares got with want, in which SESSION stands for the pattern session.
func like(t *testing.T, what, got, want, session string) {
	t.Helper()
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "SESSION", session) + "$"
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%s %q, want %q", what, got, want)
	}
}

// TestPresetExamples holds the presets' own examples, which `maskrelay vendors` shows, to what they promise.
func TestPresetExamples(t *testing.T) {
	for _, p := range vendors(t) {
		for _, e := range p.Spec().Examples {
			l := newLogins(t, vendor.LoginConfig{Preset: p, Login: e.Login, Password: e.Password})
			params := parse(t, e.Params)
			if fault := l.Fault(params); fault != nil {
				t.Errorf("%s %q: %v", p.Name, e.Params, fault)
				continue
			}
			username, password := l.Make("alice", params)
			if !regexp.MustCompile(e.UsernameLike).MatchString(username) || !regexp.MustCompile(e.PasswordLike).MatchString(password) {
				t.Errorf("%s %q: %q and %q", p.Name, e.Params, username, password)
			}
			if e.UsernameLike == "" || e.PasswordLike == "" {
				t.Errorf("%s %q: the example promises nothing", p.Name, e.Params)
			}
		}
	}
}

// TestPresetGrammars holds what presets say of their grammar to what their templates do.
func TestPresetGrammars(t *testing.T) {
	for _, p := range vendors(t) {
		s := p.Spec()
		g := s.Grammar
		if len(g.Keys) == 0 && len(g.Positional) == 0 {
			t.Errorf("%s: no grammar", p.Name)
		}
		template := s.Username
		if g.In == "password" {
			template = s.Password
		}
		for key, theirs := range g.Keys {
			pair := theirs + g.Assign + "{" + string(key) + "}"
			if !strings.Contains(template, g.Between+pair) && !strings.Contains(template, g.First+pair) {
				t.Errorf("%s: no %q behind %q in %s", p.Name, pair, g.Between, template)
			}
		}
		for key := range s.Fields {
			if len(g.Keys) > 0 && g.Keys[key] == "" {
				t.Errorf("%s: the grammar has no key for %s", p.Name, key)
			}
		}
	}
}

// TestUnservedParametersAreRefused has what the vendors cannot do, or not together.
func TestUnservedParametersAreRefused(t *testing.T) {
	for _, c := range []struct {
		preset, params string
		want           vendor.Fault
	}{
		{"brightdata", "session-a-ttl-10m", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.TTL}},
		{"brightdata", "city-newyork", vendor.Fault{Kind: vendor.Needs, Key: vendor.City, Other: vendor.Country}},
		{"brightdata", "country-de-state-bayern", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.State}},
		{"brightdata", "country-us-state-bayern", vendor.Fault{Kind: vendor.Invalid, Key: vendor.State}},
		{"oxylabs", "session-a-ttl-90s", vendor.Fault{Kind: vendor.Invalid, Key: vendor.TTL}},
		{"oxylabs", "session-a-ttl-25h", vendor.Fault{Kind: vendor.Invalid, Key: vendor.TTL}},
		{"oxylabs", "asn-7922", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.ASN}},
		{"oxylabs", "country-us-city-albany-zip-12207", vendor.Fault{Kind: vendor.Excludes, Key: vendor.City, Other: vendor.Zip}},
		{"decodo", "country-de-state-bayern", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.State}},
		{"iproyal", "session-a-ttl-90m", vendor.Fault{Kind: vendor.Invalid, Key: vendor.TTL}},
		{"iproyal", "country-us-zip-12207", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.Zip}},
		{"soax", "session-a-ttl-25h", vendor.Fault{Kind: vendor.Invalid, Key: vendor.TTL}},
		{"netnut", "country-us-city-birmingham", vendor.Fault{Kind: vendor.Needs, Key: vendor.City, Other: vendor.State}},
		{"netnut", "country-us-state-alabama", vendor.Fault{Kind: vendor.Needs, Key: vendor.State, Other: vendor.City}},
		{"webshare", "session-a", vendor.Fault{Kind: vendor.Needs, Key: vendor.Session, Other: vendor.Country}},
		{"webshare", "country-us-state-california", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.State}},
		{"packetstream", "country-us-city-albany", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.City}},
		{"geonode", "country-us-state-iowa-city-ames", vendor.Fault{Kind: vendor.Excludes, Key: vendor.State, Other: vendor.City}},
		{"dataimpulse", "city-newark", vendor.Fault{Kind: vendor.Needs, Key: vendor.City, Other: vendor.Country}},
		{"evomi", "session-a-ttl-30s", vendor.Fault{Kind: vendor.Invalid, Key: vendor.TTL}},
		{"massive", "country-de-state-bayern", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.State}},
		{"nimble", "session-a-ttl-10m", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.TTL}},
		{"infatica", "session-a-ttl-10m", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.TTL}},
		{"proxyempire", "country-us-city-albany", vendor.Fault{Kind: vendor.Needs, Key: vendor.City, Other: vendor.State}},
		{"froxy", "country-us-asn-7922", vendor.Fault{Kind: vendor.Unavailable, Key: vendor.ASN}},
	} {
		l := newLogins(t, vendor.LoginConfig{Preset: load(t, c.preset), Login: "USER", Password: "PASS"})
		if fault := l.Fault(parse(t, c.params)); fault == nil || *fault != c.want {
			t.Errorf("%s %s: %v, want %v", c.preset, c.params, fault, &c.want)
		}
	}
}

// TestRefusalsAreReadAsTheirVendorsMeanThem plays what vendors answer, which is written down apart from the presets.
func TestRefusalsAreReadAsTheirVendorsMeanThem(t *testing.T) {
	for _, p := range vendors(t) {
		answers := upstreamtest.PresetErrors(p.Name)
		if len(answers) == 0 {
			t.Errorf("%s: no answers to play", p.Name)
		}
		for _, a := range answers {
			verdict := p.Classify(vendor.Answer{Status: a.Status, Reason: a.Reason, Header: a.Field, Body: []byte(a.Body)})
			if string(verdict.Cause) != a.Cause {
				t.Errorf("%s %s: read as %s, means %s", p.Name, a.Name, verdict.Cause, a.Cause)
			}
			// A field or reason of the vendor's own tells that no target made the answer, as does a quota's status.
			if loud := len(a.Header) > 0 || a.Body != "" || a.Status == 402 || strings.Contains(a.Reason, "_") && p.Name == "dataimpulse"; verdict.Own != loud {
				t.Errorf("%s %s: the gateway's own: %v, want %v", p.Name, a.Name, verdict.Own, loud)
			}
			switch verdict.Cause {
			case vendor.CauseAuth, vendor.CauseQuota, vendor.CauseThreads, vendor.CauseRate, vendor.CauseNoExit, vendor.CauseParams:
				if verdict.Advice == "" && p.Advice(verdict.Cause) == "" {
					t.Errorf("%s %s: %s without advice", p.Name, a.Name, verdict.Cause)
				}
			}
		}
	}
}

// TestEveryRuleDecides fails for a rule that decides about no answer: it would be untested, or shadowed by one before it.
func TestEveryRuleDecides(t *testing.T) {
	for _, p := range vendors(t) {
		rules := p.Spec().Classify
		decides := make([]bool, len(rules))
		for _, a := range upstreamtest.PresetErrors(p.Name) {
			if i := slices.IndexFunc(rules, func(r vendor.RuleSpec) bool { return fits(r, a) }); i >= 0 {
				decides[i] = true
			}
		}
		for i, r := range rules {
			if !decides[i] {
				t.Errorf("%s: rule %d, %+v, decides about no answer", p.Name, i, r)
			}
		}
	}
}

// fits is a second reading of what rules mean.
func fits(r vendor.RuleSpec, a upstreamtest.PresetAnswer) bool {
	field := strings.ToLower(a.Field(r.Header))
	return (r.Status.Any || slices.Contains(r.Status.List, a.Status)) &&
		(r.Reason == "" || strings.EqualFold(r.Reason, a.Reason)) &&
		(r.Header == "" || field != "" && strings.Contains(field, strings.ToLower(r.Match))) &&
		strings.Contains(strings.ToLower(a.Body), strings.ToLower(r.Body))
}

// TestWhatVendorsAnswerIsTheirMark holds the headers of the answers to what the presets keep from customers.
func TestWhatVendorsAnswerIsTheirMark(t *testing.T) {
	standard := []string{"proxy-status", "proxy connection"} // removed for every vendor
	for _, p := range vendors(t) {
		for _, a := range upstreamtest.PresetErrors(p.Name) {
			for _, line := range a.Header {
				name, _, _ := strings.Cut(strings.ToLower(line), ": ")
				if !slices.Contains(standard, name) && !slices.ContainsFunc(p.Headers(), func(pattern string) bool { return covers(strings.ToLower(pattern), name) }) {
					t.Errorf("%s %s: the field %s is not among %v", p.Name, a.Name, name, p.Headers())
				}
			}
		}
	}
}

func covers(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// The hosts that vendors are known by, besides their gateways, hold a mark.
func TestKnownHostsAreMarked(t *testing.T) {
	hosts := map[string][]string{
		"brightdata": {"geo.brdtest.com", "lumtest.com", "docs.brightdata.com", "zproxy.lum-superproxy.io"},
		"oxylabs":    {"ip.oxylabs.io", "us-pr.oxylabs.io"},
		"decodo":     {"ip.decodo.com", "gate.smartproxy.com", "de.decodo.com"},
		"iproyal":    {"us.proxy.iproyal.com"},
		"netnut":     {"gw.ntnt.io", "help.netnut.io", "www.netnut.net"},
		"webshare":   {"ipv4.webshare.io"},
		"geonode":    {"sg.proxy.geonode.io", "docs.geonode.com"},
		"evomi":      {"ip.evomi.com", "dcp.evomi.com"},
		"massive":    {"isp.joinmassive.com"},
	}
	for name, list := range hosts {
		marks := load(t, name).Marks()
		for _, host := range list {
			if !slices.ContainsFunc(marks, func(mark string) bool { return strings.Contains(host, mark) }) {
				t.Errorf("%s: %s holds none of %v", name, host, marks)
			}
		}
	}
}

// Vendors that have a key for sessions that rather fail than move say so in their presets.
func TestStrictSessionKeys(t *testing.T) {
	keys := map[string]string{"oxylabs": "sessid_oneip", "decodo": "session_iplock", "evomi": "hardsession"}
	for _, p := range vendors(t) {
		got := ""
		if s := p.Spec().Session; s != nil {
			got, _, _ = strings.Cut(s.Strict, ":")
		}
		if got != keys[p.Name] {
			t.Errorf("%s: %q, want %q", p.Name, got, keys[p.Name])
		}
	}
}
