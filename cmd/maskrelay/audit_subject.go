package main

import (
	"slices"
	"strings"

	"maskrelay/upstream"
	"maskrelay/upstream/upstreamtest/audit"
	"maskrelay/upstream/vendor"
)

// auditWishes are what the planted customer asks for, the most first: the first that the
// gateway's vendor can do.
var auditWishes = []string{
	"country-us-session-" + auditSession + "-ttl-10m", "country-us-session-" + auditSession, "session-" + auditSession + "-ttl-10m",
	"session-" + auditSession, "country-us", "",
}

// wishFor is the wish for a gateway, and the login that its vendor gets for it.
func wishFor(g upstream.Gateway) (wish string, login audit.Login) {
	for _, wish := range auditWishes {
		params, fault := vendor.ParseParams(wish)
		if fault != nil || g.SessionPorts() && params.Session != "" { // another port: nobody listens there
			continue
		}
		username, password, fault := g.Login(auditAccount, params)
		if fault == nil {
			return wish, audit.Login{Username: username, Password: password}
		}
	}
	return "", audit.Login{}
}

// subjectOf is one of the operator's gateways, to be proven.
func (b *auditBench) subjectOf(cfg *Config, g upstream.Gateway) audit.Subject {
	words := vendorWords(cfg, g)
	s := audit.Subject{Name: g.Name, Words: words, Brand: brandOf(words)}
	for _, secret := range slices.Concat(g.Echoes(), g.Secrets()) {
		if len(secret) >= 8 {
			s.Hidden = append(s.Hidden, audit.Mark{Name: "a vendor credential", Text: secret, Secret: true})
		}
	}
	wish, login := wishFor(g)
	switch cfg.Auth.Mode {
	case AuthOpen:
		_, login = "", plainLogin(g)
	case AuthPassthrough:
		login = audit.Login{Username: auditAccount + "-zone-res", Password: auditPassword}
		s.Customer, s.OwnLogin = login, true
	default:
		s.Customer = audit.Login{Username: strings.TrimSuffix(auditAccount+"-"+wish, "-"), Password: auditPassword}
		s.Private = []audit.Mark{
			{Name: "account's name", Text: auditAccount}, {Name: "customer's session as he gave it", Text: auditSession},
		}
	}
	s.Vendor = login
	s.Start = func(to audit.Gateway) (*audit.Relay, error) { return b.startFor(cfg, g, to) }
	return s
}

func plainLogin(g upstream.Gateway) audit.Login {
	username, password, _ := g.Login("", vendor.Params{}) // nothing is asked, so there is no fault
	return audit.Login{Username: username, Password: password}
}

// startFor starts a relay with g's login and the stand-in as its gateway.
func (b *auditBench) startFor(cfg *Config, g upstream.Gateway, to audit.Gateway) (*audit.Relay, error) {
	c, err := b.auditConfig(cfg, g.At(to.Scheme, to.Host, to.Port, to.Roots))
	if err != nil {
		return nil, err
	}
	standIn(c, to.Hasty)
	if err := maskFor(c, cfg, to.Brand); err != nil {
		return nil, err
	}
	r, err := b.start(c)
	if err != nil {
		return nil, err
	}
	return &audit.Relay{Bare: r.bare, Secured: r.secured, Roots: b.roots, Known: c.Policy.Marks(), Close: r.close}, nil
}

// subjects are the gateways that have a vendor. What an earlier one has in common with
// others (preset, marks and form of the login) is proven once.
func (b *auditBench) subjects(cfg *Config) (list []audit.Subject) {
	seen := map[string]bool{}
	for _, g := range cfg.Gateways {
		if g.Scheme == upstream.SchemeDirect {
			continue
		}
		_, login := wishFor(g)
		at := strings.Join(append(vendorWords(cfg, g), login.Username, login.Password), "\x00")
		if seen[at] || len(list) == maxSubjects {
			continue
		}
		seen[at] = true
		list = append(list, b.subjectOf(cfg, g))
	}
	return list
}

// maxSubjects bounds the gateways that are proven one by one; the policy is the same for all.
const maxSubjects = 24
