package usage_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"maskrelay/proxy/usage"
)

func TestBooksReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), nil)
		r.meter.Of("bob").Moved(true, 1)
		pass(3 * time.Second)
		r.meter.Of("bob").Moved(true, 2)
		r.meter.Of("alice").Moved(false, 4)
		for _, c := range []struct{ account, want string }{
			{"", "alice 0 4, bob 3 0"}, {"alice", "alice 0 4"}, {"bob", "bob 3 0"}, {"carol", "carol 0 0"},
		} {
			rows, err := r.Report(t.Context(), usage.Query{Account: c.account, Since: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, row := range rows {
				got = append(got, fmt.Sprint(row.Account, " ", row.Sent, " ", row.Received))
				if row.From != time.Now().UTC().Truncate(time.Hour) || !row.To.Equal(time.Now()) {
					t.Errorf("%s from %v to %v", row.Account, row.From, row.To)
				}
			}
			if got := strings.Join(got, ", "); got != c.want {
				t.Errorf("report of %q: %q, want %q", c.account, got, c.want)
			}
		}
	})
}

func TestBooksCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRelay(t, "a", usage.NewMemory(), map[string]usage.Quota{"alice": lifetime(100)})
		r.meter.Of("alice").Moved(true, 30)
		pass(3 * time.Second)
		r.meter.Of("alice").Moved(true, 12)
		want := map[string]float64{
			"maskrelay_account_quota_bytes alice":      100,
			"maskrelay_account_quota_used_bytes alice": 42,
			"maskrelay_usage_booked_total failed":      0,
			"maskrelay_usage_booked_total ok":          1,
			"maskrelay_usage_unbooked_bytes":           12,
		}
		if got := gather(t, r.Books); !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// gather returns the figures by metric and value of the label.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	figures := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			figures[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return figures
}
