package lab

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Usage is what a process holds and has used, from /proc.
type Usage struct {
	FDs        int
	RSS        int64 // bytes, anonymous memory only: pages of the binary are shared
	CPU        time.Duration
	Goroutines int // of a relay
}

// clockTick is Linux's USER_HZ, 100 on every architecture Go runs on.
const clockTick = time.Second / 100

// Usage reads /proc of the process, and the number of goroutines from the relay's pprof page after two garbage collections.
func (r *Relay) Usage(t testing.TB) Usage {
	t.Helper()
	for range 2 {
		if status, _, err := r.Get("/debug/pprof/heap?gc=1&debug=1"); err != nil || status != 200 {
			t.Fatalf("heap profile: status %d: %v", status, err)
		}
	}
	status, body, err := r.Get("/debug/pprof/goroutine?debug=1")
	if err != nil || status != 200 {
		t.Fatalf("goroutine profile: status %d: %v", status, err)
	}
	u := ProcessUsage(t, r.PID())
	m := goroutineTotal.FindSubmatch(body)
	if m == nil {
		t.Fatalf("goroutine profile begins %.80q", body)
	}
	u.Goroutines = atoi(t, string(m[1]))
	return u
}

var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)

// ProcessUsage reads /proc of any process.
func ProcessUsage(t testing.TB, pid int) Usage {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status := readProc(t, pid, "status")
	_, after, ok := strings.Cut(status, "RssAnon:")
	if !ok {
		t.Fatal("no RssAnon in /proc status")
	}
	stat := readProc(t, pid, "stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	ticks := atoi(t, fields[11]) + atoi(t, fields[12]) // utime, stime: fields 14 and 15 of proc(5)
	return Usage{
		FDs: len(fds),
		RSS: int64(atoi(t, strings.Fields(after)[0])) << 10,
		CPU: time.Duration(ticks) * clockTick,
	}
}

func readProc(t testing.TB, pid int, file string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Memory is what of a process is in memory, in bytes, shared pages included: now, and at most since ResetPeak.
type Memory struct{ Now, Peak int64 }

// ProcessMemory reads VmRSS and VmHWM of a process.
func ProcessMemory(t testing.TB, pid int) Memory {
	t.Helper()
	status := readProc(t, pid, "status")
	field := func(name string) int64 {
		_, after, ok := strings.Cut(status, name)
		if !ok {
			t.Fatalf("no %s in /proc status", name)
		}
		return int64(atoi(t, strings.Fields(after)[0])) << 10
	}
	return Memory{Now: field("VmRSS:"), Peak: field("VmHWM:")}
}

// ResetPeak has a process's peak begin anew (proc(5), clear_refs).
func ResetPeak(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// BusyTime is the CPU time that the machine has spent on processes since it started, or was denied by its host.
func BusyTime(t testing.TB) time.Duration {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		t.Fatalf("/proc/stat begins with %q", line)
	}
	ticks := 0
	for _, i := range []int{1, 2, 3, 8} { // user, nice, system, steal: proc(5)
		ticks += atoi(t, fields[i])
	}
	return time.Duration(ticks) * clockTick
}
