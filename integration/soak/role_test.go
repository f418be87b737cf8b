package soak

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// The environment variables that make this test binary a customers' or a vendor's process instead of running tests.
const (
	roleVariable = "SOAK_ROLE"
	planVariable = "SOAK_PLAN" // the role's plan, JSON
)

func TestMain(m *testing.M) {
	if lab.RunRole() {
		return
	}
	switch os.Getenv(roleVariable) {
	case "vendor":
		runVendor()
		return
	case "customers":
		runCustomers()
		return
	}
	code := m.Run()
	if err := lab.CleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// readPlan reads the role's plan.
func readPlan(into any) {
	if err := json.Unmarshal([]byte(os.Getenv(planVariable)), into); err != nil {
		fatal(err)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// reporter writes reports to standard output. It is safe for concurrent use.
type reporter struct{ mu sync.Mutex }

// tell writes a line in one piece, so that a killed process leaves at most one half line, its last.
func (r *reporter) tell(what report) {
	line, err := json.Marshal(what)
	if err != nil {
		fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		fatal(err) // nobody listens any more
	}
}

// child is a process of this binary whose reports go to a ledger.
type child struct {
	*lab.Process
	ready chan struct{} // closed by its first line
	read  chan struct{} // closed when all of its reports are in the ledger
}

// startChild starts a role. Its standard input ends with this process.
func startChild(t *testing.T, role, name string, plan any, into *ledger) *child {
	t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, planVariable+"="+string(text), "GOGC=400")
	out, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	c := &child{ready: make(chan struct{}), read: make(chan struct{})}
	c.Process = lab.Start(t, name, cmd)
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	go c.readReports(out, into)
	return c
}

// readReports ends when the child closes its output, at the latest by its end.
func (c *child) readReports(out *os.File, into *ledger) {
	defer close(c.read)
	defer closeQuietly(out)
	lines := bufio.NewReader(out)
	for first := true; ; first = false {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if len(line) > 0 && !errors.Is(err, io.EOF) {
				into.complain("%s: reading its reports: %v", c.Name, err)
			}
			return // half a line is a killed process's last
		}
		if first {
			close(c.ready)
			continue
		}
		var r report
		if err := json.Unmarshal(line, &r); err != nil {
			into.complain("%s: report %q: %v", c.Name, line, err)
			continue
		}
		into.report(r)
	}
}

// await waits for what c closes, or ends the test.
func (c *child) await(t *testing.T, done <-chan struct{}, limit time.Duration, what string) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-c.Done():
		select {
		case <-done:
		case <-timer.C:
			t.Fatalf("%s has ended, waiting for %s: %s", c.Name, what, c.Stderr.Bytes())
		}
	case <-timer.C:
		t.Fatalf("%s: waited %v for %s", c.Name, limit, what)
	}
}

func closeQuietly(c io.Closer) { _ = c.Close() } // what it did was seen where it was used
