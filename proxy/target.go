package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Target is where a customer wants to go. Host is a name or an address literal
// without brackets, as the customer spelled it.
type Target struct {
	Host string
	Port uint16
}

// String is host:port, with brackets where they belong.
func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

var errTarget = errors.New("proxy: malformed target")

// ParseTarget reads the authority-form of RFC 9112 §3.2.3, host ":" port, and
// nothing else: no user information, no path, no zone, no default port, no control
// bytes, the port without leading zeros. A host that ends in a number is an IPv4
// address in one of inet_aton's spellings or malformed (as WHATWG URL says), so
// that nobody further on reads an address where this function read a name.
func ParseTarget(authority string) (Target, error) {
	var host, port string
	if strings.HasPrefix(authority, "[") {
		end := strings.IndexByte(authority, ']')
		if end < 0 || end+1 >= len(authority) || authority[end+1] != ':' {
			return Target{}, errTarget
		}
		host, port = authority[1:end], authority[end+2:]
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is6() || addr.Zone() != "" {
			return Target{}, errTarget
		}
	} else {
		var ok bool
		if host, port, ok = strings.Cut(authority, ":"); !ok || !validName(host) {
			return Target{}, errTarget
		}
		if endsInNumber(host) {
			if _, ok := parseIPv4(host); !ok {
				return Target{}, errTarget
			}
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
		return Target{}, errTarget
	}
	return Target{Host: host, Port: uint16(n)}, nil
}

// validName takes letters, digits, '-', '_' and dots between labels of 1 to 63
// bytes; one dot at the end is allowed. International names come as punycode.
func validName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return true
}

func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if len(last) >= 2 && (last[:2] == "0x" || last[:2] == "0X") {
		return strings.Trim(last[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// parseIPv4 reads what inet_aton reads: one to four parts, each decimal, octal
// (leading 0) or hexadecimal (0x), the last one filling the bytes that are left.
func parseIPv4(host string) (netip.Addr, bool) {
	host = strings.TrimSuffix(host, ".")
	last := strings.Count(host, ".")
	if last > 3 {
		return netip.Addr{}, false
	}
	var value uint64
	for i := range last + 1 {
		part, rest, _ := strings.Cut(host, ".")
		host = rest
		n, ok := parsePart(part)
		if !ok {
			return netip.Addr{}, false
		}
		if i < last {
			if n > 255 {
				return netip.Addr{}, false
			}
			value |= n << (8 * (3 - i))
			continue
		}
		if n >= 1<<(8*(4-last)) {
			return netip.Addr{}, false
		}
		value |= n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

func parsePart(s string) (uint64, bool) {
	base := 10
	switch {
	case len(s) > 1 && (s[:2] == "0x" || s[:2] == "0X"):
		s, base = s[2:], 16
		if s == "" {
			return 0, true // WHATWG: "0x" is 0
		}
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	}
	if s == "" || s[0] == '+' || s[0] == '-' || strings.ContainsRune(s, '_') {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 33)
	return n, err == nil
}

// TargetsConfig says which targets customers may reach.
type TargetsConfig struct {
	Ports        []uint16 // nil = all
	DenyHosts    []string // names and "*.suffix" (which is not the suffix itself), any case
	AllowPrivate bool     // loopback, private, link-local, metadata… too
}

// Targets decides which targets customers may reach. Immutable. It never resolves
// names: behind a gateway that would be the wrong place and a leak.
type Targets struct {
	ports    []uint16
	hosts    map[string]bool
	suffixes []string // ".example.com"
	private  bool
}

// NewTargets validates c.
func NewTargets(c TargetsConfig) (*Targets, error) {
	t := &Targets{ports: slices.Clone(c.Ports), hosts: make(map[string]bool), private: c.AllowPrivate}
	slices.Sort(t.ports)
	var errs []error
	for _, h := range c.DenyHosts {
		name := strings.ToLower(strings.TrimSuffix(h, "."))
		suffix, wild := strings.CutPrefix(name, "*.")
		if addr, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil && !wild {
			t.hosts[addr.Unmap().String()] = true
			continue
		}
		switch {
		case !validName(suffix):
			errs = append(errs, fmt.Errorf("%q is neither a host name nor *.suffix", h))
		case wild:
			t.suffixes = append(t.suffixes, "."+suffix)
		default:
			t.hosts[name] = true
		}
	}
	return t, errors.Join(errs...)
}

// Allow reports whether customers may reach target.
func (t *Targets) Allow(target Target) bool {
	if t.ports != nil {
		if _, ok := slices.BinarySearch(t.ports, target.Port); !ok {
			return false
		}
	}
	name := strings.ToLower(strings.TrimSuffix(target.Host, "."))
	var addr netip.Addr
	literal := false
	if endsInNumber(name) {
		addr, literal = parseIPv4(name)
	}
	if !literal && strings.IndexByte(name, ':') >= 0 {
		if a, err := netip.ParseAddr(name); err == nil {
			addr, literal = a, true
		}
	}
	if literal {
		denied := len(t.hosts) > 0 && (t.hosts[addr.Unmap().String()] || t.hosts[name])
		return !denied && t.CheckAddr(addr) == nil
	}
	if t.hosts[name] || slices.ContainsFunc(t.suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
		return false
	}
	return t.private || !privateName(name)
}

// privateName reports whether name is the machine's or its cloud's own by convention.
func privateName(name string) bool {
	switch name {
	case "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback",
		"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal":
		return true
	}
	return strings.HasSuffix(name, ".localhost")
}

var errPrivate = errors.New("proxy: the address is not public")

// CheckAddr refuses addresses that are not public, unless they are allowed. Forms
// of IPv6 that carry an IPv4 address are judged by that too.
func (t *Targets) CheckAddr(addr netip.Addr) error {
	if t.private || public(addr) {
		return nil
	}
	return errPrivate
}

var (
	private4 = mustPrefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
		"168.63.129.16/32", // Azure's host
	)
	private6 = mustPrefixes(
		"::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "100::/64", "64:ff9b:1::/48",
	)
	mapped6 = mustPrefixes("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96") // IPv4 in the last four bytes
	sixTo4  = netip.MustParsePrefix("2002::/16")                                        // IPv4 in bytes 2 to 5
	teredo  = netip.MustParsePrefix("2001::/32")                                        // server in bytes 4 to 7, client inverted in the last four
)

func mustPrefixes(ss ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

func public(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	if addr.Is4() {
		return !within(private4, addr)
	}
	if within(private6, addr) {
		return false
	}
	b := addr.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case within(mapped6, addr):
		return public(at(12))
	case sixTo4.Contains(addr):
		return public(at(2))
	case teredo.Contains(addr):
		client := netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
		return public(at(4)) && public(client)
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214 §6.1
		return public(at(12))
	}
	return true
}
