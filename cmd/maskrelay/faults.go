package main

import (
	"slices"
	"strings"

	"maskrelay/upstream/vendor"
)

// valueForms are what a username parameter's value looks like, whichever the vendor.
var valueForms = map[vendor.Key]string{
	vendor.Country: "two letters of ISO 3166-1, as us",
	vendor.State:   "letters, digits and _, as new_york",
	vendor.City:    "letters, digits and _, as los_angeles",
	vendor.Zip:     "2 to 10 letters and digits",
	vendor.ASN:     "a network's number, as 7922",
	vendor.Session: "1 to 64 letters, digits and _",
	vendor.TTL:     "a number and a unit, as 30m (1s to 30d)",
	vendor.Pool:    "a pool's name",
}

// faultAdvice is what an operator can do about a fault in a customer's parameters. The pool is the customer's, "" if that is
// not known.
func faultAdvice(cfg *Config, pool string, f *vendor.Fault) string {
	switch f.Kind {
	case vendor.Twice:
		return "leave one of the two out"
	case vendor.Needs:
		return "add " + string(f.Other) + ", or leave " + string(f.Key) + " out"
	case vendor.Excludes:
		return "leave one of the two out"
	case vendor.Invalid:
		return "write " + valueForms[f.Key] + cfg.tellVendors(pool, "; what the vendor takes of it is told by ")
	case vendor.Unavailable:
		return "no gateway of the pool " + pool + " can do that; leave it out, or choose a pool with a template or a vendor that can (see maskrelay vendors)"
	default:
		return "write -key-value pairs behind the account's name, as in alice-country-us-session-a1-ttl-10m; a value has no dash (new_york)"
	}
}

// tellVendors names the commands that explain the pool's presets after the words before, "" without a preset.
func (c *Config) tellVendors(pool, before string) string {
	var commands []string
	for _, g := range c.Gateways {
		if g.Pool == pool && g.Vendor.Name != vendor.Generic {
			commands = append(commands, "maskrelay vendors "+g.Vendor.Name)
		}
	}
	if len(commands) == 0 {
		return ""
	}
	slices.Sort(commands)
	return before + strings.Join(slices.Compact(commands), ", ")
}
