package redislimit

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counts are what the Limiter did since it began.
type counts struct {
	asks           [purposes]atomic.Uint64
	addressAsks    atomic.Uint64
	policyAdmitted atomic.Uint64
	policyRefused  atomic.Uint64
}

var (
	asksDesc = prometheus.NewDesc("maskrelay_fleet_lease_calls_total",
		"Questions to Redis about a customer's connections, by what they were for.", []string{"for"}, nil)
	policyDesc = prometheus.NewDesc("maskrelay_fleet_policy_total",
		"New connections that REDIS_DOWN decided on because Redis did not answer.", []string{"decision"}, nil)
	slotsDesc = prometheus.NewDesc("maskrelay_fleet_slots",
		"Connections that this relay has leased for customers with a cap, and carries.", []string{"state"}, nil)
)

// Describe implements [prometheus.Collector].
func (l *Limiter) Describe(ch chan<- *prometheus.Desc) {
	ch <- asksDesc
	ch <- policyDesc
	ch <- slotsDesc
}

// Collect implements [prometheus.Collector].
func (l *Limiter) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n *atomic.Uint64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), label)
	}
	for p := range purposes {
		counter(asksDesc, &l.counts.asks[p], p.String())
	}
	counter(asksDesc, &l.counts.addressAsks, "address")
	counter(policyDesc, &l.counts.policyAdmitted, "admitted")
	counter(policyDesc, &l.counts.policyRefused, "refused")
	leased, used := 0, 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if e.bounds.max > 0 {
				leased += e.held
				used += e.inUse
			}
		}
		s.mu.Unlock()
	}
	ch <- prometheus.MustNewConstMetric(slotsDesc, prometheus.GaugeValue, float64(leased), "leased")
	ch <- prometheus.MustNewConstMetric(slotsDesc, prometheus.GaugeValue, float64(used), "used")
}
