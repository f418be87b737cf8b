package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// CalmConfig says what a well-behaved customer does, each of it at the same steady rate and on a connection of its own: a tunnel, a plain request,
// and a tunnel over TLS.
type CalmConfig struct {
	Plain  string // the relay's plain listener
	Secure string // its TLS listener
	CA     []byte // PEM, of the TLS listener's certificate
	Target string // host:port of the tunnels, which must echo
	URL    string // of the plain requests
	Login  string // user:password
	From   string // the address he comes from
	Header string // what a load balancer says first, "" = he has come straight
}

// calmRate is how many set-ups of each way are begun in a second.
func calmRate() int {
	if raceEnabled {
		return 60
	}
	return 150
}

// The ways of a well-behaved customer.
const (
	CalmTunnel = "tunnel"
	CalmPlain  = "plain request"
	CalmTLS    = "tunnel over TLS"
)

// CalmWays are all of them.
var CalmWays = []string{CalmTunnel, CalmPlain, CalmTLS}

// calmLimit is how long one set-up may take until it has failed.
const calmLimit = 10 * time.Second

// Calm is a well-behaved customer, a child process, so that nothing but the relay slows him down.
type Calm struct{ child *roleProcess }

// StartCalm starts one, who does nothing as yet.
func StartCalm(t testing.TB, config CalmConfig) *Calm {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return &Calm{child: startRole(t, roleCalm, string(text))}
}

// PID returns the child's process id.
func (c *Calm) PID() int { return c.child.PID() }

// CalmWindow is what became of a well-behaved customer in some time.
type CalmWindow struct {
	Took   map[string][]time.Duration // of each set-up that succeeded, by way: from before the connection until the answer
	Late   []time.Duration            // by how much a mere timer of his fired late, all the while
	Failed int
	First  string // failure
}

// Run has the customer work for a time, and waits for all that he began in it.
func (c *Calm) Run(t testing.TB, d time.Duration) CalmWindow {
	t.Helper()
	var w CalmWindow
	if err := json.Unmarshal([]byte(c.child.ask(t, d.String())), &w); err != nil {
		t.Fatalf("%s: %v", c.child.Name, err)
	}
	return w
}

// Quantile returns the q-quantile of one way's set-ups, 0 without any.
func (w *CalmWindow) Quantile(way string, q float64) time.Duration { return quantile(w.Took[way], q) }

// Lateness returns the q-quantile of how late timers were: what the machine's other work costs whoever only waits, and so no fault of the relay's.
func (w *CalmWindow) Lateness(q float64) time.Duration { return quantile(w.Late, q) }

func quantile(took []time.Duration, q float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(took))[int(q*float64(len(took)-1))]
}

// calm is the state of such a process.
type calm struct {
	config CalmConfig
	dialer net.Dialer
	tls    *tls.Config
	login  string // header line

	mu     sync.Mutex // guards what follows
	window CalmWindow
}

func runCalm() {
	c := &calm{}
	if err := json.Unmarshal([]byte(os.Getenv(argsVariable)), &c.config); err != nil {
		fatal(err)
	}
	c.dialer = DialerFrom(c.config.From)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.config.CA)
	c.tls = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	c.login = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(c.config.Login)) + "\r\n"
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		d, err := time.ParseDuration(sc.Text())
		if err != nil {
			fatal(err)
		}
		answer, err := json.Marshal(c.run(d))
		if err != nil {
			fatal(err)
		}
		fmt.Println(string(answer))
	}
}

// run begins set-ups at the rate, whether those before have ended or not.
func (c *calm) run(d time.Duration) CalmWindow {
	c.window = CalmWindow{Took: map[string][]time.Duration{}}
	ways := map[string]func() (time.Duration, error){CalmTunnel: c.tunnel, CalmPlain: c.plain, CalmTLS: c.secure}
	var all sync.WaitGroup
	for i, way := range CalmWays {
		all.Go(func() {
			pause := time.Second / time.Duration(calmRate())
			next := time.Now().Add(pause * time.Duration(i) / time.Duration(len(CalmWays)))
			for range int(d / pause) {
				time.Sleep(time.Until(next)) // it is a rate
				next = next.Add(pause)
				all.Go(func() { c.once(way, ways[way]) })
			}
		})
	}
	stop := make(chan struct{})
	late := make(chan []time.Duration)
	go func() { late <- lateness(stop) }()
	all.Wait()
	close(stop)
	c.window.Late = <-late
	return c.window
}

