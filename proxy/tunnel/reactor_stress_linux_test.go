//go:build amd64 || arm64

package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// stress is one engine under random load.
type stress struct {
	t       *testing.T
	engine  *Engine
	data    []byte // of which every stream is a part
	gateway netip.AddrPort
	front   string
	shared  []*Shared
	rides   sync.Map // id → *ride
	next    atomic.Int64
	orderly atomic.Int64
	broken  atomic.Int64
}

// ride is one tunnel of it.
type ride struct {
	*stress
	id       string
	random   *rand.Rand
	up, down []byte
	fate     fate
	shares   *Shared
	blocks   bool // its way is opened by Open
	results  chan Result
	dones    atomic.Int32
	moved    [2]atomic.Int64
}

// fate is what befalls a ride half-way.
type fate int

const (
	orderly fate = iota
	clientResets
	vendorResets
	killed
	fates
)

func (r *ride) request() string { return "ride " + r.id + "\n" }

// exchange opens the ride's way: through the gateway, or by Open.
func (r *ride) exchange() *script {
	s := &script{key: r.id, greeting: greeting, request: r.request(), shared: r.shares}
	s.reply = func(b []byte) (int, error) {
		if !bytes.HasPrefix(b, []byte("go\n")) {
			return 0, nil
		}
		return 3, nil
	}
	s.next = func() (Attempt, error) {
		if r.blocks {
			return Attempt{}, ErrBlocks
		}
		return Attempt{Addr: r.gateway, Timeout: patience, ReplyTimeout: patience}, nil
	}
	s.open = func(ctx context.Context) (Peer, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", r.gateway.String())
		if err != nil {
			return Peer{}, err
		}
		if _, err = io.WriteString(c, r.request()); err == nil {
			_, err = io.ReadFull(c, make([]byte, 3))
		}
		return Peer{Conn: c}, err
	}
	s.moved = func(sent bool, n int) {
		d := 1
		if sent {
			d = 0
		}
		r.moved[d].Add(int64(n))
	}
	s.done = func(result Result) {
		if r.dones.Add(1) == 1 {
			r.results <- result
		}
	}
	return s
}

// vendorSide answers what comes to the gateway and hands it to its ride.
func (s *stress) vendorSide(c *net.TCPConn) {
	line := make([]byte, 0, 64)
	for one := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); {
		if _, err := c.Read(one); err != nil {
			return
		}
		line = append(line, one[0])
	}
	id := strings.TrimSuffix(strings.TrimPrefix(string(line), "ride "), "\n")
	v, ok := s.rides.Load(id)
	if !ok {
		return
	}
	if _, err := io.WriteString(c, "go\n"); err != nil {
		return
	}
	v.(*ride).vendorRide(c)
}

// Head makes a stress ride of a line.
func (s *stress) Head(b []byte) Verdict {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return Verdict{}
	}
	v, ok := s.rides.Load(string(b[:end]))
	if !ok {
		return Verdict{Action: Drop}
	}
	return Verdict{Action: Open, Consumed: end + 1, Exchange: v.(*ride).exchange()}
}

func (s *stress) TimedOut(int) []byte       { return nil }
func (s *stress) Waits(Seat)                {}
func (s *stress) Pass(*net.TCPConn, []byte) {}
func (s *stress) Gone()                     {}
func (s *stress) part(r *rand.Rand) []byte {
	n := 0
	switch r.IntN(4) {
	case 0:
		n = r.IntN(100)
	case 1, 2:
		n = r.IntN(200 << 10)
	default:
		n = r.IntN(len(s.data))
	}
	at := r.IntN(len(s.data) - n + 1)
	return s.data[at : at+n]
}

// speak writes b in random pieces, and reports whether it was taken.
func speak(r *rand.Rand, c net.Conn, b []byte) error {
	for len(b) > 0 {
		n := min(1+r.IntN(300<<10), len(b))
		if _, err := c.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if r.IntN(8) == 0 {
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
		}
	}
	return nil
}

