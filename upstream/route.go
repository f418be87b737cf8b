package upstream

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"maskrelay/upstream/vendor"
)

// DefaultPool is the pool of gateways and customers that name none.
const DefaultPool = "default"

// CheckPool finds a pool's name that customers could not write in their usernames:
// [A-Za-z0-9_.]{1,32} is what they can.
func CheckPool(name string) error {
	if len(name) == 0 || len(name) > 32 {
		return errors.New("the pool's name is not 1 to 32 characters long")
	}
	for i := range len(name) {
		c := name[i]
		if c != '.' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return fmt.Errorf("the pool's name %q has other characters than letters, digits, '_' and '.'", name)
		}
	}
	return nil
}

// ErrNoPool means that no gateway is in a pool.
var ErrNoPool = errors.New("upstream: no such pool")

// Choice is what decides about the gateway and the login of a customer's exchanges.
type Choice struct {
	Pool    string        // "" = DefaultPool
	Account string        // whose it is, for user_hash and sessions; "" = user_hash is by Client
	Params  vendor.Params // what the customer asks of the vendor; its Pool is ignored
	Client  netip.Addr    // for ip_hash; without a port
}

// Route is a Choice that was found servable. It is immutable and may be shared by all
// exchanges for which the Choice is the same.
type Route struct {
	pool     *Pool
	group    *group
	choice   Choice
	eligible members // those that can do what the parameters ask
	key      uint64  // of the hash, where one decides
	sticky   bool    // the key decides under every balance
	customer customer
}

// Route finds the way for a choice, without any I/O. The error is ErrNoPool, or a
// *vendor.Fault if no gateway of the pool can do what the parameters ask: the first
// gateway's. Parameters with a session bind it to a gateway, by a hash of account and
// session that is the same on every relay with gateways of the same names; others are
// balanced. Without parameters, and with a balance that does not look at the customer,
// it allocates nothing.
//
// Where customers bring their own login (Request.Authorization), that is sent in the
// place of a gateway's whatever the route; a Choice for it has no Params.
func (p *Pool) Route(c Choice) (*Route, error) {
	group := p.groups[cmp.Or(c.Pool, DefaultPool)]
	if group == nil {
		return nil, ErrNoPool
	}
	asks := !c.Params.IsZero()
	if !asks && !group.balancer.hashes() {
		return group.plains[customerOf(&c)], nil
	}
	r := &Route{pool: p, group: group, choice: c, customer: customerOf(&c)}
	if asks {
		able, fault := group.able(c.Params)
		if fault != nil {
			return nil, fault
		}
		r.eligible = able
	}
	switch {
	case c.Params.Session != "":
		r.key, r.sticky = hashKey(c.Account, c.Params.Session), true
	case group.balancer.balance == IPHash || c.Account == "":
		r.key = hashAddr(c.Client)
	default:
		r.key = hashKey(c.Account, "")
	}
	return r, nil
}

// Pools are the names of the pools that have a gateway, sorted.
func (p *Pool) Pools() []string { return slices.Clone(p.names) }

// HasPool reports whether a pool has a gateway; "" is DefaultPool.
func (p *Pool) HasPool(name string) bool { return p.groups[cmp.Or(name, DefaultPool)] != nil }

// login is the Proxy-Authorization value for g, empty without credentials.
func (r *Route) login(g *gateway) string {
	if r.choice.Params.IsZero() || g.logins == nil {
		return g.login
	}
	username, password := g.logins.Make(r.choice.Account, r.choice.Params)
	return basic(username, password)
}

// basic is a Proxy-Authorization value (RFC 7617 §2), empty without a username.
func basic(username, password string) string {
	if username == "" {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}
