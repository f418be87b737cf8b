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
	// reservedFiles stay for listeners, the admin server, log, files being re-read, and connections being refused.
	reservedFiles  = 512
	filesPerTunnel = 2
	// conntrackPerTunnel: the customer's connection and the gateway's are an entry each.
	conntrackPerTunnel = 2
	// bytesPerTunnel: about 12 KiB in the process (a goroutine pair parked on readiness) and the kernel's
	// two sockets with room for bytes in flight.
	bytesPerTunnel = 48 << 10
	// memoryPercent leaves the rest for the program, the page cache and other processes.
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

// Limits are all limits of the host, always the same four in the same order. upstreamAddrs is the number of distinct
// gateway addresses (host and port) that tunnels are spread over; 0 = targets are dialled directly,
// where ports bind each target alone.
func (h Host) Limits(upstreamAddrs int) []Limit {
	return []Limit{h.fileLimit(), h.portLimit(upstreamAddrs), h.conntrackLimit(), h.memoryLimit()}
}

// MaxConns is the smallest of the limits, at least [MinConns], and the name of the limit that binds;
// [Floor] when MinConns is more than the host allows or nothing is known of it.
func (h Host) MaxConns(upstreamAddrs int) (n int, boundBy string) {
	n = math.MaxInt
	boundBy = Floor
	for _, l := range h.Limits(upstreamAddrs) {
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
	free := uint64(0)
	if h.OpenFilesSoft > reservedFiles {
		free = h.OpenFilesSoft - reservedFiles
	}
	l.Tunnels = tunnels(free / filesPerTunnel)
	l.Detail = fmt.Sprintf("(%d open files - %d reserved) / %d a tunnel", h.OpenFilesSoft, reservedFiles, filesPerTunnel)
	if h.OpenFilesHard > h.OpenFilesSoft {
		l.Detail += fmt.Sprintf("; the hard limit is %d", h.OpenFilesHard)
	}
	return l
}

func (h Host) portLimit(addrs int) Limit {
	l := Limit{Name: Ports, Value: uint64(h.Ports())}
	switch {
	case h.PortHigh == 0:
		l.Detail = "net.ipv4.ip_local_port_range could not be read"
	case addrs <= 0:
		l.Detail = fmt.Sprintf("targets are dialled directly: %d ports to each target, not to all together", h.Ports())
	default:
		l.Tunnels = tunnels(l.Value * uint64(addrs))
		l.Detail = fmt.Sprintf("%d local ports (%d-%d) x %s", h.Ports(), h.PortLow, h.PortHigh, plural(addrs, "gateway address", "gateway addresses"))
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

func (h Host) memoryLimit() Limit {
	l := Limit{Name: Memory, Value: h.Memory()}
	if l.Value == 0 {
		l.Detail = "neither MemTotal nor a cgroup limit could be read"
		return l
	}
	source := "of the machine"
	if l.Value == h.MemoryLimit {
		source = "of the cgroup"
	}
	l.Tunnels = tunnels(l.Value / 100 * memoryPercent / bytesPerTunnel)
	l.Detail = fmt.Sprintf("%d%% of the %d MiB %s / %d KiB a tunnel", memoryPercent, l.Value>>20, source, bytesPerTunnel>>10)
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
