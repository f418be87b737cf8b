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
		{FileDescriptors, 1048576, 523872, "(1048576 open files - 832 reserved) / 2 a tunnel"},
		{Ports, 28232, 56464, "28232 local ports (32768-60999) x 2 gateway addresses"},
		{Conntrack, 262144, 131072, "262144 entries (nf_conntrack_max) / 2 a tunnel"},
		{Memory, 2 << 30, 45875, "70% of the 2048 MiB of the cgroup / 32 KiB a tunnel"},
	}
	got := h.Limits(Shape{Gateways: 2, Pairs: 2})
	if len(got) != len(want) {
		t.Fatalf("%d limits, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
	if n, by := h.MaxConns(Shape{Gateways: 2}); n != 45875 || by != Memory {
		t.Errorf("MaxConns(2) = %d by %s", n, by)
	}
	if n, by := h.MaxConns(Shape{Gateways: 1}); n != 28232 || by != Ports {
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
		l := (Host{}).Limits(Shape{Gateways: 3})[i]
		if l.Binds() || l.Detail != detail {
			t.Errorf("%s: %+v, want it left out because %q", l.Name, l, detail)
		}
	}
	direct := Host{PortLow: 1024, PortHigh: 65535}.Limits(Shape{})[1]
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
		{"docker's soft 1024", Host{OpenFilesSoft: 1024, OpenFilesHard: 1024}, 1, 264, FileDescriptors},
		{"fewer files than are reserved", Host{OpenFilesSoft: 100}, 1, MinConns, Floor},
		{"unlimited files", Host{OpenFilesSoft: math.MaxUint64}, 1, math.MaxInt32, FileDescriptors},
		{"all ports reserved", Host{PortLow: 10, PortHigh: 11, PortsReserved: 2}, 1, MinConns, Floor},
		{"conntrack", Host{OpenFilesSoft: 1 << 20, ConntrackMax: 65536}, 1, 32768, Conntrack},
		{"many gateways", Host{OpenFilesSoft: 1 << 20, PortLow: 1024, PortHigh: 65535}, 20, 523872, FileDescriptors},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, by := c.host.MaxConns(Shape{Gateways: c.addrs})
			if n != c.n || by != c.by {
				t.Errorf("MaxConns(%d) = %d by %s, want %d by %s", c.addrs, n, by, c.n, c.by)
			}
		})
	}
}

func TestHardLimitIsNamed(t *testing.T) {
	l := Host{OpenFilesSoft: 1024, OpenFilesHard: 524288}.Limits(Shape{Gateways: 1})[0]
	if want := "(1024 open files - 496 reserved) / 2 a tunnel; the hard limit is 524288"; l.Detail != want {
		t.Errorf("got %q, want %q", l.Detail, want)
	}
}

// TestPortsOfSources: each pair of a source address and a gateway address has the ports to itself.
func TestPortsOfSources(t *testing.T) {
	h := Host{PortLow: 32768, PortHigh: 60999}
	for _, c := range []struct {
		shape   Shape
		tunnels int
		detail  string
	}{
		{Shape{Gateways: 2}, 56464, "28232 local ports (32768-60999) x 2 gateway addresses"},
		{Shape{Gateways: 1, Pairs: 1}, 28232, "28232 local ports (32768-60999) x 1 gateway address"},
		{Shape{Gateways: 2, Pairs: 6}, 169392, "28232 local ports (32768-60999) x 6 pairs of a source and a gateway address"},
		{Shape{Gateways: 2, Pairs: 1}, 28232, "28232 local ports (32768-60999) x 1 pair of a source and a gateway address"},
	} {
		if l := h.Limits(c.shape)[1]; l.Tunnels != c.tunnels || l.Detail != c.detail {
			t.Errorf("%+v: %+v, want %d, %q", c.shape, l, c.tunnels, c.detail)
		}
	}
}

func TestMemoryWithTLS(t *testing.T) {
	l := Host{MemoryTotal: 8 << 30}.Limits(Shape{Gateways: 1, TLS: true})[3]
	if want := "70% of the 8192 MiB of the machine / 64 KiB a tunnel with TLS"; l.Tunnels != 91750 || l.Detail != want {
		t.Errorf("%+v, want %q", l, want)
	}
}

// TestFilePairs: what tunnels, spare connections and the reserve take together fits, and one tunnel more would not.
func TestFilePairs(t *testing.T) {
	for _, c := range []struct {
		files        uint64
		pairs, spare int
	}{
		{0, 0, 0},
		{100, 1, 64},
		{321, 1, 64},
		{1024, 264, 132},
		{4096, 1632, 384},
		{20000, 9584, 384},
		{1 << 20, 523872, 384},
		{math.MaxUint64, math.MaxInt32, 384},
	} {
		h := Host{OpenFilesSoft: c.files}
		if pairs, spare := h.FilePairs(), h.SpareConns(); pairs != c.pairs || spare != c.spare {
			t.Errorf("%d files: %d pairs and %d spare, want %d and %d", c.files, pairs, spare, c.pairs, c.spare)
		}
	}
	for files := uint64(reservedFiles + 100); files < 8192; files++ {
		n := Host{OpenFilesSoft: files}.FilePairs()
		if used, more := 2*n+spareFiles(n)+reservedFiles, 2*(n+1)+spareFiles(n+1)+reservedFiles; uint64(used) > files || uint64(more) <= files {
			t.Fatalf("%d files, %d pairs: %d in use, %d with one more", files, n, used, more)
		}
	}
}
