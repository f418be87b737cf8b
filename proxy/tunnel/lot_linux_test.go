package tunnel

import (
	"runtime"
	"testing"
	"time"
)

// withoutLots makes every direction wait in a goroutine, as on a host that refuses
// epoll instances or on another system.
func withoutLots(s *scene) {
	s.engine.lots.close()
	s.engine.lots.all = nil
}

func TestDirectionsWaitThemselvesWithoutALot(t *testing.T) {
	combinations(t, func(t *testing.T, client, peer kind) {
		s := newScene(t, Options{pumpsOnly: true, IdleTimeout: time.Minute}, client, peer)
		withoutLots(s)
		s.open()
		for range 3 {
			send(t, s.client, "ping")
			expect(t, s.vendor, "ping")
			send(t, s.vendor, "pong")
			expect(t, s.client, "pong")
		}
		halfClose(t, s.client)
		expectEOF(t, s.vendor)
		send(t, s.vendor, "last words")
		halfClose(t, s.vendor)
		expect(t, s.client, "last words")
		expectEOF(t, s.client)
		s.ended(Closed)
	})
}

func TestCutWithoutALot(t *testing.T) {
	s := newScene(t, Options{pumpsOnly: true}, tcpKind, tlsKind)
	withoutLots(s)
	s.job.key = "alice"
	s.open()
	if n := s.engine.CloseKey("alice"); n != 1 {
		t.Errorf("cut %d", n)
	}
	s.ended(Killed)
}

// A parked tunnel has no goroutine of its own.
func TestParkedTunnelsHaveNoGoroutine(t *testing.T) {
	const n = 50
	engine := NewEngine(Options{pumpsOnly: true})
	defer engine.Close()
	scenes := make([]*scene, n)
	before := 0
	for i := range scenes {
		s := newScene(t, Options{pumpsOnly: true}, tcpKind, tcpKind)
		s.engine.Close()
		s.engine = engine
		s.open()
		scenes[i] = s
		if i == 0 {
			until(t, func() bool { before = runtime.NumGoroutine(); return parkedBoth(s) })
			before = runtime.NumGoroutine()
		}
	}
	for _, s := range scenes {
		until(t, func() bool { return parkedBoth(s) })
	}
	until(t, func() bool { return runtime.NumGoroutine() <= before+2 })
}

func parkedBoth(s *scene) bool {
	all := true
	s.engine.each(func(t *pump) bool {
		for d := range t.directions {
			all = all && t.open.Load() && t.directions[d].state.Load() == parked
		}
		return false
	})
	return all
}
