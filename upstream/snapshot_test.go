package upstream

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSnapshot(t *testing.T) {
	w := newWard(t, 2)
	w.now = time.Now().Add(-100 * time.Millisecond) // what is noted must not lie ahead
	w.serve(0, 2)
	w.fail(0, 1, CauseForbidden)
	w.serve(1, 3)
	w.fail(1, failuresInRow, CauseAuth)
	w.pool.gateways[0].tryAcquire()
	all := w.pool.Snapshot()
	w.pool.gateways[0].release()
	if len(all) != 2 {
		t.Fatalf("%d gateways", len(all))
	}
	a, b := all[0], all[1]
	if a.Name != "g0" || a.Pool != DefaultPool || a.Vendor != "generic" || a.URL != "http://***@192.0.2.1:7000" || a.State != StateUp ||
		a.Attempts != 2 || *a.SuccessRate != 1 || a.MeanSeconds != .001 || a.Connections != 1 || a.Cause != "" || a.Advice != "" ||
		!maps.Equal(a.Failures, map[Cause]int64{CauseForbidden: 1}) || a.Since.IsZero() || !a.NextTrial.IsZero() ||
		!slices.Equal(a.Endpoints, []EndpointStatus{{Address: "192.0.2.1:7000", State: "up"}}) {
		t.Errorf("%+v", a)
	}
	if left := time.Until(b.NextTrial); b.State != StateEjected || b.Attempts != 8 || *b.SuccessRate != .375 || b.Cause != CauseAuth ||
		!strings.Contains(b.Advice, "password") || left < backoffMin-time.Second || left > backoffMin+time.Second || !b.Since.Equal(w.now) {
		t.Errorf("%+v", b)
	}
	text, err := json.Marshal(all)
	must(t, err)
	if s := string(text); strings.Contains(s, "u:p@") || !strings.Contains(s, `"state":"ejected"`) || strings.Count(s, "next_trial") != 1 {
		t.Error(s)
	}
}

func TestSnapshotOfPorts(t *testing.T) {
	p := literalPool(t, 1, Options{Ports: [2]int{10000, 10999}})
	ep := p.gateways[0].endpoints.addrs[0]
	ep.lanes[0].inUse.Add(7) // another gateway's with the same address
	for range 3 {
		ep.take(0, time.Now())
	}
	ep.report(false, time.Now())
	s := p.Snapshot()[0]
	if len(s.Endpoints) != 1 || s.Endpoints[0].State != "failing" || s.Endpoints[0].Connections != 3 || s.Resolution != nil || *s.Endpoints[0].PortsFree != 990 {
		t.Errorf("%+v", s.Endpoints)
	}
	ep.lanes[0].inUse.Add(-10)
	ep.conns.Add(-3)
	if s.SuccessRate != nil || s.Attempts != 0 || s.MeanSeconds != 0 {
		t.Errorf("%+v", s)
	}
	text, err := json.Marshal(newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", Direct)}}).Snapshot())
	must(t, err)
	if s := string(text); !strings.Contains(s, `"url":"direct://"`) || !strings.Contains(s, `"endpoints":[]`) || !strings.Contains(s, `"success_rate":null`) {
		t.Error(s)
	}
}

func TestDirectIsNeverIll(t *testing.T) {
	p := newPool(t, Options{Gateways: []Gateway{gatewayOf(t, "", Direct)}})
	for range 100 {
		p.gateways[0].health.report(&ConnectError{Phase: PhaseConnect, Cause: CauseRefused}, 0, time.Now())
	}
	if s := p.Snapshot()[0]; s.State != StateUp || s.Attempts != 0 || s.Failures[CauseRefused] == 0 {
		t.Errorf("%+v", s)
	}
}

func TestHealthMetrics(t *testing.T) {
	w := newWard(t, 2)
	w.now = time.Now().Add(-100 * time.Millisecond) // what is noted must not lie ahead
	w.serve(1, 1)
	w.serve(0, 3)
	w.fail(0, failuresInRow, CauseServer)
	value := func(name, labels string) float64 {
		m := collected(t, w.pool, name)[labels]
		if m == nil {
			return -1
		}
		return m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	tests := []struct {
		name, labels string
		want         float64
	}{
		{"maskrelay_upstream_up", "g0", 0},
		{"maskrelay_upstream_up", "g1", 1},
		{"maskrelay_upstream_state", "ejected g0", 1},
		{"maskrelay_upstream_state", "up g0", 0},
		{"maskrelay_upstream_state", "half_open g0", 0},
		{"maskrelay_upstream_state", "unreachable g0", 0},
		{"maskrelay_upstream_state", "up g1", 1},
		{"maskrelay_upstream_success_ratio", "g0", .375},
		{"maskrelay_upstream_success_ratio", "g1", 1},
		{"maskrelay_upstream_ejections_total", "server g0", 1},
		{"maskrelay_upstream_ejections_total", "server g1", -1},
	}
	for _, test := range tests {
		if got := value(test.name, test.labels); got != test.want {
			t.Errorf("%s{%s} %g, want %g", test.name, test.labels, got, test.want)
		}
	}
	if got := collected(t, literalPool(t, 1, Options{}), "maskrelay_upstream_success_ratio"); len(got) != 0 {
		t.Errorf("a ratio of nothing: %v", got)
	}
}
