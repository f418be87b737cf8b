package upstream

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream/upstreamtest"
	"maskrelay/upstream/vendor"
)

const (
	diagnosedUser     = "customer-9f3a"
	diagnosedPassword = "Zebra:cr@te%77"
)

// patient is a gateway to be diagnosed, and the targets behind it.
type patient struct {
	vendor *upstreamtest.Vendor
	secure *upstreamtest.Judge
	plain  *upstreamtest.Judge
}

func startPatient(t *testing.T, c upstreamtest.VendorConfig) *patient {
	t.Helper()
	c.Username, c.Password = diagnosedUser, diagnosedPassword
	p := &patient{vendor: startVendor(t, c)}
	for _, j := range []struct {
		at  **upstreamtest.Judge
		tls bool
	}{{&p.secure, true}, {&p.plain, false}} {
		judge, err := upstreamtest.StartJudge(upstreamtest.JudgeConfig{TLS: j.tls})
		must(t, err)
		t.Cleanup(func() { _ = judge.Close() })
		*j.at = judge
	}
	return p
}

// config diagnoses gateways with a TLS target.
func (p *patient) config(t *testing.T, gateways ...Gateway) DiagnoseConfig {
	t.Helper()
	return DiagnoseConfig{
		Options:     Options{Gateways: gateways, DialTimeout: 2 * time.Second, ConnectTimeout: 2 * time.Second},
		Target:      parseURL(t, p.secure.URL()+"/"),
		TargetRoots: p.secure.CA().Pool(),
	}
}

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	must(t, err)
	return u
}

// diagnose examines one gateway and returns its hops as "name result", and all that is said.
func diagnose(t *testing.T, c DiagnoseConfig) (hops []string, d Diagnosis) {
	t.Helper()
	found, err := Diagnose(t.Context(), c)
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("%d diagnoses", len(found))
	}
	for _, h := range found[0].Hops {
		hops = append(hops, h.Name+" "+string(h.Result))
		checkNoSecret(t, h)
	}
	return hops, found[0]
}

// checkNoSecret looks for the gateway's login in everything that a hop says.
func checkNoSecret(t *testing.T, h Hop) {
	t.Helper()
	token := basic(diagnosedUser, diagnosedPassword)
	for _, text := range []string{h.Detail, h.Vendor, h.Advice} {
		for _, secret := range []string{diagnosedUser, diagnosedPassword, strings.TrimPrefix(token, "Basic ")} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows the secret %q: %q", h.Name, secret, text)
			}
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			t.Errorf("%s has control characters: %q", h.Name, text)
		}
	}
}

func TestDiagnoseHealthyGateway(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	c := p.config(t, gatewayOf(t, "g", p.vendor.URL()))
	hops, d := diagnose(t, c)
	if want := []string{"dns ok", "tcp ok", "connect ok", "target ok"}; !slices.Equal(hops, want) {
		t.Fatalf("hops %v, want %v: %+v", hops, want, d.Hops)
	}
	if last := d.Hops[3]; !strings.Contains(last.Detail, "200 OK") || !strings.Contains(last.Detail, "TLS 1.3") || last.Took <= 0 {
		t.Errorf("target: %+v", last)
	}
	c.Target = parseURL(t, p.plain.URL()+"/status?code=403")
	hops, d = diagnose(t, c)
	if want := []string{"dns ok", "tcp ok", "request ok"}; !slices.Equal(hops, want) || !strings.Contains(d.Hops[2].Detail, "the target's own answer") {
		t.Errorf("plain: %v: %+v", hops, d.Hops)
	}
	c.Target = parseURL(t, "tcp://"+parseURL(t, p.plain.URL()).Host)
	if hops, _ = diagnose(t, c); !slices.Equal(hops, []string{"dns ok", "tcp ok", "connect ok", "target skipped"}) {
		t.Errorf("tcp: %v", hops)
	}
	for deadline := time.Now().Add(10 * time.Second); p.vendor.Open() > 0; { // the vendor learns of an end a moment later
		if time.Now().After(deadline) {
			t.Fatalf("%d connections to the gateway are open afterwards", p.vendor.Open())
		}
		runtime.Gosched()
	}
}

