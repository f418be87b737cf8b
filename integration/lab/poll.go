package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// pollEvery is how often Wait looks at the state it waits for.
const pollEvery = 10 * time.Millisecond

// Poll calls done until it reports true or limit has passed, and reports whether it became true. It is for states of other processes,
// which nothing can signal.
func Poll(limit time.Duration, done func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if done() {
			return true
		}
		select {
		case <-deadline.C:
			return done()
		case <-tick.C:
		}
	}
}

// Wait is Poll that ends the test, with what was waited for, when limit passes.
func Wait(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	if !Poll(limit, done) {
		t.Fatalf("waited %v for %s", limit, what)
	}
}

// Ports handed out by FreePort lie below Linux's ephemeral range, so that no outgoing connection takes one between the look and the use.
const (
	firstPort = 20000
	lastPort  = 32000
)

// ports hands out loopback ports of this process.
type ports struct{ next atomic.Uint32 }

// lastGiven starts at a random place, so that two test binaries at the same time rarely meet, and never in the same order.
var lastGiven = func() *ports {
	p := &ports{}
	p.next.Store(rand.Uint32N(lastPort - firstPort))
	return p
}()

// claim keeps a port from the test binaries that run beside this one until the test ends; false if one of them has it.
func claim(t testing.TB, port int) bool {
	if runtime.GOOS != "linux" {
		return true
	}
	// An abstract socket's name lives as long as its socket, and in one network namespace, as ports do.
	held, err := net.Listen("unix", fmt.Sprintf("@maskrelay-test-port-%d", port))
	if err != nil {
		return false
	}
	t.Cleanup(func() { _ = held.Close() })
	return true
}

// FreePort returns a loopback port that nothing listened on a moment ago and that no test has which is still running.
func FreePort(t testing.TB) int {
	t.Helper()
	for range lastPort - firstPort {
		port := firstPort + int(lastGiven.next.Add(1)%(lastPort-firstPort))
		ln, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatalf("close probe listener: %v", err)
		}
		if claim(t, port) {
			return port
		}
	}
	t.Fatal("no free port between 20000 and 32000")
	return 0
}

// FreeAddr returns a free loopback address, "127.0.0.1:port".
func FreeAddr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", FreePort(t))
}

// Listening reports whether something accepts TCP connections at addr.
func Listening(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}
