package upstream

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the pool's own counts; the gauges are read at each scrape.
type metrics struct {
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec
	up       *prometheus.Desc
	conns    *prometheus.Desc
	ports    *prometheus.Desc
}

func newMetrics() *metrics {
	return &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "maskrelay_upstream_connect_seconds",
			Help:    "Time to open a tunnel through the upstream, successes only.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"upstream"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_upstream_failures_total",
			Help: "Failed attempts through the upstream, by cause.",
		}, []string{"upstream", "cause"}),
		up: prometheus.NewDesc("maskrelay_upstream_up",
			"1 unless the upstream could not be reached a moment ago.", []string{"upstream"}, nil),
		conns: prometheus.NewDesc("maskrelay_upstream_connections",
			"Connections to the upstream.", []string{"upstream"}, nil),
		ports: prometheus.NewDesc("maskrelay_upstream_ports_free",
			"Connections that the local ports still allow, over all addresses of the upstream and all source addresses. "+
				"Ports in TIME_WAIT or in use by other programs count as free; upstreams with an address in common share its ports.",
			[]string{"upstream"}, nil),
	}
}

// failed counts an attempt. A customer that left is no failure of the gateway's.
func (m *metrics) failed(e *ConnectError) {
	if e.Cause != CauseCanceled {
		m.failures.WithLabelValues(e.Gateway, string(e.Cause)).Inc()
	}
}

// Describe implements prometheus.Collector.
func (p *Pool) Describe(ch chan<- *prometheus.Desc) {
	p.metrics.seconds.Describe(ch)
	p.metrics.failures.Describe(ch)
	ch <- p.metrics.up
	ch <- p.metrics.conns
	ch <- p.metrics.ports
}

// Collect implements prometheus.Collector.
func (p *Pool) Collect(ch chan<- prometheus.Metric) {
	p.metrics.seconds.Collect(ch)
	p.metrics.failures.Collect(ch)
	now := time.Now()
	for _, g := range p.gateways {
		up := 1.0
		if g.isDown(now) {
			up = 0
		}
		ch <- prometheus.MustNewConstMetric(p.metrics.up, prometheus.GaugeValue, up, g.Name)
		ch <- prometheus.MustNewConstMetric(p.metrics.conns, prometheus.GaugeValue, float64(g.conns.Load()), g.Name)
		if free, known := g.portsFree(); known {
			ch <- prometheus.MustNewConstMetric(p.metrics.ports, prometheus.GaugeValue, float64(free), g.Name)
		}
	}
}