// TestDiagnoseRefusals meets gateways that answer, and not what was hoped for.
func TestDiagnoseRefusals(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	echo := func(status int) upstreamtest.Behaviour { // repeats the login in every spelling
		token := strings.TrimPrefix(basic(diagnosedUser, diagnosedPassword), "Basic ")
		return upstreamtest.Status(status, "Bad "+diagnosedUser+" "+diagnosedPassword, http.Header{
			"X-Token": {token}, "X-Lower": {strings.ToLower(token)}, "X-Escaped": {url.QueryEscape(diagnosedPassword)}, "X-Colour": {"\x1b[31mred"},
		}, "login "+diagnosedUser+":"+diagnosedPassword+" is "+diagnosedPassword[:9])
	}
	for name, test := range map[string]struct {
		behaviour upstreamtest.Behaviour
		plain     bool
		hop       string
		cause     Cause
		says, do  string
	}{
		"wrong password":        {upstreamtest.Loud(407, "AUTH_FAILED"), false, HopConnect, CauseAuth, "407 SuperVendor AUTH_FAILED; ", "username and password"},
		"wrong password, plain": {upstreamtest.Loud(407, "AUTH_FAILED"), true, HopRequest, CauseAuth, "407 SuperVendor AUTH_FAILED; ", "username and password"},
		"no balance":            {upstreamtest.Loud(402, "TOP_UP"), false, HopConnect, CauseQuota, "X-SuperVendor-Error: TOP_UP", "top it up"},
		"no such target":        {upstreamtest.Loud(403, "DOMAIN"), false, HopConnect, CauseForbidden, "403 SuperVendor DOMAIN", "does not serve this target"},
		"too fast":              {upstreamtest.Loud(429, "SLOW"), false, HopConnect, CauseRate, "429", "spread"},
		"its own trouble":       {upstreamtest.Loud(502, "OOPS"), false, HopConnect, CauseServer, "502", "status page"},
		"echo":                  {echo(407), false, HopConnect, CauseAuth, "407 Bad *** ***; ", "username and password"},
		"echo, plain":           {echo(407), true, HopRequest, CauseAuth, "407 Bad *** ***; ", "username and password"},
		"silence":               {upstreamtest.Silent(), false, HopConnect, CauseTimeout, "", "said nothing"},
		"closes":                {upstreamtest.CloseBeforeReply(), false, HopConnect, CauseClosed, "", "allow-list"},
		"a page":                {upstreamtest.ConnectWithBody(false), false, HopConnect, CauseBody, "200", "web server"},
		"SSH":                   {upstreamtest.Raw{Bytes: []byte("SSH-2.0-OpenSSH_9\r\n")}, false, HopConnect, CauseMalformed, "SSH-2.0", "scheme and port"},
		"TLS alert":             {upstreamtest.Raw{Bytes: []byte("\x15\x03\x01\x00\x02\x02\x46")}, false, HopConnect, CauseMalformed, "no HTTP", "https://"},
		"SOCKS5":                {upstreamtest.Raw{Bytes: []byte("\x05\xff")}, false, HopConnect, CauseMalformed, "no HTTP", "socks5://"},
		"tunnel to nowhere":     {upstreamtest.Raw{Bytes: []byte("HTTP/1.1 200 OK\r\n\r\n"), Then: upstreamtest.Close}, false, HopTarget, CauseClosed, "", "answer before they dial"},
		"tunnel stalls":         {upstreamtest.Raw{Bytes: []byte("HTTP/1.1 200 OK\r\n\r\n")}, false, HopTarget, CauseTimeout, "", "nothing comes through"},
	} {
		t.Run(name, func(t *testing.T) {
			p.vendor.SetBehaviour(test.behaviour)
			c := p.config(t, gatewayOf(t, "g", p.vendor.URL()))
			c.Options.ConnectTimeout = time.Second
			if test.plain {
				c.Target = parseURL(t, p.plain.URL())
			}
			_, d := diagnose(t, c)
			h := d.Failed()
			if h == nil || h.Name != test.hop || h.Cause != test.cause {
				t.Fatalf("%+v, want %s failed with %s", d.Hops, test.hop, test.cause)
			}
			if !strings.HasPrefix(h.Vendor, test.says) && !strings.Contains(h.Vendor, test.says) || test.says == "" && h.Vendor != "" {
				t.Errorf("the vendor says %q, want %q", h.Vendor, test.says)
			}
			if !strings.Contains(h.Advice, test.do) || h.Detail == "" {
				t.Errorf("advice %q, detail %q, want %q", h.Advice, h.Detail, test.do)
			}
			if strings.Contains(h.Vendor, diagnosedPassword[:9]) {
				t.Errorf("the beginning of a secret is shown: %q", h.Vendor)
			}
		})
	}
}

