package lab

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Ill is what is wrong with a Gateway.
type Ill struct {
	Percent int           // of the CONNECTs that fail
	Answer  string        // their answer, after which the gateway closes; one of the words below instead
	Delay   time.Duration // before each answer, of those that are served, too
}

// Failures without an answer.
const (
	Resets  = "reset"  // the connection is reset
	Silence = "silent" // nothing comes
)

// Gateway is a child process that plays a vendor's gateway, which can fall ill: it answers a CONNECT with 200 and then echoes, unless it is to fail.
type Gateway struct {
	*Process
	Addr  string
	child *roleProcess
}

// StartGateway starts one at addr, "" for a free port of 127.0.0.1. It is healthy.
func StartGateway(t testing.TB, addr string) *Gateway {
	t.Helper()
	if addr == "" {
		addr = FreeAddr(t)
	}
	child := startRole(t, roleGateway, addr)
	return &Gateway{Process: child.Process, Addr: child.line(t, 10*time.Second), child: child}
}

// Fall makes the gateway ill, or healthy again with the zero Ill; that holds for CONNECTs from now on.
func (g *Gateway) Fall(t testing.TB, ill Ill) {
	t.Helper()
	answer := base64.StdEncoding.EncodeToString([]byte(ill.Answer))
	g.child.ask(t, fmt.Sprintf("fall %d %d =%s", ill.Percent, ill.Delay, answer))
}

// Asked returns how many CONNECTs have come so far, and how many of them failed.
func (g *Gateway) Asked(t testing.TB) (asked, failed int) {
	t.Helper()
	words := strings.Fields(g.child.ask(t, "asked"))
	if len(words) != 2 {
		t.Fatalf("gateway answered %q", words)
	}
	return atoi(t, words[0]), atoi(t, words[1])
}

// gatewayRole is a gateway's state.
type gatewayRole struct {
	ill           atomic.Pointer[Ill]
	asked, failed atomic.Int64
}

func runGateway() {
	ln, err := net.Listen("tcp4", os.Getenv(argsVariable))
	if err != nil {
		fatal(err)
	}
	fmt.Println(ln.Addr())
	g := &gatewayRole{}
	g.ill.Store(&Ill{})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				fatal(err)
			}
			go g.serve(c)
		}
	}()
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); { // ends with the parent, by whatever error
		fmt.Println(g.obey(strings.Fields(sc.Text())))
	}
}

func (g *gatewayRole) obey(words []string) string {
	if words[0] == "asked" {
		return fmt.Sprintf("%d %d", g.asked.Load(), g.failed.Load())
	}
	percent, err := strconv.Atoi(words[1])
	if err != nil {
		fatal(err)
	}
	delay, err := strconv.Atoi(words[2])
	if err != nil {
		fatal(err)
	}
	answer, err := base64.StdEncoding.DecodeString(words[3][1:])
	if err != nil {
		fatal(err)
	}
	g.ill.Store(&Ill{Percent: percent, Answer: string(answer), Delay: time.Duration(delay)})
	return "done"
}

// serve answers one CONNECT.
func (g *gatewayRole) serve(c net.Conn) {
	defer closeQuietly(c)
	br := bufio.NewReader(c)
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = br.ReadString('\n'); err != nil {
			return
		}
	}
	ill := g.ill.Load()
	g.asked.Add(1)
	fails := rand.IntN(100) < ill.Percent
	if fails {
		g.failed.Add(1)
	}
	time.Sleep(ill.Delay)
	switch {
	case !fails:
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err == nil {
			_, _ = io.Copy(c, br) // ends with the tunnel
		}
	case ill.Answer == Resets:
		reset(c)
	case ill.Answer == Silence:
		_, _ = io.Copy(io.Discard, br) // ends when the relay has had enough
	default:
		_, _ = io.WriteString(c, ill.Answer) // the relay may be gone
	}
}

// Drop is what became of many set-ups at once.
type Drop struct {
	Served   int
	Statuses map[int]int    // of those that were refused
	Errors   map[string]int // of those without an answer, or whose tunnel did not work
	Took     time.Duration
	Well     Times // of those served
	Refused  Times
}

// Times sums up how long set-ups took.
type Times struct{ Median, P99, Max time.Duration }

// All returns how many set-ups there were.
func (d Drop) All() int { return d.Served + d.Failed() }

// Failed returns how many did not get their tunnel.
func (d Drop) Failed() (n int) {
	for _, count := range d.Statuses {
		n += count
	}
	for _, count := range d.Errors {
		n += count
	}
	return n
}

func (d Drop) String() string {
	return fmt.Sprintf("%d served (median %v, p99 %v, max %v), %d failed %v %v (median %v, p99 %v, max %v) in %v", d.Served, d.Well.Median, d.Well.P99, d.Well.Max,
		d.Failed(), d.Statuses, d.Errors, d.Refused.Median, d.Refused.P99, d.Refused.Max, d.Took)
}

// Drop opens n tunnels, workers at a time, uses each once in both directions and closes it.
func (g *Generator) Drop(t testing.TB, n, workers int) Drop {
	t.Helper()
	return g.StartDrop(t, n, workers)()
}

// StartDrop begins a Drop; what it returns waits for the end.
func (g *Generator) StartDrop(t testing.TB, n, workers int) (wait func() Drop) {
	t.Helper()
	g.child.say(t, fmt.Sprintf("drop %d %d", n, workers))
	return func() (d Drop) {
		t.Helper()
		answer := g.child.line(t, answerLimit)
		if err := json.Unmarshal([]byte(answer), &d); err != nil {
			t.Fatalf("generator answered %q: %v", answer, err)
		}
		return d
	}
}

// dropper collects a Drop.
type dropper struct {
	mu            sync.Mutex
	drop          Drop
	well, refused []time.Duration
}

// drop returns a Drop as JSON.
func (g *generator) drop(n, workers int) string {
	d := &dropper{drop: Drop{Statuses: map[int]int{}, Errors: map[string]int{}}}
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	start := time.Now()
	for range workers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				began := time.Now()
				c, err := g.open()
				d.add(err, time.Since(began))
				if err == nil {
					closeQuietly(c)
				}
			}
		})
	}
	wg.Wait()
	d.drop.Took, d.drop.Well, d.drop.Refused = time.Since(start), times(d.well), times(d.refused)
	text, err := json.Marshal(d.drop)
	if err != nil {
		fatal(err)
	}
	return string(text)
}

func (d *dropper) add(err error, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.drop.Served++
		d.well = append(d.well, took)
		return
	}
	d.refused = append(d.refused, took)
	if status, ok := refusedStatus(err); ok {
		d.drop.Statuses[status]++
	} else {
		d.drop.Errors[plain(err)]++
	}
}

// plain is an error's text without addresses.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// refusedStatus is the status in an errRefused of exchangeByte.
func refusedStatus(err error) (int, bool) {
	_, quoted, ok := strings.Cut(err.Error(), errRefused.Error()+`: "HTTP/1.1 `)
	if !ok || len(quoted) < 3 {
		return 0, false
	}
	status, err := strconv.Atoi(quoted[:3])
	return status, err == nil
}

func times(all []time.Duration) (t Times) {
	if len(all) == 0 {
		return t
	}
	slices.Sort(all)
	return Times{Median: all[len(all)/2], P99: all[len(all)*99/100], Max: all[len(all)-1]}
}
