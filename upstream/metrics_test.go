package upstream

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// collected are the pool's samples of one metric, by their labels' values joined by a space.
func collected(t *testing.T, p *Pool, name string) map[string]*dto.Metric {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(p))
	families, err := registry.Gather()
	must(t, err)
	found := map[string]*dto.Metric{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			key := ""
			for _, label := range m.GetLabel() { // sorted by name
				key += label.GetValue() + " "
			}
			found[key[:len(key)-1]] = m
		}
	}
	return found
}

func failedCount(t *testing.T, p *Pool, gateway string, cause Cause) float64 {
	t.Helper()
	return collected(t, p, "maskrelay_upstream_failures_total")[string(cause)+" "+gateway].GetCounter().GetValue()
}

func connectedCount(t *testing.T, p *Pool, gateway string) uint64 {
	t.Helper()
	return collected(t, p, "maskrelay_upstream_connect_seconds")[gateway].GetHistogram().GetSampleCount()
}

func TestPortsFree(t *testing.T) {
	const name = "maskrelay_upstream_ports_free"
	p := literalPool(t, 2, Options{Ports: [2]int{10000, 10999}, PortsReserved: 100, Sources: addrs("198.51.100.1", "198.51.100.2", "2001:db8::1")})
	p.gateways[0].endpoints.addrs[0].lanes[1].inUse.Add(300)
	p.gateways[1].endpoints.addrs[0].lanes[0].inUse.Add(1000)
	got := collected(t, p, name)
	if a, b := got["g0"].GetGauge().GetValue(), got["g1"].GetGauge().GetValue(); a != 1500 || b != 900 {
		t.Errorf("%g and %g ports free", a, b)
	}
	if got := collected(t, literalPool(t, 1, Options{}), name); len(got) != 0 {
		t.Errorf("without a range: %v", got)
	}
	unresolved := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", "http://gw.example:1")}, Ports: [2]int{10000, 10999}})
	if got := collected(t, unresolved, name); len(got) != 0 {
		t.Errorf("without an address: %v", got)
	}
}
