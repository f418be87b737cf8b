package capacity

import "sort"

const (
	filesPerTunnel = 2
	// reservedFiles stay for 256 connections of the admin server, and 64 for listeners, epoll instances, log, look-ups of
	// names, and files being read.
	reservedFiles = 256 + 64
	// A relay takes a few connections more than it has room for, to tell them so: half as many as tunnels, within these.
	minSpareConns, maxSpareConns = 64, 384
)

// FilePairs is how many pairs of file descriptors the limit of open files leaves for tunnels, a descriptor for either
// side, at least 1; 0 = the limit is not known. Reserved before are those of the admin server, of the
// program itself, of [Host.SpareConns], and OpenFilesKept. Two other uses are not reserved for, because they can do without:
// pooled pipes (256, two descriptors each) and idle plain connections to gateways (1,024) take pairs that no tunnel needs.
func (h Host) FilePairs() int {
	if h.OpenFilesSoft == 0 {
		return 0
	}
	reserved := reservedFiles + h.OpenFilesKept
	if h.OpenFilesSoft <= reserved {
		return 1
	}
	free := h.OpenFilesSoft - reserved
	// What is spare grows with the pairs, so the largest number that fits is searched for.
	n := sort.Search(tunnels(free/filesPerTunnel), func(i int) bool {
		return uint64(i+1)*filesPerTunnel+uint64(spareFiles(i+1)) > free
	})
	return max(n, 1)
}

// SpareConns is how many connections beyond those with a tunnel a relay may hold while it reads a head, checks a
// password, or says no. A third as many again may be refused at accept at the same time. 0 = the limit is not known.
func (h Host) SpareConns() int {
	if h.OpenFilesSoft == 0 {
		return 0
	}
	return spareConns(h.FilePairs())
}

func spareConns(pairs int) int { return min(max(pairs/2, minSpareConns), maxSpareConns) }

// spareFiles is the descriptors of SpareConns beside so many pairs, and of connections being refused at accept.
func spareFiles(pairs int) int {
	spare := spareConns(pairs)
	return spare + spare/3
}
