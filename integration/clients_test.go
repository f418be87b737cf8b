package integration

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// commandLimit bounds one run of a customer's program.
const commandLimit = 60 * time.Second

// output runs a customer's program and returns its standard output; it must succeed.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, code := run(t, cmd)
	if code != 0 {
		t.Fatalf("%s: exit code %d, output %q", filepath.Base(cmd.Path), code, out)
	}
	return out
}

// run runs a customer's program, which sees no proxy setting of this machine, and returns standard output and exit code.
func run(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	cmd.Env = append(cleanEnvironment(), cmd.Env...)
	p := lab.Start(t, filepath.Base(cmd.Path), cmd)
	code := p.ExitCode(t, commandLimit)
	return string(p.Stdout.Bytes()), code
}

// cleanEnvironment is this process's environment without what points clients to a proxy or to another set of CAs.
func cleanEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(setting string) bool {
		name, _, _ := strings.Cut(strings.ToLower(setting), "=")
		return strings.HasSuffix(name, "_proxy") || strings.Contains(name, "ca_") || strings.Contains(name, "cainfo") || strings.HasPrefix(name, "ssl_cert")
	})
}

// customerSees is what one kind of customer does through a stack.
type customerSees struct {
	stack *stack
	site  *target
}

func (c customerSees) url(scheme, path string) string {
	return c.site.url(scheme, c.stack.vendor.target, path)
}

// TestClients drives the programs that customers use through both load balancers and both vendors.
func TestClients(t *testing.T) {
	t.Parallel()
	repository := makeRepository(t)
	customers := map[string]func(*testing.T, customerSees){
		"curl": curlClient, "wget": wgetClient, "git": gitClient, "requests": requestsClient, "urllib": urllibClient, "undici": undiciClient,
	}
	for balancerKind := range balancerKinds {
		for vendorKind := range vendorKinds {
			t.Run(balancerKind+" "+vendorKind, func(t *testing.T) {
				t.Parallel()
				sees := customerSees{stack: startStack(t, balancerKind, vendorKind, nil), site: startTarget(t, filepath.Dir(repository))}
				for name, use := range customers {
					t.Run(name, func(t *testing.T) { use(t, sees) })
				}
				checkVendorHeads(t, sees.stack.vendor)
				checkExchangeLines(t, sees.stack)
			})
		}
	}
}

var connectHead = regexp.MustCompile(`(?s)CONNECT .*?\r\n\r\n`)

// checkVendorHeads asserts that a CONNECT to the vendor has the two fields it needs and nothing else.
func checkVendorHeads(t *testing.T, v *vendor) {
	t.Helper()
	want := regexp.MustCompile(`^CONNECT (\S+:\d+) HTTP/1\.1\r\nHost: (\S+:\d+)\r\nProxy-Authorization: Basic \S+\r\n\r\n$`)
	heads := connectHead.FindAllString(v.heads(), -1)
	if len(heads) == 0 {
		t.Error("the vendor received no CONNECT")
	}
	for _, head := range heads {
		m := want.FindStringSubmatch(head)
		if m == nil || m[1] != m[2] {
			t.Errorf("CONNECT to the vendor: %q", head)
		}
	}
}

// checkExchangeLines asserts that each exchange is in the log once, with the customer's address as the load balancer told it.
func checkExchangeLines(t *testing.T, s *stack) {
	t.Helper()
	lines := s.exchanges(t)
	if len(lines) == 0 {
		t.Error("no exchange in the logs")
	}
	ids := map[string]bool{}
	for _, e := range lines {
		if ids[e.ID] || e.ID == "" {
			t.Errorf("exchange id %q is missing or not its own", e.ID)
		}
		ids[e.ID] = true
		if host, _, err := net.SplitHostPort(e.Client); (err != nil || host != customerAddress) && e.Client != customerAddress {
			t.Errorf("client %q, want %s", e.Client, customerAddress)
		}
		if e.Outcome == "" || e.Method == "" {
			t.Errorf("incomplete line %+v", e)
		}
	}
}

