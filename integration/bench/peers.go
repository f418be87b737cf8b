//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// customerLogin is what the customer shows to the relays that check it.
const customerLogin = "bench:customer-password"

// Kinds of peers.
const (
	kindDirect = "direct"
	kindLimit  = "limit" // forwards bytes
	kindPass   = "pass"  // an HTTP proxy that passes the customer's credentials on
	kindChain  = "chain" // does the whole job
)

// site is where one started peer stands.
type site struct {
	dir    string // its own, readable by all
	listen string // host:port
	admin  string // host:port, for maskrelay
	vendor string // host:port
	cpus   int
	files  uint64 // limit of open files
	self   string // this program, in a place that every user can read
}

// peer is one relay to measure.
type peer struct {
	name      string
	kind      string
	needs     []string // programs and files
	cells     []string // nil = all
	perTunnel int      // files of a tunnel, 0 = 2
	most      int      // tunnels at a time, 0 = as many as its files allow
	command   func(*site) (*exec.Cmd, error)
}

// login returns the credentials that the load shows to the peer.
func (p *peer) login() string {
	if p.kind == kindChain {
		return customerLogin
	}
	return vendorLogin
}

// fits reports whether the peer takes part in a cell.
func (p *peer) fits(cell string) bool { return p.cells == nil || slices.Contains(p.cells, cell) }

// missing returns what of the peer's needs is not on this machine.
func (p *peer) missing() []string {
	var lacking []string
	for _, need := range p.needs {
		if _, err := lookFor(need); err != nil {
			lacking = append(lacking, need)
		}
	}
	return lacking
}

// lookFor looks in PATH and where Debian keeps daemons, which a user's PATH often leaves out.
func lookFor(name string) (string, error) {
	if strings.Contains(name, "/") {
		_, err := os.Stat(name)
		return name, err
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p, sbinErr := exec.LookPath(filepath.Join(dir, name)); sbinErr == nil {
			return p, nil
		}
	}
	return "", err
}

// program returns the command of an installed program.
func program(name string, args ...string) (*exec.Cmd, error) {
	path, err := lookFor(name)
	if err != nil {
		return nil, err
	}
	return exec.Command(path, args...), nil
}

// otherPeers are all but maskrelay, in the order of the report.
func otherPeers() []*peer {
	return []*peer{
		{name: "haproxy-http", kind: kindChain, needs: []string{"haproxy"}, command: haproxy(haproxyHTTP)},
		{name: "haproxy-tcp", kind: kindLimit, needs: []string{"haproxy"}, command: haproxy(haproxyTCP)},
		{name: "nginx-stream", kind: kindLimit, needs: []string{"nginx", nginxStream}, command: nginx},
		{name: "goproxy", kind: kindChain, perTunnel: 6, command: ownRelay(roleGoproxy)},
		{name: "go-splice", kind: kindChain, perTunnel: 6, cells: tunnelCells, command: ownRelay(roleSplice)},
		{name: "tinyproxy", kind: kindChain, needs: []string{"tinyproxy"}, command: tinyproxy},
		{name: "squid", kind: kindChain, needs: []string{"squid"}, command: squid},
		{name: "privoxy", kind: kindPass, needs: []string{"privoxy"}, cells: []string{cellHTTP}, command: privoxy},
		{name: "direct", kind: kindDirect},
	}
}

// build is one binary of maskrelay, with settings of its own.
type build struct {
	name, path string
	env        []string // NAME=VALUE without MASKRELAY_, or !NAME=VALUE for the process
}

// relayPeer returns maskrelay as a peer.
func relayPeer(b build) *peer {
	return &peer{name: b.name, kind: kindChain, needs: []string{b.path}, command: func(s *site) (*exec.Cmd, error) {
		cmd := exec.Command(b.path, "serve")
		env := []string{"LISTEN=" + s.listen, "ADMIN_LISTEN=" + s.admin, "ACCOUNTS=" + customerLogin, "ALLOW_PORTS=*", "ALLOW_PRIVATE=true",
			"UPSTREAM=http://" + vendorLogin + "@" + s.vendor}
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}
		for _, e := range append(env, b.env...) {
			if own, ok := strings.CutPrefix(e, "!"); ok {
				cmd.Env = append(cmd.Env, own)
			} else {
				cmd.Env = append(cmd.Env, "MASKRELAY_"+e)
			}
		}
		return cmd, nil
	}}
}

// ownRelay is a relay that this program holds as a role.
func ownRelay(role string) func(*site) (*exec.Cmd, error) {
	return func(s *site) (*exec.Cmd, error) {
		cmd := exec.Command(s.self)
		cmd.Env = []string{roleVariable + "=" + role, listenVariable + "=" + s.listen, vendorVariable + "=" + s.vendor}
		return cmd, nil
	}
}

