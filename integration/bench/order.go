//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// roleVariable makes this program one of its roles instead of the bench.
const roleVariable = "BENCH_ROLE"

// order is one line of JSON on a role's standard input.
type order struct {
	Op      string
	Addr    string        `json:",omitempty"` // host:port: whom to dial, or where to listen
	Head    string        `json:",omitempty"` // request head to send
	Echo    int           `json:",omitempty"` // bytes there and back in each tunnel, at most 4096; 0 means 1
	Count   int           `json:",omitempty"` // tunnels, or streams
	Workers int           `json:",omitempty"` // at a time
	For     time.Duration `json:",omitempty"`
	Upload  bool          `json:",omitempty"`
	Pending bool          `json:",omitempty"` // do not wait for the reply
}

// answer is the line of JSON that comes back.
type answer struct {
	Error  string        `json:",omitempty"` // the order could not be carried out
	Addr   string        `json:",omitempty"`
	Done   int64         `json:",omitempty"`
	Failed int64         `json:",omitempty"`
	First  string        `json:",omitempty"` // first failure
	Took   time.Duration `json:",omitempty"`
	Setup  latency       `json:",omitzero"`
	Whole  latency       `json:",omitzero"`
	Bytes  int64         `json:",omitempty"`
}

// latency is in microseconds.
type latency struct{ P50, P99 float64 }

// latencyOf sorts samples, which are in nanoseconds.
func latencyOf(samples []int64) latency {
	if len(samples) == 0 {
		return latency{}
	}
	slices.Sort(samples)
	at := func(q float64) float64 { return float64(samples[int(q*float64(len(samples)-1))]) / 1e3 }
	return latency{P50: at(0.50), P99: at(0.99)}
}

// serveOrders answers each line of standard input until it ends, which it does with the bench.
func serveOrders(carryOut func(order) (answer, error)) error {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for {
		var o order
		switch err := in.Decode(&o); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("order: %w", err)
		}
		a, err := carryOut(o)
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// roleProcess is a child of this program that carries out orders. It is for one goroutine.
type roleProcess struct {
	*process
	name    string
	in      io.WriteCloser
	answers chan answer
	slack   time.Duration // what an order may take beyond its own duration
}

// startRole starts the program at path in a role, on cpus. Its open files limit is the highest that is allowed.
func startRole(path, role string, cpus *unix.CPUSet) (*roleProcess, error) {
	cmd := exec.Command(path)
	cmd.Env = []string{roleVariable + "=" + role, "GOGC=400"}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(cmd, cpus)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	r := &roleProcess{process: p, name: role, in: in, answers: make(chan answer, 1), slack: time.Minute}
	go r.read(out)
	return r, nil
}

// read ends with the child's output.
func (r *roleProcess) read(out io.Reader) {
	defer close(r.answers)
	for dec := json.NewDecoder(out); ; {
		var a answer
		if err := dec.Decode(&a); err != nil {
			return
		}
		r.answers <- a
	}
}

// ask gives an order and waits for its answer, at most its duration and the slack. A role that does not answer is ended.
func (r *roleProcess) ask(o order) (answer, error) {
	line, err := json.Marshal(o)
	if err != nil {
		return answer{}, err
	}
	if _, err := r.in.Write(append(line, '\n')); err != nil {
		return answer{}, fmt.Errorf("%s: %w", r.name, err)
	}
	timer := time.NewTimer(o.For + r.slack)
	defer timer.Stop()
	select {
	case a, ok := <-r.answers:
		if !ok {
			return answer{}, fmt.Errorf("%s ended", r.name)
		}
		if a.Error != "" {
			return a, fmt.Errorf("%s: %s: %s", r.name, o.Op, a.Error)
		}
		return a, nil
	case <-timer.C:
		r.end()
		return answer{}, fmt.Errorf("%s: no answer to %q in %v", r.name, o.Op, o.For+r.slack)
	}
}

// raiseFileLimit lifts the soft limit of open files to the hard one and returns it.
func raiseFileLimit() (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return lim.Cur, nil
}