// lateness sleeps on a thread of its own until it is told to stop, and returns by how much it slept too long each time.
func lateness(stop <-chan struct{}) (late []time.Duration) {
	const nap = 2 * time.Millisecond
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case <-stop:
			return late
		default:
		}
		start := time.Now()
		pause := syscall.NsecToTimespec(int64(nap))
		if syscall.Nanosleep(&pause, nil) == nil { // a signal cuts it short
			late = append(late, time.Since(start)-nap)
		}
	}
}

func (c *calm) once(way string, do func() (time.Duration, error)) {
	took, err := do()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.window.Took[way] = append(c.window.Took[way], took)
		return
	}
	c.window.Failed++
	if c.window.First == "" {
		c.window.First = fmt.Sprintf("%s after %v: %v", way, took.Round(time.Millisecond), err)
	}
}

// dial connects as the customer that a load balancer may announce.
func (c *calm) dial(addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), calmLimit)
	defer cancel()
	conn, err := c.dialer.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	err = conn.SetDeadline(time.Now().Add(calmLimit))
	if err == nil && c.config.Header != "" {
		_, err = io.WriteString(conn, c.config.Header)
	}
	if err != nil {
		closeQuietly(conn)
		return nil, err
	}
	return conn, nil
}

func (c *calm) tunnel() (time.Duration, error) {
	start := time.Now()
	conn, err := c.dial(c.config.Plain)
	if err != nil {
		return time.Since(start), err
	}
	defer closeQuietly(conn)
	return c.open(conn, start)
}

func (c *calm) secure() (time.Duration, error) {
	start := time.Now()
	conn, err := c.dial(c.config.Secure)
	if err != nil {
		return time.Since(start), err
	}
	inside := tls.Client(conn, c.tls)
	defer closeQuietly(inside)
	return c.open(inside, start)
}

// open asks for a tunnel, which must then carry a byte there and back.
func (c *calm) open(conn net.Conn, start time.Time) (time.Duration, error) {
	_, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", c.config.Target, c.config.Target, c.login)
	if err != nil {
		return time.Since(start), err
	}
	b := make([]byte, len(established))
	n, err := io.ReadFull(conn, b)
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("reply %q: %w", b[:n], err)
	}
	if string(b) != established {
		return took, fmt.Errorf("%w: %q", errRefused, b)
	}
	if _, err := conn.Write([]byte{'!'}); err != nil {
		return took, err
	}
	if _, err := io.ReadFull(conn, b[:1]); err != nil {
		return took, fmt.Errorf("echo: %w", err)
	}
	return took, nil
}

func (c *calm) plain() (time.Duration, error) {
	start := time.Now()
	conn, err := c.dial(c.config.Plain)
	if err != nil {
		return time.Since(start), err
	}
	defer closeQuietly(conn)
	_, host, _ := strings.Cut(c.config.URL, "://")
	host, _, _ = strings.Cut(host, "/")
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", c.config.URL, host, c.login); err != nil {
		return time.Since(start), err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 1<<10), nil)
	if err != nil {
		return time.Since(start), err
	}
	body, err := io.ReadAll(resp.Body)
	took := time.Since(start)
	_ = resp.Body.Close() // it was read
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != siteText) {
		err = fmt.Errorf("%w: %s %q", errRefused, resp.Status, body)
	}
	return took, err
}

// ipBindAddressNoPort leaves the choice of the port to connect, so that ports are scarce for a pair of addresses only (ip(7)).
const ipBindAddressNoPort = 24

// DialerFrom returns a dialer for a loopback address of one's own; "" is any.
func DialerFrom(address string) net.Dialer {
	d := net.Dialer{KeepAlive: -1}
	if address == "" {
		return d
	}
	d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(address)}
	d.Control = func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
		})
		return errors.Join(err, failed)
	}
	return d
}
