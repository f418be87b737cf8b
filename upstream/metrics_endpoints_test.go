package upstream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
)

const (
	portsName = "maskrelay_upstream_endpoint_ports_free"
	connsName = "maskrelay_upstream_endpoint_connections"
	upName    = "maskrelay_upstream_endpoint_up"
)

// wantGauges checks that these are all the samples; label values are in the order of the labels' names.
func wantGauges(t *testing.T, got map[string]*dto.Metric, want map[string]float64) {
	t.Helper()
	for key, value := range want {
		if m, ok := got[key]; !ok || m.GetGauge().GetValue() != value {
			t.Errorf("%q is %v, want %g", key, m, value)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d samples, want %d: %v", len(got), len(want), got)
	}
}

func TestEndpointMetrics(t *testing.T) {
	p := literalPool(t, 2, Options{Ports: [2]int{10000, 10999}, PortsReserved: 100, Sources: addrs("198.51.100.1", "198.51.100.2", "2001:db8::1")})
	var held []Held
	for range 3 { // g0, g1, g0
		s := startSetup(p)
		next(t, s)
		_, err := s.Reply([]byte(established))
		must(t, err)
		held = append(held, s.Opened())
	}
	p.gateways[1].endpoints.addrs[0].report(false, time.Now())
	wantGauges(t, collected(t, p, portsName), map[string]float64{
		"192.0.2.1:7000 198.51.100.1 g0": 899, "192.0.2.1:7000 198.51.100.2 g0": 899,
		"192.0.2.2:7000 198.51.100.1 g1": 899, "192.0.2.2:7000 198.51.100.2 g1": 900,
	})
	wantGauges(t, collected(t, p, connsName), map[string]float64{"192.0.2.1:7000 g0": 2, "192.0.2.2:7000 g1": 1})
	wantGauges(t, collected(t, p, upName), map[string]float64{"192.0.2.1:7000 g0": 1, "192.0.2.2:7000 g1": 0})
	for _, h := range held {
		h.Release()
	}
	unknown := literalPool(t, 1, Options{})
	wantGauges(t, collected(t, unknown, portsName), nil)
	wantGauges(t, collected(t, unknown, connsName), map[string]float64{"192.0.2.1:7000 g0": 0})
	ranged := literalPool(t, 1, Options{Ports: [2]int{10000, 10999}})
	wantGauges(t, collected(t, ranged, portsName), map[string]float64{"192.0.2.1:7000 any g0": 1000})
	wantGauges(t, collected(t, newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "d", Direct)}}), upName), nil)
}

// An address that the name no longer has is shown until its last connection ends, and
// keeps its count if it comes back before.
func TestMetricsOfAddressesThatGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &scripted{}
		p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "gw", "http://gw.example:1")}})
		e := p.gateways[0].endpoints
		e.lookup = server.lookup
		resolve := func(all ...string) {
			t.Helper()
			server.say(answer{addrs: addrs(all...)}, nil)
			time.Sleep(resolveMinTTL)
			synctest.Wait()
			_, err := e.get(t.Context())
			must(t, err)
		}
		want := func(conns map[string]float64) {
			t.Helper()
			wantGauges(t, collected(t, p, connsName), conns)
		}
		resolve("192.0.2.1")
		s := startSetup(p)
		next(t, s)
		_, err := s.Reply([]byte(established))
		must(t, err)
		held := s.Opened()
		resolve("192.0.2.2")
		want(map[string]float64{"192.0.2.1:1 gw": 1, "192.0.2.2:1 gw": 0})
		if statuses, _ := e.status(); statuses[1].State != EndpointLeaving || statuses[0].State != EndpointUp {
			t.Errorf("status %+v", statuses)
		}
		resolve("192.0.2.2")
		resolve("192.0.2.2", "192.0.2.1")
		want(map[string]float64{"192.0.2.1:1 gw": 1, "192.0.2.2:1 gw": 0})
		resolve("192.0.2.2")
		held.Release()
		want(map[string]float64{"192.0.2.2:1 gw": 0})
		resolve("192.0.2.2")
		if len(e.gone) != 0 {
			t.Errorf("%d addresses are kept for nothing", len(e.gone))
		}
		wantNothingHeld(t, p)
	})
}

// However large the configuration is, the number of series has a bound.
func TestEndpointMetricsAreBounded(t *testing.T) {
	o := Options{Ports: [2]int{10000, 10999}}
	for i := range 10 {
		o.Sources = append(o.Sources, addrs(fmt.Sprintf("198.51.100.%d", i+1))...)
	}
	p := literalPool(t, 150, o) // 1500 lanes
	for _, g := range p.gateways[100:] {
		g.endpoints.mu.Lock()
		g.endpoints.setLocked(addrs("192.0.2.1", "192.0.2.2"))
		g.endpoints.mu.Unlock()
	}
	p.gateways[120].endpoints.addrs[0].lanes[3].take()
	p.gateways[120].endpoints.addrs[1].report(false, time.Now())
	ports, conns, up := collected(t, p, portsName), collected(t, p, connsName), collected(t, p, upName)
	if len(ports) != maxListedLanes+50 || len(conns) != 150 || len(up) != 150 {
		t.Errorf("%d, %d and %d series", len(ports), len(conns), len(up))
	}
	if v := ports["other other g120"].GetGauge().GetValue(); v != 2*10*1000-1 {
		t.Errorf("%g ports free", v)
	}
	if v := conns["other g120"].GetGauge().GetValue(); v != 1 {
		t.Errorf("%g connections", v)
	}
	if a, b := up["other g120"].GetGauge().GetValue(), up["other g121"].GetGauge().GetValue(); a != 0 || b != 1 {
		t.Errorf("up is %g and %g", a, b)
	}
	p.gateways[120].endpoints.addrs[0].lanes[3].release()
	wantNothingHeld(t, p)
}
