package proxy

import (
	"testing"
	"time"

	"maskrelay/masking"
)

// Visitors who were told to go and became tunnels instead do not stay on the books as
// going: others could not make room for as long as they stay.
func TestGoingIsForgotten(t *testing.T) {
	r := newRig(t, setup{maxOpen: 2})
	s := r.server
	if !s.listeners[0].received {
		t.Skip("the engine does not accept here")
	}
	waiting := r.dial()
	waiting.send("CONNECT target.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
	waiting.expect(r.reply(AuthRequired, false))
	s.going.Store(5)
	s.evictedAt.Store(int64(s.now()))
	if s.evictVisitor() {
		t.Error("a visitor who is going made room twice")
	}
	s.evictedAt.Store(int64(s.now() - evictionTime - time.Millisecond))
	if !s.evictVisitor() {
		t.Error("nobody makes room")
	}
	waiting.ends()
	eventually(t, "he is counted out", func() bool { return s.going.Load() == 0 && s.open.Load() == 0 })
	c := r.dial()
	c.send(connectTo(startEcho(t).Addr()))
	c.expect(masking.Established)
}

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
	if s.enter() {
		t.Error("somebody enters though it is crowded")
		s.open.Add(-1)
	}
	waiting.ends()
	s.open.Add(-crowd)
	c := r.dial()
	c.send(connectTo(startEcho(t).Addr()))
	c.expect(masking.Established)
}