// write puts a configuration file into the peer's directory.
func (s *site) write(name, text string) (string, error) {
	path := filepath.Join(s.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}

// service is a name that no other process of the machine has.
func (s *site) service() string {
	return fmt.Sprintf("maskrelaybench%dx%s", os.Getpid(), filepath.Base(s.dir))
}

// unshare removes the shared memory of the peer that was here.
func (s *site) unshare() error {
	paths, err := filepath.Glob("/dev/shm/" + s.service() + "-*")
	for _, path := range paths {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// maxconn is what HAProxy may take within the limit of open files: two a connection, and some for itself.
func (s *site) maxconn() int { return int(min(s.files, 1<<20)/2) - 100 }

const haproxyTCP = `global
    maxconn {maxconn}
    nbthread {cpus}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen relay
    bind {listen} backlog 4096
    server vendor {vendor}
`

// The customer's login is checked by userlist, the vendor's put in its place.
const haproxyHTTP = `global
    maxconn {maxconn}
    nbthread {cpus}
defaults
    mode http
    option http-use-proxy-header
    http-reuse always
    timeout connect 10s
    timeout client 10m
    timeout server 10m
    timeout tunnel 1h
    timeout http-request 10s
userlist customers
    user {user} insecure-password {password}
frontend relay
    bind {listen} backlog 4096
    http-request auth realm Proxy unless { http_auth(customers) }
    http-request set-header Proxy-Authorization "{vendorlogin}"
    default_backend vendor
backend vendor
    server vendor {vendor}
`

func haproxy(text string) func(*site) (*exec.Cmd, error) {
	return func(s *site) (*exec.Cmd, error) {
		user, password, _ := strings.Cut(customerLogin, ":")
		conf, err := s.write("haproxy.cfg", strings.NewReplacer("{maxconn}", strconv.Itoa(s.maxconn()), "{cpus}", strconv.Itoa(s.cpus), "{listen}", s.listen,
			"{vendor}", s.vendor, "{user}", user, "{password}", password, "{vendorlogin}", basic(vendorLogin)).Replace(text))
		if err != nil {
			return nil, err
		}
		return program("haproxy", "-db", "-q", "-f", conf)
	}
}

const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

func nginx(s *site) (*exec.Cmd, error) {
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	conf, err := s.write("nginx.conf", fmt.Sprintf(`load_module %s;
daemon off;
%s
worker_processes %d;
worker_rlimit_nofile %d;
pid %s/nginx.pid;
error_log /dev/null;
events { worker_connections %d; }
stream {
    access_log off;
    server {
        listen %s backlog=4096;
        proxy_pass %s;
        proxy_timeout 1h;
    }
}
`, nginxStream, user, s.cpus, s.files, s.dir, s.files, s.listen, s.vendor))
	if err != nil {
		return nil, err
	}
	cmd, err := program("nginx", "-p", s.dir, "-c", conf, "-e", "/dev/null")
	if err == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // so that it ends its workers
	}
	return cmd, err
}

func tinyproxy(s *site) (*exec.Cmd, error) {
	host, port, _ := strings.Cut(s.listen, ":")
	user, password, _ := strings.Cut(customerLogin, ":")
	conf, err := s.write("tinyproxy.conf", fmt.Sprintf(`Listen %s
Port %s
Timeout 3600
MaxClients %d
LogLevel Critical
DisableViaHeader Yes
BasicAuth %s %s
Upstream http %s@%s
`, host, port, s.files, user, password, vendorLogin, s.vendor))
	if err != nil {
		return nil, err
	}
	return program("tinyproxy", "-d", "-c", conf)
}

func squid(s *site) (*exec.Cmd, error) {
	// Plain text: htpasswd's MD5 needs a package of its own, and the check is made once.
	helper, err := s.write("auth.sh", fmt.Sprintf("#!/bin/sh\nwhile read -r login; do [ \"$login\" = '%s' ] && echo OK || echo ERR; done\n",
		strings.Replace(customerLogin, ":", " ", 1)))
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(s.vendor, ":")
	conf, err := s.write("squid.conf", fmt.Sprintf(`http_port %s
auth_param basic program /bin/sh %s
auth_param basic children 1 startup=1
auth_param basic credentialsttl 1 hour
acl customers proxy_auth REQUIRED
http_access allow customers
http_access deny all
cache_peer %s parent %s 0 no-query no-digest default login=%s connection-auth=off
never_direct allow all
cache deny all
cache_mem 8 MB
access_log none
cache_log /dev/null
cache_store_log none
pid_filename none
max_filedescriptors %d
via off
forwarded_for delete
pinger_enable off
shutdown_lifetime 0 seconds
coredump_dir %s
`, s.listen, helper, host, port, vendorLogin, s.files, s.dir))
	if err != nil {
		return nil, err
	}
	// The service name keeps its shared memory apart from any other squid's; unshare removes that, since squid is killed.
	return program("squid", "-N", "-n", s.service(), "-f", conf)
}

func privoxy(s *site) (*exec.Cmd, error) {
	conf, err := s.write("privoxy.conf", fmt.Sprintf(`listen-address %s
forward / %s
max-client-connections 1024
enable-proxy-authentication-forwarding 1
keep-alive-timeout 300
default-server-timeout 60
connection-sharing 1
socket-timeout 300
logdir %s
debug 0
`, s.listen, s.vendor, s.dir))
	if err != nil {
		return nil, err
	}
	return program("privoxy", "--no-daemon", conf)
}
