//go:build amd64 || arm64

package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelMemory is what the kernel holds for a socket, in bytes.
func kernelMemory(fd int32) int {
	var info [9]uint32 // SK_MEMINFO_VARS
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 1 << 30
	}
	const received, forward, queued = 0, 4, 5 // SK_MEMINFO_RMEM_ALLOC, …_FWD_ALLOC, …_WMEM_QUEUED
	return int(info[received] + info[forward] + info[queued])
}

// Readers that never read cost the relay little, however much the other side has to say.
// A burst that came before the relay could know may lie in one receive queue; it does not
// in most. The send queue is as a front sets it on its listener.
func TestStalledReaderIsCheap(t *testing.T) {
	const limit, limitOfOne, readers = 600 << 10, 1536 << 10, 5
	for _, up := range []bool{false, true} {
		t.Run(map[bool]string{false: "down", true: "up"}[up], func(t *testing.T) {
			sum := 0
			for range readers {
				used := stalledReader(t, up)
				if sum += used; used > limitOfOne {
					t.Errorf("%d bytes for one reader, want at most %d", used, limitOfOne)
				}
			}
			if mean := sum / readers; mean > limit {
				t.Errorf("%d bytes a reader, want at most %d", mean, limit)
			} else {
				t.Logf("%d bytes a reader", mean)
			}
		})
	}
}

// stalledReader is what a tunnel holds whose customer (or, up, whose target) never reads.
func stalledReader(t *testing.T, up bool) int {
	t.Helper()
	stop := make(chan struct{})
	j := newJourney(t, gateway(t, func(c *net.TCPConn) {
		readRequest(c)
		_, _ = io.WriteString(c, accepted)
		if !up {
			_, _ = io.Copy(c, neverEnding('x'))
		}
		<-stop
	}))
	defer close(stop)
	defer j.engine.Close()
	control(t, j.job.client, func(fd int) {
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLow))
	})
	j.open()
	must(t, j.client.SetDeadline(time.Now().Add(patience)))
	if up {
		go func() { _, _ = io.Copy(j.client, neverEnding('x')) }()
	}
	until(t, func() bool { return j.memory() > 0 && j.settled() })
	return j.memory()
}

func control(t *testing.T, c net.Conn, f func(fd int)) {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, rc.Control(func(fd uintptr) { f(int(fd)) }))
}

// memory is what the scene's tunnel holds in the kernel and in pipes.
func (s *scene) memory() int {
	return s.engine.reactors.each(func(r *reactor) int {
		n := 0
		r.slab.each(func(t *tunnel) {
			for i := range t.sides {
				n += kernelMemory(t.sides[i].fd)
				if p := t.sides[i].pending; p != nil {
					n += p.left + len(p.rest)
				}
			}
		})
		return n
	})
}

// settled reports whether nothing has moved for a while.
func (s *scene) settled() bool {
	before := s.memory()
	for range 20 {
		time.Sleep(10 * time.Millisecond)
		if s.memory() != before {
			return false
		}
	}
	return true
}

// The state of a tunnel is what a hundred thousand idle ones cost.
func TestSizeOfATunnel(t *testing.T) {
	if n := unsafe.Sizeof(tunnel{}); n > 144 {
		t.Errorf("a tunnel's state is %d bytes", n)
	}
	if n := unsafe.Sizeof(setup{}); n > 128 {
		t.Errorf("a set-up's state is %d bytes", n)
	}
}

func TestIdleTunnelsAreCheap(t *testing.T) {
	const n, limit = 2000, 400
	engine := NewEngine(Options{})
	defer engine.Close()
	silent := &script{open: func(context.Context) (Peer, error) { return Peer{}, errVendor }}
	type ends struct{ client, inside, vendor, upstream net.Conn }
	all := make([]ends, n)
	for i := range all {
		all[i].client, all[i].inside = loadPair(t)
		all[i].vendor, all[i].upstream = loadPair(t)
	}
	defer func() {
		for _, e := range all {
			_ = e.client.Close()
			_ = e.vendor.Close()
		}
	}()
	before := inUse()
	for i, e := range all {
		engine.Submit(Job{Client: e.inside, Exchange: silent, Peer: &Peer{Conn: e.upstream}})
		send(t, e.client, "ping")
		expect(t, e.vendor, "ping")
		all[i].inside, all[i].upstream = nil, nil
	}
	used := inUse() - before
	// Go's own state of the sockets goes when the reactor takes them, so this may be less
	// than what the tunnels cost: their state is counted by itself.
	own := int64(engine.reactors.each(func(r *reactor) int {
		return len(r.slab.chunks)*int(unsafe.Sizeof([chunkSize]tunnel{})) + cap(r.slab.free)*4 + cap(r.young)*4
	}))
	t.Logf("%d bytes each, %d of them of the slab", used/n, own/n)
	if each := max(used, own) / n; each > limit {
		t.Errorf("an idle tunnel costs %d bytes, want at most %d", each, limit)
	}
	runtime.KeepAlive(all)
}

