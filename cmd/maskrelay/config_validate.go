package main

import (
	"crypto/tls"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	maxTimeout    = 24 * time.Hour
	minSessionKey = 16              // bytes
	maxQueue      = 5 * time.Minute // no customer waits longer
	maxConnRate   = 1e6             // beyond any machine; also refuses infinity
)

func (c *Config) validateNumbers(p *problems) {
	notNegative(p, "MAX_CONNS", c.MaxConns)
	notNegative(p, "USER_MAX_CONNS", c.User.UserMaxConns)
	notNegative(p, "USER_CONN_BURST", c.User.UserConnBurst)
	notNegative(p, "USER_MAX_IPS", c.User.UserMaxIPs)
	notNegative(p, "LOGIN_FAILURES_PER_ADDRESS", c.Guess.PerAddress)
	notNegative(p, "LOGIN_FAILURES_PER_NAME", c.Guess.PerName)
	if r := c.User.UserConnRate; math.IsNaN(r) || r < 0 || r > maxConnRate {
		p.addf("USER_CONN_RATE", "%v is not between 0 and %v", r, int(maxConnRate))
	}
	if c.User.UserConnBurst > 0 && c.User.UserConnRate == 0 && !p.failed("USER_CONN_RATE") {
		p.addf("USER_CONN_BURST", "a burst needs %sUSER_CONN_RATE", envPrefix)
	}
	positive(p, "HEADER_TIMEOUT", c.Timeouts.Header, maxTimeout)
	positive(p, "DIAL_TIMEOUT", c.Timeouts.Dial, maxTimeout)
	positive(p, "CONNECT_TIMEOUT", c.Timeouts.Connect, maxTimeout)
	positive(p, "IDLE_TIMEOUT", c.Timeouts.Idle, maxTimeout)
	positive(p, "MAX_IPS_WINDOW", c.User.MaxIPsWindow, maxTimeout)
	bounded(p, "QUEUE_TIMEOUT", c.QueueTimeout, maxQueue)
	if c.Drain.Grace < 0 {
		p.addf("DRAIN_GRACE", "%s is below 0", shortDuration(c.Drain.Grace))
	}
	if c.Drain.Timeout < 0 {
		p.addf("DRAIN_TIMEOUT", "%s is below 0", shortDuration(c.Drain.Timeout))
	}
}

func notNegative(p *problems, name string, n int) {
	if n < 0 {
		p.addf(name, "\"%d\" is not a whole number from 0 to 2147483647", n)
	}
}

// positive refuses a time of 0 or less, and one above limit.
func positive(p *problems, name string, d, limit time.Duration) {
	if !p.failed(name) && (d <= 0 || d > limit) {
		p.addf(name, "%s is not above 0 and at most %s", shortDuration(d), shortDuration(limit))
	}
}

// bounded refuses a time below 0, and one above limit.
func bounded(p *problems, name string, d, limit time.Duration) {
	if !p.failed(name) && (d < 0 || d > limit) {
		p.addf(name, "%s is not between 0s and %s", shortDuration(d), shortDuration(limit))
	}
}

// validateListeners finds addresses that could not be listened on together.
func (c *Config) validateListeners(p *problems) {
	type use struct {
		name string
		addr Address
	}
	var uses []use
	claim := func(name string, addrs ...Address) {
		for _, a := range addrs {
			for _, u := range uses {
				if a.conflicts(u.addr) {
					p.addf(name, "%s is taken by %s in %s%s", a, u.addr, envPrefix, u.name)
					break
				}
			}
			uses = append(uses, use{name, a})
		}
	}
	for _, l := range c.Listen {
		claim("LISTEN", l.Address)
	}
	for _, l := range c.TLS.TLSListen {
		claim("TLS_LISTEN", l.Address)
	}
	if c.Admin.AdminListen != "" {
		claim("ADMIN_LISTEN", c.Admin.AdminListen)
	}
	if len(c.Listen) == 0 && len(c.TLS.TLSListen) == 0 && !p.failed("LISTEN", "TLS_LISTEN") {
		p.addf("LISTEN", "empty, and so is %sTLS_LISTEN; the relay needs an address", envPrefix)
	}
}

// validateTLS reads the certificate as the listener will, so that a wrong one is found before the start.
func (c *Config) validateTLS(p *problems) {
	t := c.TLS
	for _, f := range []struct{ name, path string }{{"TLS_CERT_FILE", t.CertFile}, {"TLS_KEY_FILE", t.KeyFile}} {
		switch {
		case p.failed("TLS_LISTEN"):
		case len(t.TLSListen) > 0 && f.path == "":
			p.addf(f.name, "%sTLS_LISTEN needs it", envPrefix)
		case len(t.TLSListen) == 0 && f.path != "":
			p.addf(f.name, "set without %sTLS_LISTEN", envPrefix)
		}
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return
	}
	readPair("TLS_", t.CertFile, t.KeyFile, p)
}

