package usage

import "github.com/prometheus/client_golang/prometheus"

// maxQuotaLabels is how many accounts with a quota have series of their own.
const maxQuotaLabels = 1000

// bookCounts are what Books tell Prometheus.
type bookCounts struct {
	entries *prometheus.CounterVec

	unbooked, quota, used *prometheus.Desc
}

func newBookCounts() bookCounts {
	c := bookCounts{
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_usage_booked_total",
			Help: "Entries of usage told to the ledger: booked (ok), or without an answer and to be told again (failed).",
		}, []string{"result"}),
		unbooked: prometheus.NewDesc("maskrelay_usage_unbooked_bytes", "Bytes moved here that the ledger does not have for certain.", nil, nil),
		quota:    prometheus.NewDesc("maskrelay_account_quota_bytes", "An account's quota.", []string{"account"}, nil),
		used:     prometheus.NewDesc("maskrelay_account_quota_used_bytes", "What counts against an account's quota, as far as this relay knows.", []string{"account"}, nil),
	}
	c.booked(0, 0) // both series are there from the beginning
	return c
}

func (c bookCounts) booked(ok, failed int) {
	c.entries.WithLabelValues("ok").Add(float64(ok))
	c.entries.WithLabelValues("failed").Add(float64(failed))
}

// Describe implements prometheus.Collector.
func (b *Books) Describe(ch chan<- *prometheus.Desc) {
	b.counts.entries.Describe(ch)
	ch <- b.counts.unbooked
	ch <- b.counts.quota
	ch <- b.counts.used
}

// Collect implements prometheus.Collector. The first thousand accounts with a quota have series.
func (b *Books) Collect(ch chan<- prometheus.Metric) {
	b.counts.entries.Collect(ch)
	type figures struct {
		name        string
		quota, used int64
	}
	var unbooked int64
	var quotas []figures
	b.open()
	b.mu.Lock()
	month := monthOf(b.config.Now())
	for _, p := range b.pages {
		unbooked = addUp(unbooked, p.unbooked().Bytes())
		if p.quota.Bytes > 0 && len(quotas) < maxQuotaLabels {
			quotas = append(quotas, figures{p.name, p.quota.Bytes, p.usedIn(month)})
		}
	}
	b.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(b.counts.unbooked, prometheus.GaugeValue, float64(unbooked))
	for _, f := range quotas {
		ch <- prometheus.MustNewConstMetric(b.counts.quota, prometheus.GaugeValue, float64(f.quota), f.name)
		ch <- prometheus.MustNewConstMetric(b.counts.used, prometheus.GaugeValue, float64(f.used), f.name)
	}
}

// Used returns what counts against an account's quota, in bytes, as far as is known on this
// relay; false if it has none, or nothing is known of it yet.
func (b *Books) Used(name string) (bytes int64, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.byName[name]
	if p == nil || p.quota.Bytes <= 0 || !p.known {
		return 0, false
	}
	return p.usedIn(monthOf(b.config.Now())), true
}
