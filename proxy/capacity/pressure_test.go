package capacity

import (
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"
	"testing/fstest"
)

// memoryTree is a cgroup v2 of 1000 MiB on a machine of 8000 MiB.
func memoryTree() map[string]string {
	return map[string]string{
		"proc/self/cgroup":                 "0::/a/b\n",
		"sys/fs/cgroup/a/memory.max":       "max\n",
		"sys/fs/cgroup/a/memory.current":   "1\n",
		"sys/fs/cgroup/a/b/memory.max":     mib(1000),
		"sys/fs/cgroup/a/b/memory.current": mib(500),
		"sys/fs/cgroup/a/b/memory.stat":    "anon 1\ninactive_file 0\nactive_file 7\n",
		"proc/meminfo":                     meminfo(8000, 6000),
		"proc/sys/net/ipv4/tcp_mem":        "1000 2000 4000\n",
		"proc/net/sockstat":                "sockets: used 13\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 100\nUDP: inuse 0 mem 3999\n",
	}
}

func mib(n int) string { return fmt.Sprintf("%d\n", n<<20) }

func meminfo(total, available int) string {
	return fmt.Sprintf("MemTotal: %d kB\nMemFree: 5 kB\nMemAvailable:   %d kB\n", total<<10, available<<10)
}

func TestPressure(t *testing.T) {
	const group = "sys/fs/cgroup/a/b/"
	for _, c := range []struct {
		name  string
		files map[string]string // over memoryTree; "-" = not there
		ratio float64
		full  bool
		why   string
	}{
		{"half", nil, 0.5, false, "50% of the 1000 MiB of the cgroup in use"},
		{"cgroup", map[string]string{group + "memory.current": mib(910)}, 0.91, true, "91% of the 1000 MiB of the cgroup in use"},
		{"just at the mark", map[string]string{group + "memory.current": mib(900)}, 0.9, false, "90% of the 1000 MiB of the cgroup in use"},
		{"cache does not count", map[string]string{group + "memory.current": mib(950), group + "memory.stat": "inactive_file " + mib(200)}, 0.75, false,
			"75% of the 1000 MiB of the cgroup in use"},
		{"more cache than use", map[string]string{group + "memory.current": mib(1), group + "memory.stat": "inactive_file " + mib(200)}, 0.25, false,
			"25% of the 8000 MiB of the machine in use"},
		{"memory.high is tighter", map[string]string{group + "memory.high": mib(520)}, 500. / 520, true, "96% of the 520 MiB of the cgroup in use"},
		{"a parent is tighter", map[string]string{"sys/fs/cgroup/a/memory.max": mib(100), "sys/fs/cgroup/a/memory.current": mib(95)}, 0.95, true,
			"95% of the 100 MiB of the cgroup in use"},
		{"no cgroup: the machine", map[string]string{"proc/self/cgroup": "-"}, 0.25, false, "25% of the 8000 MiB of the machine in use"},
		{"the machine is full", map[string]string{"proc/meminfo": meminfo(8000, 400)}, 0.95, true, "95% of the 8000 MiB of the machine in use"},
		{"old kernel", map[string]string{"proc/self/cgroup": "-", "proc/meminfo": "MemTotal: 8000 kB\n"}, 0.025, false,
			fmt.Sprintf("2%% of the %d MiB of TCP buffers (net.ipv4.tcp_mem) in use", 4000*os.Getpagesize()>>20)},
		{"TCP buffers", map[string]string{"proc/net/sockstat": "TCP: inuse 9 mem 3800\n"}, 0.95, true,
			fmt.Sprintf("95%% of the %d MiB of TCP buffers (net.ipv4.tcp_mem) in use", 4000*os.Getpagesize()>>20)},
		{"v1", map[string]string{
			"proc/self/cgroup":                              "4:memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":    mib(200),
			"sys/fs/cgroup/memory/memory.usage_in_bytes":    mib(190),
			"sys/fs/cgroup/memory/memory.stat":              "inactive_file " + mib(150) + "total_inactive_file " + mib(2),
			"sys/fs/cgroup/memory/docker/memory.usage":      "none of ours\n",
			"sys/fs/cgroup/memory/docker/x/something.else":  "1\n",
			"sys/fs/cgroup/memory/docker/x/memory.stat.old": "1\n",
		}, 0.94, true, "94% of the 200 MiB of the cgroup in use"},
		{"v1 without a limit", map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": mib(190),
		}, 0.25, false, "25% of the 8000 MiB of the machine in use"},
		{"files that make no sense", map[string]string{
			group + "memory.current": "much\n", "proc/meminfo": "MemAvailable: little kB\n", "proc/net/sockstat": "TCP: mem\n",
		}, 0, false, "0% of the 1000 MiB of the cgroup in use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := memoryTree()
			for name, content := range c.files {
				if files[name] = content; content == "-" {
					delete(files, name)
				}
			}
			p := NewPressure(tree(files))
			if got := p.Ratio(); got < c.ratio-1e-9 || got > c.ratio+1e-9 || p.Full() != c.full || p.Reason() != c.why {
				t.Errorf("ratio %v, full %v, %q; want %v, %v, %q", got, p.Full(), p.Reason(), c.ratio, c.full, c.why)
			}
		})
	}
}

func TestPressureOfNothing(t *testing.T) {
	p := NewPressure(tree(nil))
	if p.Sample() || p.Full() || p.Ratio() != 0 || p.Reason() != "" {
		t.Errorf("full %v, ratio %v, %q", p.Full(), p.Ratio(), p.Reason())
	}
}

// TestPressureHysteresis: between the two marks everything stays as it is.
func TestPressureHysteresis(t *testing.T) {
	files := fstest.MapFS{}
	use := func(n int) { files["proc/meminfo"] = &fstest.MapFile{Data: []byte(meminfo(1000, 1000-n))} }
	use(100)
	p := NewPressure(files)
	for n, step := range []struct {
		used          int
		changed, full bool
	}{
		{890, false, false}, {900, false, false}, {901, true, true}, {990, false, true}, {1000, false, true}, {880, false, true},
		{850, false, true}, {849, true, false}, {899, false, false}, {950, true, true}, {10, true, false},
	} {
		use(step.used)
		if changed := p.Sample(); changed != step.changed || p.Full() != step.full {
			t.Errorf("step %d, %d used: changed %v, full %v; want %v, %v", n, step.used, changed, p.Full(), step.changed, step.full)
		}
	}
	use(950)
	p.Sample()
	delete(files, "proc/meminfo")
	if !p.Sample() || p.Full() {
		t.Error("full for ever, though nothing can be read any more")
	}
}

// TestPressureOfThisHost reads the real files, by many at once.
func TestPressureOfThisHost(t *testing.T) {
	if _, err := os.Stat("/proc/meminfo"); err != nil {
		t.Skip("no /proc here")
	}
	p := NewPressure(os.DirFS("/"))
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 100 {
				_, _, _ = p.Full(), p.Ratio(), p.Reason()
			}
		})
	}
	p.Sample()
	readers.Wait()
	if r := p.Ratio(); r <= 0 || r > 1.1 || p.Reason() == "" {
		t.Errorf("implausible: %v, %q", r, p.Reason())
	}
}

func BenchmarkPressureSample(b *testing.B) {
	if _, err := fs.Stat(os.DirFS("/"), "proc/meminfo"); err != nil {
		b.Skip("no /proc here")
	}
	p := NewPressure(os.DirFS("/"))
	for b.Loop() {
		p.Sample()
	}
}