// listen reads to the end and checks that nothing else than want comes.
func (r *ride) listen(random *rand.Rand, c net.Conn, who string, want []byte, most int) (int, error) {
	buf := make([]byte, 4<<10+random.IntN(256<<10)) // small ones would take longer than anybody waits
	got := 0
	for {
		n, err := c.Read(buf)
		if got+n > len(want) || !bytes.Equal(buf[:n], want[got:got+n]) {
			r.t.Errorf("ride %s: the %s got other bytes than were sent, at %d", r.id, who, got)
			return got, errVendor
		}
		got += n
		if err != nil {
			return got, err
		}
		if got > most {
			return got, nil
		}
		if random.IntN(16) == 0 {
			time.Sleep(time.Duration(random.IntN(5000)) * time.Microsecond) // stalls
		}
	}
}

// vendorRide is the far end.
func (r *ride) vendorRide(c *net.TCPConn) {
	random := rand.New(rand.NewPCG(uint64(len(r.up)), uint64(len(r.down))))
	limit := len(r.up)
	if r.fate == vendorResets {
		limit = random.IntN(len(r.up) + 1)
	}
	var speaking sync.WaitGroup
	other := random2(random)
	speaking.Go(func() {
		if speak(other, c, r.down) == nil && r.fate != vendorResets {
			_ = c.CloseWrite()
		}
	})
	got, err := r.listen(random, c, "vendor", r.up, limit)
	if r.fate == vendorResets {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	speaking.Wait()
	if r.fate == orderly && (!errors.Is(err, io.EOF) || got != len(r.up)) {
		r.t.Errorf("ride %s: the vendor got %d of %d bytes, %v", r.id, got, len(r.up), err)
	}
}

func random2(r *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(r.Uint64(), 1)) }

