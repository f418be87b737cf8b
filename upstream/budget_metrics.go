package upstream

import "github.com/prometheus/client_golang/prometheus"

var retriesDesc = prometheus.NewDesc("maskrelay_upstream_retries_total",
	"Attempts through another upstream after one was reached in vain: made, or denied because the pool's retry budget was used up.",
	[]string{"pool", "result"}, nil)

// collectRetries reads the pools' retry budgets.
func (p *Pool) collectRetries(ch chan<- prometheus.Metric) {
	for _, name := range p.names {
		b := &p.groups[name].budget
		ch <- prometheus.MustNewConstMetric(retriesDesc, prometheus.CounterValue, float64(b.made.Load()), name, "made")
		ch <- prometheus.MustNewConstMetric(retriesDesc, prometheus.CounterValue, float64(b.denied.Load()), name, "denied")
	}
}
