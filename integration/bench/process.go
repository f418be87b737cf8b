//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running program and everything it forked: it leads a process group.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// startProcess starts cmd on cpus, nil meaning all. It dies with this program, by SIGKILL unless cmd says otherwise.
func startProcess(cmd *exec.Cmd, cpus *unix.CPUSet) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.WaitDelay = 5 * time.Second
	if err := startOn(cmd, cpus); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended shows in what it was asked for
		close(p.done)
	}()
	return p, nil
}

// startOn lends this thread's affinity to the child, which inherits it for all of its threads.
func startOn(cmd *exec.Cmd, cpus *unix.CPUSet) error {
	if cpus == nil {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("affinity: %w", err)
	}
	if err := unix.SchedSetaffinity(0, cpus); err != nil {
		return fmt.Errorf("affinity: %w", err)
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end kills the whole group and waits for its leader.
func (p *process) end() {
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // ESRCH: all have ended
	<-p.done
}

// usage is what a process group holds and has used, from /proc.
type usage struct {
	cpu time.Duration
	rss int64 // bytes, all resident pages
	fds int
}

// clockTick is Linux's USER_HZ, 100 on every architecture Go runs on.
const clockTick = time.Second / 100

// usage returns the CPU time of the group.
func (p *process) usage() (usage, error) {
	var sum usage
	err := p.each(func(_ string, stat []string) error {
		sum.cpu += clockTick * time.Duration(number(stat[11])+number(stat[12]))
		return nil
	})
	return sum, err
}

// holding returns memory and files of the group, which needs to be root or the processes' owner. Memory comes from smaps_rollup, which is
// exact: the counters in other files of /proc may lag by hundreds of kilobytes.
func (p *process) holding() (usage, error) {
	var sum usage
	err := p.each(func(dir string, _ []string) error {
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			return err
		}
		sum.fds += len(fds)
		rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			return err
		}
		_, after, ok := strings.Cut(string(rollup), "\nRss:")
		if !ok {
			return errors.New("no Rss in smaps_rollup")
		}
		sum.rss += number(strings.Fields(after)[0]) << 10
		return nil
	})
	return sum, err
}

// each calls look with the folder in /proc and the fields of stat, from the third (state) on, of each process of the group.
func (p *process) each(look func(dir string, stat []string) error) error {
	if !p.running() {
		return fmt.Errorf("%s ended: %v", filepath.Base(p.cmd.Path), p.cmd.ProcessState)
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range stats {
		if stat := statFields(path); len(stat) > 12 && stat[2] == strconv.Itoa(p.pid()) && stat[0] != "Z" {
			if err := look(filepath.Dir(path), stat); err != nil {
				return err
			}
		}
	}
	return nil
}

// statFields returns the fields of a stat file from the third (state) on; see proc_pid_stat(5). None if the process has ended.
func statFields(path string) []string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// number reads a decimal that the kernel wrote.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// halves splits the processors that this program may use: the first half for the relay, the rest for the load. ok is false when there is
// only one.
func halves() (relay, load unix.CPUSet, ok bool, err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return relay, load, false, fmt.Errorf("affinity: %w", err)
	}
	count, seen := all.Count(), 0
	for cpu := 0; seen < count; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if seen < count/2 {
			relay.Set(cpu)
		} else {
			load.Set(cpu)
		}
		seen++
	}
	return relay, load, count > 1, nil
}
