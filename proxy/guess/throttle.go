package guess

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// period is what the allowances are for, and how long after his last failure a
	// guesser has all of his again.
	period = time.Minute
	// siteFactor is how many times a network's allowance an IPv6 /48 has: it is given to
	// one site, which has 65,536 networks.
	siteFactor = 8
	// maxAllowance keeps the cost of a failure well above a nanosecond.
	maxAllowance = 1_000_000
)

// Config says how many logins may fail.
type Config struct {
	// PerAddress is the failures of a client network in a minute, all at once or one
	// after the other; 0 or less = no bound. More than a million are a million; so with
	// PerName.
	PerAddress int
	// PerName is the failures of a name in a minute; 0 or less = no bound.
	PerName int
	// Now is the clock; nil is the system's.
	Now func() time.Time
}

// Throttle counts failed logins. It is a [prometheus.Collector] of how many attempts it
// sent away. Safe for concurrent use.
type Throttle struct {
	now  func() time.Duration // since the Throttle was made
	seed maphash.Seed
	// What a failure costs of a period, 0 = no bound.
	perAddress, perSite, perName time.Duration

	addresses, names failures
	known            pairs

	throttled         *prometheus.CounterVec
	byAddress, byName prometheus.Counter
}

// New returns a Throttle that has seen nobody.
func New(c Config) *Throttle {
	t := &Throttle{
		now:        clock(c.Now),
		seed:       maphash.MakeSeed(),
		perAddress: cost(c.PerAddress),
		perSite:    cost(min(c.PerAddress, maxAllowance) * siteFactor),
		perName:    cost(c.PerName),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "maskrelay_login_throttled_total",
			Help: "Logins refused unseen because too many had failed, by what those had in common.",
		}, []string{"by"}),
	}
	t.byAddress, t.byName = t.throttled.WithLabelValues("address"), t.throttled.WithLabelValues("name")
	if t.perAddress > 0 {
		t.addresses = newFailures()
	}
	if t.perName > 0 {
		t.names = newFailures()
	}
	if t.bounded() {
		t.known = newPairs()
	}
	return t
}

// clock makes a time since now of a time.
func clock(now func() time.Time) func() time.Duration {
	if now == nil {
		began := time.Now()
		return func() time.Duration { return time.Since(began) }
	}
	began := now()
	return func() time.Duration { return max(now().Sub(began), 0) }
}

// cost is what a failure costs of a period with the allowance.
func cost(allowance int) time.Duration {
	if allowance <= 0 {
		return 0
	}
	return period / time.Duration(min(allowance, maxAllowance))
}

// bounded reports whether anything is bounded.
func (t *Throttle) bounded() bool { return t.perAddress > 0 || t.perName > 0 }

// Check returns how long a login of name from client is to wait, and counts it as refused
// if that is above 0: its password should not be looked at before. 0 means to go on. It
// is at most a minute.
func (t *Throttle) Check(client netip.Addr, name string) time.Duration {
	if !t.bounded() {
		return 0
	}
	now := t.now()
	network, site := networks(client)
	hash := maphash.String(t.seed, name)
	if t.known.has(t.hash(network, hash), now) {
		return 0
	}
	wait := t.addresses.wait(t.hash(network, 0), t.perAddress, now)
	if site != 0 {
		wait = max(wait, t.addresses.wait(t.hash(site, 1), t.perSite, now))
	}
	by := t.byAddress
	if wait == 0 {
		by = t.byName
	}
	wait = max(wait, t.names.wait(hash, t.perName, now))
	if wait > 0 {
		by.Inc()
	}
	return wait
}

// Failed counts a login whose name or password was wrong.
func (t *Throttle) Failed(client netip.Addr, name string) {
	if !t.bounded() {
		return
	}
	now := t.now()
	network, site := networks(client)
	t.addresses.add(t.hash(network, 0), t.perAddress, now)
	if site != 0 {
		t.addresses.add(t.hash(site, 1), t.perSite, now)
	}
	t.names.add(maphash.String(t.seed, name), t.perName, now)
}

// Succeeded makes name known in client's network for an hour. It may be called for every
// request: if the name is known there already, it does not write.
func (t *Throttle) Succeeded(client netip.Addr, name string) {
	if !t.bounded() {
		return
	}
	network, _ := networks(client)
	t.known.add(t.hash(network, maphash.String(t.seed, name)), t.now())
}

// Describe implements prometheus.Collector.
func (t *Throttle) Describe(ch chan<- *prometheus.Desc) { t.throttled.Describe(ch) }

// Collect implements prometheus.Collector.
func (t *Throttle) Collect(ch chan<- prometheus.Metric) { t.throttled.Collect(ch) }

// hash is the keyed hash of a network and something else of it.
func (t *Throttle) hash(network, other uint64) uint64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], network)
	binary.LittleEndian.PutUint64(b[8:], other)
	return maphash.Bytes(t.seed, b[:])
}

// networks returns the numbers of a client's network and of its site, the latter 0 for
// IPv4. The IPv4 addresses have theirs among those of ::/8, which no client has.
func networks(client netip.Addr) (network, site uint64) {
	if client = client.Unmap(); client.Is4() {
		b := client.As4()
		return 0xffff<<32 | uint64(binary.BigEndian.Uint32(b[:])), 0
	}
	b := client.As16()
	network = binary.BigEndian.Uint64(b[:8])
	return network, network &^ 0xffff
}
