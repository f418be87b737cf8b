package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"maskrelay/masking"
	"maskrelay/proxy/limit"
)

// Changed files are taken up without being told.
func TestChangedFilesAreSeen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := newCA(t), newCA(t)
	certFile, keyFile := writePair(t, dir, first)
	use, write := fileAccounts(t, "accounts:\n"+customerEntry+"}\n")
	r := newRig(t, setup{config: func(c *Config) {
		use(c)
		c.TLSListen, c.CertFile, c.KeyFile = []string{"127.0.0.1:0"}, certFile, keyFile
	}})
	c := r.dial()
	c.connect(startEcho(t).Addr())
	c.echoes()
	write("accounts: []\n")
	writePair(t, dir, second)
	c.breaks()
	eventually(t, "the new certificate is served", func() bool {
		one := r.dialAt(1, trusting(second))
		defer func() { _ = one.raw.Close() }()
		return one.Conn.(*tls.Conn).Handshake() == nil
	})
}

// value is the sum of a metric's series that have the label pair.
func value(t *testing.T, families []*dto.MetricFamily, name, label, want string) float64 {
	t.Helper()
	sum, found := 0.0, false
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := label == ""
			for _, l := range m.GetLabel() {
				matches = matches || l.GetName() == label && l.GetValue() == want
			}
			if matches {
				found = true
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	if !found {
		t.Errorf("no series of %s with %s=%q", name, label, want)
	}
	return sum
}

func TestMetrics(t *testing.T) {
	r := newRig(t, setup{accounts: customerName + ":" + customerPassword + ":7"})
	tunnel, plain, refused := r.dial(), r.dial(), r.dial()
	tunnel.send(connectTo(startEcho(t).Addr()) + "0123456789")
	tunnel.expect(masking.Established + "0123456789")
	_, body := plain.get(r.judge.URL() + "/notype")
	refused.send("CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	refused.expect(r.reply(AuthRequired, false))
	r.outcome(2)
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(r.server))
	families, err := registry.Gather()
	must(t, err)
	for _, one := range []struct {
		name, label, value string
		want               float64
	}{
		{"maskrelay_connections", "kind", "tunnel", 1},
		{"maskrelay_connections", "kind", "http", 1},
		{"maskrelay_connections_limit", "", "", 1000},
		{"maskrelay_exchanges_total", "outcome", string(AuthRequired), 1},
		{"maskrelay_exchanges_total", "outcome", string(OK), 1},
		{"maskrelay_connect_seconds", "", "", 1},
		{"maskrelay_account_connections", "account", customerName, 2},
		{"maskrelay_account_connections_limit", "account", customerName, 7},
		{"maskrelay_bytes_total", "direction", "sent", 10},
		{"maskrelay_bytes_total", "direction", "received", 10 + float64(len(body))},
		{"maskrelay_account_bytes_total", "account", customerName, 20 + float64(len(body))},
		{"maskrelay_accounts_reload_success", "", "", 1},
		{"maskrelay_draining", "", "", 0},
	} {
		if got := value(t, families, one.name, one.label, one.value); got != one.want {
			t.Errorf("%s{%s=%q} is %v, want %v", one.name, one.label, one.value, got, one.want)
		}
	}
}

// Which accounts have series of their own does not change from one scrape to the next:
// all that ever were named stay in the memory of whoever scrapes.
func TestAccountSeriesStay(t *testing.T) {
	r := newRig(t, setup{})
	var leases []*limit.Lease
	defer func() {
		for _, l := range leases {
			l.Release()
		}
	}()
	for i := range 3 * maxAccountLabels {
		l, err := r.limiter.Acquire(context.Background(), fmt.Sprint("account", i), limit.Caps{})
		must(t, err)
		leases = append(leases, l)
	}
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(r.server))
	seen, sum := make(map[string]struct{}), 0.0
	for range 5 {
		families, err := registry.Gather()
		must(t, err)
		sum = 0
		for _, f := range families {
			if f.GetName() != "maskrelay_account_connections" {
				continue
			}
			for _, one := range f.GetMetric() {
				seen[one.GetLabel()[0].GetValue()] = struct{}{}
				sum += one.GetGauge().GetValue()
			}
		}
	}
	if len(seen) != maxAccountLabels+1 || sum != 3*maxAccountLabels {
		t.Errorf("%d accounts were named, with %v connections", len(seen), sum)
	}
}
