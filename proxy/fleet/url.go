package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	poolSize         = 32 // connections for commands; a caller waits poolWait for one
	pipelinePoolSize = 4  // and for pipelines, which use the others when these are busy
	probePoolSize    = 2
	// Below CallTimeout: to wait for a free connection in vain says nothing of Redis, and
	// must not look like waiting for its answer.
	poolWait = CallTimeout * 4 / 5
	// Well below the timeouts after which services and firewalls cut idle connections.
	maxIdle = time.Minute
	// After a change of the primary behind one name, connections to the old one end by then.
	maxAge   = 5 * time.Minute
	maxAddrs = 64 // addresses in a URL
)

// place is what a URL says.
type place struct {
	network            string // "tcp" or "unix"
	addrs              []string
	cluster            bool
	username, password string
	db                 int
	tls                *tls.Config // nil is without
}

const urlForm = "write redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path"

// parseURL never quotes any of text in its errors: a slip of the pen can move the password
// to any part of a URL.
func parseURL(text string) (*place, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("fleet: not a URL; " + urlForm + ", special characters of the password as %40 for @")
	}
	p := &place{network: "tcp"}
	switch u.Scheme {
	case "redis":
	case "rediss":
		p.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	case "unix":
		p.network = "unix"
	default:
		return nil, errors.New("fleet: not a URL of a Redis; " + urlForm)
	}
	if u.Fragment != "" || u.Opaque != "" || strings.Contains(u.Path, "@") || strings.Contains(u.RawQuery, "@") {
		return nil, errors.New("fleet: the URL's password holds a character that must be percent-encoded, as %23 for #, %2F for /, %3F for ? and %40 for @")
	}
	if u.User != nil {
		p.username = u.User.Username()
		if p.password, _ = u.User.Password(); p.password == "" {
			return nil, errors.New("fleet: the URL has a user and no password; write redis://user:password@host, or redis://:password@host")
		}
	}
	return p, errors.Join(p.address(u), p.settings(u))
}

// address reads where the server listens.
func (p *place) address(u *url.URL) error {
	if p.network == "unix" {
		if u.Host != "" || len(u.Path) < 2 {
			return errors.New("fleet: unix:// needs an absolute path, unix:///run/redis.sock")
		}
		p.addrs = []string{u.Path}
		return nil
	}
	if u.Hostname() == "" {
		return errors.New("fleet: the URL has no host")
	}
	port := u.Port()
	if port == "" {
		port = "6379"
	}
	addr, err := checkAddr(net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	p.addrs = []string{addr}
	if path := strings.Trim(u.Path, "/"); path != "" {
		return p.database(path)
	}
	return nil
}

// settings reads the query.
func (p *place) settings(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("fleet: the URL's query cannot be read")
	}
	for key, values := range query {
		switch {
		case key == "addr" && p.network == "tcp":
			p.cluster = true
			for _, value := range values {
				addr, err := checkAddr(value)
				if err != nil {
					return err
				}
				p.addrs = append(p.addrs, addr)
			}
		case key == "db" && p.network == "unix":
			if err := p.database(values[len(values)-1]); err != nil {
				return err
			}
		default:
			return errors.New("fleet: the URL's query may hold addr=host:port, for the further nodes of a cluster, or db, with unix://, and nothing else")
		}
	}
	slices.Sort(p.addrs)
	p.addrs = slices.Compact(p.addrs)
	if len(p.addrs) > maxAddrs {
		return fmt.Errorf("fleet: the URL has more than %d addresses", maxAddrs)
	}
	if p.cluster && p.db != 0 {
		return errors.New("fleet: a Redis Cluster has no numbered databases; leave the number out of the URL")
	}
	return nil
}

func (p *place) database(text string) error {
	var err error
	if p.db, err = strconv.Atoi(text); err != nil || p.db < 0 || p.db > 1<<16 {
		return errors.New("fleet: the URL's database is not a number")
	}
	return nil
}

func checkAddr(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return "", errors.New("fleet: an address in the URL is not host:port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", errors.New("fleet: a port in the URL is not between 1 and 65535")
	}
	return addr, nil
}

// trust reads the file of authorities.
func (p *place) trust(file string) error {
	if file == "" {
		return nil
	}
	if p.tls == nil {
		return errors.New("fleet: a file of authorities goes with a rediss:// URL only")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("fleet: authorities: %w", err)
	}
	p.tls.RootCAs = x509.NewCertPool()
	if !p.tls.RootCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("fleet: authorities: no certificate (PEM) in %s", file)
	}
	return nil
}

// client dials nothing yet. pipelines is the size of the pool for pipelines; negative is
// none of their own.
func (p *place) client(conns, pipelines int) redis.UniversalClient {
	// The handshake of maintenance notices would cost every connection a round trip.
	notices := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if p.cluster {
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: p.addrs, Username: p.username, Password: p.password, Protocol: 2,
			Dialer: p.dial, DialTimeout: LongestCall, ReadTimeout: LongestCall, WriteTimeout: LongestCall, ContextTimeoutEnabled: true,
			MaxRetries: -1, MinRetryBackoff: time.Millisecond, MaxRetryBackoff: 8 * time.Millisecond, DialerRetries: 1,
			PoolSize: conns, PoolTimeout: poolWait, ConnMaxIdleTime: maxIdle, ConnMaxLifetime: maxAge, ConnMaxLifetimeJitter: maxAge / 5, PipelinePoolSize: pipelines,
			DisableIdentity: true, DisableRoutingPolicies: true, MaintNotificationsConfig: notices,
		})
	}
	return redis.NewClient(&redis.Options{
		Network: p.network, Addr: p.addrs[0], Username: p.username, Password: p.password, DB: p.db, Protocol: 2,
		Dialer: p.dial, DialTimeout: LongestCall, ReadTimeout: LongestCall, WriteTimeout: LongestCall, ContextTimeoutEnabled: true,
		MaxRetries: -1, DialerRetries: 1,
		PoolSize: conns, PoolTimeout: poolWait, ConnMaxIdleTime: maxIdle, ConnMaxLifetime: maxAge, ConnMaxLifetimeJitter: maxAge / 5, PipelinePoolSize: pipelines,
		DisableIdentity: true, MaintNotificationsConfig: notices,
	})
}

// dial never fails: a connection that could not be made tells so when it is used. For
// the library's pool stops dialling after so many failures and tries again once a second
// in a goroutine that outlives it, which would add a second to every outage.
func (p *place) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return broken{err: err}, nil
	}
	if p.tls == nil {
		return conn, nil
	}
	secure := tls.Client(conn, p.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		return broken{err: errors.Join(err, conn.Close())}, nil
	}
	return secure, nil
}

// broken is a connection that could not be made.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error)       { return 0, b.err }
func (b broken) Write([]byte) (int, error)      { return 0, b.err }
func (broken) Close() error                     { return nil }
func (broken) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (broken) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (broken) SetDeadline(time.Time) error      { return nil }
func (broken) SetReadDeadline(time.Time) error  { return nil }
func (broken) SetWriteDeadline(time.Time) error { return nil }

// SyscallConn fails too: with it the pool looks whether an idle connection lives, and one
// whose caller did not wait for it is laid there.
func (b broken) SyscallConn() (syscall.RawConn, error) { return nil, b.err }
