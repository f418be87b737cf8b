package capacity

import (
	"path"
	"strings"
)

// cgroupNoLimit is where cgroup v1 begins to mean "no limit": it rounds the largest int64 down to a page.
const cgroupNoLimit = 1 << 62

// cgroupLimit is the tightest memory limit of this process's cgroup and all the ones above it, of
// either version; 0 = none. A container usually sees its own cgroup as the root of the hierarchy while
// /proc/self/cgroup may still name the path outside, so the root is always read too.
func (r *reader) cgroupLimit() uint64 {
	limit := uint64(0)
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
			limit = tighter(limit, r.climb("sys/fs/cgroup", group, "memory.max"))
			limit = tighter(limit, r.climb("sys/fs/cgroup/unified", group, "memory.max"))
		case hasWord(controllers, "memory"):
			limit = tighter(limit, r.climb("sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
		}
	}
	return limit
}

// climb reads file in group and in every group above it up to root.
func (r *reader) climb(root, group, file string) uint64 {
	limit := uint64(0)
	for g := path.Clean("/" + group); ; g = path.Dir(g) {
		limit = tighter(limit, r.memoryFile(path.Join(root, g, file)))
		if g == "/" {
			return limit
		}
	}
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
