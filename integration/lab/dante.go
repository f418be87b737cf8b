package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// StartDante starts Dante's SOCKS server without authentication on addr, a loopback address. CONNECT is served, but not to the port denied
// (0 = to all). dir is for its files.
func StartDante(t testing.TB, dir, addr string, denied int) *Process {
	t.Helper()
	program := Need(t, "danted")[0]
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	users := ""
	if os.Getuid() == 0 {
		users = "user.privileged: root\nuser.unprivileged: nobody\n"
	}
	block := ""
	if denied != 0 {
		block = fmt.Sprintf("socks block { from: 127.0.0.0/8 to: 0.0.0.0/0 port = %d }\n", denied)
	}
	conf := filepath.Join(dir, "danted.conf")
	text := fmt.Sprintf(`logoutput: stderr
internal: %s port = %s
external: lo
clientmethod: none
socksmethod: none
%sclient pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }
%ssocks pass { from: 127.0.0.0/8 to: 0.0.0.0/0
  command: connect
}
`, host, port, users, block)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-f", conf, "-p", filepath.Join(dir, "danted.pid"), "-N", "1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it ends its own children
	return Start(t, "danted", cmd)
}

// StartMicroSOCKS starts microsocks on addr, with the one login that it knows.
func StartMicroSOCKS(t testing.TB, addr, username, password string) *Process {
	t.Helper()
	program := Need(t, "microsocks")[0]
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return Start(t, "microsocks", exec.Command(program, "-i", host, "-p", port, "-u", username, "-P", password))
}
