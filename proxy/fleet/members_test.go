package fleet_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
)

func TestRelaysKnowOfEachOther(t *testing.T) {
	server := lab.StartRedis(t)
	totals := fleet.Totals{Connections: 7, Limit: 100, PerSecond: 2.5}
	a := open(t, fleet.Config{URL: server.URL(), Node: "a b/c", Totals: func() fleet.Totals { return totals }}, nil)
	a.told(t, true)
	b, c := start(t, server.URL()), start(t, server.URL())
	for _, r := range []*relay{a, b, c} {
		lab.Wait(t, patience, "three relays", func() bool { return r.Relays() == 3 })
	}
	members, err := b.Members(roomy(t))
	if err != nil || len(members) != 3 {
		t.Fatalf("members %+v, %v", members, err)
	}
	i := slices.IndexFunc(members, func(m fleet.Member) bool { return m.Node == a.Node() })
	if i < 0 || members[i].Totals != totals || time.Since(members[i].Seen).Abs() > 5*time.Second || !strings.HasPrefix(a.Node(), "a-b-c~") {
		t.Errorf("members %+v, want one as %s", members, a.Node())
	}
	if b.Node() == c.Node() {
		t.Errorf("two relays on one host are both %s", b.Node())
	}
	c.stop()
	if left := server.Do(t, "HKEYS", "maskrelay:fleet:{relays}"); slices.Contains(left, c.Node()) || len(left) != 2 {
		t.Errorf("%s took its leave, and the registry has %q", c.Node(), left)
	}
	lab.Wait(t, patience, "two relays", func() bool { return a.Relays() == 2 && b.Relays() == 2 })
	server.Kill(t)
	a.told(t, false)
	if a.Relays() != 2 {
		t.Errorf("%d relays while Redis is away, want as it was", a.Relays())
	}
}

// What a relay that died, another version, or another program left in the registry.
func TestRegistryIsCleaned(t *testing.T) {
	server := lab.StartRedis(t)
	key := "maskrelay:fleet:{relays}"
	server.Do(t, "HSET", key, "dead", "1000:{}", "strange", "hello", "empty", "",
		"newer", "99999999999999:{\"connections\":\"many\"}", "other", "99999999999999:{\"connections\":3,\"colour\":1}")
	r := start(t, server.URL())
	if r.Relays() != 3 {
		t.Errorf("%d relays", r.Relays())
	}
	members, err := r.Members(roomy(t))
	if err != nil || len(members) != 3 {
		t.Fatalf("members %+v, %v", members, err)
	}
	for _, m := range members {
		if m.Node == "newer" && m.Totals != (fleet.Totals{}) || m.Node == "other" && m.Totals.Connections != 3 {
			t.Errorf("member %+v", m)
		}
	}
	if left := server.Do(t, "HKEYS", key); len(left) != 3 {
		t.Errorf("the registry has %q", left)
	}
}
