package fleet

import "github.com/prometheus/client_golang/prometheus"

var (
	upDesc     = prometheus.NewDesc("maskrelay_redis_up", "1 while Redis answers.", nil, nil)
	callsDesc  = prometheus.NewDesc("maskrelay_redis_calls_total", "Round trips to Redis for customers and bookings; a pipeline is one.", []string{"result"}, nil)
	relaysDesc = prometheus.NewDesc("maskrelay_fleet_relays", "Relays of the fleet that were alive when Redis answered last.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *Client) Describe(ch chan<- *prometheus.Desc) {
	ch <- upDesc
	ch <- callsDesc
	ch <- relaysDesc
}

// Collect implements prometheus.Collector.
func (c *Client) Collect(ch chan<- prometheus.Metric) {
	up := 0.0
	if c.Up() {
		up = 1
	}
	ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up)
	for result := range callResults {
		ch <- prometheus.MustNewConstMetric(callsDesc, prometheus.CounterValue, float64(c.calls[result].Load()), result.String())
	}
	ch <- prometheus.MustNewConstMetric(relaysDesc, prometheus.GaugeValue, float64(c.Relays()))
}
