package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// PublicAddr is the address that customers use, which may be a balancer's: host or host:port, an IPv6 address in brackets
// if there is a port. It is "" for none.
type PublicAddr string

// UnmarshalText parses an address.
func (a *PublicAddr) UnmarshalText(text []byte) error {
	if _, _, err := splitPublic(string(text)); err != nil {
		return err
	}
	*a = PublicAddr(text)
	return nil
}

// splitPublic returns the host, without brackets, and the port of a public address, "" if it has none. What looks like a
// URL or a login is not quoted in the error.
func splitPublic(s string) (host, port string, err error) {
	const write = "write proxy.example.com or proxy.example.com:8080"
	if strings.ContainsAny(s, "/@") { // whatever it is, it may be secret
		return "", "", fmt.Errorf("has a scheme, a login or a path; %s", write)
	}
	host = s
	if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") && !bracketed(s) {
		if host, port, err = net.SplitHostPort(s); err != nil {
			return "", "", fmt.Errorf("%q is not a host with a port; %s", s, write)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "", fmt.Errorf("%q: the port is not between 1 and 65535", s)
		}
	}
	if bracketed(host) {
		host = host[1 : len(host)-1]
	}
	if !publicHost(host) || s[0] == '[' && !strings.Contains(host, ":") {
		return "", "", fmt.Errorf("%q: the host is neither a name nor an address that customers could use; %s", s, write)
	}
	return host, port, nil
}

func bracketed(s string) bool { return strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") }

// publicHost reports whether customers could use host: an address other than the unspecified one, or a name.
func publicHost(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.IsUnspecified() && ip.Zone() == ""
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > 253 || strings.Trim(name, "0123456789.") == "" { // digits only: an address with a mistake in it
		return false
	}
	for label := range strings.SplitSeq(strings.ToLower(name), ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}
