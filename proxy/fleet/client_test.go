package fleet_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
)

func TestKeysLieInOneSlot(t *testing.T) {
	c, err := fleet.Open(fleet.Config{URL: "redis://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	seen := map[string]string{}
	names := []string{"alice", "alice.b-c_D9", strings.Repeat("x", 64), strings.Repeat("x", 65), "", "}", "{", "a}b", "a{b}c", "ü", "a b", "a\x00",
		"\xff", "a:b", "~", "~alice", strings.Repeat("y", 1<<20), "alice\n"}
	for _, name := range names {
		first, second := c.Key("cap", name), c.Key("use", name)
		if hashed(t, first) != hashed(t, second) {
			t.Errorf("%.70q: keys %q and %q", name, first, second)
		}
		if len(first) > 100 || strings.ContainsFunc(first, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%.70q: key %q", name, first)
		}
		if other, taken := seen[first]; taken {
			t.Errorf("%.70q and %.70q have one key %q", name, other, first)
		}
		seen[first] = name
	}
	if got := c.Key("cap", "alice"); got != "maskrelay:cap:{alice}" {
		t.Errorf("key %q", got)
	}
}

// hashed is what a cluster hashes of a key: between the first { and the next }, if that is not empty.
func hashed(t *testing.T, key string) string {
	t.Helper()
	_, after, ok := strings.Cut(key, "{")
	tag, rest, closed := strings.Cut(after, "}")
	if !ok || !closed || tag == "" || rest != "" {
		t.Fatalf("key %q has no tag", key)
	}
	return tag
}

func TestPrefixesKeepFleetsApart(t *testing.T) {
	server := lab.StartRedis(t)
	a := open(t, fleet.Config{URL: server.URL(), Prefix: "one:"}, nil)
	b := open(t, fleet.Config{URL: server.URL(), Prefix: "two:"}, nil)
	a.told(t, true)
	b.told(t, true)
	if a.Relays() != 1 || b.Relays() != 1 || a.Key("x", "y") == b.Key("x", "y") {
		t.Errorf("%d and %d relays, keys %q and %q", a.Relays(), b.Relays(), a.Key("x", "y"), b.Key("x", "y"))
	}
}

func TestMetrics(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	ctx := roomy(t)
	key := r.Key("test", "x")
	_, err := r.Redis().Pipelined(ctx, func(p redis.Pipeliner) error {
		for range 100 {
			p.Incr(ctx, key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Redis().Get(ctx, r.Key("test", "none")).Err() == nil || r.Redis().LPop(ctx, key).Err() == nil {
		t.Error("calls that must fail worked")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if r.Redis().Ping(gone).Err() == nil {
		t.Error("a canceled call worked")
	}
	want := map[string]float64{
		"maskrelay_redis_up": 1, "maskrelay_fleet_relays": 1,
		"maskrelay_redis_calls_total ok": 2, "maskrelay_redis_calls_total error": 1, "maskrelay_redis_calls_total canceled": 1,
		"maskrelay_redis_calls_total timeout": 0, "maskrelay_redis_calls_total failed": 0, "maskrelay_redis_calls_total busy": 0,
	}
	if got := gather(t, r); !maps.Equal(got, want) {
		t.Errorf("metrics %v, want %v", got, want)
	}
	if r.Calls() != 4 {
		t.Errorf("%d calls, want 4", r.Calls())
	}
	server.Kill(t)
	r.told(t, false)
	if up, ok := gather(t, r)["maskrelay_redis_up"]; !ok || up != 0 {
		t.Errorf("maskrelay_redis_up %v of a dead server", up)
	}
}

// gather returns each series' value by its name and label.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

// More callers than connections wait for one.
func TestBurstOfCallers(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var callers sync.WaitGroup
	for range 300 {
		callers.Go(func() {
			// On a machine that is busy enough some wait in vain.
			if err := r.Redis().Incr(ctx, r.Key("test", "burst")).Err(); err != nil && !errors.Is(err, redis.ErrPoolTimeout) {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	// 32, as many again that were being made while others became free, and those of Run and of this question.
	if got := strings.Count(server.Do(t, "CLIENT", "LIST")[0], " addr="); got > 80 {
		t.Errorf("%d connections", got)
	}
}

// Callers that hold every connection make others fail, but Redis is not away.
func TestBusyPoolIsNoOutage(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	var holders sync.WaitGroup
	defer holders.Wait()
	for range 32 {
		holders.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := r.Redis().BLPop(ctx, time.Minute, r.Key("test", "wait")).Err(); err != nil {
				t.Error(err)
			}
		})
	}
	lab.Wait(t, patience, "holders of all connections", func() bool {
		return strings.Count(server.Do(t, "CLIENT", "LIST")[0], "cmd=blpop") == 32
	})
	if err := r.Redis().Ping(roomy(t)).Err(); !errors.Is(err, redis.ErrPoolTimeout) || !r.Up() {
		t.Errorf("up %v after %v", r.Up(), err)
	}
	server.Do(t, append([]string{"RPUSH", r.Key("test", "wait")}, strings.Fields(strings.Repeat("x ", 32))...)...)
}

func TestCluster(t *testing.T) {
	cluster := lab.StartRedisCluster(t)
	for _, node := range cluster.Nodes {
		node.AddUser(t, secretUser, secretPass, rights...)
	}
	r, e := listening(t, cluster.UserURL(secretUser, secretPass), "close")
	other, earOther := listening(t, cluster.URL(), "close")
	// Names whose keys lie on different nodes, in scripts with several keys of one name.
	pair := redis.NewScript(`return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])`)
	for _, name := range []string{"alice", "bob", "carol", "dave}", "e ve", "f{r}ank", "", "~"} {
		if n, err := pair.Run(roomy(t), r.Redis(), []string{r.Key("a", name), r.Key("b", name)}).Int(); n != 2 || err != nil {
			t.Errorf("%q: %d, %v", name, n, err)
		}
	}
	for _, node := range cluster.Nodes {
		if node.Do(t, "DBSIZE")[0] == "0" {
			t.Errorf("nothing lies on %s", node.Addr)
		}
	}
	r.reaches(t, "close", "x", e, earOther)
	lab.Wait(t, patience, "two relays", func() bool { return r.Relays() == 2 && other.Relays() == 2 })
	if members, err := r.Members(roomy(t)); err != nil || len(members) != 2 {
		t.Errorf("members %+v, %v", members, err)
	}
	if warnings := r.Warnings(t.Context()); len(warnings) != 0 {
		t.Errorf("warnings %q", warnings)
	}
	for _, node := range cluster.Nodes {
		node.Freeze(t)
		r.told(t, false)
		node.Thaw(t)
		r.told(t, true)
	}
	r.reaches(t, "close", "after", e, earOther)
}

// A single server's URL for a cluster's node is told as such.
func TestClusterNeedsAFurtherAddress(t *testing.T) {
	cluster := lab.StartRedisCluster(t)
	wrong := 0
	for _, node := range cluster.Nodes {
		r := open(t, fleet.Config{URL: "redis://" + node.Addr}, nil)
		change := <-r.changes
		if !change.up {
			wrong++
			if !strings.Contains(change.err.Error(), "?addr=") {
				t.Error(change.err)
			}
		}
	}
	if wrong != len(cluster.Nodes)-1 {
		t.Errorf("%d nodes of another's slot answered as if alone", len(cluster.Nodes)-wrong)
	}
}
