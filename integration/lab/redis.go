package lab

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Redis is a real redis-server on loopback that keeps nothing on disk.
type Redis struct {
	*Process
	Addr   string // host:port
	CAFile string // vouches for the server if it speaks TLS, else empty
	args   []string
	pair   KeyPair
}

// StartRedis starts one and waits until it listens; further arguments are settings, as --maxmemory-policy noeviction.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	port := strconv.Itoa(FreePort(t))
	r := newRedis(port, append([]string{"--port", port}, args...))
	r.start(t)
	return r
}

// StartRedisTLS is StartRedis for a server that speaks TLS only; URL begins with rediss:// and CAFile is set.
func StartRedisTLS(t testing.TB, args ...string) *Redis {
	t.Helper()
	port, dir := strconv.Itoa(FreePort(t)), t.TempDir()
	pair := NewKeyPair(t, dir, "127.0.0.1")
	r := newRedis(port, append([]string{"--port", "0", "--tls-port", port, "--tls-cert-file", pair.CertFile, "--tls-key-file", pair.KeyFile,
		"--tls-ca-cert-file", pair.CertFile, "--tls-auth-clients", "no"}, args...))
	r.pair, r.CAFile = pair, filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(r.CAFile, pair.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	return r
}

func newRedis(port string, args []string) *Redis {
	return &Redis{
		Addr: net.JoinHostPort("127.0.0.1", port),
		args: append([]string{"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"}, args...),
	}
}

func (r *Redis) start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(Need(t, "redis-server")[0], r.args...)
	cmd.Dir = t.TempDir()
	r.Process = Start(t, "redis-server", cmd)
	Wait(t, 10*time.Second, "redis-server to listen", func() bool { return Listening(r.Addr) })
}

// URL is the value for REDIS_URL.
func (r *Redis) URL() string { return r.url(nil) }

// UserURL is URL with a user and a password in it; an empty user is the default one.
func (r *Redis) UserURL(user, password string) string { return r.url(url.UserPassword(user, password)) }

func (r *Redis) url(user *url.Userinfo) string {
	u := url.URL{Scheme: "redis", User: user, Host: r.Addr, Path: "/0"}
	if r.CAFile != "" {
		u.Scheme = "rediss"
	}
	return u.String()
}

// Freeze stops the process without ending it: connections stay and nothing answers.
func (r *Redis) Freeze(t testing.TB) {
	t.Helper()
	r.Signal(t, syscall.SIGSTOP)
}

// Thaw ends a Freeze.
func (r *Redis) Thaw(t testing.TB) {
	t.Helper()
	r.Signal(t, syscall.SIGCONT)
}

// Kill ends the process at once and waits for its end; all that it knew is lost.
func (r *Redis) Kill(t testing.TB) {
	t.Helper()
	r.Signal(t, syscall.SIGKILL)
	<-r.Done()
}

// Restart begins anew, empty, at the same address, after a Kill.
func (r *Redis) Restart(t testing.TB) {
	t.Helper()
	r.start(t)
}

// CPU is the processor time that the server has used since its start.
func (r *Redis) CPU(t testing.TB) time.Duration {
	t.Helper()
	return ProcessUsage(t, r.PID()).CPU
}

// AddUser makes a user with a password and the rights that rules name, as "~maskrelay:*", "&*", "+@all". It calls the server as the
// default user, who must have no password.
func (r *Redis) AddUser(t testing.TB, name, password string, rules ...string) {
	t.Helper()
	r.Do(t, append([]string{"ACL", "SETUSER", name, "reset", "on", ">" + password}, rules...)...)
}

// RedisCluster is a Redis Cluster of three masters.
type RedisCluster struct{ Nodes []*Redis }

const slots = 16384

// StartRedisCluster starts one and waits until every node knows all slots; further arguments are settings of each node.
func StartRedisCluster(t testing.TB, args ...string) *RedisCluster {
	t.Helper()
	const nodes = 3
	c := &RedisCluster{}
	for i := range nodes {
		bus := strconv.Itoa(FreePort(t))
		r := StartRedis(t, append([]string{"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000"}, args...)...)
		c.Nodes = append(c.Nodes, r)
		r.Do(t, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(slots*i/nodes), strconv.Itoa(slots*(i+1)/nodes-1))
		if i > 0 {
			_, port, err := net.SplitHostPort(r.Addr)
			if err != nil {
				t.Fatal(err)
			}
			c.Nodes[0].Do(t, "CLUSTER", "MEET", "127.0.0.1", port, bus)
		}
	}
	for _, r := range c.Nodes {
		Wait(t, 20*time.Second, "the cluster to form", func() bool {
			info := r.Do(t, "CLUSTER", "INFO")
			return len(info) == 1 && clusterFormed.MatchString(info[0])
		})
	}
	return c
}

// URL is the value for REDIS_URL.
func (c *RedisCluster) URL() string { return c.url(nil) }

// UserURL is URL with a user, whom every node must know, and a password in it.
func (c *RedisCluster) UserURL(user, password string) string {
	return c.url(url.UserPassword(user, password))
}

func (c *RedisCluster) url(user *url.Userinfo) string {
	query := url.Values{}
	for _, r := range c.Nodes[1:] {
		query.Add("addr", r.Addr)
	}
	u := url.URL{Scheme: "redis", User: user, Host: c.Nodes[0].Addr, RawQuery: query.Encode()}
	return u.String()
}