func TestDiagnoseUnreachableGateways(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	dead := closedAddr(t)
	for name, test := range map[string]struct {
		url    string
		lookup error
		hops   []string
		cause  Cause
		do     string
	}{
		"dead port":      {"http://" + dead, nil, []string{"dns ok", "tcp failed", "connect skipped", "target skipped"}, CauseRefused, "nothing listens there"},
		"dead TLS port":  {"https://" + dead, nil, []string{"dns ok", "tcp failed", "tls skipped", "connect skipped", "target skipped"}, CauseRefused, "nothing listens there"},
		"no such name":   {"http://gw.vendor.invalid:80", &net.DNSError{Err: "no such host", IsNotFound: true}, []string{"dns failed", "tcp skipped", "connect skipped", "target skipped"}, CauseResolve, "spelling"},
		"no name server": {"https://gw.vendor.invalid:80", &net.DNSError{Err: "server misbehaving", IsTemporary: true}, []string{"dns failed", "tcp skipped", "tls skipped", "connect skipped", "target skipped"}, CauseResolve, "resolv.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.config(t, gatewayOf(t, "g", test.url))
			c.Options.Lookup = func(context.Context, string, string) ([]netip.Addr, error) { return nil, test.lookup }
			hops, d := diagnose(t, c)
			h := d.Failed()
			if !slices.Equal(hops, test.hops) || h.Cause != test.cause || !strings.Contains(h.Advice, test.do) {
				t.Errorf("%v, %+v, want %v, %s: %s", hops, h, test.hops, test.cause, test.do)
			}
		})
	}
}

// TestDiagnoseNameServer asks where the relay asks, and says so when nobody answers there.
func TestDiagnoseNameServer(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	_, port, err := net.SplitHostPort(p.vendor.Addr())
	must(t, err)
	ns := startNameServer(t, families(reply{records: []record{{testName, 60, "127.0.0.1"}}}, reply{}))
	c := p.config(t, gatewayOf(t, "g", "http://"+diagnosedUser+":"+url.QueryEscape(diagnosedPassword)+"@"+net.JoinHostPort(testName, port)))
	c.Options.DNSServer = ns.addr
	if hops, d := diagnose(t, c); d.Failed() != nil {
		t.Errorf("%v, %+v", hops, d.Failed())
	}
	c.Options.DNSServer = closedAddr(t)
	_, d := diagnose(t, c)
	if h := d.Failed(); h == nil || h.Name != HopResolve || !strings.Contains(h.Advice, "MASKRELAY_DNS_SERVER ("+c.Options.DNSServer+") does not answer") {
		t.Errorf("%+v", h)
	}
}

