package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// says is a gateway's complete answer.
func says(status int, more ...string) lab.Ill {
	lines := append([]string{fmt.Sprintf("HTTP/1.1 %d No", status), "Content-Length: 0"}, more...)
	return lab.Ill{Percent: 100, Answer: strings.Join(lines, "\r\n") + "\r\n\r\n"}
}

// TestRefusedTargets has all gateways refuse the target: none is asked after another, and none goes out of use.
func TestRefusedTargets(t *testing.T) {
	t.Parallel()
	const setups = 100
	s := openShop(t, 3, nil)
	for _, status := range []int{400, 403, 404, 405, 410, 451} {
		for _, g := range s.gateways {
			g.Fall(t, says(status))
		}
		before := s.asked(t)
		d := s.crowd.Drop(t, setups, 8)
		if load := s.asked(t) - before; load != setups || d.Failed() != setups || len(d.Errors) > 0 {
			t.Errorf("%d: %d CONNECTs at the vendors for %d set-ups: %v", status, load, setups, d)
		}
	}
	s.wantAllUp(t)
}

// wantAllUp asserts that no gateway ever went out of use.
func (s *shop) wantAllUp(t *testing.T) {
	t.Helper()
	for i := range s.gateways {
		if got := s.status(t, gatewayNamed(i)); got.State != upstream.StateUp {
			t.Errorf("%s is %s for %s", got.Name, got.State, got.Cause)
		}
	}
	if s.relay.Stderr.Contains(downLine) {
		t.Error("the log says that a gateway is out of use")
	}
}

// TestRefusedTargetsBySOCKS is TestRefusedTargets with the replies of SOCKS5 that speak of the target (RFC 1928 §6).
func TestRefusedTargetsBySOCKS(t *testing.T) {
	t.Parallel()
	const setups = 30
	var gateways []*upstreamtest.SOCKS
	env := lab.Env{"ACCOUNTS": customerName + ":" + fleetPassword}
	for i := range 2 {
		g, err := upstreamtest.StartSOCKS(upstreamtest.SOCKSConfig{Username: vendorUser, Password: vendorPassword})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() }) // the relay may hold connections
		gateways = append(gateways, g)
		env[fmt.Sprintf("UPSTREAMS_%d_URL", i)], env[fmt.Sprintf("UPSTREAMS_%d_NAME", i)] = g.URL(), gatewayNamed(i)
	}
	relay := startRelay(t, env)
	crowd := lab.StartGenerator(t, relay.Addr, dropTarget, customerName+":"+fleetPassword)
	asked := func() int { return len(gateways[0].Requests()) + len(gateways[1].Requests()) }
	for rep := byte(2); rep <= 5; rep++ {
		for _, g := range gateways {
			g.SetBehaviour(upstreamtest.SOCKSBehaviour{Rep: rep})
		}
		before := asked()
		d := crowd.Drop(t, setups, 4)
		if load := asked() - before; load != setups || d.Failed() != setups || len(d.Errors) > 0 {
			t.Errorf("%d: %d CONNECTs at the vendors for %d set-ups: %v", rep, load, setups, d)
		}
	}
	for i := range gateways {
		if got := gatewayStatus(t, relay, gatewayNamed(i)); got.State != upstream.StateUp {
			t.Errorf("%s is %s for %s", got.Name, got.State, got.Cause)
		}
	}
}

// TestAccountTrouble has one account's two gateways refuse it: only one of them is asked, then the other vendor's gateway, and the operator hears of it once.
func TestAccountTrouble(t *testing.T) {
	t.Parallel()
	troubles := map[string]struct {
		ill   lab.Ill
		cause string
	}{
		"login":   {says(407, "X-Error-Description: authentication failed"), "auth"},
		"traffic": {says(407, "X-Error-Description: traffic limit reached"), "quota"},
		"threads": {says(429), "threads"},
	}
	for name, trouble := range troubles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, 3, lab.Env{"UPSTREAMS_0_VENDOR": "oxylabs", "UPSTREAMS_1_VENDOR": "oxylabs"})
			s.gateways[0].Fall(t, trouble.ill)
			s.gateways[1].Fall(t, trouble.ill)
			met := 0
			for i := range 30 {
				first, _ := s.gateways[0].Asked(t)
				second, _ := s.gateways[1].Asked(t)
				if d := s.crowd.Drop(t, 1, 1); d.Failed() > 0 {
					t.Fatalf("set-up %d: %v", i, d)
				}
				after1, _ := s.gateways[0].Asked(t)
				after2, _ := s.gateways[1].Asked(t)
				if n := after1 - first + after2 - second; n > 1 {
					t.Errorf("set-up %d met both of the account's gateways", i)
				} else {
					met += n
				}
			}
			if met < 2 {
				t.Errorf("only %d set-ups met the account's gateways", met)
			}
			for _, g := range []string{"g0", "g1"} {
				find := func() []string { return gatewayLines(s.relay, `"event":"trouble"`, g) }
				lab.Wait(t, 10*time.Second, "the log to tell", func() bool { return len(find()) > 0 })
				if all := find(); len(all) != 1 || !strings.Contains(all[0], `"cause":"`+trouble.cause+`"`) || !strings.Contains(all[0], `"advice":"`) {
					t.Errorf("%s: %q", g, all)
				}
			}
		})
	}
}

