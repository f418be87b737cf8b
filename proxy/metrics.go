package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"maskrelay/proxy/usage"
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

	meter    *usage.Meter
	seriesMu sync.Mutex          // guards series
	series   map[string]struct{} // accounts with series of their own

	connections, limit, waiting, bytes, draining, reloaded *prometheus.Desc
	strangers, handshakes                                  *prometheus.Desc
	accountConnections, accountConnsLimit, accountBytes    *prometheus.Desc
}

func newMetrics(meter *usage.Meter) *metrics {
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
			Help: "Connections that had not logged in and were refused at accept (refused), closed to make room (evicted), closed " +
				"because their address had more than its share (address), or got no turn for a TLS handshake in time (handshake).",
		}, []string{"reason"}),
		meter:              meter,
		series:             make(map[string]struct{}),
		connections:        desc("connections", "Customers' connections that hold a slot.", "kind"),
		limit:              desc("connections_limit", "Customers' connections that this relay takes."),
		waiting:            desc("connections_waiting", "Customers' connections that wait for a slot of the full relay."),
		strangers:          desc("connections_unauthenticated", "Customers' connections that have not logged in."),
		handshakes:         desc("tls_handshakes_waiting", "TLS handshakes of customers that wait for their turn."),
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

// moved books bytes as they pass.
func (m *metrics) moved(u *usage.Counter, sent bool, n int) {
	if sent {
		m.sent.Add(int64(n))
	} else {
		m.received.Add(int64(n))
	}
	u.Moved(sent, n)
}

func (m *metrics) opened(d time.Duration) { m.connect.Observe(d.Seconds()) }

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	m := s.metrics
	m.exchanges.Describe(ch)
	m.connect.Describe(ch)
	m.dropped.Describe(ch)
	for _, d := range []*prometheus.Desc{
		m.connections, m.limit, m.waiting, m.bytes, m.draining, m.reloaded, m.strangers, m.handshakes,
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
	gauge(m.waiting, float64(s.fair.Waiting()))
	gauge(m.strangers, float64(s.strangers.count.Load()))
	gauge(m.handshakes, float64(s.handshakes.inLine()))
	gauge(m.draining, boolValue(s.Draining()))
	gauge(m.reloaded, boolValue(s.accountsGood()))
	counter(m.bytes, m.sent.Load(), "sent")
	counter(m.bytes, m.received.Load(), "received")
	s.collectAccounts(gauge)
	m.collectUsage(counter)
}

// accountsGood reports whether all changes of the accounts could be taken up.
func (s *Server) accountsGood() bool {
	if s.config.Accounts == nil {
		return true
	}
	_, err := s.config.Accounts.Status()
	return err == nil
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collectAccounts writes the series of accounts that are connected: those that have
// series of their own, lest each scrape names others.
func (s *Server) collectAccounts(gauge func(*prometheus.Desc, float64, ...string)) {
	other := 0
	s.metrics.seriesMu.Lock()
	defer s.metrics.seriesMu.Unlock()
	s.config.Limiter.Range(func(key string, inUse int) bool {
		// A passthrough's login may be a stranger's until bytes have moved.
		real := s.config.knowsAccounts() || s.metrics.meter.Find(key) != nil
		if !real || !s.metrics.hasSeriesLocked(key) {
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
	m.seriesMu.Lock()
	defer m.seriesMu.Unlock()
	var other [2]int64
	m.meter.Range(func(name string, u *usage.Counter) bool {
		sent, received, _ := u.Totals()
		if !m.hasSeriesLocked(name) {
			other[0] += sent
			other[1] += received
			return true
		}
		counter(m.accountBytes, sent, name, "sent")
		counter(m.accountBytes, received, name, "received")
		return true
	})
	if other[0]+other[1] > 0 {
		counter(m.accountBytes, other[0], otherAccountLabel, "sent")
		counter(m.accountBytes, other[1], otherAccountLabel, "received")
	}
}

// hasSeriesLocked gives an account series of its own while there are few: once it has
// them it keeps them, so that no counter ever falls.
func (m *metrics) hasSeriesLocked(name string) bool {
	if _, has := m.series[name]; has {
		return true
	}
	if len(m.series) >= maxAccountLabels || name == otherAccountLabel {
		return false
	}
	m.series[name] = struct{}{}
	return true
}
