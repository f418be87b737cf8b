package account

// keyAllowFrom is the one key whose value is a list.
const keyAllowFrom = "allow_from"

// What is wrong with such a list.
const (
	wantNetworks = "must be a list of networks"
	noNetworks   = "must name a network; leave it out to allow any"
)

// accountKeys returns the keys of an account, in the order in which they are written.
func accountKeys() []string {
	return []string{
		"name", "password", "max_conns", "conn_rate", "conn_burst", "bandwidth",
		"quota", "quota_period", "max_ips", "weight", "expires", keyAllowFrom, "pool", "disabled",
	}
}

// set sets the field of one key, which is any but allow_from, or returns the problem
// with its value.
func (a *Account) set(key string, v value) (problem string) {
	switch key {
	case "name":
		if a.Name, problem = v.string(); problem == "" {
			problem = nameProblem(a.Name)
		}
	case "password":
		var password string
		if password, problem = v.string(); problem == "" {
			a.password, problem = newSecret(password)
		}
	case "max_conns":
		a.MaxConns, problem = v.whole()
	case "conn_rate":
		a.ConnRate, problem = v.rate()
	case "conn_burst":
		a.ConnBurst, problem = v.whole()
	case "bandwidth":
		a.Bandwidth, problem = v.size(ParseBandwidth)
	case "quota":
		a.Quota, problem = v.size(ParseQuota)
	case "quota_period":
		a.QuotaPeriod, problem = v.period()
	case "max_ips":
		a.MaxIPs, problem = v.whole()
	case "weight":
		a.Weight, problem = v.weight()
	case "expires":
		a.Expires, problem = v.time()
	case "disabled":
		a.Disabled, problem = v.bool()
	default:
		problem = "not in this version"
	}
	return problem
}
