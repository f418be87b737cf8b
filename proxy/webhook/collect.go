package webhook

import "github.com/prometheus/client_golang/prometheus"

// How a try, or an event, ends.
const (
	resultDelivered = "delivered"
	resultRetried   = "retried" // one try failed, another follows
	resultDropped   = "dropped" // for a newer event, when too many wait
	resultExpired   = "expired" // not taken within a day
	resultGone      = "gone"    // refused for good
	resultLost      = "lost"    // still waiting when the relay ended
	resultInvalid   = "invalid" // cannot be written as a JSON object
)

// counts are what a Sender tells Prometheus.
type counts struct {
	results *prometheus.CounterVec
	waiting *prometheus.Desc
}

func newCounts() counts {
	c := counts{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_webhook_total",
			Help: "Events for the webhook by how they ended, and tries that failed (retried).",
		}, []string{"result"}),
		waiting: prometheus.NewDesc("maskrelay_webhook_waiting", "Events that wait to be delivered.", nil, nil),
	}
	for _, result := range []string{resultDelivered, resultRetried, resultDropped, resultExpired, resultGone, resultLost, resultInvalid} {
		c.results.WithLabelValues(result)
	}
	return c
}

// Describe implements prometheus.Collector.
func (s *Sender) Describe(ch chan<- *prometheus.Desc) {
	s.counts.results.Describe(ch)
	ch <- s.counts.waiting
}

// Collect implements prometheus.Collector.
func (s *Sender) Collect(ch chan<- prometheus.Metric) {
	s.counts.results.Collect(ch)
	ch <- prometheus.MustNewConstMetric(s.counts.waiting, prometheus.GaugeValue, float64(s.spool.size()))
}