// readPair reads a certificate and its key, of the variables CERT_FILE and KEY_FILE behind prefix.
func readPair(prefix, certFile, keyFile string, p *problems) (pair tls.Certificate, ok bool) {
	cert, certErr := readFile(certFile, maxPEMFile)
	if certErr != nil {
		p.add(prefix+"CERT_FILE", certErr)
	}
	key, keyErr := readFile(keyFile, maxPEMFile)
	if keyErr != nil {
		p.add(prefix+"KEY_FILE", keyErr)
	}
	if certErr != nil || keyErr != nil {
		return tls.Certificate{}, false
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		p.addf(prefix+"CERT_FILE", "with %s%sKEY_FILE: %w", envPrefix, prefix, err)
	}
	return pair, err == nil
}

// validateAdmin refuses a token that no Authorization header can carry (RFC 6750 §2.1).
func (c *Config) validateAdmin(p *problems) {
	checkToken(p, "ADMIN_TOKEN", c.Admin.AdminToken)
}

func checkToken(p *problems, name string, token Secret) {
	if strings.ContainsFunc(token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		p.addf(name, "holds spaces, control bytes or letters beyond ASCII")
	}
}

// validateHealth refuses probes that could not be told from an attack.
func (c *Config) validateHealth(p *problems) {
	if d := c.Health.HealthInterval; !p.failed("HEALTH_INTERVAL") && (d < time.Second || d > time.Hour) {
		p.addf("HEALTH_INTERVAL", "%s is not between 1s and 1h", shortDuration(d))
	}
	if n := len(c.SessionKey); n > 0 && n < minSessionKey && !p.failed("SESSION_KEY") {
		p.addf("SESSION_KEY", "shorter than %d bytes; take the output of: openssl rand -hex 32", minSessionKey)
	}
}

// validateAuth makes sure that the relay is an open proxy for nobody by accident.
func (c *Config) validateAuth(p *problems) {
	if p.failed("AUTH") {
		return
	}
	a := c.Auth
	if a.Mode == AuthAccounts {
		if a.AccountList == "" && a.AccountsFile == "" && !a.InRedis && !p.failed("ACCOUNTS_REDIS") {
			p.addf("AUTH", "accounts needs %[1]sACCOUNTS_FILE, %[1]sACCOUNTS or %[1]sACCOUNTS_REDIS", envPrefix)
		}
	} else {
		c.noEffect(p, "with AUTH="+string(a.Mode), "ACCOUNTS", "ACCOUNTS_FILE", "ACCOUNTS_REDIS")
	}
	if a.Mode == AuthOpen || a.Mode == AuthPassthrough { // the relay refuses no login itself
		c.noEffect(p, "with AUTH="+string(a.Mode), "LOGIN_FAILURES_PER_ADDRESS", "LOGIN_FAILURES_PER_NAME")
	}
	if a.Mode == AuthOpen || a.Mode == AuthPassthrough { // no username of the relay's own
		c.noEffect(p, "with AUTH="+string(a.Mode), "SESSION_KEY")
	}
	if a.Mode == AuthOpen { // an account is an address there
		c.noEffect(p, "with AUTH="+string(a.Mode), "USER_MAX_IPS", "MAX_IPS_WINDOW")
	}
	if a.Mode != AuthOpen || p.failed("ALLOW_FROM") {
		return
	}
	switch {
	case len(a.AllowFrom) == 0:
		p.addf("ALLOW_FROM", "AUTH=open needs the networks of the clients")
	case everybody(a.AllowFrom):
		p.addf("ALLOW_FROM", "with AUTH=open it must not hold the whole Internet")
	}
}

// noEffect refuses those of the variables that are set, since they would do nothing for the reason given.
func (c *Config) noEffect(p *problems, reason string, names ...string) {
	for _, name := range names {
		if c.set[name] && !p.failed(name) {
			p.addf(name, "has no effect %s; leave it out", reason)
		}
	}
}

// everybody reports whether the networks hold all public addresses of IPv4 or of IPv6, whatever pieces they are written in.
func everybody(nets Prefixes) bool {
	// Nobody calls from these, so leaving them out narrows nothing.
	notPublic := Prefixes{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	}
	v4 := netip.MustParsePrefix("0.0.0.0/0")
	v6 := netip.MustParsePrefix("2000::/3") // all global unicast, RFC 4291 §2.4
	return holds(append(notPublic, nets...), v4) || holds(nets, v6)
}

// holds reports whether nets together cover p. It halves p only where a smaller network lies inside, so the work is
// bounded by the number of networks times the bits of an address.
func holds(nets Prefixes, p netip.Prefix) bool {
	inside := Prefixes{}
	for _, n := range nets {
		if !n.Overlaps(p) {
			continue
		}
		if n.Bits() <= p.Bits() {
			return true
		}
		inside = append(inside, n)
	}
	if len(inside) == 0 {
		return false
	}
	low, high := halves(p)
	return holds(inside, low) && holds(inside, high)
}

func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits() + 1
	raw := slices.Clone(p.Masked().Addr().AsSlice())
	low, _ = p.Addr().Prefix(bits)
	raw[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	addr, _ := netip.AddrFromSlice(raw)
	return low, netip.PrefixFrom(addr, bits)
}