func curlClient(t *testing.T, c customerSees) {
	curl := lab.Need(t, "curl")[0]
	proxy := "http://" + c.stack.customer.Addr()
	user := customerName + ":" + customerPassword
	cases := []struct {
		name string
		args []string
		want string
		code int
	}{
		{"https", []string{"-x", c.stack.proxyURL(), c.url("https", "/hello")}, helloText, 0},
		{"https with proxy header", []string{"-x", proxy, "-U", user, "--proxy-header", customerHeader + ": " + customerTrail, c.url("https", "/hello")}, helloText, 0},
		{"plain", []string{"-x", c.stack.proxyURL(), c.url("http", "/hello")}, helloText, 0},
		{"plain forwarded", []string{"-x", c.stack.proxyURL(), "-H", "X-Forwarded-For: " + customerAddress, "-H", "Forwarded: for=" + customerAddress,
			"-H", "Connection: X-Trail", "-H", "X-Trail: " + customerTrail, c.url("http", "/hello")}, helloText, 0},
		{"anyauth https", []string{"-x", proxy, "-U", user, "--proxy-anyauth", c.url("https", "/hello")}, helloText, 0},
		{"anyauth plain", []string{"-x", proxy, "-U", user, "--proxy-anyauth", c.url("http", "/hello")}, helloText, 0},
		{"HTTP/1.0 proxy", []string{"--proxy1.0", c.stack.customer.Addr(), "-U", user, c.url("https", "/hello")}, helloText, 0},
		{"two on one connection", []string{"-x", c.stack.proxyURL(), c.url("http", "/hello"), c.url("http", "/hello")}, helloText + helloText, 0},
		{"wrong password https", []string{"-x", proxy, "-U", customerName + ":wrong", "-o", "/dev/null", "-w", "%{http_connect}", c.url("https", "/hello")}, "407", 56},
		{"wrong password plain", []string{"-x", proxy, "-U", customerName + ":wrong", "-o", "/dev/null", "-w", "%{http_code}", c.url("http", "/hello")}, "407", 0},
		{"no password", []string{"-x", proxy, "-o", "/dev/null", "-w", "%{http_code}", c.url("http", "/hello")}, "407", 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			out, code := run(t, exec.Command(curl, append([]string{"-q", "-sS", "--max-time", "30", "--cacert", c.site.caFile}, tc.args...)...))
			if out != tc.want || code != tc.code {
				t.Errorf("got %q and exit code %d, want %q and %d", out, code, tc.want, tc.code)
			}
		})
	}
}

func wgetClient(t *testing.T, c customerSees) {
	wget := lab.Need(t, "wget")[0]
	for _, scheme := range []string{"http", "https"} {
		cmd := exec.Command(wget, "-q", "-O", "-", "--tries=1", "--timeout=30", "--no-config", "--no-hsts", "--ca-certificate="+c.site.caFile, "-e", "use_proxy=yes",
			"-e", scheme+"_proxy=http://"+c.stack.customer.Addr(), "--proxy-user="+customerName, "--proxy-password="+customerPassword, c.url(scheme, "/hello"))
		if out := output(t, cmd); out != helloText {
			t.Errorf("%s: %q", scheme, out)
		}
	}
}

// makeRepository returns a bare repository with one commit in a directory of its own.
func makeRepository(t *testing.T) string {
	t.Helper()
	git := lab.Need(t, "git")[0]
	dir := openDir(t)
	work, bare := filepath.Join(dir, "work"), filepath.Join(dir, "root", "shop.git")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", work},
		{"-C", work, "-c", "user.name=A", "-c", "user.email=a@target.example", "commit", "-q", "--allow-empty", "-m", "first"},
		{"clone", "-q", "--bare", work, bare},
	} {
		output(t, exec.Command(git, args...))
	}
	return bare
}

