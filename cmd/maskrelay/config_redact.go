package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"maskrelay/upstream"
	"maskrelay/upstream/vendor"
)

// Setting is one variable with the value in force, in a form that may be shown to anyone.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Effective is every variable of this version with its value in force, sorted by name. Secrets are stars, with the file
// they came from; gateways are shown without credentials, accounts by name and cap.
func (c *Config) Effective() []Setting {
	var out []Setting
	add := func(f field) {
		out = append(out, Setting{Name: envPrefix + f.name, Value: c.withFile(f.text(), f.name)})
	}
	for _, f := range fields(c, "") {
		add(f)
	}
	for n := range c.Upstreams {
		for _, f := range fields(&c.Upstreams[n], upstreamPrefix(n)) {
			add(f)
		}
	}
	for i := range out {
		if shown, ok := c.shown(out[i].Name); ok {
			out[i].Value = shown
		}
	}
	slices.SortFunc(out, func(a, b Setting) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// shown is what to print for the variables that say more than stars.
func (c *Config) shown(name string) (string, bool) {
	switch name {
	case envPrefix + "ACCOUNTS":
		return c.shownAccounts(), true
	case envPrefix + "UPSTREAM":
		if c.Upstream == "" || len(c.Gateways) == 0 {
			return "", true
		}
		return c.shownGateway(c.Gateways[0], "UPSTREAM"), true
	}
	if url, withPath, ok := c.urlOf(name[len(envPrefix):]); ok {
		return c.withFile(shownURL(url, withPath), name[len(envPrefix):]), true
	}
	n, rest, ok := upstreamName(name[len(envPrefix):])
	if !ok || n >= len(c.Gateways) {
		return "", false
	}
	switch rest {
	case "URL":
		return c.shownGateway(c.Gateways[n], upstreamPrefix(n)+"URL"), true
	case "NAME":
		return c.Gateways[n].Name, true
	}
	return "", false
}

// urlOf is the URL of a variable that holds one, and whether its path may be shown.
func (c *Config) urlOf(name string) (url Secret, withPath, ok bool) {
	switch name {
	case "REDIS_URL":
		return c.Redis.RedisURL, true, true
	case "AUTH_URL":
		return c.Hook.HookURL, false, true
	case "WEBHOOK_URL":
		return c.Webhook.WebhookURL, false, true
	}
	return "", false, false
}

func (c *Config) shownGateway(g upstream.Gateway, name string) string {
	return c.withFile(g.String(), name)
}

// withFile adds to a secret's shown form which file it came from, if it did.
func (c *Config) withFile(shown, name string) string {
	if path, ok := c.SecretFiles[name]; ok {
		shown += " (from " + path + ")"
	}
	return shown
}

func (c *Config) shownAccounts() string {
	parts := make([]string, len(c.accountList))
	for i, a := range c.accountList {
		parts[i] = a.Name + ":" + redacted
		if a.MaxConns > 0 {
			parts[i] += ":" + strconv.Itoa(a.MaxConns)
		}
	}
	return join(parts)
}

// Warnings are what is allowed and yet worth a second look, one line each, beginning with the variable.
func (c *Config) Warnings() []string {
	var out []string
	warn := func(name, text string) { out = append(out, envPrefix+name+": "+text) }
	admin := c.Admin
	if admin.AdminListen != "" && !admin.AdminListen.loopback() {
		warn("ADMIN_LISTEN", fmt.Sprintf("%s is not loopback: whoever reaches it reads /metrics, which name gateways and accounts; keep customers away from it",
			admin.AdminListen))
	}
	if n := len(admin.AdminToken); n > 0 && n < 16 {
		warn("ADMIN_TOKEN", "shorter than 16 bytes")
	}
	if everybody(c.ProxyFrom) {
		warn("PROXY_PROTOCOL_FROM", "holds the whole Internet: anyone can claim any client address")
	}
	if c.Auth.Mode == AuthOpen {
		c.warnOpen(warn)
	}
	c.warnFleet(warn)
	c.warnLogins(warn)
	if c.Targets.AllowPrivate {
		warn("ALLOW_PRIVATE", "customers reach loopback, private and metadata addresses as far as the gateway does")
	}
	if c.Targets.AllowPorts.All || slices.Contains(c.Targets.AllowPorts.List, 25) {
		warn("ALLOW_PORTS", "port 25 is open: mail abuse costs the gateway its addresses")
	}
	return out
}

// warnLogins looks for presets that cannot make their logins. That may be meant: some vendors know a host by its address.
func (c *Config) warnLogins(warn func(name, text string)) {
	if c.Auth.Mode == AuthPassthrough || len(c.Upstreams) != len(c.Gateways) {
		return
	}
	for n := range c.Upstreams {
		switch g := c.Gateways[n]; {
		case g.Vendor.Name == vendor.Generic:
		case !g.HasCredentials():
			warn(upstreamPrefix(n)+"USERNAME", "missing: "+g.Vendor.Name+" gets no login, so it must know this host by its address, and customers can ask for nothing")
		case !g.HasPassword():
			warn(upstreamPrefix(n)+"PASSWORD", "missing: "+g.Vendor.Name+" gets a login without a password")
		}
	}
}

// warnOpen looks at what alone keeps strangers out of an open relay.
func (c *Config) warnOpen(warn func(name, text string)) {
	for _, p := range c.Auth.AllowFrom {
		if p.Bits() < 8 {
			warn("ALLOW_FROM", fmt.Sprintf("%s is a large part of the Internet, and AUTH=open asks nobody for a password", p))
		}
	}
	if len(c.ProxyFrom) == 0 {
		warn("ALLOW_FROM", "AUTH=open without "+envPrefix+"PROXY_PROTOCOL_FROM: behind a balancer everybody has the balancer's address")
	}
}