// run takes a ride from the customer's side.
func (s *stress) run(seed uint64) {
	random := rand.New(rand.NewPCG(seed, 7))
	r := &ride{
		stress: s, id: strconv.FormatInt(s.next.Add(1), 10), random: random,
		up: s.part(random), down: s.part(random), results: make(chan Result, 1),
	}
	r.blocks = random.IntN(4) == 0
	if random.IntN(3) == 0 {
		r.fate = fate(random.IntN(int(fates)))
	}
	if random.IntN(3) == 0 {
		r.shares = s.shared[random.IntN(len(s.shared))]
	}
	s.rides.Store(r.id, r)
	defer s.rides.Delete(r.id)
	early := min(random.IntN(40<<10), len(r.up))
	c, ok := r.enter(early)
	if !ok {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	got, err := r.customer(c, early)
	select {
	case result := <-r.results:
		r.judge(result, got, err)
	case <-time.After(3 * patience):
		s.t.Errorf("ride %s has no end (fate %d)", r.id, r.fate)
	}
}

// enter makes the customer's connection, through the front or by Submit.
func (r *ride) enter(early int) (*net.TCPConn, bool) {
	if r.random.IntN(2) == 0 {
		c, err := net.Dial("tcp", r.front)
		if err == nil {
			_, err = c.Write(append([]byte(r.id+"\n"), r.up[:early]...))
		}
		if err != nil {
			r.t.Error(err)
			return nil, false
		}
		return c.(*net.TCPConn), true
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Error(err)
		return nil, false
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		r.t.Error(err)
		return nil, false
	}
	inside, err := l.Accept()
	if err != nil {
		r.t.Error(err)
		return nil, false
	}
	r.engine.Submit(Job{Client: inside, Early: bytes.Clone(r.up[:early]), Exchange: r.exchange()})
	return c.(*net.TCPConn), true
}

// customer plays the customer's part and returns what he got.
func (r *ride) customer(c *net.TCPConn, early int) (int, error) {
	head := make([]byte, len(greeting))
	if _, err := io.ReadFull(c, head); err != nil || string(head) != greeting {
		return -1, fmt.Errorf("greeting %q: %w", head, err)
	}
	limit := len(r.down)
	if r.fate == clientResets || r.fate == killed {
		limit = r.random.IntN(len(r.down) + 1)
	}
	var speaking sync.WaitGroup
	other := random2(r.random)
	speaking.Go(func() {
		if speak(other, c, r.up[early:]) == nil {
			_ = c.CloseWrite()
		}
	})
	got, err := r.listen(r.random, c, "customer", r.down, limit)
	switch r.fate {
	case clientResets:
		_ = c.SetLinger(0)
		_ = c.Close()
	case killed:
		r.engine.CloseKey(r.id)
	}
	speaking.Wait()
	return got, err
}

// judge compares what was told with what came.
func (r *ride) judge(result Result, got int, err error) {
	if r.fate != orderly {
		r.broken.Add(1)
	} else {
		r.orderly.Add(1)
		if !errors.Is(err, io.EOF) || got != len(r.down) || result.Ending != Closed {
			r.t.Errorf("ride %s: the customer got %d of %d bytes, %v; %+v", r.id, got, len(r.down), err, result)
		}
		if result.Sent != int64(len(r.up)) || result.Received != int64(len(r.down)) {
			r.t.Errorf("ride %s: counted %+v, not %d and %d", r.id, result, len(r.up), len(r.down))
		}
	}
	if sent, received := r.moved[0].Load(), r.moved[1].Load(); sent != result.Sent || received != result.Received {
		r.t.Errorf("ride %s: Moved was told %d and %d; %+v", r.id, sent, received, result)
	}
	if n := r.dones.Load(); n != 1 {
		r.t.Errorf("ride %s: Done was called %d times", r.id, n)
	}
}

// Whatever customers and vendors do, no byte is lost or invented where both are orderly,
// every tunnel ends once, and nothing is left. MASKRELAY_STRESS is a duration, and
// MASKRELAY_SEED repeats a run.
func TestStress(t *testing.T) {
	duration := 8 * time.Second
	if d, err := time.ParseDuration(os.Getenv("MASKRELAY_STRESS")); err == nil {
		duration = d
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("MASKRELAY_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("MASKRELAY_SEED=%d", seed)
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	t.Run("rides", func(t *testing.T) { stressFor(t, duration, seed) })
	until(t, func() bool { return openFiles(t) <= files && runtime.NumGoroutine() <= goroutines })
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func stressFor(t *testing.T, duration time.Duration, seed uint64) {
	s := &stress{t: t, data: randomBytes(2 << 20)}
	s.engine = NewEngine(Options{IdleTimeout: 2 * patience, Trouble: func(err error) { t.Error(err) }})
	defer s.engine.Close()
	s.gateway = gateway(t, func(c *net.TCPConn) { _ = c.SetDeadline(time.Now().Add(3 * patience)); s.vendorSide(c) })
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	s.front = l.Addr().String()
	must(t, s.engine.Serve(l, Reception{
		Arrive:      func(netip.AddrPort) (Visitor, []byte) { return s, nil },
		HeadTimeout: patience, KeepAlive: patience,
	}))
	for range 4 {
		s.shared = append(s.shared, NewShared(20<<20))
	}
	end := time.Now().Add(duration)
	var workers sync.WaitGroup
	for w := range 48 {
		random := rand.New(rand.NewPCG(seed, uint64(w)))
		workers.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				if random.IntN(6) == 0 {
					rates := []int64{0, 5 << 20, 50 << 20, 500 << 20}
					s.shared[random.IntN(4)].Set(rates[random.IntN(4)], rates[random.IntN(4)])
				}
				s.run(random.Uint64())
			}
		})
	}
	workers.Wait()
	t.Logf("%d orderly tunnels, %d broken ones", s.orderly.Load(), s.broken.Load())
	until(t, func() bool { return s.engine.Count() == 0 && s.engine.Visitors() == 0 })
	until(t, func() bool {
		return s.engine.reactors.each(func(r *reactor) int {
			return r.slab.live + r.pipes.lent + len(r.young) + len(r.breaking) + len(r.debts) + len(r.ready)
		}) == 0
	})
	for _, shared := range s.shared {
		if a, b := shared.ways[0].waiting.Load(), shared.ways[1].waiting.Load(); a != 0 || b != 0 {
			t.Errorf("%d and %d tunnels wait for a bandwidth", a, b)
		}
	}
}
