package upstream

import (
	"slices"
	"sync"
	"time"
)

const (
	// plainIdle is how long a connection to a gateway waits for the next plain
	// request; shorter than gateways keep theirs, so that requests rarely meet a
	// connection that is just being closed.
	plainIdle       = 10 * time.Second
	plainIdlePerKey = 8
	plainIdleTotal  = 1024
	// A busy key keeps more than its eight, so that connections are not closed and
	// dialled again between the requests of one burst; what it has not used for
	// plainSurplus goes. A customer whose sessions or targets have keys of their own
	// keeps no more than one with a single key.
	plainIdleBurst = 256
	plainSurplus   = time.Second
	plainSweep     = time.Second
)

// idleKey says whose connection it is. Nobody else gets it.
type idleKey struct {
	gateway    *gateway
	key, login string
	port       uint16 // 0 = the gateway's own
	target     string // host:port at the end of a SOCKS5 tunnel; empty if the gateway itself is spoken to
}

// Files lends file descriptors to what can do without them.
type Files interface {
	// TryTake borrows one and reports whether there was one.
	TryTake() bool
	// Put gives one back.
	Put()
	// Short reports that what lies idle should be given back.
	Short() bool
}

// idlePool holds the idle connections. The zero value is empty. It runs a goroutine
// only while it is not.
type idlePool struct {
	files Files // of which each holds one; nil = there are always enough

	mu             sync.Mutex // guards what follows, and the plainConns' list fields
	byKey          map[idleKey][]*plainConn
	owners         map[string]int // connections by idleKey.key
	oldest, newest *plainConn
	total          int
	closed         bool
	stop           chan struct{} // ends the sweep under way
	sweeping       bool
	sweeper        sync.WaitGroup
}

// take returns the connection of key that was used last and is still good, nil if
// there is none. Those that are not good are closed.
func (p *idlePool) take(key idleKey) *plainConn {
	for {
		p.mu.Lock()
		list := p.byKey[key]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := list[len(list)-1]
		p.removeLocked(c)
		p.mu.Unlock()
		if time.Since(c.since) < plainIdle && c.usable() {
			return c
		}
		_ = c.Close()
	}
}

// put keeps c for the next request of its key, or closes it.
func (p *idlePool) put(c *plainConn) {
	surplus, kept := p.add(c)
	if !kept {
		surplus = c
	}
	if surplus != nil {
		_ = surplus.Close()
	}
}

// add reports whether the pool takes c; surplus made room for it, if not nil.
func (p *idlePool) add(c *plainConn) (surplus *plainConn, kept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.byKey[c.key]
	if p.closed || c.socket == nil || len(list) >= plainIdleBurst || p.files != nil && !p.files.TryTake() {
		return nil, false
	}
	if p.byKey == nil {
		p.byKey, p.owners = make(map[idleKey][]*plainConn), make(map[string]int)
	}
	if surplus = p.surplusLocked(c.key.key); surplus != nil {
		p.removeLocked(surplus)
		list = p.byKey[c.key]
	}
	c.since = time.Now()
	p.byKey[c.key] = append(list, c)
	c.older, c.newer = p.newest, nil
	if p.newest != nil {
		p.newest.newer = c
	} else {
		p.oldest = c
	}
	p.newest = c
	p.total++
	p.owners[c.key.key]++
	c.key.gateway.idle.Add(1)
	if !p.sweeping {
		p.sweeping = true
		p.stop = make(chan struct{})
		p.sweeper.Go(p.sweep)
	}
	return surplus, true
}

// surplusLocked is what makes room for another one of a customer: the oldest of his own if
// he has many, or else of all; nil = there is room.
func (p *idlePool) surplusLocked(key string) *plainConn {
	switch {
	case p.owners[key] >= plainIdleBurst:
		c := p.oldest
		for c.key.key != key {
			c = c.newer
		}
		return c
	case p.total >= plainIdleTotal:
		return p.oldest
	default:
		return nil
	}
}

// removeLocked takes c out. A list is in the order in which its connections became
// idle, and it is mostly the last that goes.
func (p *idlePool) removeLocked(c *plainConn) {
	list := p.byKey[c.key]
	i := len(list) - 1
	if list[i] != c {
		i = slices.Index(list, c)
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(p.byKey, c.key)
	} else {
		p.byKey[c.key] = list
	}
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.newer = nil, nil
	p.total--
	if p.owners[c.key.key]--; p.owners[c.key.key] == 0 {
		delete(p.owners, c.key.key)
	}
	c.key.gateway.idle.Add(-1)
	if p.files != nil {
		p.files.Put()
	}
}

// sweep closes what has waited too long, until the pool is empty.
func (p *idlePool) sweep() {
	tick := time.NewTicker(plainSweep)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			old, empty := p.expired(now)
			closeAll(old)
			if empty {
				return
			}
		}
	}
}

// expired takes out what has waited too long. empty reports that the sweep ends.
func (p *idlePool) expired(now time.Time) (old []*plainConn, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	short := p.files != nil && p.files.Short()
	for c := p.oldest; c != nil; {
		newer, age := c.newer, now.Sub(c.since)
		if age < plainSurplus {
			break // the rest is younger
		}
		if short || age >= plainIdle || len(p.byKey[c.key]) > plainIdlePerKey {
			p.removeLocked(c)
			old = append(old, c)
		}
		c = newer
	}
	p.sweeping = p.total > 0
	return old, !p.sweeping
}

// evict closes all of a gateway's idle connections.
func (p *idlePool) evict(g *gateway) {
	p.mu.Lock()
	var out []*plainConn
	for c := p.oldest; c != nil; {
		newer := c.newer
		if c.key.gateway == g {
			p.removeLocked(c)
			out = append(out, c)
		}
		c = newer
	}
	p.mu.Unlock()
	closeAll(out)
}

// close closes all connections, and those that come later, and waits for the sweep.
func (p *idlePool) close() {
	p.mu.Lock()
	var out []*plainConn
	for p.oldest != nil {
		out = append(out, p.oldest)
		p.removeLocked(p.oldest)
	}
	if p.sweeping && !p.closed {
		close(p.stop)
	}
	p.closed = true
	p.mu.Unlock()
	closeAll(out)
	p.sweeper.Wait()
}

func closeAll(conns []*plainConn) {
	for _, c := range conns {
		_ = c.Close()
	}
}
