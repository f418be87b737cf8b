package upstream

import (
	"slices"

	"maskrelay/upstream/vendor"
)

// members is a set of a group's gateways by their indexes. nil holds all.
type members []uint64

func (m members) has(i int) bool { return m == nil || m[i/64]&(1<<(i%64)) != 0 }

// group is the gateways of one pool's name. But for its balancer and budget it is
// immutable; safe for concurrent use.
type group struct {
	name     string
	gateways []*gateway
	kinds    []kind
	balancer balancer
	budget   budget
	shares   [customers]budget // of it, by customer
	plain    *Route            // of those whose choice changes nothing, the customer not known
	plains   [customers]*Route // the same by customer
}

// kind is those gateways of a group that can do the same of what customers ask.
type kind struct {
	fault   func(vendor.Params) *vendor.Fault // what they cannot do; nil = they can do all
	members members
}

// kindKey is what decides what a gateway's logins can carry.
type kindKey struct {
	preset             *vendor.Preset
	username, password string // templates
	login              bool
	// lengths of the operator's login and password, which count where both are bounded
	lengths [2]int
}

// account is whose customer the operator is: gateways with the same account are
// different ways into the same thing.
type account struct {
	preset *vendor.Preset
	login  string
}

// makeGroups sorts the gateways by their pools' names.
func (p *Pool) makeGroups(balance string) {
	p.groups = make(map[string]*group)
	for _, g := range p.gateways {
		group := p.groups[g.Pool]
		if group == nil {
			group = p.newGroup(g.Pool)
			p.groups[g.Pool] = group
			p.names = append(p.names, g.Pool)
		}
		g.group, g.index = group, len(group.gateways)
		g.siblings = func() []*gateway { return group.gateways }
		group.gateways = append(group.gateways, g)
	}
	p.plain = p.gateways[0].group.plain
	if group := p.groups[DefaultPool]; group != nil {
		p.plain = group.plain
	}
	slices.Sort(p.names)
	for _, group := range p.groups {
		group.sort()
		group.balancer.init(balance, group.gateways)
	}
}

func (p *Pool) newGroup(name string) *group {
	group := &group{name: name}
	group.budget.init()
	group.makePlain(p)
	return group
}

// sort finds the kinds, and the gateways of the same account.
func (group *group) sort() {
	kinds := make(map[kindKey]int)
	accounts := make(map[account]members)
	words := (len(group.gateways) + 63) / 64
	for i, g := range group.gateways {
		key := kindKey{preset: g.Vendor, username: g.usernameTemplate, password: g.passwordTemplate, login: g.HasCredentials()}
		if g.Scheme == SchemeSOCKS5 {
			key.lengths = [2]int{1 + len(g.username), 1 + len(g.password)}
		}
		at, known := kinds[key]
		if !known {
			at = len(group.kinds)
			kinds[key] = at
			group.kinds = append(group.kinds, kind{fault: g.fault, members: make(members, words)})
		}
		group.kinds[at].members[i/64] |= 1 << (i % 64)
		if of, ok := g.account(); ok {
			if accounts[of] == nil {
				accounts[of] = make(members, words)
			}
			accounts[of][i/64] |= 1 << (i % 64)
			g.sameAccount = accounts[of]
		}
	}
}

// account is g's, not known of a vendor that is not.
func (g *gateway) account() (account, bool) {
	if g.Vendor == nil || g.Vendor.Name == vendor.Generic {
		return account{}, false
	}
	return account{g.Vendor, g.username}, true
}

// able are the gateways that can do what the parameters ask; nil with nil = all of them.
func (group *group) able(p vendor.Params) (members, *vendor.Fault) {
	var able members
	var fault *vendor.Fault
	can := 0
	for _, k := range group.kinds {
		switch f := k.fault(p); {
		case f == nil && can == 0:
			able = k.members
			can++
		case f == nil:
			able = union(able, k.members)
			can++
		case fault == nil && f.Kind != vendor.Malformed && f.Kind != vendor.Twice:
			fault = f
		}
	}
	switch {
	case can == len(group.kinds):
		return nil, nil
	case can > 0:
		return able, nil
	case fault == nil:
		fault = &vendor.Fault{Kind: vendor.Unavailable, Key: firstKey(p)}
	}
	return nil, fault
}

// fault is what of p the gateway cannot do. Without a login of the operator's there is
// nothing that could carry it.
func (g *gateway) fault(p vendor.Params) *vendor.Fault {
	if g.logins == nil || !g.HasCredentials() {
		return &vendor.Fault{Kind: vendor.Unavailable, Key: firstKey(p)}
	}
	if fault := g.logins.Fault(p); fault != nil || g.Scheme != SchemeSOCKS5 {
		return fault
	}
	// The account's name changes no length but a number's by a few digits, for which the
	// handshake looks again.
	if username, password := g.logins.Make("", p); max(len(username), len(password)) > maxSOCKSCredential {
		return &vendor.Fault{Kind: vendor.Invalid, Key: longestKey(p)}
	}
	return nil
}

// longestKey is the key with the longest value of those that the customer words himself.
func longestKey(p vendor.Params) vendor.Key {
	switch {
	case p.City != "" && len(p.City) >= len(p.State):
		return vendor.City
	case p.State != "":
		return vendor.State
	default:
		return firstKey(p)
	}
}

func union(a, b members) members {
	both := slices.Clone(a)
	for i := range both {
		both[i] |= b[i]
	}
	return both
}

// firstKey is one of the keys that p has.
func firstKey(p vendor.Params) vendor.Key {
	for _, given := range [...]struct {
		key   vendor.Key
		given bool
	}{
		{vendor.Country, p.Country != ""}, {vendor.State, p.State != ""}, {vendor.City, p.City != ""},
		{vendor.Zip, p.Zip != ""}, {vendor.ASN, p.ASN != ""}, {vendor.Session, p.Session != ""},
	} {
		if given.given {
			return given.key
		}
	}
	return vendor.TTL
}
