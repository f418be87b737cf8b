package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"maskrelay/proxy/account"
	"maskrelay/proxy/capacity"
	"maskrelay/upstream"
)

// SourceAddrs is a list of this host's own addresses, IPv4 as IPv4, none twice.
type SourceAddrs []netip.Addr

// UnmarshalText parses a comma-separated list. Whether the host has the addresses is for validation to find out.
func (l *SourceAddrs) UnmarshalText(text []byte) error {
	addrs, err := decode(text, parseSource)
	if err != nil {
		return err
	}
	var errs []error
	for i, a := range addrs {
		if slices.Contains(addrs[:i], a) {
			errs = append(errs, fmt.Errorf("%q is there twice", a))
		}
	}
	*l = addrs
	return errors.Join(errs...)
}

// String is the list as the variable takes it.
func (l SourceAddrs) String() string { return joinFunc(l, netip.Addr.String) }

func parseSource(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an address; write 203.0.113.7 or 2001:db8::7, without a port", s)
	}
	if a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q: zones are not supported", s)
	}
	a = a.Unmap()
	switch {
	case a.IsUnspecified():
		return netip.Addr{}, fmt.Errorf("%q means any address; leave the variable out for that", s)
	case a.IsMulticast():
		return netip.Addr{}, fmt.Errorf("%q is a multicast address", s)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("%q is the broadcast address", s)
	case a.Is6() && a.IsLinkLocalUnicast():
		return netip.Addr{}, fmt.Errorf("%q is link-local, which needs a zone; zones are not supported", s)
	}
	return a, nil
}

// family counts the addresses of IPv4, or of IPv6.
func (l SourceAddrs) family(v4 bool) int {
	n := 0
	for _, a := range l {
		if a.Is4() == v4 {
			n++
		}
	}
	return n
}

// validateSources binds a socket to every source address and closes it again: whether the kernel lets this process use an
// address (its own, or one of a prefix that is routed to the host) only the kernel knows.
func (c *Config) validateSources(p *problems) {
	for _, a := range c.Sources {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
		if err != nil {
			p.addf("SOURCE_ADDRS", "%q cannot be bound; is it an address of this host? %w", a, bottom(err))
			continue
		}
		_ = conn.Close()
	}
}

// bottom is the system's own words of a network error, which repeats addresses.
func bottom(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// checkSources finds gateways that no source address could reach.
func (c *Config) checkSources(name string, g upstream.Gateway, p *problems) {
	if len(c.Sources) == 0 || p.failed("SOURCE_ADDRS") {
		return
	}
	if g.Scheme == upstream.SchemeDirect {
		p.addf(name, "direct:// has no gateway for the connections of %sSOURCE_ADDRS; leave one out", envPrefix)
		return
	}
	ip, err := netip.ParseAddr(g.Host)
	if err == nil && c.Sources.family(ip.Unmap().Is4()) == 0 {
		p.addf("SOURCE_ADDRS", "none is of the family of gateway %s", g.Address())
	}
}

// Shape is what of the configuration decides how many tunnels a host carries.
func (c *Config) Shape() capacity.Shape {
	s := capacity.Shape{TLS: len(c.TLS.TLSListen) > 0}
	seen := map[string]bool{}
	for _, g := range c.Gateways {
		if g.Scheme == upstream.SchemeDirect || seen[g.Address()] {
			continue
		}
		seen[g.Address()] = true
		s.Gateways++
		s.Pairs += c.sourcesFor(g)
		s.TLS = s.TLS || g.Scheme == upstream.SchemeHTTPS
	}
	return s
}

// sourcesFor is how many source addresses can lead to a gateway; one, of the kernel's choice, where none is configured.
// Names are not resolved here: they count as IPv4, which vendors' names are, if there is a source of it.
func (c *Config) sourcesFor(g upstream.Gateway) int {
	if len(c.Sources) == 0 {
		return 1
	}
	v4, v6 := c.Sources.family(true), c.Sources.family(false)
	ip, err := netip.ParseAddr(g.Host)
	if v4 == 0 || err == nil && ip.Unmap().Is6() {
		return v6
	}
	return v4
}

// Bandwidth is bytes per second as sizes are written: 10MB, 500KB, 1.5MiB.
type Bandwidth int64

// UnmarshalText parses a size; see [account.ParseBandwidth].
func (b *Bandwidth) UnmarshalText(text []byte) error {
	n, err := account.ParseBandwidth(string(text))
	if err != nil {
		return fmt.Errorf("%q %w", text, err)
	}
	*b = Bandwidth(n)
	return nil
}

// String is the number of bytes per second, in the largest unit that it is a whole number of.
func (b Bandwidth) String() string { return account.FormatSize(int64(b)) }

// Quota is a number of bytes as sizes are written: 50GB, 1.5TiB.
type Quota int64

// UnmarshalText parses a size; see [account.ParseQuota].
func (q *Quota) UnmarshalText(text []byte) error {
	n, err := account.ParseQuota(string(text))
	if err != nil {
		return fmt.Errorf("%q %w", text, err)
	}
	*q = Quota(n)
	return nil
}

// String is the number of bytes, in the largest unit that it is a whole number of.
func (q Quota) String() string { return account.FormatSize(int64(q)) }

// warmConns is how many connections to gateways stand ready beside the tunnels, at the most.
func (c *Config) warmConns() uint64 {
	var n uint64
	for _, g := range c.Gateways {
		n += uint64(g.Warm)
	}
	return n
}
