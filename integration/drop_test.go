package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/upstream"
)

// What the tests of drops have in common.
const (
	dropTarget  = "shop.target.example:443"
	dropWorkers = 512

	// ailing is a gateway's answer when it is ill.
	ailing = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
)

// The log's lines of gateways.
const (
	downLine = "a gateway is out of use"
	upLine   = "a gateway is in use again"
)

// shop is a relay in front of gateways that can fall ill, and a crowd of customers.
type shop struct {
	relay    *lab.Relay
	gateways []*lab.Gateway
	crowd    *lab.Generator
}

// openShop starts n gateways, whose names are g0, g1, ...
func openShop(t *testing.T, n int, change lab.Env) *shop {
	t.Helper()
	s := &shop{}
	env := lab.Env{"ACCOUNTS": customerName + ":" + fleetPassword, "DRAIN_GRACE": "0s"}
	for i := range n {
		g := lab.StartGateway(t, "")
		s.gateways = append(s.gateways, g)
		u := url.URL{Scheme: "http", User: url.UserPassword(vendorUser, vendorPassword), Host: g.Addr}
		env[fmt.Sprintf("UPSTREAMS_%d_URL", i)], env[fmt.Sprintf("UPSTREAMS_%d_NAME", i)] = u.String(), gatewayNamed(i)
	}
	for name, value := range change {
		env[name] = value
	}
	s.relay = startRelay(t, env)
	s.crowd = lab.StartGenerator(t, s.relay.Addr, dropTarget, customerName+":"+fleetPassword)
	return s
}

func gatewayNamed(i int) string { return fmt.Sprint("g", i) }

// asked returns how many CONNECTs the gateways have got.
func (s *shop) asked(t *testing.T) (all int) {
	t.Helper()
	for _, g := range s.gateways {
		n, _ := g.Asked(t)
		all += n
	}
	return all
}

// drop is a crowd's, with what the gateways got for it.
func (s *shop) drop(t *testing.T, n int) (d lab.Drop, load int) {
	t.Helper()
	before := s.asked(t)
	d = s.crowd.Drop(t, n, dropWorkers)
	load = s.asked(t) - before
	t.Logf("%v; %d CONNECTs at the vendors", d, load)
	return d, load
}

// status is what /api/v1/upstreams says of a gateway.
func (s *shop) status(t *testing.T, name string) upstream.GatewayStatus {
	t.Helper()
	return gatewayStatus(t, s.relay, name)
}

func gatewayStatus(t *testing.T, r *lab.Relay, name string) upstream.GatewayStatus {
	t.Helper()
	code, body, err := r.Get("/api/v1/upstreams")
	if err != nil || code != http.StatusOK {
		t.Fatalf("upstreams: %d %v", code, err)
	}
	var list struct{ Upstreams []upstream.GatewayStatus }
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatalf("upstreams: %v: %s", err, body)
	}
	i := slices.IndexFunc(list.Upstreams, func(g upstream.GatewayStatus) bool { return g.Name == name })
	if i < 0 {
		t.Fatalf("no %s in %s", name, body)
	}
	return list.Upstreams[i]
}

// gatewayLines are the log's lines with text about a gateway.
func gatewayLines(r *lab.Relay, text, gateway string) (found []string) {
	for line := range strings.Lines(string(r.Stderr.Bytes())) {
		if strings.Contains(line, text) && strings.Contains(line, fmt.Sprintf(`"upstream":%q`, gateway)) {
			found = append(found, line)
		}
	}
	return found
}