func gitClient(t *testing.T, c customerSees) {
	git := lab.Need(t, "git")[0]
	for _, scheme := range []string{"http", "https"} {
		clone := filepath.Join(t.TempDir(), scheme)
		output(t, exec.Command(git, "-c", "http.proxy="+c.stack.proxyURL(), "-c", "http.sslCAInfo="+c.site.caFile, "clone", "-q", c.url(scheme, "/git/shop.git"), clone))
		if log := output(t, exec.Command(git, "-C", clone, "log", "--format=%s")); log != "first\n" {
			t.Errorf("%s: log of the clone: %q", scheme, log)
		}
	}
}

// debianPython is the one that Debian's python3-requests is for.
const debianPython = "/usr/bin/python3"

func requestsClient(t *testing.T, c customerSees) {
	python := lab.Need(t, debianPython)[0]
	if err := exec.Command(python, "-c", "import requests").Run(); err != nil {
		lab.Missing(t, "python3-requests", err.Error())
	}
	const script = `
import os, requests
p = os.environ["PROXY"]
s = requests.Session()
s.trust_env = False
for url in os.environ["URLS"].split():
    for _ in range(2):
        r = s.get(url, proxies={"http": p, "https": p}, verify=os.environ["CA"], timeout=30)
        print(r.status_code, r.text, end="")
r = requests.post(os.environ["DIGEST"], data=b"x" * 100000, proxies={"http": p, "https": p}, verify=os.environ["CA"], timeout=30)
print(r.text, end="")
`
	want := strings.Repeat("200 "+helloText, 4) + "100000 " + digest(t, strings.NewReader(strings.Repeat("x", 100000))) + "\n"
	if out := output(t, pythonCommand(python, script, c)); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// urllibClient sends CONNECT as HTTP/1.0.
func urllibClient(t *testing.T, c customerSees) {
	python := lab.Need(t, debianPython)[0]
	const script = `
import os, ssl, urllib.request
p = os.environ["PROXY"]
ctx = ssl.create_default_context(cafile=os.environ["CA"])
o = urllib.request.build_opener(urllib.request.ProxyHandler({"http": p, "https": p}), urllib.request.HTTPSHandler(context=ctx))
for url in os.environ["URLS"].split():
    with o.open(url, timeout=30) as r:
        print(r.status, r.read().decode(), end="")
`
	if out, want := output(t, pythonCommand(python, script, c)), strings.Repeat("200 "+helloText, 2); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func pythonCommand(python, script string, c customerSees) *exec.Cmd {
	cmd := exec.Command(python, "-c", script)
	cmd.Env = []string{"PROXY=" + c.stack.proxyURL(), "CA=" + c.site.caFile, "URLS=" + c.url("http", "/hello") + " " + c.url("https", "/hello"), "DIGEST=" + c.url("https", "/digest")}
	return cmd
}

func undiciClient(t *testing.T, c customerSees) {
	node := lab.Need(t, "node")[0]
	cache := os.Getenv("MASKRELAY_TEST_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(dir, "maskrelay-test")
	}
	module := filepath.Join(cache, "node_modules", "undici")
	lab.Need(t, filepath.Join(module, "package.json"))
	const script = `
const fs = require("fs");
const { ProxyAgent, request } = require(process.env.UNDICI);
const p = new URL(process.env.PROXY);
const token = "Basic " + Buffer.from(decodeURIComponent(p.username) + ":" + decodeURIComponent(p.password)).toString("base64");
(async () => {
  const dispatcher = new ProxyAgent({ uri: p.origin, token, requestTls: { ca: fs.readFileSync(process.env.CA) } });
  const out = [];
  for (const url of JSON.parse(process.env.URLS)) {
    const { statusCode, body } = await request(url, { dispatcher });
    out.push([statusCode, await body.text()]);
  }
  await dispatcher.close();
  console.log(JSON.stringify(out));
})().catch((e) => { console.error(e); process.exit(1); });
`
	urls, err := json.Marshal([]string{c.url("https", "/hello"), c.url("http", "/hello")})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "-e", script)
	cmd.Env = []string{"UNDICI=" + module, "PROXY=" + c.stack.proxyURL(), "CA=" + c.site.caFile, "URLS=" + string(urls)}
	want := `[[200,"hello from the target\n"],[200,"hello from the target\n"]]` + "\n"
	if out := output(t, cmd); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}
