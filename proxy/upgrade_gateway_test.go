package proxy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest"
)

// A gateway that answers a websocket's handshake in the target's place is the upstream's
// trouble, not an answer for the customer.
func TestUpgradeAnsweredByTheGateway(t *testing.T) {
	for _, h := range upstreamtest.Hostilities() {
		if !strings.HasPrefix(h.Name, "handshake-") {
			continue
		}
		patient := 5 * time.Second
		if h.Waits {
			patient = 300 * time.Millisecond
		}
		t.Run(h.Name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{
				vendor: upstreamtest.VendorConfig{Behaviour: h.HTTP},
				config: func(c *Config) { c.ConnectTimeout = patient },
				pool:   func(o *upstream.Options) { o.ConnectTimeout = patient },
			})
			c := r.dial()
			c.send(handshake(r.judge.URL() + "/ws"))
			c.answer("GET")
			got := string(c.received())
			replies := []string{r.reply(UpstreamFailed, false), r.reply(UpstreamFailed, true), r.reply(UpstreamTimeout, true), r.reply(UpstreamTimeout, false)}
			if !slices.Contains(replies, got) {
				t.Errorf("got %q", got)
			}
		})
	}
}