// TestAcceptExhausted has a process of its own run out of descriptors.
func TestAcceptExhausted(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAcceptChild$")
	child.Env = append(os.Environ(), "MASKRELAY_ACCEPT_CHILD=1")
	in, err := child.StdinPipe()
	must(t, err)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	defer func() { _ = in.Close(); _ = child.Wait() }()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the child says nothing")
	}
	addr := lines.Text()
	const more = 60
	conns := make([]net.Conn, more)
	for i := range conns {
		c, err := net.Dial("tcp", addr) // the backlog takes those for whom there is no descriptor
		must(t, err)
		defer func() { _ = c.Close() }()
		must(t, c.SetDeadline(time.Now().Add(patience)))
		conns[i] = c
		send(t, c, "hello\n")
	}
	ask := func() (troubles int) {
		send(t, conns[0], "troubles\n")
		answer, err := bufio.NewReader(conns[0]).ReadString('\n')
		must(t, err)
		n, err := strconv.Atoi(strings.TrimSpace(answer))
		must(t, err)
		return n
	}
	expect(t, conns[0], "you said hello\n")
	start := time.Now()
	until(t, func() bool { return ask() > 5 })
	if n, most := ask(), int(time.Since(start)/acceptPause)+10; n > most+int(patience/acceptPause)/100 {
		t.Errorf("%d times in %v", n, time.Since(start))
	}
	for _, c := range conns[1:] { // each that goes makes room for another
		expect(t, c, "you said hello\n")
		must(t, c.Close())
	}
	must(t, conns[0].Close())
}

// TestAcceptChild is the other process of TestAcceptExhausted.
func TestAcceptChild(t *testing.T) {
	if os.Getenv("MASKRELAY_ACCEPT_CHILD") == "" {
		t.Skip("it is the child of another test")
	}
	h := newHouse(t)
	h.judge = func(line string) (Verdict, bool) {
		if line != "troubles" {
			return Verdict{}, false
		}
		return Verdict{Action: Answer, Reply: fmt.Appendf(nil, "%d\n", h.troubled())}, true
	}
	h.serve(patience, patience)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	limit.Cur = uint64(openFiles(t) + 20)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	fmt.Println(h.addr)
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the other has finished
	for _, err := range h.troubles {
		if !errors.Is(err, unix.EMFILE) {
			t.Errorf("trouble %v", err)
		}
	}
}

// A receive buffer that was held may grow once its bytes have been taken on, also if they
// come in pieces too small for splicing, as they do over a long way.
func TestHeldBufferIsLetGo(t *testing.T) {
	s := newScene(t, Options{}, tcpKind, tcpKind)
	if pumpsOnly || !s.engine.reactors.unlocks {
		t.Skip("nothing is held here")
	}
	s.open()
	isHeld := func(prepare func(r *reactor, src *socket)) bool {
		n := s.engine.reactors.each(func(r *reactor) int {
			n := 0
			r.slab.each(func(t *tunnel) {
				prepare(r, &t.sides[1])
				locked, err := unix.GetsockoptInt(int(t.sides[1].fd), unix.SOL_SOCKET, soBufLock)
				if t.sides[1].is(held) || err != nil || locked != 0 {
					n++
				}
			})
			return n
		})
		return n > 0
	}
	if !isHeld(func(r *reactor, src *socket) { r.hold(src) }) {
		t.Fatal("it is not held")
	}
	piece := string(make([]byte, 8<<10))
	for moved := 0; moved <= fastAfter; moved += len(piece) {
		send(t, s.vendor, piece)
		expect(t, s.client, piece)
	}
	until(t, func() bool { return !isHeld(func(*reactor, *socket) {}) })
}
