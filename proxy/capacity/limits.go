package capacity

import (
	"fmt"
	"math"
)

// Names of the limits, as in [Limit.Name] and in what [Host.MaxConns] returns.
const (
	FileDescriptors = "file_descriptors"
	Ports           = "ports"
	Conntrack       = "conntrack"
	Memory          = "memory"
	// Floor is what MaxConns names when the host allows less than MinConns.
	Floor = "floor"
)

// MinConns is the least that MaxConns answers: a relay that admits nobody helps nobody, and a host as tight
// as that is told of by [Host.Limits].
const MinConns = 64

const (
	// conntrackPerTunnel: the customer's connection and the gateway's are an entry each.
	conntrackPerTunnel = 2
	// bytesPerTunnel is what the memory limit reckons with: the mean over a relay's tunnels, not the most that one can take.
	//
	//	idle        0.5 KiB in the process, 10 KiB of the kernel's for two sockets (4.9 KB each: tcp_sock, inode, file,
	//	            dentry, epitem), charged to the same cgroup
	//	bytes       a tunnel that moves some keeps tens of KiB in its sockets' queues, some 100 KiB at speed. With one
	//	            in ten at it that is 10 KiB a tunnel
	//	stalled     a customer who stops reading while the vendor sends costs up to 0.6 MB (TCP_NOTSENT_LOWAT bounds
	//	            what waits to be sent). One in a hundred is 6 KiB a tunnel
	//	set-up      net/http's 12 KB a CONNECT are garbage at once and within the collector's own share
	//
	// That makes 27 KiB; 32 leave some air. Where customers are worse than that, [Pressure] refuses new ones in time.
	bytesPerTunnel = 32 << 10
	// bytesPerTLS comes on top where TLS ends here, on either side: two goroutines with their stacks (8 KiB), and the
	// record buffers and state of crypto/tls. All of it is the process's own.
	bytesPerTLS = 32 << 10
	// memoryPercent leaves the rest for Go's heap with its garbage, the page cache and other processes.
	memoryPercent = 70
)

// Limit is one thing that bounds the number of tunnels.
type Limit struct {
	// Name is FileDescriptors, Ports, Conntrack or Memory.
	Name string `json:"name"`
	// Value is the raw limit: descriptors, ports to one gateway address, table entries, bytes. 0 = not known.
	Value uint64 `json:"value"`
	// Tunnels is what Value allows, at least 1. 0 = it does not bind; Detail says why.
	Tunnels int `json:"tunnels"`
	// Detail is one line for people: where the number comes from, or why there is none.
	Detail string `json:"detail"`
}

// Binds reports whether the limit bounds the number of tunnels at all.
func (l Limit) Binds() bool { return l.Tunnels > 0 }

// Shape is what of a relay's configuration decides how many tunnels a host carries. The zero value dials targets directly.
type Shape struct {
	// Gateways is the number of distinct gateway addresses (host and port) that tunnels are spread over. 0 = targets are
	// dialled directly, where ports bind each target alone.
	Gateways int
	// Pairs is how many pairs of a source address and a gateway address of its family there are: each pair has the
	// host's ports to itself. 0 = no source addresses are configured, so as many as Gateways.
	Pairs int
	// TLS reports whether TLS ends here, towards customers or gateways.
	TLS bool
}

// Limits are all limits of the host, always the same four in the same order.
func (h Host) Limits(s Shape) []Limit {
	return []Limit{h.fileLimit(), h.portLimit(s), h.conntrackLimit(), h.memoryLimit(s)}
}

// MaxConns is the smallest of the limits, at least [MinConns], and the name of the limit that binds;
// [Floor] when MinConns is more than the host allows or nothing is known of it.
func (h Host) MaxConns(s Shape) (n int, boundBy string) {
	n = math.MaxInt
	boundBy = Floor
	for _, l := range h.Limits(s) {
		if l.Binds() && l.Tunnels < n {
			n, boundBy = l.Tunnels, l.Name
		}
	}
	if boundBy == Floor || n < MinConns {
		return MinConns, Floor
	}
	return n, boundBy
}

func (h Host) fileLimit() Limit {
	l := Limit{Name: FileDescriptors, Value: h.OpenFilesSoft}
	if h.OpenFilesSoft == 0 {
		l.Detail = "the limit of open files could not be read"
		return l
	}
	l.Tunnels = h.FilePairs()
	reserved := reservedFiles + int(h.OpenFilesKept) + spareFiles(l.Tunnels)
	l.Detail = fmt.Sprintf("(%d open files - %d reserved) / %d a tunnel", h.OpenFilesSoft, reserved, filesPerTunnel)
	if h.OpenFilesHard > h.OpenFilesSoft {
		l.Detail += fmt.Sprintf("; the hard limit is %d", h.OpenFilesHard)
	}
	return l
}

func (h Host) portLimit(s Shape) Limit {
	l := Limit{Name: Ports, Value: uint64(h.Ports())}
	switch {
	case h.PortHigh == 0:
		l.Detail = "net.ipv4.ip_local_port_range could not be read"
	case s.Gateways <= 0:
		l.Detail = fmt.Sprintf("targets are dialled directly: %d ports to each target, not to all together", h.Ports())
	default:
		paths := plural(s.Gateways, "gateway address", "gateway addresses")
		n := s.Gateways
		if s.Pairs > 0 && s.Pairs != s.Gateways {
			n = s.Pairs
			paths = plural(n, "pair", "pairs") + " of a source and a gateway address"
		}
		l.Tunnels = tunnels(l.Value * uint64(n))
		l.Detail = fmt.Sprintf("%d local ports (%d-%d) x %s", h.Ports(), h.PortLow, h.PortHigh, paths)
	}
	return l
}

func (h Host) conntrackLimit() Limit {
	l := Limit{Name: Conntrack, Value: h.ConntrackMax}
	if h.ConntrackMax == 0 {
		l.Detail = "connections are not tracked here"
		return l
	}
	l.Tunnels = tunnels(h.ConntrackMax / conntrackPerTunnel)
	l.Detail = fmt.Sprintf("%d entries (nf_conntrack_max) / %d a tunnel", h.ConntrackMax, conntrackPerTunnel)
	return l
}

func (h Host) memoryLimit(s Shape) Limit {
	l := Limit{Name: Memory, Value: h.Memory()}
	if l.Value == 0 {
		l.Detail = "neither MemTotal nor a cgroup limit could be read"
		return l
	}
	source := "of the machine"
	if l.Value == h.MemoryLimit {
		source = "of the cgroup"
	}
	each, with := uint64(bytesPerTunnel), ""
	if s.TLS {
		each, with = each+bytesPerTLS, " with TLS"
	}
	l.Tunnels = tunnels(l.Value / 100 * memoryPercent / each)
	l.Detail = fmt.Sprintf("%d%% of the %d MiB %s / %d KiB a tunnel%s", memoryPercent, l.Value>>20, source, each>>10, with)
	return l
}

// tunnels turns a quotient into a count that binds: at least 1, and within an int on every platform.
func tunnels(n uint64) int {
	return int(min(max(n, 1), math.MaxInt32))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
