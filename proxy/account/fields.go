package account

// accountKeys returns the keys of an account, in the order in which they are written.
func accountKeys() []string {
	return []string{
		"name", "password", "max_conns", "conn_rate", "conn_burst", "bandwidth",
		"quota", "quota_period", "max_ips", "weight", "expires", "allow_from", "pool", "pools", "disabled",
	}
}

// list is how a key whose value is a list is read.
type list struct {
	want string // what is wrong with anything else
	none string // what is wrong with an empty one
	most string // what is wrong with one of more than max elements
	max  int    // 0 = no bound but that of the file
	// add adds an element, or returns the problem with it.
	add func(a *Account, v value) (problem string)
}

// listOf returns how the list of a key is read, and reports whether its value is one.
func listOf(key string) (list, bool) {
	switch key {
	case "allow_from":
		return list{
			want: "must be a list of networks",
			none: "must name a network; leave it out to allow any",
			add:  (*Account).addNetwork,
		}, true
	case "pools":
		return list{
			want: "must be a list of pools",
			none: "must name a pool; leave it out to allow none",
			most: "must name at most 64 pools",
			max:  maxPools,
			add:  (*Account).addPool,
		}, true
	}
	return list{}, false
}

// problem is what is wrong with a list of n elements by itself.
func (l list) problem(n int) string {
	switch {
	case n == 0:
		return l.none
	case l.max > 0 && n > l.max:
		return l.most
	}
	return ""
}

// set sets the field of one key that is not a list, or returns the problem with its value.
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
	case "pool":
		a.Pool, problem = v.pool()
	case "disabled":
		a.Disabled, problem = v.bool()
	}
	return problem
}
