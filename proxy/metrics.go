package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	maxAccountLabels  = 1000 // accounts with series of their own; the rest share one
	otherAccountLabel = "other"
)

// metrics are the front's counts; gauges are read at each scrape.
type metrics struct {
	exchanges *prometheus.CounterVec
	outcomes  map[Outcome]prometheus.Counter // of exchanges, looked up once
	connect   prometheus.Histogram
	dropped   *prometheus.CounterVec
	sent      atomic.Int64
	_         [56]byte // moves in the two directions meet no shared cache line
	received  atomic.Int64

	usageMu sync.RWMutex // guards usage
	usage   map[string]*usage
	other   usage // of the accounts that came after the first thousand

	connections, limit, bytes, draining, reloaded       *prometheus.Desc
	accountConnections, accountConnsLimit, accountBytes *prometheus.Desc
}

// usage is what one account moved, as the customer sees it.
type usage struct{ sent, received atomic.Int64 }

func newMetrics() *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("maskrelay_"+name, help, labels, nil)
	}
	m := &metrics{
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_exchanges_total", Help: "Customer requests, by how they ended.",
		}, []string{"outcome"}),
		connect: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "maskrelay_connect_seconds",
			Help:    "Time from a CONNECT's head to its 200.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_accepts_dropped_total",
			Help: "Connections refused at accept (refused), or closed while idle to make room (evicted).",
		}, []string{"reason"}),
		usage:              make(map[string]*usage),
		connections:        desc("connections", "Customers' connections that hold a slot.", "kind"),
		limit:              desc("connections_limit", "Customers' connections that this relay takes."),
		bytes:              desc("bytes_total", "Payload bytes as customers see them.", "direction"),
		draining:           desc("draining", "1 while the relay drains."),
		reloaded:           desc("accounts_reload_success", "1 unless the last change of the accounts was refused."),
		accountConnections: desc("account_connections", "An account's connections.", "account"),
		accountConnsLimit:  desc("account_connections_limit", "An account's connection cap; 0 = none.", "account"),
		accountBytes:       desc("account_bytes_total", "An account's payload bytes as the customer sees them.", "account", "direction"),
	}
	m.outcomes = make(map[Outcome]prometheus.Counter, len(outcomes))
	for _, o := range outcomes {
		m.outcomes[o] = m.exchanges.WithLabelValues(string(o))
	}
	return m
}

// ended counts an exchange.
func (m *metrics) ended(o Outcome) {
	if c := m.outcomes[o]; c != nil {
		c.Inc()
		return
	}
	m.exchanges.WithLabelValues(string(o)).Inc()
}

// usageOf returns the counter of an account, a shared one when there are too many.
func (m *metrics) usageOf(account string) *usage {
	m.usageMu.RLock()
	u := m.usage[account]
	m.usageMu.RUnlock()
	if u != nil {
		return u
	}
	m.usageMu.Lock()
	defer m.usageMu.Unlock()
	if u = m.usage[account]; u != nil {
		return u
	}
	if len(m.usage) >= maxAccountLabels || account == otherAccountLabel {
		return &m.other
	}
	u = &usage{}
	m.usage[account] = u
	return u
}

// moved books bytes as they pass.
func (m *metrics) moved(u *usage, sent bool, n int) {
	if sent {
		m.sent.Add(int64(n))
		u.sent.Add(int64(n))
		return
	}
	m.received.Add(int64(n))
	u.received.Add(int64(n))
}

func (m *metrics) opened(d time.Duration) { m.connect.Observe(d.Seconds()) }

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	m := s.metrics
	m.exchanges.Describe(ch)
	m.connect.Describe(ch)
	m.dropped.Describe(ch)
	for _, d := range []*prometheus.Desc{
		m.connections, m.limit, m.bytes, m.draining, m.reloaded,
		m.accountConnections, m.accountConnsLimit, m.accountBytes,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	m := s.metrics
	m.exchanges.Collect(ch)
	m.connect.Collect(ch)
	m.dropped.Collect(ch)
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(m.connections, float64(s.engine.Count()), "tunnel")
	gauge(m.connections, float64(s.heldConns()), "http")
	gauge(m.limit, float64(s.slots.Max()))
	gauge(m.draining, boolValue(s.Draining()))
	gauge(m.reloaded, boolValue(!s.reloadFailed.Load()))
	counter(m.bytes, m.sent.Load(), "sent")
	counter(m.bytes, m.received.Load(), "received")
	s.collectAccounts(gauge)
	m.collectUsage(counter)
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collectAccounts writes the series of accounts that are connected.
func (s *Server) collectAccounts(gauge func(*prometheus.Desc, float64, ...string)) {
	n, other := 0, 0
	s.config.Limiter.Range(func(key string, inUse int) bool {
		if n++; n > maxAccountLabels || key == otherAccountLabel {
			other += inUse
			return true
		}
		gauge(s.metrics.accountConnections, float64(inUse), key)
		gauge(s.metrics.accountConnsLimit, float64(s.capsOf(key).MaxConns), key)
		return true
	})
	if other > 0 {
		gauge(s.metrics.accountConnections, float64(other), otherAccountLabel)
	}
}

// collectUsage writes the bytes of the accounts that came first, and the rest's sum.
func (m *metrics) collectUsage(counter func(*prometheus.Desc, int64, ...string)) {
	m.usageMu.RLock()
	defer m.usageMu.RUnlock()
	write := func(name string, u *usage) {
		counter(m.accountBytes, u.sent.Load(), name, "sent")
		counter(m.accountBytes, u.received.Load(), name, "received")
	}
	for name, u := range m.usage {
		write(name, u)
	}
	if m.other.sent.Load()+m.other.received.Load() > 0 {
		write(otherAccountLabel, &m.other)
	}
}
