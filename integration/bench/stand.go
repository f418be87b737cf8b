//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// stand is a started peer between generator and vendor, in one cell of one round.
type stand struct {
	*bench
	peer       *peer
	cell       string
	addr       string   // where the load connects
	watched    *process // whose CPU time and memory count
	relay      *process // nil for direct
	site       *site    // nil for direct
	goroutines func() (int, error)
}

// nobody is the user that the relays run as in the cell bulk-user.
const nobody = 65534

// startLimit is how long a peer may take until it serves.
const startLimit = 20 * time.Second

// start starts the peer and proves it by the canary. The caller ends it.
func (b *bench) start(p *peer, cell string) (*stand, error) {
	b.starts++
	host := func(net int) string { return fmt.Sprintf("127.%d.%d.%d", net, b.starts/250%250, 1+b.starts%250) }
	a, err := b.vendor.ask(order{Op: "listen", Addr: net.JoinHostPort(host(1), "0")})
	if err != nil {
		return nil, err
	}
	s := &stand{bench: b, peer: p, cell: cell, addr: a.Addr, watched: b.vendor.process}
	if p.kind == kindDirect {
		return s, s.canary()
	}
	s.site = &site{
		dir: filepath.Join(b.dir, strconv.Itoa(b.starts)), listen: net.JoinHostPort(host(2), b.port), admin: net.JoinHostPort(host(3), b.port),
		vendor: a.Addr, cpus: max(1, b.relayCPUs.Count()), files: b.files, self: b.self,
	}
	if err := s.launch(); err != nil {
		return nil, err
	}
	if err := s.awaitReady(); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// launch starts the peer's process, in bulk-user as nobody.
func (s *stand) launch() error {
	if err := os.Mkdir(s.site.dir, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(s.site.dir, 0o777); err != nil { // whatever the umask: the relay may be another user
		return err
	}
	cmd, err := s.peer.command(s.site)
	if err != nil {
		return err
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if s.cell == cellBulkUser && os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if cmd.Env == nil {
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	if s.relay, err = startProcess(cmd, s.relaySet()); err != nil {
		return err
	}
	s.addr, s.watched = s.site.listen, s.relay
	if s.isOurs[s.peer.name] {
		s.goroutines = func() (int, error) { return goroutines(s.site.admin) }
	}
	return nil
}

// end ends the peer and lets go of what the generator holds.
func (s *stand) end() {
	if _, err := s.load.ask(order{Op: "release"}); err != nil {
		s.note("release: %v", err)
	}
	if s.relay == nil {
		return
	}
	s.relay.end()
	if err := s.site.unshare(); err != nil {
		s.note("shared memory: %v", err)
	}
}

// awaitReady waits until the peer listens, and runs the canary.
func (s *stand) awaitReady() error {
	for until := time.Now().Add(startLimit); ; {
		if !s.relay.running() {
			return fmt.Errorf("ended before it served: %v", s.relay.cmd.ProcessState)
		}
		c, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			_ = c.Close()
			return s.canary()
		}
		if time.Now().After(until) {
			return fmt.Errorf("not listening after %v: %w", startLimit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// canary proves that the peer does the job: a tunnel works with the right credentials and is refused with a wrong password, and, by those that
// check customers themselves, with the vendor's credentials.
func (s *stand) canary() error {
	if !s.peer.fits(cellRate) {
		return nil // no CONNECT with a login of its own: its http cell counts only 200s
	}
	right, err := s.load.ask(order{Op: "try", Addr: s.addr, Head: connectHead(echoTarget, s.peer.login())})
	if err != nil {
		return err
	}
	if right.Failed > 0 {
		return fmt.Errorf("canary: a tunnel with the right credentials failed: %s", right.First)
	}
	wrong := []string{"bench:wrong"}
	if s.peer.kind == kindChain {
		wrong = append(wrong, vendorLogin)
	}
	for _, login := range wrong {
		a, err := s.load.ask(order{Op: "try", Addr: s.addr, Head: connectHead(echoTarget, login)})
		if err != nil {
			return err
		}
		if a.Failed == 0 {
			return fmt.Errorf("canary: the credentials of %q were taken", login)
		}
		if a.Done == 0 {
			return fmt.Errorf("canary: wrong credentials got no answer: %s", a.First)
		}
	}
	return nil
}

// failures notes tunnels or requests that did not end well.
func (s *stand) failures(what string, a answer) {
	if a.Failed > 0 {
		s.note("%s %d of %d failed, first: %s", what, a.Failed, a.Done+a.Failed, a.First)
	}
}

func (s *stand) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf("%s, %s, round %d: ", s.peer.name, s.cell, s.round)+fmt.Sprintf(format, args...))
}

func (s *stand) record(metric string, value float64) {
	s.results.add(s.peer.name, metric, s.round, value)
}

var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)

// goroutines asks maskrelay's admin listener.
func goroutines(admin string) (n int, err error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	m := goroutineTotal.FindSubmatch(body)
	if m == nil {
		return 0, fmt.Errorf("goroutine profile: status %d, %.80q", resp.StatusCode, body)
	}
	return strconv.Atoi(string(m[1]))
}
