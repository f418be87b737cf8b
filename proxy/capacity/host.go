package capacity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"syscall"
)

// Host is what the running kernel and the container around this process allow. The zero value of a
// number means "not known here"; the doc of each field says when a zero is real.
type Host struct {
	// OpenFilesSoft and OpenFilesHard are RLIMIT_NOFILE. Go raises soft to hard when a program
	// starts, so the two are usually equal. "unlimited" is the largest uint64.
	OpenFilesSoft, OpenFilesHard uint64
	// OpenFilesKept of them are for connections that stand ready beside the tunnels; 0 = none. It
	// is the caller's to say.
	OpenFilesKept uint64
	// PortLow and PortHigh bound the local ports the kernel gives to outgoing connections, both
	// included (net.ipv4.ip_local_port_range). PortsReserved of them are set aside
	// (ip_local_reserved_ports).
	PortLow, PortHigh, PortsReserved int
	// ConntrackMax is net.netfilter.nf_conntrack_max; 0 = connections are not tracked, or not visibly.
	ConntrackMax uint64
	// MemoryTotal is MemTotal in bytes, MemoryLimit the tightest cgroup limit in bytes (0 = none).
	MemoryTotal, MemoryLimit uint64
	// Backlog is net.core.somaxconn: how many finished handshakes may wait for accept.
	Backlog uint64
	// PipePagesSoft is fs.pipe-user-pages-soft, in pages. With -1 the file was not there; 0 = no limit.
	PipePagesSoft int64
	// TCPPages are the three thresholds of net.ipv4.tcp_mem, in pages; all 0 = not known.
	TCPPages [3]uint64
	// Kernel is the kernel's release, "" if not known.
	Kernel string
}

// OpenFiles reads this process's RLIMIT_NOFILE, for ReadHost.
func OpenFiles() (soft, hard uint64, err error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0, fmt.Errorf("getrlimit: %w", err)
	}
	return r.Cur, r.Max, nil
}

// ReadHost reads the limits below fsys, the root of the file system ([os.DirFS]("/")), and asks rlimit
// for the file descriptors. What is missing or not readable is left zero. The error tells, all
// at once, of files that were there and made no sense and of an rlimit that failed; the Host is usable even then.
func ReadHost(fsys fs.FS, rlimit func() (soft, hard uint64, err error)) (Host, error) {
	r := reader{fsys: fsys}
	h := Host{
		Kernel:        r.text("proc/sys/kernel/osrelease"),
		ConntrackMax:  r.number("proc/sys/net/netfilter/nf_conntrack_max"),
		Backlog:       r.number("proc/sys/net/core/somaxconn"),
		PipePagesSoft: -1,
		MemoryTotal:   r.lineNumber("proc/meminfo", "MemTotal:") * 1024, // the file counts in kB
		MemoryLimit:   r.cgroupLimit(),
	}
	if s := r.text("proc/sys/fs/pipe-user-pages-soft"); s != "" {
		h.PipePagesSoft = int64(min(r.parse("proc/sys/fs/pipe-user-pages-soft", s), math.MaxInt64))
	}
	if f := r.fields("proc/sys/net/ipv4/tcp_mem", 3); f != nil {
		h.TCPPages = [3]uint64(f)
	}
	r.ports(&h)
	soft, hard, err := rlimit()
	if err != nil {
		r.fail(fmt.Errorf("open files: %w", err))
	} else {
		h.OpenFilesSoft, h.OpenFilesHard = soft, hard
	}
	return h, errors.Join(r.errs...)
}

// Memory is the bytes that this process and its sockets can use: the cgroup's limit where there is one that
// is below the machine's memory. 0 = not known.
func (h Host) Memory() uint64 {
	if h.MemoryLimit > 0 && (h.MemoryTotal == 0 || h.MemoryLimit < h.MemoryTotal) {
		return h.MemoryLimit
	}
	return h.MemoryTotal
}

// Ports is how many local ports can lead to one address of a gateway; 0 = not known.
func (h Host) Ports() int {
	if h.PortHigh == 0 {
		return 0
	}
	return max(h.PortHigh-h.PortLow+1-h.PortsReserved, 0)
}

// reader reads small kernel files and gathers what is wrong with them.
type reader struct {
	fsys   fs.FS
	errs   []error
	buffer []byte // for the next file
}

func (r *reader) fail(err error) { r.errs = append(r.errs, fmt.Errorf("capacity: %w", err)) }

// text is the trimmed content of a file, "" if there is none to be had.
func (r *reader) text(path string) string {
	file, err := r.fsys.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	b := bytes.NewBuffer(r.buffer[:0])
	if _, err := b.ReadFrom(file); err != nil {
		return ""
	}
	r.buffer = b.Bytes()
	return string(bytes.TrimSpace(r.buffer))
}

func (r *reader) parse(path, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		r.fail(fmt.Errorf("/%s: %q is not a number", path, s))
		return 0
	}
	return n
}

func (r *reader) number(path string) uint64 {
	s := r.text(path)
	if s == "" {
		return 0
	}
	return r.parse(path, s)
}

// fields are the n numbers of a file; nil if it is missing or holds something else.
func (r *reader) fields(path string, n int) []uint64 {
	s := r.text(path)
	if s == "" {
		return nil
	}
	words := strings.Fields(s)
	if len(words) != n {
		r.fail(fmt.Errorf("/%s: %q is not %d numbers", path, s, n))
		return nil
	}
	out := make([]uint64, n)
	before := len(r.errs)
	for i, w := range words {
		out[i] = r.parse(path, w)
	}
	if len(r.errs) > before {
		return nil
	}
	return out
}

func (r *reader) ports(h *Host) {
	const path = "proc/sys/net/ipv4/ip_local_port_range"
	f := r.fields(path, 2)
	if f == nil {
		return
	}
	if f[0] < 1 || f[1] > 65535 || f[0] > f[1] {
		r.fail(fmt.Errorf("/%s: %d to %d is not a range of ports", path, f[0], f[1]))
		return
	}
	h.PortLow, h.PortHigh = int(f[0]), int(f[1])
	h.PortsReserved = r.reserved(h.PortLow, h.PortHigh)
}

// reserved counts the ports of "8080,9000-9100" that lie within low and high.
func (r *reader) reserved(low, high int) int {
	const path = "proc/sys/net/ipv4/ip_local_reserved_ports"
	s := r.text(path)
	if s == "" {
		return 0
	}
	n := 0
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil {
			r.fail(fmt.Errorf("/%s: %q is not a list of ports", path, part))
			continue
		}
		n += max(min(int(b), high)-max(int(a), low)+1, 0)
	}
	return n
}
