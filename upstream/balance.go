package upstream

import "time"

// Balances.
const (
	RoundRobin = "round_robin" // by weight, smoothly
	LeastConn  = "least_conn"  // fewest open connections for its weight
)

// pick chooses a gateway that was not tried yet. Those that are down come last, so
// that a pool whose gateways all failed a moment ago still tries. nil = none left.
func (p *Pool) pick(a *attempts, now time.Time) *gateway {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, down := range [2]bool{false, true} {
		g := p.chooseLocked(func(g *gateway) bool {
			return g.isDown(now) == down && !a.has(g.index)
		})
		if g != nil {
			return g
		}
	}
	return nil
}

func (p *Pool) chooseLocked(usable func(*gateway) bool) *gateway {
	if p.options.Balance == LeastConn {
		return p.leastConnLocked(usable)
	}
	return p.roundRobinLocked(usable)
}

// roundRobinLocked is smooth weighted round robin, as nginx does it: every usable
// gateway gains its weight, the richest is chosen and pays the sum.
func (p *Pool) roundRobinLocked(usable func(*gateway) bool) *gateway {
	var best *gateway
	total := 0
	for _, g := range p.gateways {
		if !usable(g) {
			continue
		}
		g.weight += g.Weight
		total += g.Weight
		if best == nil || g.weight > best.weight {
			best = g
		}
	}
	if best != nil {
		best.weight -= total
	}
	return best
}

// leastConnLocked compares connections per weight; ties go round.
func (p *Pool) leastConnLocked(usable func(*gateway) bool) *gateway {
	var best *gateway
	var bestConns int64
	p.next++
	for i := range p.gateways {
		g := p.gateways[(p.next+i)%len(p.gateways)]
		if !usable(g) {
			continue
		}
		// g.conns/g.Weight < best.conns/best.Weight without division
		conns := g.conns.Load()
		if best == nil || conns*int64(best.Weight) < bestConns*int64(g.Weight) {
			best, bestConns = g, conns
		}
	}
	return best
}
