package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"maskrelay/proxy/limit"
	"maskrelay/upstream/upstreamtest"
)

// invented is how many names strangers invent, and mostSeries what they may cost of series:
// those of accounts have up to four each, for maxAccountLabels and for the rest together.
const (
	invented   = 10_000
	mostSeries = 4*(maxAccountLabels+1) + 200
)

// series counts the series that a scrape shows, and checks each label.
func (r *rig) series() int {
	r.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	must(r.t, registry.Register(r.server))
	must(r.t, registry.Register(r.server.config.Upstream))
	families, err := registry.Gather()
	must(r.t, err)
	n := 0
	for _, family := range families {
		n += len(family.GetMetric())
		for _, one := range family.GetMetric() {
			for _, label := range one.GetLabel() {
				if v := label.GetValue(); strings.ContainsAny(v, "\n\x1b\u2028") {
					r.t.Errorf("%s: label %q", family.GetName(), v)
				}
			}
		}
	}
	return n
}

// Strangers' names make no series: in no mode does a refused login, method or host leave a
// trace in the metrics.
func TestInventedNamesMakeNoSeries(t *testing.T) {
	for _, auth := range []Auth{AuthAccounts, AuthHook, AuthPassthrough, AuthOpen} {
		t.Run(string(auth), func(t *testing.T) {
			r := newRig(t, setup{
				unlike: true, vendor: upstreamtest.VendorConfig{Behaviour: says("HTTP/1.1 407 NO_USER\r\nContent-Length: 0\r\n\r\n")},
				config: func(c *Config) {
					c.Auth = auth
					c.Targets, _ = NewTargets(TargetsConfig{DenyHosts: []string{"*.denied.test"}, AllowPrivate: true})
					if !c.knowsAccounts() {
						c.Accounts = nil
					}
					c.Defaults = limit.Caps{}
				},
			})
			c := r.dial()
			c.send("BREW http://first.denied.test/ HTTP/1.1\r\nHost: x\r\n" + basic("first", "x") + "\r\n")
			c.head()
			must(t, c.Close())
			r.idle()
			before := r.series()
			for i := range invented / 100 {
				var all strings.Builder
				for j := range 100 {
					n := i*100 + j
					fmt.Fprintf(&all, "BREW%d http://host%d.denied.test/ HTTP/1.1\r\nHost: x\r\n%s\r\n", n, n, basic(fmt.Sprintf("nobody\x1b\n%d", n), "x"))
				}
				c := r.dial()
				c.send(all.String())
				for range 100 {
					c.answer("GET")
				}
				must(t, c.Close())
			}
			r.idle()
			if after := r.series(); after > before+len(outcomes) { // an outcome of the closed set may be new
				t.Errorf("%d series, and %d before", after, before)
			}
			if auth != AuthPassthrough {
				return
			}
			c = r.dial() // up to the vendor, who refuses
			for i := range invented / 20 {
				c.send("GET http://target.test/ HTTP/1.1\r\nHost: x\r\n" + basic(fmt.Sprintf("nobody%d", i), "x") + "\r\n")
				c.answer("GET")
			}
			must(t, c.Close())
			r.idle()
			if after := r.series(); after > before+len(outcomes)+5 { // the gateway's own failures
				t.Errorf("%d series, and %d before", after, before)
			}
		})
	}
}

// Customers who exist are bounded, too: those who come first have series, the others share one.
func TestCustomersSeriesAreBounded(t *testing.T) {
	for _, auth := range []Auth{AuthAccounts, AuthHook, AuthPassthrough, AuthOpen} {
		t.Run(string(auth), func(t *testing.T) {
			r := newRig(t, setup{idle: true, config: func(c *Config) {
				c.Auth = auth
				if !c.knowsAccounts() {
					c.Accounts = nil
				}
			}})
			leases := make([]limit.Lease, invented)
			for i := range leases {
				name := fmt.Sprintf("name%d", i)
				must(t, r.limiter.AcquireNow(&leases[i], name, limit.Caps{}))
				r.server.metrics.moved(r.server.config.Meter.Of(name), true, 1)
			}
			if n := r.series(); n > mostSeries || n < 2*maxAccountLabels {
				t.Errorf("%d series, want %d at the most", n, mostSeries)
			}
			if n := len(r.server.metrics.series); n != maxAccountLabels {
				t.Errorf("%d accounts have series", n)
			}
			for i := range leases {
				leases[i].Release()
			}
		})
	}
}
