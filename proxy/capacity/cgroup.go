package capacity

import (
	"path"
	"strings"
)

// cgroupNoLimit is where cgroup v1 begins to mean "no limit": it rounds the largest int64 down to a page.
const cgroupNoLimit = 1 << 62

// memoryGroup is the directory of a cgroup that can bound memory, and the names of its files in that version.
type memoryGroup struct {
	dir      string
	limits   []string // the tightest counts
	usage    string
	inactive string // the line of memory.stat that tells of cache which the kernel drops first
}

// memoryGroups are this process's cgroup and all the ones above it, of either version. A container usually sees its
// own cgroup as the root of the hierarchy while /proc/self/cgroup may still name the path outside, so the root
// is always among them. Not all of them need exist.
func (r *reader) memoryGroups() []memoryGroup {
	var groups []memoryGroup
	for line := range strings.Lines(r.text("proc/self/cgroup")) {
		_, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		controllers, group, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		switch {
		case controllers == "": // v2, alone or beside v1
			// At memory.high the kernel makes the process wait: as good as the end for a relay.
			v2 := memoryGroup{limits: []string{"memory.max", "memory.high"}, usage: "memory.current", inactive: "inactive_file"}
			groups = append(groups, climb("sys/fs/cgroup", group, v2)...)
			groups = append(groups, climb("sys/fs/cgroup/unified", group, v2)...)
		case hasWord(controllers, "memory"):
			v1 := memoryGroup{limits: []string{"memory.limit_in_bytes"}, usage: "memory.usage_in_bytes", inactive: "total_inactive_file"}
			groups = append(groups, climb("sys/fs/cgroup/memory", group, v1)...)
		}
	}
	return groups
}

// climb is group and every group above it up to root, with the file names of like.
func climb(root, group string, like memoryGroup) []memoryGroup {
	var groups []memoryGroup
	for g := path.Clean("/" + group); ; g = path.Dir(g) {
		like.dir = path.Join(root, g)
		groups = append(groups, like)
		if g == "/" {
			return groups
		}
	}
}

// cgroupLimit is the tightest memory limit of all the process's cgroups; 0 = none.
func (r *reader) cgroupLimit() uint64 {
	limit := uint64(0)
	for _, g := range r.memoryGroups() {
		limit = tighter(limit, r.groupLimit(g))
	}
	return limit
}

// groupLimit is the limit of one cgroup; 0 = none.
func (r *reader) groupLimit(g memoryGroup) uint64 {
	limit := uint64(0)
	for _, name := range g.limits {
		limit = tighter(limit, r.memoryFile(path.Join(g.dir, name)))
	}
	return limit
}

func (r *reader) memoryFile(name string) uint64 {
	s := r.text(name)
	if s == "" || s == "max" {
		return 0
	}
	if n := r.parse(name, s); n < cgroupNoLimit {
		return n
	}
	return 0
}

// tighter is the smaller of two limits of which 0 means none.
func tighter(a, b uint64) uint64 {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}
