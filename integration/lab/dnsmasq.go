package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dnsZone is the domain that Dnsmasq answers for: a name in it that it was not told does not exist.
const dnsZone = "test"

// Dnsmasq is a real dnsmasq on loopback that knows the names it is told, and asks nobody.
type Dnsmasq struct {
	*Process
	Addr  string // host:port, UDP and TCP
	hosts string // file
	args  []string
}

// StartDnsmasq starts one whose answers hold for ttl, in whole seconds.
func StartDnsmasq(t testing.TB, ttl time.Duration) *Dnsmasq {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(FreePort(t))
	d := &Dnsmasq{Addr: net.JoinHostPort("127.0.0.1", port), hosts: filepath.Join(t.TempDir(), "hosts")}
	d.args = []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll", "--pid-file=", "--user=" + me.Username,
		"--port=" + port, "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/" + dnsZone + "/", "--log-queries", "--log-facility=-",
		"--addn-hosts=" + d.hosts, "--local-ttl=" + strconv.Itoa(int(ttl/time.Second)),
	}
	d.write(t, nil)
	d.start(t)
	return d
}

func (d *Dnsmasq) start(t testing.TB) {
	t.Helper()
	d.Process = Start(t, "dnsmasq", exec.Command(Need(t, "dnsmasq")[0], d.args...))
	Wait(t, 10*time.Second, "dnsmasq to listen", func() bool { return Listening(d.Addr) })
}

func (d *Dnsmasq) write(t testing.TB, records map[string][]string) {
	t.Helper()
	var b strings.Builder
	for name, addrs := range records {
		for _, a := range addrs {
			fmt.Fprintf(&b, "%s %s\n", a, name)
		}
	}
	if err := os.WriteFile(d.hosts, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Set replaces all names and their addresses, and returns when dnsmasq has read them.
func (d *Dnsmasq) Set(t testing.TB, records map[string][]string) {
	t.Helper()
	d.write(t, records)
	read := "read " + d.hosts
	before := strings.Count(string(d.Stderr.Bytes()), read)
	d.Signal(t, syscall.SIGHUP)
	Wait(t, 10*time.Second, "dnsmasq to read its names", func() bool {
		return strings.Count(string(d.Stderr.Bytes()), read) > before
	})
}

// Asked is how many questions for a name have come.
func (d *Dnsmasq) Asked(name string) int {
	return strings.Count(string(d.Stderr.Bytes()), "] "+name+" from ")
}

// Freeze stops the process without ending it: questions arrive and nobody answers.
func (d *Dnsmasq) Freeze(t testing.TB) {
	t.Helper()
	d.Signal(t, syscall.SIGSTOP)
}

// Thaw ends a Freeze.
func (d *Dnsmasq) Thaw(t testing.TB) {
	t.Helper()
	d.Signal(t, syscall.SIGCONT)
}

// Kill ends the process at once and waits for its end.
func (d *Dnsmasq) Kill(t testing.TB) {
	t.Helper()
	d.Signal(t, syscall.SIGKILL)
	<-d.Done()
}

// Restart begins anew at the same address, with the names that were set last, after a Kill.
func (d *Dnsmasq) Restart(t testing.TB) {
	t.Helper()
	d.start(t)
}
