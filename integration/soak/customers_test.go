package soak

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"maskrelay/masking"
)

// customerMark is in every customer's name and password: it must not reach a vendor.
const customerMark = "cust0mer"

// The customers' accounts.
const (
	usual  = customerMark + "-usual"
	capped = customerMark + "-capped" // at its cap all the time
	paced  = customerMark + "-paced"  // its bandwidth changes with each reload
	barred = customerMark + "-barred" // disabled and enabled again by reloads

	password = customerMark + "-password"
	// connCap is the cap of capped, cappedWorkers how many want its connections.
	connCap       = 5
	cappedWorkers = 12
)

// customersPlan is what a process of customers is told.
type customersPlan struct {
	Seed     uint64
	Number   uint64 // of the process in the run: it has its own tunnels and choices
	For      time.Duration
	Workers  int
	Addr     string // of the relay
	TLSAddr  string
	CA       []byte        // PEM
	Capped   bool          // has the workers of the capped account
	BulkUnit int64         // bytes of a bulk tunnel, at least
	Pause    time.Duration // the longest
}

// customers is a process of them.
type customers struct {
	customersPlan
	streams  *streams
	reporter reporter
	roots    *x509.CertPool
	stop     time.Time
	open     atomic.Int64 // tunnels of the capped account
}

// runCustomers works for its time, finishes what it has begun, and ends.
func runCustomers() {
	c := &customers{}
	readPlan(&c.customersPlan)
	c.streams, c.roots = newStreams(c.Seed), x509.NewCertPool()
	c.roots.AppendCertsFromPEM(c.CA)
	c.stop = time.Now().Add(c.For)
	c.reporter.tell(report{Side: customerSide})
	var working sync.WaitGroup
	workers := c.Workers
	if c.Capped {
		workers += cappedWorkers
	}
	for i := range workers {
		working.Go(func() { c.work(uint64(i)) })
	}
	working.Wait()
}

// customer is one worker: his choices are his generator's alone, so a seed makes them again.
type customer struct {
	*customers
	rng  *rand.Rand
	next uint64 // tunnel
}

const (
	workersPerProcess = 1 << 10
	tunnelsPerWorker  = 1 << 24
)

func (c *customers) work(worker uint64) {
	number := c.Number*workersPerProcess + worker
	w := &customer{customers: c, rng: rand.New(rand.NewPCG(c.Seed, number)), next: number * tunnelsPerWorker}
	do := w.anything
	if worker >= uint64(c.Workers) {
		do = w.atTheCap
	}
	for time.Now().Before(c.stop) {
		do()
		time.Sleep(time.Duration(w.rng.Int64N(int64(20 * time.Millisecond)))) // customers come when they like
	}
}

func (w *customer) id() uint64 {
	w.next++
	return w.next
}

// scenario is something that a customer may do, so often in a hundred.
type scenario struct {
	share int
	do    func(*customer)
}

var scenarios = []scenario{
	{26, func(w *customer) { w.tunnel(both, usual) }},
	{7, func(w *customer) { w.tunnel(upFirst, usual) }},
	{7, func(w *customer) { w.tunnel(downFirst, usual) }},
	{7, func(w *customer) { w.tunnel(banner, usual) }},
	{3, func(w *customer) { w.tunnel(bulk, usual) }},
	{4, func(w *customer) { w.tunnel(idle, usual) }},
	{3, func(w *customer) { w.tunnel(vendorStall, usual) }},
	{3, func(w *customer) { w.tunnel(clientStall, usual) }},
	{7, func(w *customer) { w.tunnel(clientReset, usual) }},
	{7, func(w *customer) { w.tunnel(vendorReset, usual) }},
	{3, func(w *customer) { w.tunnel(both, paced) }},
	{3, func(w *customer) { w.tunnel(both, barred) }},
	{3, (*customer).refused},
	{1, (*customer).tooSilent},
	{3, (*customer).leaves},
	{8, (*customer).plain},
	{3, func(w *customer) { w.tunnel(upgrade, usual) }},
	{2, (*customer).lurks},
}

func (w *customer) anything() {
	n := w.rng.IntN(100)
	for _, s := range scenarios {
		if n -= s.share; n < 0 {
			s.do(w)
			return
		}
	}
}

// size is a random number of bytes: often few, sometimes more than all buffers on the way.
func (w *customer) size(m mode) int64 {
	switch {
	case m == bulk:
		return w.BulkUnit + w.rng.Int64N(w.BulkUnit)
	case m == vendorStall, m == clientStall:
		return w.BulkUnit/2 + w.rng.Int64N(w.BulkUnit)
	}
	switch w.rng.IntN(8) {
	case 0:
		return 0
	case 1, 2, 3:
		return w.rng.Int64N(2 << 10)
	case 4, 5, 6:
		return w.rng.Int64N(40 << 10)
	default:
		return w.rng.Int64N(400 << 10)
	}
}

func (w *customer) newSpec(m mode) spec {
	s := spec{ID: w.id(), Up: w.size(m), Down: w.size(m), Mode: m}
	if m == vendorReset {
		s.Up++ // the vendor waits for a byte
	}
	return s
}

// line is a customer's connection to the relay.
type line struct {
	conn halfCloser
	raw  *net.TCPConn
	r    *bufio.Reader
}

// dial connects, sometimes to the TLS listener.
func (w *customer) dial() (*line, error) {
	secure := w.rng.IntN(6) == 0
	addr := w.Addr
	if secure {
		addr = w.TLSAddr
	}
	c, err := net.DialTimeout("tcp4", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	l := &line{raw: c.(*net.TCPConn)}
	l.conn = l.raw
	_ = l.raw.SetDeadline(time.Now().Add(tunnelLimit))
	if secure {
		t := tls.Client(c, &tls.Config{RootCAs: w.roots, ServerName: "127.0.0.1"})
		if err := t.Handshake(); err != nil {
			closeQuietly(c)
			return nil, err
		}
		l.conn = t
	}
	l.r = bufio.NewReader(l.conn)
	return l, nil
}

func authorization(account, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(account+":"+password))
}

func connectHead(s spec, account, password string) string {
	return fmt.Sprintf("CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\nUser-Agent: %s\r\nProxy-Authorization: %s\r\n\r\n",
		s.host(), s.host(), customerMark, authorization(s.username(account), password))
}

func upgradeHead(s spec, account, password string) string {
	return fmt.Sprintf("GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nProxy-Authorization: %s\r\n\r\n", s.host(), s.host(), authorization(s.username(account), password))
}

// reply reads the relay's answer to a CONNECT or an upgrade. Every byte of it must be the relay's own, or the target's 101.
func (l *line) reply() (status int, closes bool, err error) {
	start, err := l.r.Peek(12)
	if err != nil {
		return 0, false, err
	}
	if string(start) == masking.Established[:12] {
		head := make([]byte, len(masking.Established))
		if _, err := io.ReadFull(l.r, head); err != nil {
			return 0, false, err
		}
		if string(head) != masking.Established {
			return 0, false, fmt.Errorf("%w: the 200 is %q", errWrongByte, head)
		}
		return http.StatusOK, false, nil
	}
	response, err := http.ReadResponse(l.r, nil)
	if err != nil {
		return 0, false, err
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return response.StatusCode, false, nil
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err == nil && (response.ContentLength != int64(len(body)) || response.Header.Get("Proxy-Status") == "" || response.Header.Get("Via") != "") {
		err = fmt.Errorf("%w: reply %d with %v and %q", errWrongByte, response.StatusCode, response.Header, body)
	}
	return response.StatusCode, response.Close, err
}
