package capacity

import (
	"math"
	"testing"
)

func TestLimits(t *testing.T) {
	h := Host{
		OpenFilesSoft: 1048576, OpenFilesHard: 1048576,
		PortLow: 32768, PortHigh: 60999, ConntrackMax: 262144,
		MemoryTotal: 8 << 30, MemoryLimit: 2 << 30,
	}
	want := []Limit{
		{FileDescriptors, 1048576, 524032, "(1048576 open files - 512 reserved) / 2 a tunnel"},
		{Ports, 28232, 56464, "28232 local ports (32768-60999) x 2 gateway addresses"},
		{Conntrack, 262144, 131072, "262144 entries (nf_conntrack_max) / 2 a tunnel"},
		{Memory, 2 << 30, 30583, "70% of the 2048 MiB of the cgroup / 48 KiB a tunnel"},
	}
	got := h.Limits(2)
	if len(got) != len(want) {
		t.Fatalf("%d limits, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
	if n, by := h.MaxConns(2); n != 30583 || by != Memory {
		t.Errorf("MaxConns(2) = %d by %s", n, by)
	}
	if n, by := h.MaxConns(1); n != 28232 || by != Ports {
		t.Errorf("MaxConns(1) = %d by %s", n, by)
	}
}

func TestLimitsLeftOut(t *testing.T) {
	for i, detail := range []string{
		"the limit of open files could not be read",
		"net.ipv4.ip_local_port_range could not be read",
		"connections are not tracked here",
		"neither MemTotal nor a cgroup limit could be read",
	} {
		l := (Host{}).Limits(3)[i]
		if l.Binds() || l.Detail != detail {
			t.Errorf("%s: %+v, want it left out because %q", l.Name, l, detail)
		}
	}
	direct := Host{PortLow: 1024, PortHigh: 65535}.Limits(0)[1]
	if direct.Binds() || direct.Detail != "targets are dialled directly: 64512 ports to each target, not to all together" {
		t.Errorf("direct: %+v", direct)
	}
}

func TestMaxConns(t *testing.T) {
	for _, c := range []struct {
		name  string
		host  Host
		addrs int
		n     int
		by    string
	}{
		{"nothing known", Host{}, 1, MinConns, Floor},
		{"docker's soft 1024", Host{OpenFilesSoft: 1024, OpenFilesHard: 1024}, 1, 256, FileDescriptors},
		{"fewer files than are reserved", Host{OpenFilesSoft: 100}, 1, MinConns, Floor},
		{"unlimited files", Host{OpenFilesSoft: math.MaxUint64}, 1, math.MaxInt32, FileDescriptors},
		{"all ports reserved", Host{PortLow: 10, PortHigh: 11, PortsReserved: 2}, 1, MinConns, Floor},
		{"conntrack", Host{OpenFilesSoft: 1 << 20, ConntrackMax: 65536}, 1, 32768, Conntrack},
		{"many gateways", Host{OpenFilesSoft: 1 << 20, PortLow: 1024, PortHigh: 65535}, 20, 524032, FileDescriptors},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, by := c.host.MaxConns(c.addrs)
			if n != c.n || by != c.by {
				t.Errorf("MaxConns(%d) = %d by %s, want %d by %s", c.addrs, n, by, c.n, c.by)
			}
		})
	}
}

func TestHardLimitIsNamed(t *testing.T) {
	l := Host{OpenFilesSoft: 1024, OpenFilesHard: 524288}.Limits(1)[0]
	if want := "(1024 open files - 512 reserved) / 2 a tunnel; the hard limit is 524288"; l.Detail != want {
		t.Errorf("got %q, want %q", l.Detail, want)
	}
}
