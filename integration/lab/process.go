package lab

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// outputLimit bounds what is kept of one process's output; the end is kept.
const outputLimit = 8 << 20

// Output keeps the last bytes a process wrote. It is safe for concurrent use.
type Output struct {
	mu  sync.Mutex
	buf []byte
}

// Write appends p, dropping the oldest bytes beyond the limit.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, p...)
	if over := len(o.buf) - outputLimit; over > 0 {
		o.buf = append(o.buf[:0], o.buf[over:]...)
	}
	return len(p), nil
}

// Bytes returns a copy of what is kept.
func (o *Output) Bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf)
}

// Contains reports whether what is kept holds s.
func (o *Output) Contains(s string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.buf, []byte(s))
}

// Process is a running program. It is killed and waited for at the end of the test, and its output is attached to a failed one. What one
// with a relay's environment has written is searched for the secrets in it.
type Process struct {
	Name   string
	Stdout *Output
	Stderr *Output
	cmd    *exec.Cmd
	done   chan struct{}
	err    error // valid once done is closed

	secrets *watch // nil = it has none
}

// Start starts cmd under a name for messages. Standard output and error are kept unless cmd already sends them elsewhere.
// The program dies with the test binary. It is ended by SIGKILL, or by cmd.SysProcAttr.Pdeathsig if that is set, for programs that must end
// their own children.
func Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Name: name, Stdout: &Output{}, Stderr: &Output{}, cmd: cmd, done: make(chan struct{}), secrets: watchSecrets(name, cmd.Args, cmd.Env)}
	if cmd.Stdout == nil {
		cmd.Stdout = p.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.Stderr
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go p.reap()
	t.Cleanup(func() { p.end(t) })
	return p
}

func (p *Process) reap() {
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *Process) end(t testing.TB) {
	if sig := p.cmd.SysProcAttr.Pdeathsig; sig != syscall.SIGKILL {
		p.Signal(t, sig)
		Poll(10*time.Second, func() bool { return !p.Running() })
	}
	p.Signal(t, syscall.SIGKILL)
	<-p.done
	p.secrets.search(t, "standard error", p.Stderr.Bytes())
	if p.secrets != nil && !p.secrets.told {
		p.secrets.search(t, "standard output", p.Stdout.Bytes())
	}
	if t.Failed() {
		t.Logf("%s: %s\nstdout:\n%s\nstderr:\n%s", p.Name, p.cmd.ProcessState, tail(p.Stdout.Bytes()), tail(p.Stderr.Bytes()))
	}
}

// tail returns the last 8 KiB.
func tail(b []byte) []byte { return b[max(0, len(b)-8<<10):] }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends sig; a process that has ended is no error.
func (p *Process) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("signal %s: %v", p.Name, err)
	}
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Done is closed when the process has ended and its output is complete.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode waits up to limit for the end of the process and returns its exit code, -1 for a signal. It ends the test when limit passes.
func (p *Process) ExitCode(t testing.TB, limit time.Duration) int {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-timer.C:
		t.Fatalf("%s still runs after %v", p.Name, limit)
		return 0
	}
}
