package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// doctorHop is one hop as "maskrelay doctor --json" tells it.
type doctorHop struct {
	Hop, Result, Detail, Cause, Remedy string
	VendorSays                         string `json:"vendor_says"`
	Status                             int
}

type doctorReport struct {
	OK      bool
	Summary string
	Parts   []struct {
		Kind, Name string
		Hops       []doctorHop
	}
}

// failed returns the failed hops of the parts of a kind.
func (r *doctorReport) failed(kind string) (list []doctorHop) {
	for _, p := range r.Parts {
		for _, h := range p.Hops {
			if p.Kind == kind && h.Result == "failed" {
				list = append(list, h)
			}
		}
	}
	return list
}

// runDoctor runs the doctor to its end; its output is searched for secrets.
func runDoctor(t *testing.T, env lab.Env, args ...string) (r doctorReport, code int) {
	t.Helper()
	stdout, stderr, code := runRelay(t, env, "", append([]string{"doctor", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("exit code %d: %v\n%s%s", code, err, stdout, stderr)
	}
	if r.OK != (code == 0) || r.Summary == "" {
		t.Errorf("exit code %d, ok %v, summary %q", code, r.OK, r.Summary)
	}
	return r, code
}

// doctored is a relay behind which everything works, and the environment that it was started with.
type doctored struct {
	relay *lab.Relay
	site  *target
	env   lab.Env
}

func startDoctored(t *testing.T, vendorURL string, change lab.Env) *doctored {
	t.Helper()
	d := &doctored{site: startTarget(t, ""), env: lab.Env{
		"UPSTREAM": vendorURL, "ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML),
		"LISTEN": lab.FreeAddr(t), "ADMIN_LISTEN": lab.FreeAddr(t), "ALLOW_PRIVATE": "true", "ALLOW_PORTS": "*",
	}}
	maps.Copy(d.env, change)
	d.relay = startRelay(t, d.env)
	d.env["!SSL_CERT_FILE"] = d.site.caFile
	return d
}

// doctor runs the doctor with some variables other than the relay's.
func (d *doctored) doctor(t *testing.T, change lab.Env, args ...string) (doctorReport, int) {
	t.Helper()
	env := maps.Clone(d.env)
	maps.Copy(env, change)
	return runDoctor(t, env, args...)
}

// TestDoctorFindsNothing goes all the way through squid and the relay, in every form of target.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]lab.Env{"plain": nil, "behind a balancer": {"PROXY_PROTOCOL_FROM": "127.0.0.0/8"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := startSquid(t)
			d := startDoctored(t, v.url, change)
			for _, target := range []string{
				d.site.url("https", targetName, "/hello"), d.site.url("http", targetName, "/hello"), "tcp://" + startEcho(t),
			} {
				r, code := d.doctor(t, nil, "--user", customerName, "--target", target)
				if code != 0 {
					t.Errorf("%s: %s: %+v", target, r.Summary, r.Parts)
				}
			}
			out, stderr, code := runRelay(t, d.env, "", "doctor", "--user", customerName, "--target", d.site.url("https", targetName, "/hello"))
			if code != 0 || !strings.Contains(out, "\nOK: all is fine: ") || strings.Contains(out, "\x1b") || stderr != "" {
				t.Errorf("exit code %d: %s%s", code, out, stderr)
			}
		})
	}
}

