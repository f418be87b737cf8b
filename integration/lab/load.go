package lab

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"maskrelay/masking"
)

// The environment variable that makes a test binary one of the roles below instead of running tests: generator and vendor are processes of
// their own, because a process may open 20,000 files here and because their CPU time must not be the relay's.
const roleVariable = "LAB_ROLE"

// argsVariable holds the role's arguments, one a line.
const argsVariable = "LAB_ARGS"

const (
	roleVendor    = "vendor"
	roleGenerator = "generator"
	roleGateway   = "gateway"
	roleCalm      = "calm"
	roleSite      = "site"
)

// RunRole runs the role that the environment asks for and reports true; TestMain calls it first.
func RunRole() bool {
	switch os.Getenv(roleVariable) {
	case roleVendor:
		runVendor()
	case roleGenerator:
		runGenerator()
	case roleGateway:
		runGateway()
	case roleCalm:
		runCalm()
	case roleSite:
		runSite()
	default:
		return false
	}
	return true
}

// LoadVendor is a child process that answers each CONNECT with 200 and then echoes.
type LoadVendor struct {
	*Process
	Addr  string
	child *roleProcess
}

// StartLoadVendor starts the vendor. It closes connections whose head has one of the banned strings in it, plain or encoded, without an answer.
func StartLoadVendor(t testing.TB, banned ...string) *LoadVendor {
	t.Helper()
	child := startRole(t, roleVendor, banned...)
	return &LoadVendor{Process: child.Process, Addr: child.line(t, 10*time.Second), child: child}
}

// Tunnels returns how many tunnels are open at the vendor, and the most that ever were at a time. One counts from before its 200 until the
// vendor has seen its end.
func (v *LoadVendor) Tunnels(t testing.TB) (open, most int) {
	t.Helper()
	answer := strings.Fields(v.child.ask(t, "tunnels"))
	if len(answer) != 2 {
		t.Fatalf("vendor answered %q", answer)
	}
	return atoi(t, answer[0]), atoi(t, answer[1])
}

// Generator is a child process that opens tunnels through a proxy.
type Generator struct{ child *roleProcess }

// StartGenerator starts a generator that sends CONNECT for target through the proxy at addr with the credentials "user:password".
func StartGenerator(t testing.TB, addr, target, credentials string) *Generator {
	t.Helper()
	return &Generator{child: startRole(t, roleGenerator, addr, target, credentials)}
}

// Hold opens n more tunnels and keeps them; it returns how many could not be opened. Each was used once in both directions.
func (g *Generator) Hold(t testing.TB, n int) (failed int) {
	t.Helper()
	return HoldEach(t, []*Generator{g}, n)
}

// HoldEach is Hold of n by every generator at the same time.
func HoldEach(t testing.TB, generators []*Generator, n int) (failed int) {
	t.Helper()
	for _, answer := range askEach(t, generators, fmt.Sprintf("hold %d", n)) {
		failed += atoi(t, answer)
	}
	return failed
}

// Release closes all held tunnels.
func (g *Generator) Release(t testing.TB) {
	t.Helper()
	g.child.ask(t, "release")
}

// Churn opens and closes n tunnels with workers at a time, and returns how long that took and how many failed.
func (g *Generator) Churn(t testing.TB, n, workers int) (took time.Duration, failed int) {
	t.Helper()
	return ChurnEach(t, []*Generator{g}, n, workers)
}

// ChurnEach is Churn by every generator at the same time, and returns the longest time.
func ChurnEach(t testing.TB, generators []*Generator, n, workers int) (took time.Duration, failed int) {
	t.Helper()
	for _, answer := range askEach(t, generators, fmt.Sprintf("churn %d %d", n, workers)) {
		words := strings.Fields(answer)
		if len(words) != 2 {
			t.Fatalf("generator answered %q", answer)
		}
		took = max(took, time.Duration(atoi(t, words[0])))
		failed += atoi(t, words[1])
	}
	return took, failed
}

// askEach asks all before it waits for the first answer.
func askEach(t testing.TB, generators []*Generator, question string) (answers []string) {
	t.Helper()
	for _, g := range generators {
		g.child.say(t, question)
	}
	for _, g := range generators {
		answers = append(answers, g.child.line(t, answerLimit))
	}
	return answers
}

// roleProcess is a child that answers each line of its input by one line.
type roleProcess struct {
	*Process
	in    io.WriteCloser
	lines chan string
}

func startRole(t testing.TB, role string, args ...string) *roleProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, argsVariable+"="+strings.Join(args, "\n"), "GOGC=400")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	child := &roleProcess{in: in, lines: make(chan string, 16)}
	child.Process = Start(t, role, cmd)
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	go child.read(out)
	return child
}

// read ends when the child closes its output, at the latest by its end.
func (r *roleProcess) read(out *os.File) {
	defer closeQuietly(out)
	defer close(r.lines)
	for sc := bufio.NewScanner(out); sc.Scan(); {
		r.lines <- sc.Text()
	}
}

