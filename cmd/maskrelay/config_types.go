package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"maskrelay/upstream"
)

// maxList bounds the elements of one list variable.
const maxList = 1000

// Secret is text that shows nowhere: every way of printing it writes three stars. Its zero value is "no secret".
type Secret string

const redacted = "***"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String is "***", or "" for no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// elements splits a list at commas, trims every element and refuses empty ones.
func elements(text []byte) ([]string, error) {
	parts := strings.Split(string(text), ",")
	if len(parts) > maxList {
		return nil, fmt.Errorf("%d elements are more than %d", len(parts), maxList)
	}
	for i, p := range parts {
		if parts[i] = strings.TrimSpace(p); parts[i] == "" {
			return nil, fmt.Errorf("element %d of the list is empty", i+1)
		}
	}
	return parts, nil
}

// decode parses every element of a list and joins the errors of all.
func decode[T any](text []byte, parse func(string) (T, error)) ([]T, error) {
	parts, err := elements(text)
	if err != nil {
		return nil, err
	}
	var out []T
	var errs []error
	for _, p := range parts {
		v, err := parse(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, v)
	}
	return out, errors.Join(errs...)
}

// Address is a listening address, host:port with a numeric port; an empty host is every address of the machine.
type Address string

// UnmarshalText parses an address. Port 0 lets the kernel choose.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = parseAddress(string(text))
	return err
}

func parseAddress(s string) (Address, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not an address; write :8080 or 127.0.0.1:8080", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q: the port is not between 0 and 65535", s)
	}
	if strings.ContainsAny(host, " /*") {
		return "", fmt.Errorf("%q: the host is neither a name nor an address", s)
	}
	return Address(s), nil
}

func (a Address) split() (host, port string) {
	host, port, _ = net.SplitHostPort(string(a))
	return host, port
}

// loopback reports whether only this machine can reach the address.
func (a Address) loopback() bool {
	host, _ := a.split()
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return host == "localhost"
}

// fromHere is where this machine reaches what listens on the address: on loopback, if that is on all addresses.
func (a Address) fromHere() string {
	host, port := a.split()
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// conflicts reports whether the kernel could not listen on both: the same port, and the same host
// or one of the two on all addresses of that family.
func (a Address) conflicts(b Address) bool {
	hostA, portA := a.split()
	hostB, portB := b.split()
	if portA != portB || portA == "0" {
		return false
	}
	return strings.EqualFold(hostA, hostB) || covers(hostA, hostB) || covers(hostB, hostA)
}

// covers reports whether a is a wildcard host that includes b. An empty host and [::] listen on both families.
func covers(a, b string) bool {
	if a == "" || a == "::" {
		return true
	}
	ip, err := netip.ParseAddr(b)
	return a == "0.0.0.0" && (err != nil || ip.Is4())
}

// Listener is an address for customers, and the pool of gateways that serves those who come there.
type Listener struct {
	Address
	Pool string // "" = the default
}

// String is the listener as the variable takes it.
func (l Listener) String() string {
	if l.Pool == "" {
		return string(l.Address)
	}
	return string(l.Address) + "@" + l.Pool
}

func parseListener(s string) (Listener, error) {
	address, pool, bound := strings.Cut(s, "@")
	if bound {
		if err := upstream.CheckPool(pool); err != nil {
			return Listener{}, fmt.Errorf("%q: %w", s, err)
		}
	}
	a, err := parseAddress(address)
	return Listener{a, pool}, err
}

// Listeners is a list of addresses for customers.
type Listeners []Listener

// UnmarshalText parses a comma-separated list of ADDR and ADDR@POOL.
func (l *Listeners) UnmarshalText(text []byte) (err error) {
	*l, err = decode(text, parseListener)
	return err
}

// String is the list as the variable takes it.
func (l Listeners) String() string { return joinFunc(l, Listener.String) }

// HostPort is a name or an address with its port.
type HostPort string

// UnmarshalText parses host:port.
func (h *HostPort) UnmarshalText(text []byte) error {
	host, port, err := net.SplitHostPort(string(text))
	if err != nil || host == "" || strings.ContainsAny(string(text), " /@?#") {
		return fmt.Errorf("%q is not host:port; write target.example:443", text)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q: the port is not between 1 and 65535", text)
	}
	*h = HostPort(text)
	return nil
}

// Prefixes is a list of networks, masked and with IPv4 as IPv4.
type Prefixes []netip.Prefix

// UnmarshalText parses a comma-separated list of CIDRs; a plain address is a network of one.
func (l *Prefixes) UnmarshalText(text []byte) (err error) {
	*l, err = decode(text, parsePrefix)
	return err
}

// String is the list as the variable takes it.
func (l Prefixes) String() string {
	return joinFunc(l, netip.Prefix.String)
}

func parsePrefix(s string) (netip.Prefix, error) {
	bad := fmt.Errorf("%q is not a network; write 203.0.113.0/24 or 2001:db8::/32", s)
	if !strings.Contains(s, "/") {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, bad
		}
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, bad
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// Ports is a set of target ports. The zero value holds none.
type Ports struct {
	All  bool     // every port
	List []uint16 // ascending, each once; empty with All
}

// UnmarshalText parses "*" or a comma-separated list.
func (p *Ports) UnmarshalText(text []byte) error {
	if strings.TrimSpace(string(text)) == "*" {
		*p = Ports{All: true}
		return nil
	}
	list, err := decode(text, parsePort)
	if err != nil {
		return err
	}
	slices.Sort(list)
	*p = Ports{List: slices.Compact(list)}
	return nil
}

// String is the set as the variable takes it.
func (p Ports) String() string {
	if p.All {
		return "*"
	}
	return joinFunc(p.List, func(n uint16) string { return strconv.Itoa(int(n)) })
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port between 1 and 65535; write 80,443 or * alone", s)
	}
	return uint16(n), nil
}

// HostPatterns is a list of lower-case names, addresses and "*.suffix" patterns, without a final dot.
type HostPatterns []string

// UnmarshalText parses a comma-separated list.
func (l *HostPatterns) UnmarshalText(text []byte) (err error) {
	*l, err = decode(text, parseHostPattern)
	return err
}

// String is the list as the variable takes it.
func (l HostPatterns) String() string { return strings.Join(l, ",") }

func parseHostPattern(s string) (string, error) {
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), nil
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	labels := strings.Split(strings.TrimPrefix(name, "*."), ".")
	if len(name) > 253 || slices.ContainsFunc(labels, func(l string) bool { return !validLabel(l) }) {
		return "", fmt.Errorf("%q is not a name; write example.com, *.example.com or an address (xn-- for letters beyond ASCII)", s)
	}
	return name, nil
}

func validLabel(l string) bool {
	if l == "" || len(l) > 63 {
		return false
	}
	return !strings.ContainsFunc(l, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
}

// Strings is a list of words whose meaning another package checks.
type Strings []string

// UnmarshalText parses a comma-separated list.
func (l *Strings) UnmarshalText(text []byte) (err error) {
	*l, err = elements(text)
	return err
}

// String is the list as the variable takes it.
func (l Strings) String() string { return strings.Join(l, ",") }

func join[T ~string](l []T) string {
	return joinFunc(l, func(s T) string { return string(s) })
}

func joinFunc[T any](l []T, text func(T) string) string {
	parts := make([]string, len(l))
	for i, v := range l {
		parts[i] = text(v)
	}
	return strings.Join(parts, ",")
}
