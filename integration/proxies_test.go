package integration

import (
	"os/exec"
	"strings"
	"testing"

	"maskrelay/integration/lab"
	"maskrelay/upstream/upstreamtest"
)

// plainAccount has a password that any tool takes.
const plainAccount = "  - {name: bob.b-1, password: plain-password-of-bob}\n"

// sold is a relay in front of a scripted vendor, and the environment that its proxy lists are made from.
type sold struct {
	vendor *upstreamtest.Vendor
	relay  *lab.Relay
	env    lab.Env
	site   *target
}

func startSold(t *testing.T, change lab.Env) *sold {
	t.Helper()
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &sold{vendor: v, site: startTarget(t, ""), env: lab.Env{
		"LISTEN": lab.FreeAddr(t), "UPSTREAMS_0_URL": "http://operator:operator-password@" + v.Addr(),
		"ACCOUNTS_FILE": writeFile(t, t.TempDir(), "accounts.yaml", accountsYAML+plainAccount),
	}}
	for name, value := range change {
		s.env[name] = value
	}
	s.relay = startRelay(t, s.env)
	return s
}

// lines are what maskrelay proxies prints.
func (s *sold) lines(t *testing.T, args ...string) []string {
	t.Helper()
	out := output(t, lab.RelayCommand(t, lab.Tested, s.env, append([]string{"proxies"}, args...)...))
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
}

// curl fetches from the target with those proxy settings.
func (s *sold) curl(t *testing.T, scheme string, proxy ...string) {
	t.Helper()
	args := append([]string{"-q", "-sS", "--max-time", "30", "--cacert", s.site.caFile}, proxy...)
	if out := output(t, exec.Command(lab.Need(t, "curl")[0], append(args, s.site.url(scheme, targetAddress, "/hello"))...)); out != helloText {
		t.Errorf("curl %v: %q", proxy, out)
	}
}

// TestProxyLines takes the lines of maskrelay proxies as they are, by a real curl through a real relay.
func TestProxyLines(t *testing.T) {
	t.Parallel()
	s := startSold(t, nil)
	for _, scheme := range []string{"http", "https"} {
		for _, user := range []string{customerName, "bob.b-1"} {
			for _, line := range s.lines(t, "--user", user, "--format", "url", "--count", "2") {
				s.curl(t, scheme, "-x", line)
			}
			f := strings.SplitN(s.lines(t, "--user", user)[0], ":", 4)
			s.curl(t, scheme, "-x", f[0]+":"+f[1], "-U", f[2]+":"+f[3])
		}
		s.curl(t, scheme, "-x", s.lines(t, "--user", "bob.b-1", "--format", "user:pass@host:port")[0])
	}
}

// TestProxyLinesOverTLS: with a listener behind TLS alone the URL says https.
func TestProxyLinesOverTLS(t *testing.T) {
	t.Parallel()
	pair := newKeyPair(t, t.TempDir())
	addr := lab.FreeAddr(t)
	s := startSold(t, lab.Env{"LISTEN": "", "TLS_LISTEN": addr, "TLS_CERT_FILE": pair.certFile, "TLS_KEY_FILE": pair.keyFile})
	line := s.lines(t, "--user", customerName, "--format", "url")[0]
	if !strings.HasPrefix(line, "https://") {
		t.Errorf("%q does not say https", line)
	}
	s.curl(t, "https", "--proxy-cacert", pair.caFile, "-x", line)
}
