package upstream

import (
	"crypto/x509"

	"maskrelay/upstream/vendor"
)

// At is g as if its vendor were reached by another scheme at another place, whose TLS
// roots verify (nil = the system's): the logins stay. It keeps nothing ready and has no limit of connections.
func (g Gateway) At(scheme, host, port string, roots *x509.CertPool) Gateway {
	g.Scheme, g.Host, g.Port, g.roots = scheme, host, port, roots
	g.Warm, g.MaxConns, g.Weight = 0, 0, 1
	return g
}

// Login is what the vendor is sent for an account's wishes; both are secrets. The fault is
// what of the wishes the vendor cannot do. Without credentials both are empty.
func (g Gateway) Login(account string, p vendor.Params) (username, password string, fault *vendor.Fault) {
	if p.IsZero() && (g.logins == nil || !g.HasCredentials()) {
		return "", "", nil
	}
	if fault := (&gateway{Gateway: g}).fault(p); fault != nil && !p.IsZero() {
		return "", "", fault
	}
	username, password = g.logins.Make(account, p)
	return username, password, nil
}

// SessionPorts reports whether the vendor keeps sessions by the gateway's port.
func (g Gateway) SessionPorts() bool { return g.Vendor != nil && g.Vendor.Spec().SessionPorts != nil }
