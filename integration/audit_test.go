package integration

import (
	"encoding/json"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// auditCases are the cases of these tests: some of each kind, in a few seconds.
const auditCases = "honest,own-,407,relay-2,preset-oxylabs,garbage,reset-mid-head,socks-login-refused"

// auditReport is what "maskrelay audit --json" tells.
type auditReport struct {
	OK      bool
	Summary string
	Matrix  []struct {
		Way, Scheme, Listener string
		Cases, Passed         int
	}
	Leaks    []struct{ Case, Way, Where, Mark, Excerpt string }
	Failures []struct{ Case, Way, Scheme, Problem, Excerpt string }
	Live     []struct {
		Gateway string
		Asked   []struct {
			Request string
			Shows   string `json:"vendor_shows"`
			Error   string
			Relay   int `json:"relay_status"`
			Fields  []struct {
				Name, Value string
				Removed     bool
			}
		}
		Leaks, Advice []string
		Problem       string
	}
}

// auditLimit is how long an audit may take on a busy machine.
const auditLimit = 5 * time.Minute

// sampleAudit plays auditCases.
func sampleAudit(t *testing.T, env lab.Env, args ...string) (r auditReport, code int) {
	t.Helper()
	return runAudit(t, env, append([]string{"--stages", "2", "--case", auditCases}, args...)...)
}

func runAudit(t *testing.T, env lab.Env, args ...string) (r auditReport, code int) {
	t.Helper()
	stdout, stderr, code := runRelayFor(t, auditLimit, env, "", append([]string{"audit", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("exit code %d: %v\n%s%s", code, err, stdout, stderr)
	}
	if r.OK != (code == 0) || r.Summary == "" {
		t.Errorf("exit code %d, ok %v, summary %q", code, r.OK, r.Summary)
	}
	for _, secret := range []string{"vendor-secret-77", "reseller-us-1"} {
		if strings.Contains(stdout+stderr, secret) {
			t.Errorf("the report shows %q", secret)
		}
	}
	return r, code
}

// TestAuditIsClean: each kind of configuration, all cells of the matrix.
func TestAuditIsClean(t *testing.T) {
	t.Parallel()
	services, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // whoever came is in the queue
		tcp, _ := services.(*net.TCPListener)
		_ = tcp.SetDeadline(time.Now().Add(50 * time.Millisecond))
		if c, err := tcp.Accept(); err == nil {
			t.Error("a service of the operator's was touched")
			_ = c.Close()
		}
		_ = services.Close()
	}()
	untouched := services.Addr().String()
	for name, env := range map[string]lab.Env{
		"plain": {"UPSTREAM": "http://reseller-us-1:vendor-secret-77@gw.vendor.example:7777", "ACCOUNTS": "alice:alicesecret"},
		"preset": {
			"UPSTREAMS_0_VENDOR": "oxylabs", "UPSTREAMS_0_USERNAME": "reseller-us-1", "UPSTREAMS_0_PASSWORD": "vendor-secret-77",
			"ACCOUNTS": "alice:alicesecret", "VENDOR_MARKS": "acmeproxy,acme.example",
		},
		"no login":    {"UPSTREAM": "http://gw.vendor.example:7777", "ACCOUNTS": "alice:alicesecret"},
		"passthrough": {"UPSTREAM": "https://gw.vendor.example:7777", "AUTH": "passthrough"},
		"two gateways": {
			"UPSTREAMS_0_VENDOR": "packetstream", "UPSTREAMS_0_USERNAME": "reseller-us-1", "UPSTREAMS_0_PASSWORD": "vendor-secret-77", "UPSTREAMS_0_POOL": "a",
			"UPSTREAMS_1_VENDOR": "soax", "UPSTREAMS_1_USERNAME": "123456", "UPSTREAMS_1_PASSWORD": "vendor-secret-77", "UPSTREAMS_1_POOL": "b",
			"LISTEN": ":7777@a,:7778@b", "ACCOUNTS": "alice:alicesecret",
		},
		"services": {
			"UPSTREAM": "http://reseller-us-1:vendor-secret-77@gw.vendor.example:7777", "AUTH": "hook", "AUTH_URL": "http://" + untouched,
			"REDIS_URL": "redis://" + untouched, "WEBHOOK_URL": "http://" + untouched, "WEBHOOK_SECRET": "key-of-the-webhook", "LISTEN": untouched,
			"PROXY_PROTOCOL_FROM": "127.0.0.0/8", "ALLOW_FROM": "10.0.0.0/8", "DENY_HOSTS": "127.0.0.1", "USER_MAX_CONNS": "1", "USER_QUOTA": "1KB",
		},
		"open": {"UPSTREAM": "socks5://reseller-us-1:vendor-secret-77@gw.vendor.example:7777", "AUTH": "open", "ALLOW_FROM": "10.0.0.0/8", "BRAND": "Acme Proxies"},
	} {
		t.Run(name, func(t *testing.T) {
			r, code := sampleAudit(t, env)
			if code != 0 {
				t.Fatalf("exit code %d: %+v %+v", code, r.Leaks, r.Failures)
			}
			checkMatrix(t, r, 1)
		})
	}
}

// checkMatrix looks whether each cell of the matrix has at least so many cases, and all of them have passed.
func checkMatrix(t *testing.T, r auditReport, least int) {
	t.Helper()
	if len(r.Matrix) != 3*3*2 {
		t.Errorf("%d cells", len(r.Matrix))
	}
	for _, c := range r.Matrix {
		if c.Cases < least || c.Passed != c.Cases {
			t.Errorf("%+v", c)
		}
	}
}

// TestWholeAudit plays everything that there is, once in every build.
func TestWholeAudit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	r, code := runAudit(t, lab.Env{
		"UPSTREAMS_0_VENDOR": "brightdata", "UPSTREAMS_0_USERNAME": "reseller-us-1", "UPSTREAMS_0_PASSWORD": "vendor-secret-77",
		"ACCOUNTS": "alice:alicesecret", "SESSION_KEY": "a-key-of-the-audit-0123456789", "BRAND": "Acme Proxies",
	})
	if code != 0 {
		t.Fatalf("exit code %d: %+v %+v", code, r.Leaks, r.Failures)
	}
	checkMatrix(t, r, 300)
	exchanges := 0
	for _, c := range r.Matrix {
		exchanges += c.Cases
	}
	if exchanges < 20_000 {
		t.Errorf("%d exchanges", exchanges)
	}
}

// TestAuditFindsALeak: a mark that the relay's own words hold cannot be kept from customers.
func TestAuditFindsALeak(t *testing.T) {
	t.Parallel()
	r, code := sampleAudit(t, lab.Env{"UPSTREAM": "http://reseller-us-1:vendor-secret-77@gw.vendor.example:7777", "ACCOUNTS": "alice:alicesecret", "VENDOR_MARKS": "reached"})
	if code != 1 || len(r.Leaks) == 0 {
		t.Fatalf("exit code %d, %+v", code, r)
	}
	if l := r.Leaks[0]; l.Where != "customer" || !strings.Contains(l.Mark, "reached") || !strings.Contains(l.Excerpt, "reached") {
		t.Errorf("%+v", l)
	}
}

func TestAuditUsage(t *testing.T) {
	t.Parallel()
	good := lab.Env{"UPSTREAM": "http://gw.vendor.example:7777", "ACCOUNTS": "alice:alicesecret"}
	for _, c := range []struct {
		env  lab.Env
		args []string
		want string
	}{
		{lab.Env{"UPSTREAM": "direct://", "ACCOUNTS": "alice:alicesecret"}, nil, "MASKRELAY_UPSTREAM: direct:// has no vendor"},
		{good, []string{"--target", "http://x/"}, "--target: needs --live"},
		{good, []string{"--stages", "1000"}, "--stages: 1000"},
		{lab.Env{"UPSTREAM": "http://gw.vendor.example:7777", "AUTH": "passthrough"}, []string{"--live"}, "--live: "},
		{lab.Env{}, nil, "MASKRELAY_UPSTREAM: missing"},
		{good, []string{"--case", "407,no-such-case"}, `--case: no case has "no-such-case" in its name; --list prints`},
		{good, []string{"--case", "socks-login-refused"}, "--case: these cases are for gateways with a login"},
	} {
		stdout, stderr, code := runRelay(t, c.env, "", append([]string{"audit"}, c.args...)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d: %s%s", c.args, code, stdout, stderr)
		}
	}
}

// TestAuditLive asks a loud vendor in the place of the operator's gateway.
func TestAuditLive(t *testing.T) {
	t.Parallel()
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{Username: "reseller-us-1", Password: "vendor-secret-77"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	site, err := upstreamtest.StartJudge(upstreamtest.JudgeConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = site.Close() }()
	env := lab.Env{"UPSTREAM": v.URL(), "ACCOUNTS": "alice:alicesecret", "ALLOW_PRIVATE": "true", "ALLOW_PORTS": "*"}
	args := []string{"--live", "--target", site.URL() + "/notype", "--case", "honest"}
	r, code := sampleAudit(t, env, args...)
	if len(r.Live) != 1 || len(r.Live[0].Asked) != 4 || r.Live[0].Problem != "" {
		t.Fatalf("exit code %d: %+v", code, r)
	}
	live := r.Live[0]
	if a := live.Asked[0]; a.Shows != "200 SuperVendor Tunnel Established" || a.Relay != 200 || len(a.Fields) < 5 {
		t.Errorf("%+v", a)
	}
	// Nobody told the relay of this name: what it lets pass is found, and named.
	if code != 1 || !slices.ContainsFunc(live.Leaks, func(l string) bool { return strings.Contains(strings.ToLower(l), "supervendor") }) {
		t.Errorf("exit code %d, leaks %q", code, live.Leaks)
	}
	if !slices.ContainsFunc(live.Advice, func(a string) bool { return strings.HasPrefix(a, "MASKRELAY_VENDOR_MARKS: ") }) ||
		!slices.ContainsFunc(live.Advice, func(a string) bool { return strings.Contains(a, "X-SuperVendor-Session") }) {
		t.Errorf("advice %q", live.Advice)
	}
	env["VENDOR_MARKS"] = v.Brand() + ",203.0.113.77"
	if r, code := sampleAudit(t, env, args...); code != 0 || len(r.Live) != 1 || len(r.Live[0].Leaks) > 0 || len(r.Live[0].Advice) > 0 {
		t.Errorf("exit code %d: %+v", code, r)
	}
}

// TestAuditList: what --case can choose from.
func TestAuditList(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := runRelay(t, lab.Env{}, "", "audit", "--list")
	names := strings.Fields(stdout)
	if code != 0 || stderr != "" || len(names) < 1000 {
		t.Errorf("exit code %d: %d names: %s", code, len(names), stderr)
	}
	for _, part := range strings.Split(auditCases, ",") {
		if !strings.Contains(stdout, part) {
			t.Errorf("no name holds %q", part)
		}
	}
}

// TestAuditInterrupted: it says that nothing is proven, and leaves nothing behind.
func TestAuditInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := lab.Env{"UPSTREAM": "http://reseller-us-1:vendor-secret-77@gw.vendor.example:7777", "ACCOUNTS": "alice:alicesecret"}
	cmd := lab.RelayCommand(t, lab.Tested, env, "audit", "--json")
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	p := lab.Start(t, "maskrelay audit", cmd)
	left := func() int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	lab.Wait(t, 30*time.Second, "the audit to begin", func() bool { return left() > 0 })
	p.Signal(t, syscall.SIGINT)
	if code := p.ExitCode(t, 30*time.Second); code != 1 || len(p.Stdout.Bytes()) > 0 || !p.Stderr.Contains("interrupted, nothing is proven") {
		t.Errorf("exit code %d: %s%s", code, p.Stdout.Bytes(), p.Stderr.Bytes())
	}
	if n := left(); n > 0 {
		t.Errorf("%d files are left", n)
	}
}
