package main

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"strconv"

	"maskrelay/proxy/capacity"
)

const (
	// collectorPercent is GOGC. The live heap is small (tens of MB with 100,000 tunnels) and nearly all that is allocated
	// dies with its request: to collect four times as rarely costs little memory and saves a fifth of the CPU of a set-up.
	collectorPercent = 400
	// memoryShare of the memory is GOMEMLIMIT: one part in four. The rest is not Go's to have: sockets and pipes are
	// charged to the same cgroup, and a hundred thousand of them weigh more than the process.
	memoryShare = 4
	// memoryFloor is the least GOMEMLIMIT, unless half of the memory is less.
	memoryFloor = 64 << 20
)

// collector sets Go's garbage collector to what suits a relay, except for what the operator's environment sets.
//
// A memory limit below what is alive makes the collector run without end: it then takes half of the CPU, which is where Go stops
// it, and the relay gets slow long before it runs out of memory. What is alive can be much with a large accounts
// file, or with tens of thousands of tunnels behind TLS. So the limit follows it: see adjust.
type collector struct {
	base  int64 // the limit in bytes, a share of the memory; 0 = the operator's, or the memory is not known
	most  int64 // what the limit may grow to: half of the memory
	limit int64 // as last set
}

// newCollector sets GOGC and GOMEMLIMIT as lookup, which is [os.LookupEnv], and host tell.
func newCollector(host capacity.Host, lookup func(string) (string, bool)) *collector {
	c := &collector{}
	if v, _ := lookup("GOGC"); v == "" {
		debug.SetGCPercent(collectorPercent)
	}
	if v, _ := lookup("GOMEMLIMIT"); v != "" || host.Memory() == 0 {
		return c
	}
	memory := int64(min(host.Memory(), math.MaxInt64))
	c.most = memory / 2
	c.base = min(max(memory/memoryShare, memoryFloor), c.most)
	c.adjust()
	return c
}

// adjust keeps the limit above what is alive: at twice the live heap, as GOGC=100 has it, and what Go uses beside
// the heap, but never above half of the memory. It is cheap and is called now and then, by one goroutine at a time.
func (c *collector) adjust() {
	if c.base == 0 {
		return
	}
	heap, beside := goMemory()
	limit := min(max(2*heap+beside, c.base), c.most)
	// Setting it stops the world for a moment: small changes are not worth that.
	if c.limit == 0 || limit > c.limit+c.limit/8 || limit < c.limit-c.limit/4 {
		debug.SetMemoryLimit(limit)
		c.limit = limit
	}
}

// goMemory is what counts against GOMEMLIMIT and cannot be collected, in bytes: the heap that the last cycle found alive, and stacks and the
// runtime's own.
func goMemory() (heap, beside int64) {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(s)
	v := make([]int64, len(s))
	for i := range s {
		v[i] = int64(s[i].Value.Uint64())
	}
	return v[0], max(v[1]-v[2]-v[3]-v[4]-v[5], 0)
}

// collectorSettings are GOGC and GOMEMLIMIT as in force, as their variables spell them.
func collectorSettings() (gogc, limit string) {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	gogc, limit = "off", "off"
	if n := s[0].Value.Uint64(); n <= math.MaxInt32 {
		gogc = strconv.FormatUint(n, 10)
	}
	if n := debug.SetMemoryLimit(-1); n != math.MaxInt64 {
		limit = strconv.FormatInt(n>>20, 10) + "MiB"
	}
	return gogc, limit
}
