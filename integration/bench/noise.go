//go:build linux

package main

import (
	"os"
	"strings"
	"syscall"
	"time"
)

// noise finds out how much of the machine others used during a cell.
type noise struct {
	since time.Time
	busy  time.Duration // of all processors
	ours  time.Duration // of generator, vendor and this program
}

// listenNoise begins.
func (b *bench) listenNoise() noise {
	return noise{since: time.Now(), busy: busyTime(), ours: b.ownTime()}
}

// others returns the share of one processor that others used since then, where the peer used peerTime in all.
func (n noise) others(b *bench, peerTime time.Duration) float64 {
	others := busyTime() - n.busy - (b.ownTime() - n.ours) - peerTime
	return float64(others) / float64(time.Since(n.since))
}

// ownTime is what generator, vendor and this program have used.
func (b *bench) ownTime() time.Duration {
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return 0
	}
	sum := time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, r := range []*roleProcess{b.vendor, b.load} {
		if u, err := r.usage(); err == nil {
			sum += u.cpu
		}
	}
	return sum
}

// busyTime sums /proc/stat over all processors and all states but idle and waiting for disks.
func busyTime() time.Duration {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var sum int64
	for i, field := range strings.Fields(line) {
		switch i {
		case 1, 2, 3, 6, 7, 8: // user, nice, system, irq, softirq, steal
			sum += number(field)
		}
	}
	return time.Duration(sum) * clockTick
}