// answerLimit is how long a role may take for what it is told.
const answerLimit = 3 * time.Minute

func (r *roleProcess) ask(t testing.TB, question string) string {
	t.Helper()
	r.say(t, question)
	return r.line(t, answerLimit)
}

func (r *roleProcess) say(t testing.TB, question string) {
	t.Helper()
	if _, err := io.WriteString(r.in, question+"\n"); err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
}

func (r *roleProcess) line(t testing.TB, limit time.Duration) string {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case line, ok := <-r.lines:
		if !ok {
			t.Fatalf("%s ended: %s", r.Name, r.Stderr.Bytes())
		}
		return line
	case <-timer.C:
		t.Fatalf("%s did not answer in %v", r.Name, limit)
		return ""
	}
}

// tunnels counts those that a vendor has open.
type tunnels struct {
	mu         sync.Mutex
	open, most int
}

func (n *tunnels) add(change int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open += change
	n.most = max(n.most, n.open)
}

// runVendor prints its address, and how many tunnels there are for each line of input, until its input ends.
func runVendor() {
	var banned *masking.Marks
	if args := os.Getenv(argsVariable); args != "" {
		banned = masking.NewMarks(strings.Split(args, "\n")...)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fatal(err)
	}
	fmt.Println(ln.Addr())
	count := &tunnels{}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				fatal(err)
			}
			go vendorConn(c, banned, count)
		}
	}()
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); { // ends with the parent, by whatever error
		count.mu.Lock()
		fmt.Println(count.open, count.most)
		count.mu.Unlock()
	}
}

// vendorConn answers one CONNECT and echoes in pieces of up to 4 KiB.
func vendorConn(c net.Conn, banned *masking.Marks, count *tunnels) {
	defer closeQuietly(c)
	buf := make([]byte, 4096)
	head := 0
	for !strings.Contains(string(buf[:head]), "\r\n\r\n") {
		n, err := c.Read(buf[head:])
		if err != nil {
			return
		}
		head += n
	}
	if banned != nil {
		search := NewSearch("head", banned)
		_, _ = search.Write(buf[:head]) // a Search's Write has no errors
		if leaks := search.Leaks(); len(leaks) > 0 {
			fmt.Fprintln(os.Stderr, leaks)
			return
		}
	}
	count.add(1)
	defer count.add(-1)
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// generator is the state of a generator process.
type generator struct {
	addr string
	head string
	held []net.Conn
}

func runGenerator() {
	args := strings.Split(os.Getenv(argsVariable), "\n")
	g := &generator{addr: args[0], head: fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n",
		args[1], args[1], base64.StdEncoding.EncodeToString([]byte(args[2])))}
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		fmt.Println(g.answer(strings.Fields(sc.Text())))
	}
}

func (g *generator) answer(words []string) string {
	number := func(i int) int {
		n, err := strconv.Atoi(words[i])
		if err != nil {
			fatal(err)
		}
		return n
	}
	switch words[0] {
	case "hold":
		var mu sync.Mutex
		return strconv.Itoa(g.each(number(1), 64, func(c net.Conn) {
			mu.Lock()
			g.held = append(g.held, c)
			mu.Unlock()
		}))
	case "release":
		for _, c := range g.held {
			closeQuietly(c)
		}
		g.held = nil
		return "released"
	case "drop":
		return g.drop(number(1), number(2))
	case "churn":
		start := time.Now()
		failed := g.each(number(1), number(2), func(c net.Conn) { closeQuietly(c) })
		return fmt.Sprintf("%d %d", time.Since(start), failed)
	}
	fatal(fmt.Errorf("unknown order %q", words))
	return ""
}

// each opens n tunnels, workers at a time, hands each to use, and returns how many failed.
func (g *generator) each(n, workers int, use func(net.Conn)) int {
	var left, failed atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				c, err := g.open()
				if err != nil {
					if failed.Add(1) == 1 {
						fmt.Fprintln(os.Stderr, "first failure:", err)
					}
					continue
				}
				use(c)
			}
		})
	}
	wg.Wait()
	return int(failed.Load())
}

var errRefused = errors.New("lab: not the relay's 200")

// open opens one tunnel and sends one byte there and back.
func (g *generator) open() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp4", g.addr)
	if err != nil {
		return nil, err
	}
	if err := exchangeByte(c, g.head); err != nil {
		closeQuietly(c)
		return nil, err
	}
	return c, nil
}

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

func exchangeByte(c net.Conn, head string) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, head); err != nil {
		return err
	}
	buf := make([]byte, len(established))
	if _, err := io.ReadFull(c, buf); err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	if string(buf) != established {
		return fmt.Errorf("%w: %q", errRefused, buf)
	}
	if _, err := c.Write([]byte{'!'}); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	return c.SetDeadline(time.Time{})
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