// TestHealthTargetFindsIt has a gateway that takes connections and refuses the login: probes find it before any customer meets it, they are no customers,
// and they end with the drain.
func TestHealthTargetFindsIt(t *testing.T) {
	t.Parallel()
	s := openShop(t, 2, lab.Env{"HEALTH_TARGET": "health.example:443", "HEALTH_INTERVAL": "1s", "DRAIN_TIMEOUT": "10m"})
	s.gateways[0].Fall(t, says(http.StatusProxyAuthRequired))
	lab.Wait(t, 20*time.Second, "the probes to find it", func() bool { return len(gatewayLines(s.relay, downLine, "g0")) == 1 })
	if line := gatewayLines(s.relay, downLine, "g0")[0]; !strings.Contains(line, `"cause":"auth"`) {
		t.Error(line)
	}
	if d, _ := s.drop(t, 500); d.Failed() > 0 {
		t.Errorf("%v", d)
	}
	if n, ok := s.relay.Metric(t, `maskrelay_upstream_failures_total{cause="auth",upstream="g0"}`); ok && n > 0 {
		t.Errorf("%v customers met it", n)
	}
	list, err := s.relay.Exchanges()
	if err != nil || len(list) == 0 {
		t.Fatal(len(list), err)
	}
	for _, e := range list {
		if e.Upstream != "g1" || !strings.HasPrefix(e.Target, "shop.") {
			t.Fatalf("%+v", e)
		}
	}
	if n := s.relay.Tunnels(t); n != 0 {
		t.Errorf("%d tunnels", n)
	}
	s.gateways[0].Fall(t, lab.Ill{})
	lab.Wait(t, 30*time.Second, "a probe to bring it back without a customer", func() bool { return len(gatewayLines(s.relay, upLine, "g0")) == 1 })

	s.crowd.Hold(t, 1)
	s.relay.Signal(t, syscall.SIGTERM)
	lab.Wait(t, 10*time.Second, "the listener to close", func() bool { return !lab.Listening(s.relay.Addr) })
	before := s.asked(t)
	if lab.Poll(4*time.Second, func() bool { return s.asked(t) > before+2 }) { // those under way
		t.Error("a draining relay goes on probing")
	}
	s.crowd.Release(t)
	if code := s.relay.ExitCode(t, 10*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSignalDuringProbes ends a relay whose probes wait for a gateway that says nothing.
func TestSignalDuringProbes(t *testing.T) {
	t.Parallel()
	s := openShop(t, 2, lab.Env{"HEALTH_TARGET": "health.example:443", "HEALTH_INTERVAL": "1s", "CONNECT_TIMEOUT": "60s"})
	for _, g := range s.gateways {
		g.Fall(t, lab.Ill{Percent: 100, Answer: lab.Silence})
	}
	lab.Wait(t, 20*time.Second, "both to be probed", func() bool { return s.asked(t) >= 2 })
	s.relay.Signal(t, syscall.SIGTERM)
	if code := s.relay.ExitCode(t, 5*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestDropLeavesNothing has gateways that take fewer connections than customers come, one of them ill: the caps hold, and nothing stays behind.
func TestDropLeavesNothing(t *testing.T) {
	const most = 40
	s := openShop(t, 3, lab.Env{"UPSTREAMS_0_MAX_CONNS": fmt.Sprint(most), "UPSTREAMS_1_MAX_CONNS": fmt.Sprint(most), "UPSTREAMS_2_MAX_CONNS": fmt.Sprint(most)})
	s.crowd.Drop(t, 500, dropWorkers) // so that pools and caches have their size before the first look
	before := s.relay.Usage(t)
	s.gateways[1].Fall(t, lab.Ill{Percent: 30, Answer: lab.Resets})
	d, _ := s.drop(t, 3000)
	if d.Served == 0 || len(d.Errors) > 0 {
		t.Errorf("%v", d)
	}
	if failed := s.crowd.Hold(t, 3*most+20); failed < 20 {
		t.Errorf("%d of %d tunnels were refused with room for %d", failed, 3*most+20, 3*most)
	}
	for i := range 3 {
		if n := s.status(t, gatewayNamed(i)).Connections; n > most {
			t.Errorf("g%d has %d connections", i, n)
		}
	}
	s.crowd.Release(t)
	lab.Wait(t, 20*time.Second, "the connections to end", func() bool { return s.relay.Sum(t, "maskrelay_upstream_connections") == 0 && s.relay.Tunnels(t) == 0 })
	const slack = 20
	if !lab.Poll(30*time.Second, func() bool {
		after := s.relay.Usage(t)
		return after.FDs <= before.FDs+slack && after.Goroutines <= before.Goroutines+slack
	}) {
		t.Errorf("before %+v, after %+v", before, s.relay.Usage(t))
	}
	s.crowd.Hold(t, 10)
	s.relay.Signal(t, syscall.SIGTERM)
	lab.Wait(t, 10*time.Second, "the listener to close", func() bool { return !lab.Listening(s.relay.Addr) })
	s.relay.Signal(t, syscall.SIGTERM)
	if code := s.relay.ExitCode(t, 5*time.Second); code != 0 {
		t.Errorf("exit code %d after the second signal", code)
	}
}

// TestDropWithAnExpiredCertificate has the certificate of one of two TLS gateways replaced by one that has expired, in the middle of the traffic.
func TestDropWithAnExpiredCertificate(t *testing.T) {
	t.Parallel()
	first, second := startExpiring(t), startExpiring(t)
	env := lab.Env{"ACCOUNTS": customerName + ":" + fleetPassword}
	for i, g := range []*expiring{first, second} {
		env[fmt.Sprintf("UPSTREAMS_%d_URL", i)] = (&url.URL{Scheme: "https", User: url.UserPassword(vendorUser, vendorPassword), Host: g.Addr()}).String()
		env[fmt.Sprintf("UPSTREAMS_%d_NAME", i)], env[fmt.Sprintf("UPSTREAMS_%d_CA_FILE", i)] = gatewayNamed(i), g.caFile
	}
	relay := startRelay(t, env)
	crowd := lab.StartGenerator(t, relay.Addr, startEcho(t), customerName+":"+fleetPassword)
	if d := crowd.Drop(t, 300, 32); d.Failed() > 0 {
		t.Fatalf("%v", d)
	}
	first.expired.Store(true)
	if d := crowd.Drop(t, 600, 32); d.Failed() > 6 {
		t.Errorf("after the expiry: %v", d)
	}
	lab.Wait(t, 10*time.Second, "the log to tell", func() bool { return len(gatewayLines(relay, downLine, "g0")) == 1 })
	if line := gatewayLines(relay, downLine, "g0")[0]; !strings.Contains(line, `"cause":"tls"`) {
		t.Error(line)
	}
	second.expired.Store(true)
	relay.WaitReadiness(t, http.StatusServiceUnavailable)
	first.expired.Store(false)
	second.expired.Store(false)
	relay.WaitReadiness(t, http.StatusOK)
	lab.Wait(t, 20*time.Second, "both to be back", func() bool { return relay.Sum(t, "maskrelay_upstream_up") == 2 })
	if d := crowd.Drop(t, 100, 32); d.Failed() > 0 {
		t.Errorf("after the renewal: %v", d)
	}
}

// expiring is a TLS gateway that can show a certificate that has expired.
type expiring struct {
	*upstreamtest.Vendor
	caFile  string
	expired atomic.Bool
}

func startExpiring(t *testing.T) *expiring {
	t.Helper()
	e := &expiring{}
	var ca []byte
	load := func(end time.Time) *tls.Config {
		pair := lab.NewKeyPairUntil(t, t.TempDir(), vendorAddress, end)
		cert, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		ca = append(ca, pair.CA...)
		return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	good, bad := load(time.Now().Add(time.Hour)), load(time.Now().Add(-time.Minute))
	bad.SessionTicketsDisabled = true // a session is not resumed past its certificate's end
	good.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if e.expired.Load() {
			return bad, nil
		}
		return nil, nil
	}
	v, err := upstreamtest.StartVendor(upstreamtest.VendorConfig{
		Addr: net.JoinHostPort(vendorAddress, "0"), Username: vendorUser, Password: vendorPassword, TLS: good, RecordLimit: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() }) // the relay may hold connections
	e.Vendor, e.caFile = v, writeFile(t, t.TempDir(), "ca.pem", string(ca))
	return e
}
