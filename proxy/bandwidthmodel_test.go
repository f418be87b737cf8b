package proxy

import (
	"context"
	"fmt"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
	"maskrelay/proxy/limit"
	"maskrelay/proxy/limit/redislimit"
	"maskrelay/proxy/tunnel"
)

// modelRelay is a relay of a model: the real code decides what to tell and what the share
// is, over a real Redis; the traffic and the time are made up.
type modelRelay struct {
	shares *redislimit.Shares
	demand demand
	share  [2]int64
	load   int64 // bytes per second that could be moved
}

// look moves half a second's bytes, and asks if it is time.
func (m *modelRelay) look(t *testing.T) {
	var seen [2]tunnel.Demand
	for way := range seen {
		seen[way] = tunnel.Demand{Moved: min(m.load, m.share[way]) / 2, Starved: m.load > m.share[way]}
	}
	if !m.demand.worthTelling(seen, m.share, shareLook) {
		return
	}
	d := limit.Demand{Key: "alice", Bandwidth: m.demand.limit, Wanted: m.demand.told, Gone: m.demand.gone}
	eventually(t, "an answer", func() bool { // a busy machine may take too long for one
		shares, err := m.shares.Divide(t.Context(), []limit.Demand{d})
		m.share = shares[0]
		return err == nil
	})
}

// What an account's tunnels could move is moved within five seconds of any change of
// load, up to the account's bandwidth, and relays with little get all that they want;
// the shares never add up to more than the bandwidth and a tenth for two seconds.
func TestFleetFollowsTheLoad(t *testing.T) {
	const all, n = 8_000_000, 8
	server := lab.StartRedis(t)
	relays := make([]modelRelay, n)
	for i := range relays {
		client, err := fleet.Open(fleet.Config{URL: server.URL(), Node: fmt.Sprint("relay", i)})
		must(t, err)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); client.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done; must(t, client.Close()) })
		eventually(t, "Redis is up", client.Up)
		relays[i] = modelRelay{
			shares: redislimit.NewShares(client), demand: demand{limit: all, measured: time.Now()}, share: [2]int64{all / n, all / n},
		}
	}
	const much = 100 * all
	for _, phase := range []struct {
		name  string
		loads [n]int64
	}{
		{"nothing", [n]int64{}},
		{"one wants all", [n]int64{much}},
		{"another one wants all", [n]int64{0, much}},
		{"all want all", [n]int64{much, much, much, much, much, much, much, much}},
		{"two", [n]int64{0, 0, 0, much, 0, 0, 0, much}},
		{"some use little", [n]int64{all / 20, all / 20, all / 20, all / 20, all / 20, all / 20, all / 20}},
		{"one of them wants all", [n]int64{all / 20, all / 20, all / 20, much, all / 20, all / 20, all / 20}},
		{"little everywhere is nearly all", [n]int64{all / 9, all / 9, all / 9, all / 9, all / 9, all / 9, all / 9, all / 9}},
		{"a half alone", [n]int64{all / 2}},
		{"and one who wants all", [n]int64{all * 2 / 5, 0, 0, 0, much}},
		{"nothing again", [n]int64{}},
		{"two after a rest", [n]int64{0, much, 0, 0, 0, 0, 0, much}},
	} {
		t.Run(phase.name, func(t *testing.T) { modelPhase(t, relays, phase.loads[:], all) })
	}
}

func modelPhase(t *testing.T, relays []modelRelay, loads []int64, all int64) {
	const seconds = 12
	right, over, longest := time.Duration(-1), time.Duration(0), time.Duration(0)
	for now := time.Duration(0); now < seconds*time.Second; now += shareLook {
		for i := range relays { // one after the other, as their looks lie in half a second
			relays[i].load = loads[i]
			relays[i].look(t)
		}
		var sum int64
		for i := range relays {
			if m := &relays[i]; !m.demand.gone || m.load > 0 { // else it is the first share of one that comes again
				sum += m.share[1]
			}
		}
		if over += shareLook; sum <= all+all/10 {
			over = 0
		}
		longest = max(longest, over)
		if modelRight(relays, all) != "" {
			right = -1
		} else if right < 0 {
			right = now + shareLook
		}
	}
	if why := modelRight(relays, all); why != "" || right < 0 || right > 5*time.Second {
		t.Errorf("right only after %v, %s", right, why)
	}
	if longest > 2*time.Second {
		t.Errorf("more than the bandwidth for %v", longest)
	}
	t.Logf("right after %v, more than the bandwidth for %v", right, longest)
}

// modelRight says what is wrong with the shares: too little is moved in all, or where
// little is wanted.
func modelRight(relays []modelRelay, all int64) string {
	var moved, wanted int64
	for i := range relays {
		m := &relays[i]
		moved += min(m.load, m.share[0], m.share[1])
		wanted += m.load
		if fair := min(m.load, all/int64(len(relays))*9/10); min(m.share[0], m.share[1]) < fair {
			return fmt.Sprintf("relay %d has %d for %d", i, m.share, m.load)
		}
	}
	if least := min(wanted, all) * 9 / 10; moved < least {
		return fmt.Sprintf("%d are moved, not %d", moved, least)
	}
	return ""
}
