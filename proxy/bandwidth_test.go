package proxy

import (
	"testing"
	"time"

	"maskrelay/proxy/tunnel"
)

// What a request moves is owed by its account, also when it was a websocket handshake
// that the target has refused; and nobody waits for the debts of a customer who is gone.
func TestRequestsShareTheBandwidth(t *testing.T) { bothWays(t, testRequestsShareTheBandwidth) }

func testRequestsShareTheBandwidth(t *testing.T) {
	const rate = 1000 // a minute for the answer
	for name, head := range map[string]func(url string) string{
		"a request":           func(url string) string { return request("GET", url) },
		"a refused handshake": func(url string) string { return handshake(url) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{config: func(c *Config) { c.Bandwidth = rate }})
			shared := r.server.bandwidths.take(customerName)
			defer r.server.bandwidths.drop(customerName)
			c := r.dial()
			c.send(head(r.judge.URL() + "/bytes?n=65536"))
			eventually(t, "bytes have moved", func() bool { return owes(shared) })
			must(t, c.Close())
			r.idle()
		})
	}
}

// owes reports whether more is owed than this look adds.
func owes(shared *tunnel.Shared) bool {
	const soon = 2 * time.Second
	return shared.Owe(true, 1) > soon || shared.Owe(false, 1) > soon
}
