package upstream

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the pool's own counts; the gauges are read at each scrape.
type metrics struct {
	seconds   *prometheus.HistogramVec
	failures  *prometheus.CounterVec
	ejections *prometheus.CounterVec
	probes    *prometheus.CounterVec
	up        *prometheus.Desc
	state     *prometheus.Desc
	ratio     *prometheus.Desc
	conns     *prometheus.Desc
	ports     *prometheus.Desc
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
		ejections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_upstream_ejections_total",
			Help: "How often the upstream was taken out of use, by cause.",
		}, []string{"upstream", "cause"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_upstream_probes_total",
			Help: "Probes of the upstream: of the connection, and of a tunnel to the health target; ok or the cause of the failure.",
		}, []string{"upstream", "kind", "result"}),
		up: prometheus.NewDesc("maskrelay_upstream_up",
			"1 if the upstream is in use, 0 if it is ejected, unreachable, or tried again one exchange at a time.", []string{"upstream"}, nil),
		state: prometheus.NewDesc("maskrelay_upstream_state",
			"1 for the state that the upstream is in, 0 for the others.", []string{"upstream", "state"}, nil),
		ratio: prometheus.NewDesc("maskrelay_upstream_success_ratio",
			"Share of the last 10 seconds' attempts that succeeded, without those that failed for reasons of the target or the customer; absent without any.",
			[]string{"upstream"}, nil),
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
	p.metrics.ejections.Describe(ch)
	p.metrics.probes.Describe(ch)
	ch <- p.metrics.up
	ch <- p.metrics.state
	ch <- p.metrics.ratio
	ch <- p.metrics.conns
	ch <- p.metrics.ports
	describeEndpoints(ch)
	ch <- retriesDesc
}

// Collect implements prometheus.Collector.
func (p *Pool) Collect(ch chan<- prometheus.Metric) {
	p.metrics.seconds.Collect(ch)
	p.metrics.failures.Collect(ch)
	p.collectRetries(ch)
	p.metrics.ejections.Collect(ch)
	p.metrics.probes.Collect(ch)
	now := time.Now()
	for _, g := range p.gateways {
		p.metrics.collectHealth(ch, g, now)
		ch <- gauge(p.metrics.conns, float64(g.conns.Load()), g.Name)
		if free, known := g.portsFree(); known {
			ch <- gauge(p.metrics.ports, float64(free), g.Name)
		}
	}
	p.collectEndpoints(ch)
}

func (m *metrics) collectHealth(ch chan<- prometheus.Metric, g *gateway, now time.Time) {
	_, state, _ := g.health.judged(now)
	ch <- gauge(m.up, oneIf(state == StateUp), g.Name)
	for _, s := range gatewayStates {
		ch <- gauge(m.state, oneIf(s == state), g.Name, string(s))
	}
	if t := g.health.window.sum(momentOf(now)); t.attempts() > 0 {
		ch <- gauge(m.ratio, t.rate(), g.Name)
	}
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
