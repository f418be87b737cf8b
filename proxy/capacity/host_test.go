package capacity

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func tree(files map[string]string) fs.FS {
	t := fstest.MapFS{}
	for name, content := range files {
		t[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return t
}

func rlimit(soft, hard uint64) func() (uint64, uint64, error) {
	return func() (uint64, uint64, error) { return soft, hard, nil }
}

// droplet is a 4 vCPU, 8 GB machine without a container.
func droplet() map[string]string {
	return map[string]string{
		"proc/sys/kernel/osrelease":                 "6.8.0-51-generic\n",
		"proc/sys/net/ipv4/ip_local_port_range":     "32768\t60999\n",
		"proc/sys/net/netfilter/nf_conntrack_max":   "262144\n",
		"proc/sys/net/core/somaxconn":               "4096\n",
		"proc/sys/fs/pipe-user-pages-soft":          "16384\n",
		"proc/sys/net/ipv4/tcp_mem":                 "93714\t124955\t187428\n",
		"proc/meminfo":                              "MemTotal:        8148000 kB\nMemFree:          512000 kB\n",
		"proc/self/cgroup":                          "0::/system.slice/maskrelay.service\n",
		"proc/sys/net/ipv4/ip_local_reserved_ports": "\n",
	}
}

func TestReadHost(t *testing.T) {
	got, err := ReadHost(tree(droplet()), rlimit(1048576, 1048576))
	if err != nil {
		t.Fatal(err)
	}
	want := Host{
		OpenFilesSoft: 1048576, OpenFilesHard: 1048576,
		PortLow: 32768, PortHigh: 60999,
		ConntrackMax: 262144,
		MemoryTotal:  8148000 * 1024,
		Backlog:      4096, PipePagesSoft: 16384,
		TCPPages: [3]uint64{93714, 124955, 187428},
		Kernel:   "6.8.0-51-generic",
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Ports() != 28232 {
		t.Errorf("Ports() = %d, want 28232", got.Ports())
	}
}

func TestReadHostNothingThere(t *testing.T) {
	got, err := ReadHost(tree(nil), rlimit(1024, 4096))
	if err != nil {
		t.Fatalf("missing files are no error, got %v", err)
	}
	if want := (Host{OpenFilesSoft: 1024, OpenFilesHard: 4096, PipePagesSoft: -1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReadHostErrors(t *testing.T) {
	files := droplet()
	files["proc/sys/net/netfilter/nf_conntrack_max"] = "many"
	files["proc/sys/net/ipv4/ip_local_port_range"] = "60999 32768"
	files["proc/sys/net/ipv4/tcp_mem"] = "1 2"
	files["proc/meminfo"] = "MemTotal: lots kB"
	failed := errors.New("no such limit")
	got, err := ReadHost(tree(files), func() (uint64, uint64, error) { return 0, 0, failed })
	if !errors.Is(err, failed) {
		t.Errorf("error %v does not hold the cause", err)
	}
	want := []string{
		`capacity: /proc/sys/net/netfilter/nf_conntrack_max: "many" is not a number`,
		`capacity: /proc/meminfo: "lots" is not a number`,
		`capacity: /proc/sys/net/ipv4/tcp_mem: "1 2" is not 3 numbers`,
		`capacity: /proc/sys/net/ipv4/ip_local_port_range: 60999 to 32768 is not a range of ports`,
		`capacity: open files: no such limit`,
	}
	if err.Error() != strings.Join(want, "\n") {
		t.Errorf("got:\n%v\nwant:\n%s", err, strings.Join(want, "\n"))
	}
	if got.Kernel != "6.8.0-51-generic" || got.Ports() != 0 {
		t.Errorf("the readable rest is lost: %+v", got)
	}
}

func TestReservedPorts(t *testing.T) {
	for _, c := range []struct {
		name, reserved string
		ports          int
		bad            bool
	}{
		{"none", "", 28232, false},
		{"one inside", "40000", 28231, false},
		{"one outside", "8080", 28232, false},
		{"range inside", "40000-40099", 28132, false},
		{"range over the edge", "30000-32769,8080", 28230, false},
		{"not a list", "40000,x", 28231, true},
		{"everything", "1-65535", 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := droplet()
			files["proc/sys/net/ipv4/ip_local_reserved_ports"] = c.reserved + "\n"
			h, err := ReadHost(tree(files), rlimit(1024, 1024))
			if (err != nil) != c.bad {
				t.Errorf("error %v, want one: %v", err, c.bad)
			}
			if h.Ports() != c.ports {
				t.Errorf("Ports() = %d, want %d", h.Ports(), c.ports)
			}
		})
	}
}

func TestCgroupLimit(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name  string
		files map[string]string
		limit uint64
	}{
		{"v2 own group", map[string]string{
			"proc/self/cgroup": "0::/system.slice/maskrelay.service\n",
			"sys/fs/cgroup/system.slice/maskrelay.service/memory.max": "536870912\n",
		}, 512 * mib},
		{"v2 parent is tighter", map[string]string{
			"proc/self/cgroup":             "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n",
			"sys/fs/cgroup/a/memory.max":   "268435456\n",
			"sys/fs/cgroup/memory.max":     "536870912\n",
		}, 256 * mib},
		{"v2 in a container sees itself as root", map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"sys/fs/cgroup/memory.max": "1073741824\n",
		}, 1024 * mib},
		{"v2 path of the outside", map[string]string{
			"proc/self/cgroup":         "0::/../../kubepods/x\n",
			"sys/fs/cgroup/memory.max": "1073741824\n",
		}, 1024 * mib},
		{"v2 without a limit", map[string]string{
			"proc/self/cgroup":         "0::/\n",
			"sys/fs/cgroup/memory.max": "max\n",
		}, 0},
		{"v1", map[string]string{
			"proc/self/cgroup": "9:name=systemd:/x\n4:cpu,memory:/docker/abc\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "134217728\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":            "9223372036854771712\n",
		}, 128 * mib},
		{"v1 in a container", map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
		}, 128 * mib},
		{"v1 without a limit", map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		{"hybrid", map[string]string{
			"proc/self/cgroup":                   "4:pids:/\n0::/a\n",
			"sys/fs/cgroup/unified/a/memory.max": "67108864\n",
		}, 64 * mib},
		{"lines that are none", map[string]string{"proc/self/cgroup": "x\n1:memory\n"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := ReadHost(tree(c.files), rlimit(1024, 1024))
			if err != nil {
				t.Fatal(err)
			}
			if h.MemoryLimit != c.limit {
				t.Errorf("MemoryLimit = %d, want %d", h.MemoryLimit, c.limit)
			}
		})
	}
}

func TestMemory(t *testing.T) {
	for _, c := range []struct {
		name               string
		total, limit, want uint64
	}{
		{"machine only", 8, 0, 8},
		{"cgroup below", 8, 2, 2},
		{"cgroup above", 8, 16, 8},
		{"cgroup only", 0, 16, 16},
		{"neither", 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := (Host{MemoryTotal: c.total, MemoryLimit: c.limit}).Memory(); got != c.want {
				t.Errorf("Memory() = %d, want %d", got, c.want)
			}
		})
	}
}

// TestReadThisHost reads the real files: the formats assumed above are those of a live kernel.
func TestReadThisHost(t *testing.T) {
	if _, err := os.Stat("/proc/meminfo"); err != nil {
		t.Skip("no /proc here")
	}
	h, err := ReadHost(os.DirFS("/"), OpenFiles)
	if err != nil {
		t.Fatal(err)
	}
	if h.OpenFilesSoft == 0 || h.MemoryTotal < 1<<20 {
		t.Errorf("implausible: %+v", h)
	}
}

func TestMemoryHigh(t *testing.T) {
	h, err := ReadHost(tree(map[string]string{
		"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "536870912\n", "sys/fs/cgroup/a/memory.high": "268435456\n",
	}), rlimit(1024, 1024))
	if err != nil || h.MemoryLimit != 256<<20 {
		t.Errorf("MemoryLimit = %d, %v; at memory.high the kernel makes a process wait", h.MemoryLimit, err)
	}
}