// TestDropWithAnIllGateway has one gateway of three fail half of its answers in the middle of a drop: customers hardly notice, it goes, the operator
// is told once, and it comes back when it is cured.
func TestDropWithAnIllGateway(t *testing.T) {
	const setups = 4000
	s := openShop(t, 3, nil)
	if d, _ := s.drop(t, setups); d.Failed() > 0 {
		t.Fatalf("with healthy gateways: %v", d)
	}
	s.gateways[1].Fall(t, lab.Ill{Percent: 50, Answer: ailing})
	d, load := s.drop(t, setups)
	if d.Failed() > setups/100 {
		t.Errorf("%d of %d failed", d.Failed(), setups)
	}
	if load > setups*12/10 {
		t.Errorf("%d CONNECTs for %d set-ups", load, setups)
	}
	wantEjected(t, s, "g1")
	for i := range 3 {
		if down := gatewayLines(s.relay, downLine, gatewayNamed(i)); len(down) != map[int]int{1: 1}[i] {
			t.Errorf("g%d: %d lines: %q", i, len(down), down)
		}
	}
	s.gateways[1].Fall(t, lab.Ill{})
	lab.Wait(t, 60*time.Second, "the cured gateway to be back", func() bool {
		if d := s.crowd.Drop(t, 20, 4); d.Failed() > 0 {
			t.Errorf("while it comes back: %v", d)
		}
		return s.status(t, "g1").State == upstream.StateUp
	})
	if up := gatewayLines(s.relay, upLine, "g1"); len(up) != 1 {
		t.Errorf("%d lines of its return: %q", len(up), up)
	}
	before, _ := s.gateways[1].Asked(t)
	if d, _ := s.drop(t, 300); d.Failed() > 0 {
		t.Errorf("after the cure: %v", d)
	}
	if after, _ := s.gateways[1].Asked(t); after-before < 90 || after-before > 110 {
		t.Errorf("the cured gateway got %d of 300", after-before)
	}
}

// wantEjected asserts that metrics and the API say so, why, and what to do.
func wantEjected(t *testing.T, s *shop, name string) {
	t.Helper()
	if n, _ := s.relay.Metric(t, `maskrelay_upstream_ejections_total{cause="server",upstream="`+name+`"}`); n != 1 {
		t.Errorf("%v ejections", n)
	}
	if up, ok := s.relay.Metric(t, `maskrelay_upstream_up{upstream="`+name+`"}`); !ok || up != 0 {
		t.Errorf("maskrelay_upstream_up %v", up)
	}
	got := s.status(t, name)
	if got.State != upstream.StateEjected || got.Cause != upstream.CauseServer || got.Advice == "" || got.NextTrial.IsZero() || got.Failures[upstream.CauseServer] == 0 {
		t.Errorf("the API says %+v", got)
	}
	lab.Wait(t, 10*time.Second, "the log to say so", func() bool { return len(gatewayLines(s.relay, downLine, name)) == 1 })
	if line := gatewayLines(s.relay, downLine, name)[0]; !strings.Contains(line, `"cause":"server"`) || !strings.Contains(line, `"advice":"`) {
		t.Errorf("the log says %s", line)
	}
}

// TestDropWithIllGateways has all gateways fail half of their answers after they did well: they stay in use, retries stay within the budget, and who gets none does not wait.
func TestDropWithIllGateways(t *testing.T) {
	const setups = 4000
	ill := lab.Ill{Percent: 50, Answer: ailing}
	single := openShop(t, 1, nil)
	single.gateways[0].Fall(t, ill)
	s := openShop(t, 3, nil)
	if d, _ := s.drop(t, setups); d.Failed() > 0 {
		t.Fatalf("with healthy gateways: %v", d)
	}
	for _, g := range s.gateways {
		g.Fall(t, ill)
	}
	alone, _ := single.drop(t, setups)
	d, load := s.drop(t, setups)
	if load > setups*12/10 {
		t.Errorf("%d CONNECTs for %d set-ups", load, setups)
	}
	// Half of them are served at once, and half of the up to 20 % retries.
	if d.Served < setups*54/100 {
		t.Errorf("%v: the budget was not used", d)
	}
	if len(d.Errors) > 0 || d.Statuses[http.StatusBadGateway] != d.Failed() {
		t.Errorf("refused otherwise than by 502: %v", d)
	}
	// One more attempt is two times a single gateway's time at the most; a wait would be of a back-off's kind.
	if d.Refused.P99 > 3*alone.Refused.P99+time.Second {
		t.Errorf("refusals took %v, those of a single gateway %v", d.Refused, alone.Refused)
	}
	made, _ := s.relay.Metric(t, `maskrelay_upstream_retries_total{pool="default",result="made"}`)
	denied, _ := s.relay.Metric(t, `maskrelay_upstream_retries_total{pool="default",result="denied"}`)
	if int(made) != load-setups || denied == 0 {
		t.Errorf("%v retries made and %v denied, the vendors got %d", made, denied, load-setups)
	}
	// The one whose failures come in first may go while the others still look well.
	if n := strings.Count(string(s.relay.Stderr.Bytes()), downLine); n > 1 {
		t.Errorf("%d lines say that a gateway is out of use", n)
	}
	s.relay.WaitReadiness(t, http.StatusOK)
}
