package proxy

import (
	"net/netip"
	"testing"

	"maskrelay/masking"
)

// Those who make room hold their descriptors until they are gone: however fast others
// come, no more than a few enter meanwhile. A crowd that does not go away by itself
// shrinks all the same.
func TestCrowdIsBounded(t *testing.T) {
	r := newRig(t, setup{maxOpen: 2})
	s := r.server
	waiting := r.dial()
	waiting.send("CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	waiting.expect(r.reply(AuthRequired, false))
	crowd := int64(s.maxOpen + s.leavers)
	s.open.Add(crowd)
	if !s.crowded() {
		t.Error("nobody says that it is crowded")
	}
	if s.enter(netip.MustParseAddr("127.0.0.1")) {
		t.Error("somebody enters though it is crowded")
		s.open.Add(-1)
	}
	waiting.ends()
	s.open.Add(-crowd)
	c := r.dial()
	c.send(connectTo(startEcho(t).Addr()))
	c.expect(masking.Established)
}
