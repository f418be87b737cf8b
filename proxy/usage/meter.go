package usage

import (
	"sync"
)

const (
	// MaxNames is how many accounts a Meter counts apart.
	MaxNames = 200_000
	// MaxName is the longest name, in bytes, that is counted apart.
	MaxName = 256
	// otherName is what the rest is booked under.
	otherName = "other"
)

// Meter holds the Counters of all accounts. Safe for concurrent use.
type Meter struct {
	counters sync.Map // name → *Counter; nothing is ever removed
	other    Counter  // of all that came after MaxNames, and of an account of that name

	mu    sync.Mutex // guards names, fresh, and every addition to counters
	names int
	max   int
	fresh []*Counter    // not yet taken by Books
	wake  chan struct{} // holds a token while fresh is not empty
}

// NewMeter returns an empty Meter.
func NewMeter() *Meter {
	m := &Meter{max: MaxNames, wake: make(chan struct{}, 1)}
	m.other.name = otherName
	return m
}

// Of returns the account's Counter, made at the first call, which also has the account's
// booked totals looked up at once. It is meant to be called for each connection, when the account
// is known to be real. Beyond [MaxNames] names, and for a name that is empty or longer than [MaxName], it is one
// Counter that those names share; it is booked as "other" and no quota ends it.
func (m *Meter) Of(name string) *Counter {
	if v, ok := m.counters.Load(name); ok {
		c := v.(*Counter)
		if !c.asked.Load() {
			c.asked.Store(true)
		}
		return c
	}
	return m.add(name)
}

func (m *Meter) add(name string) *Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.counters.Load(name); ok {
		return v.(*Counter)
	}
	c := &m.other
	if name != otherName {
		if m.names >= m.max || len(name) > MaxName || name == "" {
			return m.overflowLocked()
		}
		c = &Counter{name: name}
		m.names++
	}
	m.putLocked(name, c)
	return c
}

// overflowLocked returns the shared counter and sees to it that Books knows it.
func (m *Meter) overflowLocked() *Counter {
	if _, ok := m.counters.Load(otherName); !ok {
		m.putLocked(otherName, &m.other)
	}
	return &m.other
}

func (m *Meter) putLocked(name string, c *Counter) {
	c.asked.Store(true)
	m.counters.Store(name, c)
	m.fresh = append(m.fresh, c)
	select {
	case m.wake <- struct{}{}:
	default: // one is waiting already
	}
}

// Find returns the account's Counter if there is one; nil if it was never asked for.
func (m *Meter) Find(name string) *Counter {
	if v, ok := m.counters.Load(name); ok {
		return v.(*Counter)
	}
	return nil
}

// Range calls f for each account, in no order, until f returns false. An account that is added
// meanwhile may be left out.
func (m *Meter) Range(f func(name string, c *Counter) bool) {
	m.counters.Range(func(k, v any) bool { return f(k.(string), v.(*Counter)) })
}

// takeFresh returns the counters made since the last call.
func (m *Meter) takeFresh() []*Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	fresh := m.fresh
	m.fresh = nil
	return fresh
}

// shared reports whether c stands for more than one account, so that no quota can be laid to it.
func (m *Meter) shared(c *Counter) bool {
	if c != &m.other {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names >= m.max
}