// TestDoctorFindsTheGateway: what the vendor's side can do wrong, and what the relay behind it then says.
func TestDoctorFindsTheGateway(t *testing.T) {
	t.Parallel()
	v := startSquid(t)
	d := startDoctored(t, v.url, nil)
	with := func(password, host string) string {
		return (&url.URL{Scheme: "http", User: url.UserPassword(vendorUser, password), Host: host}).String()
	}
	silent, err := net.Listen("tcp4", lab.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	refuses, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Behaviour: upstreamtest.Loud(403, "DOMAIN_BLOCKED")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = refuses.Close() }()
	secure, stranger := startSecureGateway(t), startSecureGateway(t)
	for name, test := range map[string]struct {
		env        lab.Env
		hop, cause string
		says, do   string
	}{
		"wrong password":  {lab.Env{"UPSTREAM": with("not-it", v.tap.Addr())}, "connect", "auth", "407 Proxy Authentication Required", "username and password"},
		"dead port":       {lab.Env{"UPSTREAM": with(vendorPassword, lab.FreeAddr(t))}, "tcp", "refused", "", "nothing listens there"},
		"no such name":    {lab.Env{"UPSTREAM": with(vendorPassword, "gw.vendor.invalid:7777")}, "dns", "resolve", "", ""},
		"silent":          {lab.Env{"UPSTREAM": with(vendorPassword, silent.Addr().String())}, "connect", "timeout", "", "said nothing"},
		"refused target":  {lab.Env{"UPSTREAM": with(vendorPassword, refuses.Addr())}, "connect", "forbidden", "403 SuperVendor DOMAIN_BLOCKED", "does not serve this target"},
		"stranger's cert": {lab.Env{"UPSTREAM": "", "UPSTREAMS_0_URL": "https://" + secure.Addr(), "UPSTREAMS_0_CA_FILE": stranger.caFile}, "tls", "tls", "", "_CA_FILE"},
		"plain for TLS":   {lab.Env{"UPSTREAM": strings.Replace(with(vendorPassword, v.tap.Addr()), "http:", "https:", 1)}, "tls", "tls", "", "TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			r, code := d.doctor(t, test.env, "--user", customerName, "--timeout", "6s", "--target", d.site.url("https", targetName, "/hello"))
			list := r.failed("gateway")
			if code != 1 || len(list) != 1 || list[0].Hop != test.hop || list[0].Cause != test.cause && name != "plain for TLS" {
				t.Fatalf("exit code %d, %+v", code, list)
			}
			if h := list[0]; !strings.Contains(h.VendorSays, test.says) || !strings.Contains(h.Remedy, test.do) || !strings.Contains(r.Summary, h.Remedy) {
				t.Errorf("%+v, summary %q", h, r.Summary)
			}
			// The running relay has the right gateway.
			if list := r.failed("relay"); len(list) > 0 {
				t.Errorf("the relay: %+v", list)
			}
		})
	}
}

