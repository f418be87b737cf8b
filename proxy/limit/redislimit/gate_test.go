package redislimit

import (
	"io"
	"net"
	"sync"
	"testing"
)

// gate stands between one relay and Redis, and can cut it off.
type gate struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	cut      bool
	conns    map[net.Conn]bool
	all      sync.WaitGroup
}

func startGate(t testing.TB, target string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: listener, target: target, conns: make(map[net.Conn]bool)}
	g.all.Go(g.accept)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		g.close(true)
		g.all.Wait()
	})
	return g
}

func (g *gate) url() string { return "redis://" + g.listener.Addr().String() }

// close ends all connections, and refuses new ones if it is to stay closed.
func (g *gate) close(stay bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = stay
	for c := range g.conns {
		_ = c.Close() // the other side may have been first
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = false
}

// keep notes a connection that is to end with the gate, and reports whether it may live.
func (g *gate) keep(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cut {
		_ = c.Close() // nothing was sent
		return false
	}
	g.conns[c] = true
	return true
}

func (g *gate) drop(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	_ = c.Close() // it may be closed
}

func (g *gate) accept() {
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.all.Go(func() { g.carry(c) })
	}
}

func (g *gate) carry(c net.Conn) {
	if !g.keep(c) {
		return
	}
	defer g.drop(c)
	server, err := net.Dial("tcp", g.target)
	if err != nil || !g.keep(server) {
		return
	}
	defer g.drop(server)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, server) // ends with either
		_ = c.Close()
	})
	_, _ = io.Copy(server, c)
	_ = server.Close()
	back.Wait()
}
