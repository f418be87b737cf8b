package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"maskrelay/proxy/account"
	"maskrelay/upstream"
)

// pools are the names of the gateways' pools, sorted.
func (c *Config) pools() []string {
	var pools []string
	for _, g := range c.Gateways {
		pools = append(pools, g.Pool)
	}
	slices.Sort(pools)
	return slices.Compact(pools)
}

// poolCheck finds accounts whose pools have no gateway, by a function that any goroutine may call. It is nil, which finds
// nothing, if the gateways themselves have problems: those come first.
func (c *Config) poolCheck() func(*account.Account) error {
	if len(c.Gateways) == 0 || len(c.Gateways) < len(c.Upstreams) {
		return nil
	}
	known := c.pools()
	list := strings.Join(known, ", ")
	return func(a *account.Account) error {
		var errs []error
		check := func(key, pool string) {
			if !slices.Contains(known, pool) {
				errs = append(errs, fmt.Errorf("%s %q: no gateway is in it; there are %s", key, pool, list))
			}
		}
		if a.Pool != "" {
			check("pool", a.Pool)
		}
		for _, pool := range a.Pools {
			check("pools", pool)
		}
		return errors.Join(errs...)
	}
}

// checkListeners finds listeners whose pool has no gateway.
func (c *Config) checkListeners(p *problems) {
	if len(c.Gateways) == 0 || len(c.Upstreams) > 0 && len(c.Gateways) < len(c.Upstreams) {
		return // their own problems come first
	}
	pools := c.pools()
	check := func(name string, listeners Listeners) {
		for _, l := range listeners {
			if !slices.Contains(pools, cmp.Or(l.Pool, upstream.DefaultPool)) {
				p.addf(name, "%s: no gateway is in the pool %s; write ADDR@POOL with one of %s",
					l, cmp.Or(l.Pool, upstream.DefaultPool), strings.Join(pools, ", "))
			}
		}
	}
	check("LISTEN", c.Listen)
	check("TLS_LISTEN", c.TLS.TLSListen)
}
