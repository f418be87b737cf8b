package capacity

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// PressureInterval is how often Sample should be called. At ten thousand new tunnels a second of some 30 KiB a
	// hundredth of 8 GB comes to be in it.
	PressureInterval = 250 * time.Millisecond

	fullAbove = 0.90 // of a memory limit in use: new connections are refused
	roomBelow = 0.85 // and are taken again; the distance keeps the state from flapping
)

// Pressure tells how near the end of its memory the host is, so that a relay can refuse new connections before the kernel kills it or drops
// the bytes of old ones. It looks at
//
//   - every cgroup with a limit: what is in use but for file cache that the kernel drops first,
//   - the machine: what MemAvailable leaves of MemTotal,
//   - the memory of all TCP sockets: pages in use of the third threshold of net.ipv4.tcp_mem, from which on the
//     kernel drops segments. Above the second one it shrinks windows, and all connections live on, slower.
//
// What cannot be read does not count; where nothing can be read, the relay is never full. The owner calls Sample, from one goroutine; all other methods are safe for concurrent use and
// cost an atomic load.
type Pressure struct {
	fsys   fs.FS
	groups []memoryGroup
	buffer []byte // Sample's: it reads so often that its garbage would be the relay's most

	full   atomic.Bool
	ratio  atomic.Uint64 // bits of a float64
	reason atomic.Pointer[string]
}

// NewPressure finds the files below fsys, the root of the file system, and takes the first sample.
func NewPressure(fsys fs.FS) *Pressure {
	p := &Pressure{fsys: fsys}
	r := reader{fsys: fsys}
	for _, g := range r.memoryGroups() {
		if r.text(path.Join(g.dir, g.usage)) != "" { // limits may come later: operators change them live
			p.groups = append(p.groups, g)
		}
	}
	p.Sample()
	return p
}

// Full reports whether new connections should be refused, by the last sample and those before it.
func (p *Pressure) Full() bool { return p.full.Load() }

// Ratio is the largest share of a memory limit in use, 0 to 1, by the last sample. It can be a little above 1.
func (p *Pressure) Ratio() float64 { return math.Float64frombits(p.ratio.Load()) }

// Reason is the limit that Ratio is of, for people; "" where none could be read.
func (p *Pressure) Reason() string { return *p.reason.Load() }

// Sample reads everything once, some ten small files, and reports whether Full has changed. It never waits.
func (p *Pressure) Sample() (changed bool) {
	r := reader{fsys: p.fsys, buffer: p.buffer}
	worst := share{}
	for _, g := range p.groups {
		worst = worst.or(r.groupShare(g))
	}
	worst = worst.or(r.machineShare())
	worst = worst.or(r.socketShare())
	p.buffer = r.buffer
	ratio := worst.ratio()
	reason := worst.String()
	p.reason.Store(&reason)
	p.ratio.Store(math.Float64bits(ratio))
	was := p.full.Load()
	now := ratio > fullAbove || was && ratio >= roomBelow
	p.full.Store(now)
	return now != was
}

// share is how much of a memory is in use, both in bytes. The zero value is that of no memory.
type share struct {
	used, limit uint64
	what        string
}

func (s share) ratio() float64 {
	if s.limit == 0 {
		return 0
	}
	return float64(s.used) / float64(s.limit)
}

// or is the share that is nearer to its end.
func (s share) or(t share) share {
	if s.limit == 0 || t.ratio() > s.ratio() {
		return t
	}
	return s
}

func (s share) String() string {
	if s.limit == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f%% of the %d MiB of %s in use", 100*s.ratio(), s.limit>>20, s.what)
}

func (r *reader) groupShare(g memoryGroup) share {
	limit := r.groupLimit(g)
	if limit == 0 {
		return share{}
	}
	used := r.number(path.Join(g.dir, g.usage))
	cache := r.lineNumber(path.Join(g.dir, "memory.stat"), g.inactive)
	return share{used - min(cache, used), limit, "the cgroup"}
}

func (r *reader) machineShare() share {
	const name = "proc/meminfo" // in kB
	text := r.text(name)
	if lineOf(text, "MemAvailable:") == "" { // kernels before 3.14 do not tell
		return share{}
	}
	total, available := r.parseLine(name, text, "MemTotal:"), r.parseLine(name, text, "MemAvailable:")
	return share{(total - min(available, total)) << 10, total << 10, "the machine"}
}

func (r *reader) socketShare() share {
	limits := r.fields("proc/sys/net/ipv4/tcp_mem", 3)
	if limits == nil {
		return share{}
	}
	page := uint64(os.Getpagesize())
	words := strings.Fields(lineOf(r.text("proc/net/sockstat"), "TCP:"))
	for i := 0; i+1 < len(words); i += 2 {
		if words[i] == "mem" {
			return share{r.parse("proc/net/sockstat", words[i+1]) * page, limits[2] * page, "TCP buffers (net.ipv4.tcp_mem)"}
		}
	}
	return share{}
}

// lineOf is what stands behind the first word of the line that begins with it; "" if there is none.
func lineOf(text, first string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, first); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// lineNumber is the number behind the first word of a line, in the file's own unit; 0 if there is none.
func (r *reader) lineNumber(name, first string) uint64 {
	return r.parseLine(name, r.text(name), first)
}

// parseLine is lineNumber of a file that was read.
func (r *reader) parseLine(name, text, first string) uint64 {
	s, _, _ := strings.Cut(lineOf(text, first), " ")
	if s == "" {
		return 0
	}
	return r.parse(name, s)
}
