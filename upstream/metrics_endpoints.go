package upstream

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// maxListedLanes is how many pairs of a source and an address have series of their own.
const maxListedLanes = 1000

// Label values that are no address.
const (
	anySource    = "any"   // the kernel chooses the source
	otherAddress = "other" // what is beyond maxListedLanes, of one gateway
)

var (
	endpointPorts = prometheus.NewDesc("maskrelay_upstream_endpoint_ports_free",
		"Connections that the local ports still allow from one source address to one address of the upstream; "+
			"other upstreams with the same address share them.",
		[]string{"upstream", "source", "address"}, nil)
	endpointConns = prometheus.NewDesc("maskrelay_upstream_endpoint_connections",
		"Connections to one address of the upstream.", []string{"upstream", "address"}, nil)
	endpointUp = prometheus.NewDesc("maskrelay_upstream_endpoint_up",
		"1 unless the address of the upstream could not be reached when it was last tried; for other: whether that is so of each.",
		[]string{"upstream", "address"}, nil)
)

func describeEndpoints(ch chan<- *prometheus.Desc) {
	ch <- endpointPorts
	ch <- endpointConns
	ch <- endpointUp
}

// collectEndpoints sends what is known of every gateway's addresses. What a huge
// configuration has beyond maxListedLanes is summed.
func (p *Pool) collectEndpoints(ch chan<- prometheus.Metric) {
	listed := 0
	for _, g := range p.gateways {
		if g.endpoints == nil {
			continue
		}
		g.endpoints.mu.Lock()
		all := g.endpoints.listedLocked()
		g.endpoints.mu.Unlock()
		n := 0 // how many of them are listed
		for n < len(all) && listed+max(len(all[n].lanes), 1) <= maxListedLanes {
			listed += max(len(all[n].lanes), 1)
			n++
		}
		for _, ep := range all[:n] {
			ep.collect(ch, g.Name)
		}
		collectOther(ch, g.Name, all[n:])
	}
}

// collect sends an address's series.
func (ep *endpoint) collect(ch chan<- prometheus.Metric, gateway string) {
	address := ep.addr.String()
	ch <- gauge(endpointConns, float64(ep.conns.Load()), gateway, address)
	ch <- gauge(endpointUp, oneIf(!ep.failing()), gateway, address)
	for _, l := range ep.lanes {
		if l.capacity == 0 {
			continue
		}
		source := anySource
		if l.source.IsValid() {
			source = l.source.String()
		}
		ch <- gauge(endpointPorts, float64(l.free()), gateway, source, address)
	}
}

// collectOther sends the sums over a gateway's addresses that are not listed.
func collectOther(ch chan<- prometheus.Metric, gateway string, rest []*endpoint) {
	if len(rest) == 0 {
		return
	}
	var conns, free int64
	up, known := true, false
	for _, ep := range rest {
		conns += ep.conns.Load()
		free += ep.portsFree()
		up = up && !ep.failing()
		known = known || slices.ContainsFunc(ep.lanes, func(l *lane) bool { return l.capacity > 0 })
	}
	ch <- gauge(endpointConns, float64(conns), gateway, otherAddress)
	ch <- gauge(endpointUp, oneIf(up), gateway, otherAddress)
	if known {
		ch <- gauge(endpointPorts, float64(free), gateway, otherAddress, otherAddress)
	}
}
