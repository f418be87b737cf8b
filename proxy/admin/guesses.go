package admin

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxGuesses is how many wrong tokens an address may send in a guessPeriod before it is
	// sent away unseen for the rest of it.
	maxGuesses  = 10
	guessPeriod = time.Minute
	// maxGuessers bounds the addresses that are remembered.
	maxGuessers = 4096
)

// guesses counts wrong tokens by the client's address, by the /64 of one of IPv6. Loopback is
// never counted: whoever is on this host, or reaches it through a tunnel, is not locked out
// by others who do. Safe for concurrent use.
type guesses struct {
	now func() time.Time

	mu sync.Mutex // guards by
	by map[netip.Prefix]guesser
}

type guesser struct {
	wrong int
	until time.Time // when it is forgotten
}

func newGuesses() *guesses {
	return &guesses{now: time.Now, by: map[netip.Prefix]guesser{}}
}

// network is what shares one count with the address.
func network(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: these share one, too
	}
	return p
}

// tooMany reports whether the address has used its guesses up.
func (g *guesses) tooMany(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.by[network(addr)]
	return one.wrong >= maxGuesses && g.now().Before(one.until)
}

// wrong counts a wrong token. Where there is no room for another address the one whose count
// ends first is forgotten: it has had the least of its time left.
func (g *guesses) wrong(addr netip.Addr) {
	if addr.IsLoopback() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now, from := g.now(), network(addr)
	one, known := g.by[from]
	if !known && len(g.by) >= maxGuessers {
		g.makeRoomLocked(now)
	}
	if !now.Before(one.until) {
		one = guesser{until: now.Add(guessPeriod)}
	}
	one.wrong++
	g.by[from] = one
}

// makeRoomLocked forgets those whose time is over, or the one whose time is over first.
func (g *guesses) makeRoomLocked(now time.Time) {
	var first netip.Prefix
	var until time.Time
	for from, one := range g.by {
		if !now.Before(one.until) {
			delete(g.by, from)
			continue
		}
		if until.IsZero() || one.until.Before(until) {
			first, until = from, one.until
		}
	}
	if len(g.by) >= maxGuessers {
		delete(g.by, first)
	}
}
