package usage

import "sync/atomic"

// cacheLine keeps counts that different cores add to from slowing each other down.
const cacheLine = 64

// Counter is what one account moved since the process began. It only adds. The zero value is
// ready, but only a Counter of a [Meter] is booked. Safe for concurrent use; not to be copied.
type Counter struct {
	sent atomic.Int64
	_    [cacheLine - 8]byte

	received atomic.Int64
	_        [cacheLine - 8]byte

	connections atomic.Int64
	exhausted   atomic.Bool // set and cleared by Books
	asked       atomic.Bool // set by Meter.Of, taken back by Books
	name        string
}

// Moved adds n bytes as the customer sees them: sent reports whether the customer sent them.
// A figure of 0 or less adds nothing.
func (c *Counter) Moved(sent bool, n int) {
	if n <= 0 {
		return
	}
	if sent {
		c.sent.Add(int64(n))
		return
	}
	c.received.Add(int64(n))
}

// Opened adds one connection that was admitted.
func (c *Counter) Opened() { c.connections.Add(1) }

// Totals returns the bytes each way and the connections since the process began. The three are
// read one after the other, not at one moment.
func (c *Counter) Totals() (sent, received, connections int64) {
	return c.sent.Load(), c.received.Load(), c.connections.Load()
}

// Exhausted reports whether the account's quota is used up, as far as its [Books] know: a matter
// of seconds behind what moves here and on other relays. It costs one atomic load.
func (c *Counter) Exhausted() bool { return c.exhausted.Load() }

// sums returns the Totals as one value.
func (c *Counter) sums() Sums {
	sent, received, connections := c.Totals()
	return Sums{Sent: sent, Received: received, Connections: connections}
}
