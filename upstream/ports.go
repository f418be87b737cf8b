package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// windowPorts is the size of a window of local ports. connect(2) looks through half
	// of its range before it tries ports of the other parity, which is slow once more
	// than half are taken; in a random small window that look is short.
	windowPorts = 256
	// maxWindows is how many windows are tried before the whole range.
	maxWindows = 3
	// laneRest is how long a lane is left alone after the kernel found no port in the
	// whole range: each such search costs it milliseconds.
	laneRest = time.Second
	// maxSources bounds Options.Sources.
	maxSources = 256
)

// errNoPorts says that no local port is left towards any address of a gateway.
var errNoPorts = errors.New("no local port left towards the gateway")

// errNoSource says that no source address can reach any address of a gateway.
var errNoSource = errors.New("no source address of the gateway's address family")

// localPorts counts the connections from each source address to each gateway
// address: the kernel can give each of its local ports once to such a pair. It
// knows of the pool's own connections only, not of other programs' nor of those
// in TIME_WAIT; where these take the last ports, connect fails and the pair rests.
type localPorts struct {
	sources   []netip.Addr // empty = the kernel chooses
	low, high int          // the kernel's range, both included; 0, 0 = not known
	capacity  int64        // ports in it that are not reserved; 0 = not known

	mu    sync.Mutex // guards lanes and lanePorts.users
	lanes map[laneKey]*lanePorts
}

type laneKey struct {
	source netip.Addr
	to     netip.AddrPort
}

// lanePorts are the local ports from one source address to one gateway address.
// Gateways that share an address share them.
type lanePorts struct {
	capacity  int64 // 0 = not known: no limit
	inUse     atomic.Int64
	restUntil atomic.Int64 // stamp; 0 = it never rested
	users     int          // gateways that have the address now
}

// lane is one gateway's address as it is reached from one source address. The nil lane
// counts nothing.
type lane struct {
	*lanePorts
	all    *localPorts
	source netip.Addr // invalid = any
	ep     *endpoint
}

func newLocalPorts(o Options) (*localPorts, error) {
	p := &localPorts{low: o.Ports[0], high: o.Ports[1], lanes: make(map[laneKey]*lanePorts)}
	if p.low != 0 || p.high != 0 {
		if p.low < 1 || p.high > 65535 || p.low > p.high {
			return nil, fmt.Errorf("upstream: %d to %d is no range of ports", p.low, p.high)
		}
		p.capacity = int64(p.high - p.low + 1 - o.PortsReserved)
		if o.PortsReserved < 0 || p.capacity < 1 {
			return nil, fmt.Errorf("upstream: %d reserved ports of the range %d to %d leave none", o.PortsReserved, p.low, p.high)
		}
	}
	if len(o.Sources) > maxSources {
		return nil, fmt.Errorf("upstream: more than %d source addresses", maxSources)
	}
	for _, source := range o.Sources {
		a := source.Unmap()
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "":
			return nil, fmt.Errorf("upstream: %q cannot be a source address", source)
		case slices.Contains(p.sources, a):
			return nil, fmt.Errorf("upstream: the source address %s stands there twice", a)
		}
		p.sources = append(p.sources, a)
	}
	return p, nil
}

// reaches reports whether connections to an address of a's family can be made.
func (p *localPorts) reaches(a netip.Addr) bool {
	return len(p.sources) == 0 || slices.ContainsFunc(p.sources, func(s netip.Addr) bool { return s.Is4() == a.Is4() })
}

// swap notes that a gateway's addresses changed from before to after, and gives the
// latter their lanes. Ports that nobody needs are forgotten.
func (p *localPorts) swap(before, after []*endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ep := range after {
		if ep.lanes == nil {
			ep.lanes = p.lanesLocked(ep)
		}
		for _, l := range ep.lanes {
			l.users++
		}
	}
	for _, ep := range before {
		for _, l := range ep.lanes {
			l.users--
		}
	}
	for key, l := range p.lanes {
		if l.users == 0 && l.inUse.Load() == 0 {
			delete(p.lanes, key)
		}
	}
}

func (p *localPorts) lanesLocked(ep *endpoint) []*lane {
	if len(p.sources) == 0 {
		return []*lane{p.laneLocked(ep, netip.Addr{})}
	}
	var lanes []*lane
	for _, source := range p.sources {
		if source.Is4() == ep.addr.Addr().Is4() {
			lanes = append(lanes, p.laneLocked(ep, source))
		}
	}
	return lanes
}

func (p *localPorts) laneLocked(ep *endpoint, source netip.Addr) *lane {
	key := laneKey{source, ep.addr}
	ports := p.lanes[key]
	if ports == nil {
		ports = &lanePorts{capacity: p.capacity}
		p.lanes[key] = ports
	}
	return &lane{lanePorts: ports, all: p, source: source, ep: ep}
}

// free is how many more connections the ports allow.
func (p *lanePorts) free() int64 { return max(p.capacity-p.inUse.Load(), 0) }

// short reports whether more than three quarters of the ports are in use.
func (p *lanePorts) short() bool { return p.capacity > 0 && 4*p.inUse.Load() > 3*p.capacity }

// open reports whether another connection may be tried.
func (p *lanePorts) open(now time.Time) bool {
	if p.capacity > 0 && p.inUse.Load() >= p.capacity {
		return false
	}
	until := p.restUntil.Load()
	return until == 0 || until <= stampOf(now)
}

// take counts one more connection unless the ports are used up.
func (l *lane) take() bool {
	if n := l.inUse.Add(1); l.capacity > 0 && n > l.capacity {
		l.inUse.Add(-1)
		return false
	}
	l.ep.conns.Add(1)
	return true
}

func (l *lane) release() {
	if l != nil {
		l.inUse.Add(-1)
		l.ep.conns.Add(-1)
	}
}

// rest keeps the ports from being tried for a moment.
func (p *lanePorts) rest(now time.Time) { p.restUntil.Store(stampOf(now.Add(laneRest))) }

// window chooses the local ports for the next try after so many that found none:
// random windows while more than a quarter of the range is in use, then all of it.
func (l *lane) window(tries uint8) [2]uint16 {
	p := l.all
	size := p.high - p.low + 1
	if !portWindows || l.capacity == 0 || size < 2*windowPorts || tries >= maxWindows || 4*l.inUse.Load() <= l.capacity {
		return [2]uint16{}
	}
	low := p.low + rand.IntN(size-windowPorts+1)
	return [2]uint16{uint16(low), uint16(low + windowPorts - 1)}
}

// lacksPort reports whether a connect failed for want of a local port. A source
// address that this host no longer has looks the same.
func lacksPort(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)
}

// lacksMeans reports whether a connect failed because this host is short of descriptors,
// memory or watches.
func lacksMeans(err error) bool {
	for _, errno := range [...]syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ENOSPC} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