// TestDoctorFindsTheRelay: the gateway works, and the relay does not serve.
func TestDoctorFindsTheRelay(t *testing.T) {
	t.Parallel()
	accounts := fmt.Sprintf("accounts:\n  - {name: %s, password: %q}\n  - {name: capped, password: capped-password, max_conns: 1}\n"+
		"  - {name: off, password: off-password, disabled: true}\n", customerName, customerPassword)
	v := startSquid(t)
	d := startDoctored(t, v.url, lab.Env{"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accounts)})
	held, err := dialProxy(d.relay.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	if got, err := held.connect(startEcho(t), "capped", "capped-password"); err != nil || got.status != http.StatusOK {
		t.Fatalf("%+v %v", got, err)
	}
	elsewhere := writeFile(t, t.TempDir(), "accounts.yaml", strings.ReplaceAll(accounts, "off-password", "other-password"))
	offOnly := writeFile(t, t.TempDir(), "accounts.yaml", strings.ReplaceAll(accounts, ", disabled: true", ""))
	wrong := writeFile(t, t.TempDir(), "password", "not-the-password\n")
	target := d.site.url("https", targetName, "/hello")
	for name, test := range map[string]struct {
		env    lab.Env
		args   []string
		status int
		cause  string
		do     string
	}{
		"wrong password":  {nil, []string{"--user", customerName, "--password-file", wrong}, 407, "auth_failed", "customer's password"},
		"other accounts":  {lab.Env{"ACCOUNTS_FILE": elsewhere}, []string{"--user", "off"}, 407, "auth_failed", "SIGHUP"},
		"cap":             {nil, []string{"--user", "capped"}, 429, "cap", "max_conns"},
		"disabled":        {nil, []string{"--user", "off"}, 403, "account_disabled", "disabled"},
		"disabled there":  {lab.Env{"ACCOUNTS_FILE": offOnly}, []string{"--user", "off"}, 403, "forbidden", "restart it"},
		"not running":     {lab.Env{"LISTEN": lab.FreeAddr(t)}, []string{"--user", customerName}, 0, "not_running", "maskrelay serve"},
		"another address": {nil, []string{"--user", customerName, "--relay", lab.FreeAddr(t)}, 0, "not_running", "--relay"},
		"a header":        {lab.Env{"PROXY_PROTOCOL_FROM": "127.0.0.0/8"}, []string{"--user", customerName}, 400, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, code := d.doctor(t, test.env, append(test.args, "--target", target)...)
			list := r.failed("relay")
			if code != 1 || len(list) != 1 || len(r.failed("gateway")) > 0 {
				t.Fatalf("exit code %d, %+v", code, r)
			}
			if h := list[0]; test.cause != "" && (h.Status != test.status || h.Cause != test.cause) || !strings.Contains(h.Remedy, test.do) || h.Remedy == "" {
				t.Errorf("%+v", h)
			}
		})
	}
}

// TestDoctorIsInterrupted sends the signal of Ctrl-C.
func TestDoctorIsInterrupted(t *testing.T) {
	t.Parallel()
	silent, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Behaviour: upstreamtest.Silent()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	env := lab.Env{"UPSTREAM": "http://" + silent.Addr(), "ACCOUNTS": customerName + ":secretsecret", "CONNECT_TIMEOUT": "1h"}
	p := lab.Start(t, "doctor", lab.RelayCommand(t, lab.Tested, env, "doctor", "--timeout", "2h"))
	lab.Wait(t, 20*time.Second, "the gateway to be asked", func() bool { return len(silent.Received()) > 0 })
	p.Signal(t, syscall.SIGINT)
	if code := p.ExitCode(t, 20*time.Second); code != 1 || !p.Stdout.Contains("interrupted") {
		t.Errorf("exit code %d:\n%s", code, p.Stdout.Bytes())
	}
	checkLog(t, p)
}

// TestDoctorShowsNoSecret has a vendor that repeats what it was sent, in every place where a vendor has words.
func TestDoctorShowsNoSecret(t *testing.T) {
	t.Parallel()
	token := basic(vendorUser, vendorPassword)
	echo, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Behaviour: upstreamtest.Status(407, "No "+vendorUser+" "+vendorPassword, http.Header{
		"X-Token": {token}, "X-User": {vendorUser}, "X-Password": {vendorPassword}, "Proxy-Authenticate": {`Basic realm="` + vendorPassword + `"`},
	}, "user "+vendorUser+" with "+vendorPassword+" ("+url.QueryEscape(vendorPassword)+") "+token)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = echo.Close() }()
	env := lab.Env{
		"UPSTREAMS_0_URL":      "http://" + echo.Addr(),
		"UPSTREAMS_0_USERNAME": vendorUser, "UPSTREAMS_0_PASSWORD": vendorPassword,
		"ADMIN_TOKEN": "admin-token-0123456789", "ALLOW_PRIVATE": "true", "ALLOW_PORTS": "*",
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML), "LISTEN": echo.Addr(),
	}
	secrets := []string{vendorUser, vendorPassword, url.QueryEscape(vendorPassword), token, customerPassword, "capped-password", "admin-token-0123456789", "target-password"}
	for want, forms := range map[int][][]string{
		1: {{"--target", "https://shop.example/"}, {"--target", "http://shop.example/"}, {"--target", "tcp://shop.example:443", "--json"}, {"--target", "http://shop.example/", "--json"}},
		2: {{"--target", "https://u:target-password@shop.example/"}, {"--target", "x", "--user", "u:target-password"}},
	} {
		for _, args := range forms {
			stdout, stderr, code := runRelay(t, env, "", append([]string{"doctor", "--user", customerName}, args...)...)
			if code != want || want == 1 && !strings.Contains(stdout, "407 No *** ***") {
				t.Errorf("%v: exit code %d:\n%s%s", args, code, stdout, stderr)
			}
			for _, secret := range secrets {
				if strings.Contains(strings.ToLower(stdout+stderr), strings.ToLower(secret)) {
					t.Errorf("%v shows %q:\n%s%s", args, secret, stdout, stderr)
				}
			}
		}
	}
}
