package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"maskrelay/integration/lab"
)

// balancerKinds start a load balancer, from the file that operators deploy, in front of two relays, and return where it listens.
var balancerKinds = map[string]func(t *testing.T, relays []*lab.Relay) *balancer{"haproxy": startHAProxy, "nginx": startNginx}

type balancer struct {
	process *lab.Process
	addr    string
	socket  string // HAProxy's runtime API
	log     string // nginx's error log
}

// noticed reports whether the balancer has taken the first relay out.
func (b *balancer) noticed(t *testing.T) bool {
	t.Helper()
	if b.socket != "" {
		return strings.HasPrefix(b.state(t, "relay1"), "DOWN")
	}
	text, err := os.ReadFile(b.log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), "upstream server temporarily disabled")
}

func startHAProxy(t *testing.T, relays []*lab.Relay) *balancer {
	t.Helper()
	program := lab.Need(t, "haproxy")[0]
	b := &balancer{addr: lab.FreeAddr(t), socket: filepath.Join(openDir(t), "admin.sock")}
	cmd := exec.Command(program, "-db", "-f", "haproxy/haproxy.cfg")
	cmd.Env = append(os.Environ(), "HAPROXY_LISTEN="+b.addr, "HAPROXY_STATS_SOCKET="+b.socket, "HAPROXY_MAXCONN=4000")
	for i, r := range relays {
		_, port, err := net.SplitHostPort(r.Admin)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, fmt.Sprintf("RELAY%d_ADDR=%s", i+1, r.Addr), fmt.Sprintf("RELAY%d_ADMIN_PORT=%s", i+1, port))
	}
	b.process = lab.Start(t, "haproxy", cmd)
	lab.Wait(t, 15*time.Second, "haproxy to find its relays", func() bool {
		return b.state(t, "relay1") == "UP" && b.state(t, "relay2") == "UP"
	})
	return b
}

// state returns what HAProxy thinks of a relay ("UP", "DOWN", "DOWN 1/2", …), "" while it does not answer.
func (b *balancer) state(t *testing.T, relay string) string {
	t.Helper()
	c, err := net.DialTimeout("unix", b.socket, time.Second)
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }() // everything was read
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "show stat\n"); err != nil {
		return ""
	}
	all, err := io.ReadAll(c)
	if err != nil {
		return ""
	}
	const statusColumn = 17
	for line := range strings.Lines(string(all)) {
		if fields := strings.Split(line, ","); len(fields) > statusColumn && fields[0] == "relays" && fields[1] == relay {
			return fields[statusColumn]
		}
	}
	return ""
}

func startNginx(t *testing.T, relays []*lab.Relay) *balancer {
	t.Helper()
	program := lab.Need(t, "nginx", "/usr/lib/nginx/modules/ngx_stream_module.so")[0]
	dir := openDir(t)
	b := &balancer{addr: lab.FreeAddr(t), log: filepath.Join(dir, "error.log")}
	text, err := os.ReadFile("nginx/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf := string(text)
	for deployed, here := range map[string]string{
		"listen 3128 ":                       "listen " + b.addr + " ",
		"10.0.0.11:8080":                     relays[0].Addr,
		"10.0.0.12:8080":                     relays[1].Addr,
		"pid /run/nginx.pid;":                "pid " + dir + "/nginx.pid;",
		"error_log /var/log/nginx/error.log": "error_log " + b.log,
	} {
		if strings.Count(conf, deployed) != 1 {
			t.Fatalf("nginx.conf has %q %d times", deployed, strings.Count(conf, deployed))
		}
		conf = strings.Replace(conf, deployed, here, 1)
	}
	cmd := exec.Command(program, "-e", b.log, "-g", "daemon off;", "-c", writeFile(t, dir, "nginx.conf", conf))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // the master ends its workers
	b.process = lab.Start(t, "nginx", cmd)
	lab.Wait(t, 15*time.Second, "nginx to listen", func() bool {
		if !b.process.Running() {
			log, _ := os.ReadFile(b.log)
			t.Fatalf("nginx ended:\n%s%s", b.process.Stderr.Bytes(), log)
		}
		return lab.Listening(b.addr)
	})
	return b
}
