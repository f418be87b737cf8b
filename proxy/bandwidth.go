package proxy

import (
	"sync"
	"time"

	"maskrelay/proxy/tunnel"
)

// bandwidths are the shared bandwidths of the customers that have tunnels or requests
// open, by limiter key. One lives as long as somebody uses it, over reloads, so that
// old and new connections share one. Safe for concurrent use.
type bandwidths struct {
	of func(key string) int64 // bytes per second each way, 0 = no limit

	mu   sync.Mutex // guards open
	open map[string]*bandwidth
}

type bandwidth struct {
	shared *tunnel.Shared
	users  int
}

func newBandwidths(of func(key string) int64) *bandwidths {
	return &bandwidths{of: of, open: make(map[string]*bandwidth)}
}

// take returns key's bandwidth, which the caller uses until drop.
func (b *bandwidths) take(key string) *tunnel.Shared {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.open[key]
	if one == nil {
		one = &bandwidth{shared: tunnel.NewShared(b.of(key))}
		b.open[key] = one
	}
	one.users++
	return one.shared
}

// drop ends a use.
func (b *bandwidths) drop(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.open[key]
	if one.users--; one.users == 0 {
		delete(b.open, key)
	}
}

// renew gives all their rates anew: accounts have changed.
func (b *bandwidths) renew() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, one := range b.open {
		one.shared.Set(b.of(key))
	}
}

// pay waits until n bytes that were moved are paid off, or gone is closed.
func pay(gone <-chan struct{}, shared *tunnel.Shared, sent bool, n int) {
	if shared == nil || n <= 0 {
		return
	}
	owed := shared.Owe(sent, n)
	if owed <= 0 {
		return
	}
	timer := time.NewTimer(owed)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gone:
	}
}
