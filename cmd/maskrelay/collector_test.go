package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"

	"maskrelay/proxy/capacity"
)

// keepCollector puts Go's collector back as it was after the test.
func keepCollector(t *testing.T) {
	t.Helper()
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
}

func TestCollector(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name        string
		host        capacity.Host
		env         map[string]string
		gogc, limit string
	}{
		{"cgroup", capacity.Host{MemoryTotal: 64 * gib, MemoryLimit: 8 * gib}, nil, "400", "2048MiB"},
		{"machine", capacity.Host{MemoryTotal: 4 * gib}, nil, "400", "1024MiB"},
		{"small: the floor", capacity.Host{MemoryTotal: 200 << 20}, nil, "400", "64MiB"},
		{"tiny: half of it", capacity.Host{MemoryTotal: 100 << 20}, nil, "400", "50MiB"},
		{"not known", capacity.Host{}, nil, "400", "off"},
		{"the operator's GOGC", capacity.Host{MemoryTotal: 4 * gib}, map[string]string{"GOGC": "50"}, "100", "1024MiB"},
		{"the operator's GOMEMLIMIT", capacity.Host{MemoryTotal: 4 * gib}, map[string]string{"GOMEMLIMIT": "1GiB"}, "400", "off"},
		{"empty is not set", capacity.Host{MemoryTotal: 4 * gib}, map[string]string{"GOGC": "", "GOMEMLIMIT": ""}, "400", "1024MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keepCollector(t)
			newCollector(c.host, func(name string) (string, bool) { v, ok := c.env[name]; return v, ok })
			if gogc, limit := collectorSettings(); gogc != c.gogc || limit != c.limit {
				t.Errorf("GOGC %s and GOMEMLIMIT %s, want %s and %s", gogc, limit, c.gogc, c.limit)
			}
		})
	}
}

// TestCollectorFollowsTheHeap: a limit below what is alive would make the collector run without end.
func TestCollectorFollowsTheHeap(t *testing.T) {
	keepCollector(t)
	c := newCollector(capacity.Host{MemoryTotal: 400 << 20}, func(string) (string, bool) { return "", false })
	if c.limit != 100<<20 {
		t.Fatalf("the limit is %d MiB, want 100", c.limit>>20)
	}
	alive := make([]byte, 60<<20)
	runtime.GC()
	c.adjust()
	if c.limit < 120<<20 || c.limit > 170<<20 { // further up, what follows would be a small change
		t.Errorf("with 60 MiB alive the limit is %d MiB, want 120 to 170", c.limit>>20)
	}
	more := make([]byte, 300<<20)
	runtime.GC()
	c.adjust()
	if c.limit != 200<<20 || debug.SetMemoryLimit(-1) != c.limit {
		t.Errorf("with 360 MiB alive the limit is %d MiB, want 200: half of the memory", c.limit>>20)
	}
	runtime.KeepAlive(more)
	runtime.KeepAlive(alive)
	alive, more = nil, nil
	runtime.GC()
	c.adjust()
	if c.limit != 100<<20 {
		t.Errorf("with nothing alive the limit is %d MiB, want 100", c.limit>>20)
	}
}

func TestCollectorSettingsOff(t *testing.T) {
	keepCollector(t)
	debug.SetGCPercent(-1)
	if gogc, _ := collectorSettings(); gogc != "off" {
		t.Errorf("GOGC is %s", gogc)
	}
}
