package main

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"maskrelay/masking"
	"maskrelay/proxy/account"
	"maskrelay/upstream"
	"maskrelay/upstream/vendor"
)

// maxUpstreams bounds the gateways of one relay.
const maxUpstreams = 1000

// loadUpstreams reads UPSTREAMS_<n>_… for every n that is there, and reports missing numbers.
func (c *Config) loadUpstreams(vars map[string]string, p *problems) {
	numbers := map[int]bool{}
	for name := range vars {
		if n, _, ok := upstreamName(name); ok {
			numbers[n] = true
		}
	}
	for n := range p.bad {
		if n, _, ok := upstreamName(n); ok { // its value may be missing because a secret's file is
			numbers[n] = true
		}
	}
	sorted := make([]int, 0, len(numbers))
	for n := range numbers {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	if len(sorted) > maxUpstreams {
		p.addf(upstreamPrefix(sorted[maxUpstreams])+"URL", "more than %d gateways", maxUpstreams)
		return
	}
	for i, n := range sorted {
		if n != i {
			p.addf(upstreamPrefix(i)+"URL", "missing; gateways are numbered from 0 without gaps, and %s%d is set", "UPSTREAMS_", n)
			return
		}
	}
	c.Upstreams = make([]UpstreamConfig, len(sorted))
	for n := range c.Upstreams {
		parse(&c.Upstreams[n], envPrefix+upstreamPrefix(n), vars, p)
	}
}

// buildGateways parses UPSTREAM or UPSTREAMS, of which exactly one must be there.
func (c *Config) buildGateways(p *problems) {
	several := len(c.Upstreams) > 0
	switch one := c.Upstream != ""; {
	case one && several:
		p.addf("UPSTREAM", "%sUPSTREAMS_0_URL is set too; keep one of the two", envPrefix)
	case one:
		c.addGateway("UPSTREAM", upstream.GatewayConfig{URL: c.Upstream.Reveal()}, p)
	case !several && !p.failed("UPSTREAM") && !p.anyUpstream():
		p.addf("UPSTREAM", "missing; write the vendor's gateway as http://user:password@host:port")
	}
	names := map[string]int{}
	for n, u := range c.Upstreams {
		built := len(c.Gateways)
		c.buildUpstream(n, u, p)
		if len(c.Gateways) == built {
			continue
		}
		name := c.Gateways[built].Name
		if other, taken := names[name]; taken {
			p.addf(upstreamPrefix(n)+"NAME", "%q is the name of %s%d already; give each gateway its own", name, "UPSTREAMS_", other)
		} else {
			names[name] = n
		}
	}
}

// anyUpstream reports whether some variable of UPSTREAMS already has a problem.
func (p *problems) anyUpstream() bool {
	for name := range p.bad {
		if strings.HasPrefix(name, "UPSTREAMS_") {
			return true
		}
	}
	return false
}

func (c *Config) buildUpstream(n int, u UpstreamConfig, p *problems) {
	prefix := upstreamPrefix(n)
	notNegative(p, prefix+"MAX_CONNS", u.GatewayMaxConns)
	if (u.Weight < 1 || u.Weight > 1000) && !p.failed(prefix+"WEIGHT") {
		p.addf(prefix+"WEIGHT", "%d is not between 1 and 1000", u.Weight)
	}
	notNegative(p, prefix+"WARM", u.Warm)
	if err := upstream.CheckPool(u.Pool); err != nil {
		p.add(prefix+"POOL", err)
	}
	c.checkTemplates(prefix, u, p)
	checkCAFile(prefix+"CA_FILE", u.CAFile, p)
	if u.URL == "" && u.Vendor == vendor.Generic {
		if !p.failed(prefix + "URL") {
			p.addf(prefix+"URL", "missing; write the vendor's gateway as http://user:password@host:port")
		}
		return
	}
	g := upstream.GatewayConfig{
		Name: u.Name, Pool: u.Pool, URL: u.URL.Reveal(), Vendor: u.Vendor,
		Username: u.Username.Reveal(), Password: u.Password.Reveal(), SessionKey: []byte(c.SessionKey.Reveal()),
		Weight: min(max(u.Weight, 1), 1000), MaxConns: max(u.GatewayMaxConns, 0), Warm: max(u.Warm, 0),
	}
	if p.failed(prefix + "POOL") {
		g.Pool = upstream.DefaultPool
	}
	if !p.failed(prefix + "CA_FILE") {
		g.CAFile = u.CAFile
	}
	before := len(c.Gateways)
	c.addGateway(prefix+"URL", g, p)
	if p.failed(prefix + "POOL") { // in no pool, so listeners and accounts are not judged by it
		c.Gateways = c.Gateways[:before]
	}
}

// checkTemplates refuses templates for which nobody could give values.
func (c *Config) checkTemplates(prefix string, u UpstreamConfig, p *problems) {
	if c.Auth.Mode != AuthPassthrough {
		return
	}
	for name, value := range map[string]Secret{"USERNAME": u.Username, "PASSWORD": u.Password} {
		if strings.ContainsAny(value.Reveal(), "{}") {
			p.addf(prefix+name, "a template has no effect with AUTH=passthrough, which sends the customer's own login; leave it out")
		}
	}
}

// checkCAFile finds an unreadable file here, where its variable is known.
func checkCAFile(name, path string, p *problems) {
	if path == "" {
		return
	}
	if _, err := readFile(path, maxPEMFile); err != nil {
		p.add(name, err)
	}
}

// addGateway parses a gateway whose URL is the variable name's.
func (c *Config) addGateway(name string, g upstream.GatewayConfig, p *problems) {
	gateway, err := upstream.ParseGateway(g)
	if err != nil {
		p.addf(blame(name, err), "%s", strings.TrimPrefix(err.Error(), "vendor: "))
		return
	}
	if c.Auth.Mode == AuthPassthrough {
		switch {
		case gateway.Scheme == upstream.SchemeDirect:
			p.addf(name, "direct:// has no vendor that could check what AUTH=passthrough passes on")
		case gateway.HasCredentials():
			p.addf(name, "the gateway has credentials, but AUTH=passthrough sends the customer's own; leave one out")
		}
	}
	c.checkSources(name, gateway, p)
	c.Gateways = append(c.Gateways, gateway)
}

// gatewayVariables are those of the gateway's fields.
var gatewayVariables = map[string]string{
	"Username": "USERNAME", "Password": "PASSWORD", "Vendor": "VENDOR", "Warm": "WARM", "Weight": "WEIGHT", "MaxConns": "MAX_CONNS", "CAFile": "CA_FILE",
}

// blame is the variable that an error about a gateway is about, for the URL's variable.
func blame(name string, err error) string {
	prefix, of := strings.CutSuffix(name, "URL")
	var template *vendor.TemplateError
	var field *upstream.FieldError
	switch {
	case !of:
		return name
	case errors.As(err, &field):
		return prefix + gatewayVariables[field.Field]
	case errors.Is(err, vendor.ErrUnknown):
		return prefix + "VENDOR"
	case errors.As(err, &template) && template.Password:
		return prefix + "PASSWORD"
	case template != nil:
		return prefix + "USERNAME"
	}
	return name
}

// buildMasking builds the brand and the policy. Each list is tried alone first, so that its own variable is blamed.
func (c *Config) buildMasking(p *problems) {
	brand, err := masking.ParseBrand(c.Masking.BrandName)
	if err != nil {
		p.add("BRAND", err)
	}
	c.Brand = brand
	m := c.Masking
	_, errMarks := masking.NewPolicy(masking.PolicyConfig{Marks: m.VendorMarks})
	_, errRequest := masking.NewPolicy(masking.PolicyConfig{StripRequest: m.StripRequest})
	_, errResponse := masking.NewPolicy(masking.PolicyConfig{StripResponse: m.StripResponse})
	p.add("VENDOR_MARKS", errMarks)
	p.add("STRIP_REQUEST_HEADERS", errRequest)
	p.add("STRIP_RESPONSE_HEADERS", errResponse)
	if errors.Join(errMarks, errRequest, errResponse) != nil {
		return
	}
	marks, fields := c.gatewayMarks()
	policy, err := masking.NewPolicy(masking.PolicyConfig{
		Marks:        slices.Concat(m.VendorMarks, marks, c.echoes()),
		StripRequest: m.StripRequest, StripResponse: slices.Concat(m.StripResponse, fields),
	})
	if err != nil {
		p.add("UPSTREAM", err)
	}
	c.Policy = policy
}

// gatewayMarks are the gateways' hosts and registered domains, and the header fields that carry the domain's first label
// (X-Acmeproxy-Session of gw.acmeproxy.com). A name without a dot (a container's "squid") and an address that is not public
// would hit innocent text, so those are marks only together with the port; for the same reason a label alone is no mark.
func (c *Config) gatewayMarks() (marks, fields []string) {
	for _, g := range c.Gateways {
		if g.Scheme == upstream.SchemeDirect {
			continue
		}
		mark := g.Address()
		ip, err := netip.ParseAddr(g.Host)
		public := err == nil && ip.IsGlobalUnicast() && !ip.IsPrivate()
		if public || (err != nil && strings.Contains(g.Host, ".")) {
			mark = g.Host
		}
		marks, fields = append(append(marks, mark), g.Vendor.Marks()...), append(fields, g.Vendor.Headers()...)
		if err == nil {
			continue
		}
		if domain, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(g.Host)); err == nil {
			label, _, _ := strings.Cut(domain, ".")
			marks = append(marks, domain)
			fields = append(fields, "X-"+label+"-*")
		}
	}
	slices.Sort(marks)
	slices.Sort(fields)
	return slices.Compact(marks), slices.Compact(fields)
}

// echoes are what of the gateways' logins an answer could hold.
func (c *Config) echoes() (echoes []string) {
	for _, g := range c.Gateways {
		echoes = append(echoes, g.Echoes()...)
	}
	slices.Sort(echoes)
	return slices.Compact(echoes)
}

// buildAccounts reads the accounts as the relay will.
func (c *Config) buildAccounts(p *problems) {
	a := c.Auth
	if a.Mode != AuthAccounts || p.failed("AUTH", "ACCOUNTS", "ACCOUNTS_FILE") {
		return
	}
	var list []*account.Account
	if a.AccountList != "" {
		var err error
		if list, err = account.ParseList(a.AccountList.Reveal()); err != nil {
			p.add("ACCOUNTS", err)
			return
		}
	}
	c.accountList = list
	store, err := account.NewStore(c.accountStore())
	if err != nil {
		p.addFile("ACCOUNTS_FILE", a.AccountsFile, err)
		return
	}
	c.Accounts = store
}

// accountStore is where the accounts of AUTH=accounts come from, but for those in Redis.
func (c *Config) accountStore() account.StoreConfig {
	return account.StoreConfig{File: c.Auth.AccountsFile, List: c.accountList, Check: c.poolCheck()}
}