// TestDiagnoseAddresses looks at every address of a name, some of which do not serve.
func TestDiagnoseAddresses(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	_, port, err := net.SplitHostPort(p.vendor.Addr())
	must(t, err)
	g := gatewayOf(t, "g", "http://"+diagnosedUser+":"+url.QueryEscape(diagnosedPassword)+"@gw.vendor.invalid:"+port)
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.9")} // nobody listens there
	for i := range 9 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}))
	}
	c := p.config(t, g)
	c.Options.Lookup = func(context.Context, string, string) ([]netip.Addr, error) { return addrs, nil }
	hops, d := diagnose(t, c)
	want := []string{"dns ok", "tcp failed", "tcp ok"}
	for range 6 {
		want = append(want, "tcp failed")
	}
	want = append(want, "tcp skipped", "connect ok", "target ok")
	if !slices.Equal(hops, want) {
		t.Errorf("hops %v, want %v", hops, want)
	}
	if h := d.Failed(); h == nil || !strings.Contains(h.Detail, "127.0.0.9:"+port) {
		t.Errorf("the failed address: %+v", h)
	}
}

// TestDiagnoseOtherCertificateBehindTheTunnel is a vendor who decrypts.
func TestDiagnoseOtherCertificateBehindTheTunnel(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	c := p.config(t, gatewayOf(t, "g", p.vendor.URL()))
	c.TargetRoots = x509.NewCertPool()
	_, d := diagnose(t, c)
	if h := d.Failed(); h == nil || h.Name != HopTarget || h.Cause != CauseTLS || !strings.Contains(h.Advice, "decrypt") {
		t.Errorf("%+v", d.Hops)
	}
}

// TestDiagnoseCustomer tries the login that the customer's parameters give, beside the operator's.
func TestDiagnoseCustomer(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	params, fault := vendor.ParseParams("country-us")
	if fault != nil {
		t.Fatal(fault)
	}
	open := startVendor(t, upstreamtest.VendorConfig{}) // takes any login
	parse := func(username, pool string, at *upstreamtest.Vendor) Gateway {
		g, err := ParseGateway(GatewayConfig{
			Name: "g", Pool: pool, URL: "http://" + diagnosedUser + ":" + url.QueryEscape(diagnosedPassword) + "@" + at.Addr(), Username: username,
		})
		must(t, err)
		return g
	}
	for name, test := range map[string]struct {
		g    Gateway
		hops []string
		do   string
	}{
		"refused":    {parse("{login}{?country:-secretzone-{country}}", "", p.vendor), []string{"connect ok", "connect_customer failed", "target ok"}, "username and password"},
		"other pool": {parse("{login}{?country:-{country}}", "other", p.vendor), []string{"connect ok", "connect_customer skipped", "target ok"}, ""},
		"cannot do":  {parse("{login}", "", p.vendor), []string{"connect ok", "connect_customer skipped", "target ok"}, ""},
		"taken":      {parse("{login}{?country:-secretzone-{country}}", "", open), []string{"connect ok", "connect_customer ok", "target ok"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.config(t, test.g)
			c.Account, c.Params, c.Pool = "alice", params, DefaultPool
			hops, d := diagnose(t, c)
			slices.Sort(hops)
			want := append([]string{"dns ok", "tcp ok"}, test.hops...)
			slices.Sort(want)
			if !slices.Equal(hops, want) {
				t.Fatalf("hops %v, want %v: %+v", hops, want, d.Hops)
			}
			for _, h := range d.Hops {
				if strings.Contains(h.Vendor+h.Detail+h.Advice, "secretzone") {
					t.Errorf("the template shows: %+v", h)
				}
			}
			if h := d.Failed(); h != nil && !strings.Contains(h.Advice, test.do) {
				t.Errorf("advice %q, want %q", h.Advice, test.do)
			}
		})
	}
	sent := base64.StdEncoding.EncodeToString([]byte(diagnosedUser + "-secretzone-us:" + diagnosedPassword))
	if got := string(open.Received()); strings.Count(got, sent) != 1 {
		t.Errorf("the customer's login was not sent once: %q", got)
	}
}

