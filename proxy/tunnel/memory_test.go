package tunnel

import (
	"context"
	"net"
	"runtime"
	"testing"
)

// An idle tunnel must hold no buffer: two parked goroutines and its state only.
func TestIdleTunnelsHoldNoBuffers(t *testing.T) {
	const n, limit = 300, 12 << 10
	for _, k := range []kind{tcpKind, tlsKind} {
		t.Run(k.name, func(t *testing.T) {
			engine := NewEngine(Options{})
			defer engine.Close()
			type ends struct{ client, inside, vendor, upstream net.Conn }
			all := make([]ends, n)
			for i := range all {
				all[i].client, all[i].inside = k.pair(t)
				all[i].vendor, all[i].upstream = tcpPair(t)
			}
			before := inUse()
			for _, e := range all {
				job := &script{client: e.inside, open: func(context.Context) (Peer, error) { return Peer{Conn: e.upstream}, nil }}
				engine.Submit(job.job())
				// Buffers are borrowed and must have gone back.
				send(t, e.client, "ping")
				expect(t, e.vendor, "ping")
				send(t, e.vendor, "pong")
				expect(t, e.client, "pong")
			}
			if each := (inUse() - before) / n; each > limit {
				t.Errorf("an idle tunnel holds %d bytes, want at most %d", each, limit)
			}
		})
	}
}

// inUse is heap and stacks after collection.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
