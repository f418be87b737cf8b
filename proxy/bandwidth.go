package proxy

import (
	"sync"
	"time"

	"maskrelay/proxy/limit"
	"maskrelay/proxy/tunnel"
)

// maxLingering bounds the bandwidths that are kept though nobody uses them.
const maxLingering = 50_000

// bandwidths are the shared bandwidths of the customers that have tunnels or requests
// open, by limiter key. One lives as long as somebody uses it, over reloads, so that
// old and new connections share one. In a fleet it is this relay's share of the
// customer's, and lingers for some seconds. Safe for concurrent use.
type bandwidths struct {
	of      func(key string) int64 // bytes per second each way, 0 = no limit
	shares  limit.Shares           // nil = this relay is alone
	trouble func(error)            // told when asking shares begins to fail for another reason than a silent fleet
	wake    chan struct{}          // somebody is in fresh

	mu        sync.Mutex // guards what follows, and the bandwidths' fields where they say so
	open      map[string]*bandwidth
	limited   []*bandwidth // in a fleet, those with a limit
	fresh     []*bandwidth // of these, those to be asked for at once
	lingering int          // of these, those without users

	demands demands // of run
}

type bandwidth struct {
	key    string
	shared *tunnel.Shared

	// Guarded by bandwidths.mu.
	users int
	limit int64 // the customer's, of all relays together; 0 = none
	place int   // in limited, from 1; 0 = it is not in there
	fresh bool

	demand demand // of bandwidths.run
}

func newBandwidths(of func(key string) int64, shares limit.Shares, trouble func(error)) *bandwidths {
	return &bandwidths{
		of: of, shares: shares, trouble: trouble, wake: make(chan struct{}, 1), open: make(map[string]*bandwidth),
	}
}

// take returns key's bandwidth, which the caller uses until drop.
func (b *bandwidths) take(key string) *tunnel.Shared {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.open[key]
	if one == nil {
		one = &bandwidth{key: key, limit: b.of(key)}
		one.shared = tunnel.NewShared(one.limit)
		b.open[key] = one
		b.beginLocked(one)
	} else if one.users == 0 {
		b.lingering--
		b.freshLocked(one) // the fleet may know that it was gone
	}
	one.users++
	return one.shared
}

// drop ends a use.
func (b *bandwidths) drop(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.open[key]
	if one.users--; one.users > 0 {
		return
	}
	b.lingering++
	if one.place == 0 || b.lingering > maxLingering {
		b.forgetLocked(one)
	}
}

// forgetLocked lets go of a bandwidth without users.
func (b *bandwidths) forgetLocked(one *bandwidth) {
	b.endLocked(one)
	delete(b.open, one.key)
	b.lingering--
}

// renew gives all their rates anew: accounts have changed.
func (b *bandwidths) renew() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, one := range b.open {
		before := one.limit
		one.limit = b.of(key)
		switch {
		case one.limit == before:
		case one.limit == 0 || b.shares == nil:
			b.endLocked(one)
			one.shared.Set(one.limit, one.limit)
			if one.users == 0 { // without a limit there is nothing to linger for
				b.forgetLocked(one)
			}
		case before == 0:
			b.beginLocked(one)
		default:
			b.rescaleLocked(one, before)
		}
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