// TestDiagnosePassthrough sends the customer's own login.
func TestDiagnosePassthrough(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	c := p.config(t, gatewayOf(t, "g", "http://"+p.vendor.Addr()))
	if _, d := diagnose(t, c); d.Failed() == nil || d.Failed().Cause != CauseAuth {
		t.Errorf("without a login: %+v", d.Hops)
	}
	c.Authorization = basic(diagnosedUser, diagnosedPassword)
	if _, d := diagnose(t, c); d.Failed() != nil {
		t.Errorf("with the customer's: %+v", d.Hops)
	}
}

func TestDiagnoseDirect(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	c := p.config(t, gatewayOf(t, "direct", Direct))
	if hops, d := diagnose(t, c); !slices.Equal(hops, []string{"tcp ok", "target ok"}) {
		t.Errorf("%v: %+v", hops, d.Hops)
	}
	c.Target = parseURL(t, p.plain.URL())
	if hops, d := diagnose(t, c); !slices.Equal(hops, []string{"tcp ok", "target ok"}) {
		t.Errorf("%v: %+v", hops, d.Hops)
	}
	c.Target = parseURL(t, "https://"+closedAddr(t)+"/")
	if hops, d := diagnose(t, c); !slices.Equal(hops, []string{"tcp failed", "target skipped"}) {
		t.Errorf("%v: %+v", hops, d.Hops)
	}
}

// TestDiagnoseEnds is the end of the context, in the middle of a hop and before the first.
func TestDiagnoseEnds(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
	c := p.config(t, gatewayOf(t, "g", p.vendor.URL()))
	c.Options.ConnectTimeout, c.Options.DialTimeout = time.Hour, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	p.vendor.SetBehaviour(upstreamtest.Func(func(ctx context.Context, _ *upstreamtest.Conn, _ *upstreamtest.RecordedRequest) {
		cancel()
		<-ctx.Done()
	}))
	found, err := Diagnose(ctx, c)
	must(t, err)
	if h := found[0].Failed(); h == nil || h.Name != HopConnect || h.Cause != CauseCanceled || h.Detail != "interrupted" {
		t.Errorf("interrupted in the middle: %+v", found[0].Hops)
	}
	found, err = Diagnose(ctx, c)
	must(t, err)
	if h := found[0].Failed(); h == nil || h.Name != HopTCP || h.Cause != CauseCanceled {
		t.Errorf("interrupted before: %+v", found[0].Hops)
	}
}

// TestDiagnoseSeveral keeps the order of the gateways, more of them than are looked at together.
func TestDiagnoseSeveral(t *testing.T) {
	p := startPatient(t, upstreamtest.VendorConfig{})
	var gateways []Gateway
	for i := range 3 * diagnoseAtOnce {
		g := gatewayOf(t, "g"+string(rune('A'+i)), p.vendor.URL())
		if i%3 == 0 {
			g = gatewayOf(t, g.Name, "http://"+closedAddr(t))
		}
		gateways = append(gateways, g)
	}
	found, err := Diagnose(t.Context(), p.config(t, gateways...))
	must(t, err)
	for i, d := range found {
		if d.Gateway.Name != gateways[i].Name || (d.Failed() != nil) != (i%3 == 0) {
			t.Errorf("%d: %s: %+v", i, d.Gateway.Name, d.Hops)
		}
	}
}

func TestDiagnoseConfigIsChecked(t *testing.T) {
	g := gatewayOf(t, "g", "http://127.0.0.1:1")
	o := Options{Gateways: []Gateway{g}, DialTimeout: time.Second, ConnectTimeout: time.Second}
	for name, c := range map[string]DiagnoseConfig{
		"no gateway": {Target: parseURL(t, "https://example.com/")},
		"no target":  {Options: o},
		"no timeout": {Options: Options{Gateways: o.Gateways}, Target: parseURL(t, "https://example.com/")},
		"scheme":     {Options: o, Target: parseURL(t, "ftp://example.com/")},
		"no port":    {Options: o, Target: parseURL(t, "tcp://example.com")},
		"no host":    {Options: o, Target: parseURL(t, "https:///path")},
	} {
		if _, err := Diagnose(t.Context(), c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
