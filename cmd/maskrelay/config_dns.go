package main

import (
	"fmt"
	"net/netip"
)

// dnsPort is a name server's port unless another is given.
const dnsPort = 53

// NameServer is the name server that gateways' names are looked up at; the zero value is the system's.
type NameServer struct{ netip.AddrPort }

// UnmarshalText parses an address with or without a port. A name cannot stand here: who would resolve it?
func (s *NameServer) UnmarshalText(text []byte) error {
	*s = NameServer{}
	if len(text) == 0 {
		return nil
	}
	at, err := netip.ParseAddrPort(string(text))
	if a, plain := netip.ParseAddr(string(text)); plain == nil {
		at, err = netip.AddrPortFrom(a, dnsPort), nil
	}
	if err != nil || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return fmt.Errorf("%q is not a name server's address; write 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53", text)
	}
	s.AddrPort = at
	return nil
}

// String is the server as the variable takes it, empty for the system's.
func (s NameServer) String() string {
	if !s.IsValid() {
		return ""
	}
	return s.AddrPort.String()
}

// MarshalText is String.
func (s NameServer) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
