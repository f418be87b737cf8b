package upstream

// port is the port of g's addresses to connect to, 0 = g's own: some vendors keep a
// session by the port.
func (r *Route) port(g *gateway) uint16 {
	if g.logins == nil || r.choice.Params.IsZero() {
		return 0
	}
	port, _ := g.logins.Port(r.choice.Account, r.choice.Params)
	return port
}
