package redislimit

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"maskrelay/integration/lab"
	"maskrelay/proxy/limit"
)

// gather returns the values of r's metrics by "name/label".
func gather(t *testing.T, r *relay) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(r); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			values[family.GetName()+"/"+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

func TestMetrics(t *testing.T) {
	server := lab.StartRedis(t)
	r := startFleet(t, server, 1, Config{Down: Closed})[0]
	var held leases
	held.mustFill(t, r.Limiter, "alice", limit.Caps{MaxConns: 3}, 3)
	wantAddress(t, r, "alice", addr(1), 1, true)
	before := gather(t, r)
	server.Freeze(t)
	defer server.Thaw(t)
	waitDown(t, r)
	held.fill(t, r.Limiter, "bob", limit.Caps{MaxConns: 3})
	got := gather(t, r)
	if n := got["maskrelay_fleet_policy_total/refused"] - before["maskrelay_fleet_policy_total/refused"]; n != 1 {
		t.Errorf("%g refusals by the policy, want 1", n)
	}
	for name, want := range map[string]float64{
		"maskrelay_fleet_slots/leased":              3,
		"maskrelay_fleet_slots/used":                3,
		"maskrelay_fleet_policy_total/admitted":     0,
		"maskrelay_fleet_lease_calls_total/address": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %g, want %g", name, got[name], want)
		}
	}
	for p := range purposes {
		if _, ok := got["maskrelay_fleet_lease_calls_total/"+p.String()]; !ok {
			t.Errorf("no count of calls for %s", p)
		}
	}
}
