package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"sync"
)

const (
	// maxWaiting is how many bcrypt verifications wait for a worker.
	maxWaiting = 256
	// maxOfClient is how many of them are one client's, so that whoever guesses
	// leaves places, and a short queue, to the others.
	maxOfClient = maxWaiting / 4
	// maxHasherBuffer is the most that a hasher keeps for the next use.
	maxHasherBuffer = 8 << 10
)

var (
	// ErrRefused means an unknown name or a wrong password: the caller cannot
	// tell which, and neither can the customer. It is a 407.
	ErrRefused = errors.New("account: refused")
	// ErrBusy means that the credentials were not verified, because too many
	// verifications wait or because the context ended. It is a 503, and the
	// same credentials may be tried again.
	ErrBusy = errors.New("account: too busy to verify")
)

// digest is the HMAC-SHA256, under the Store's key, of name, zero byte and
// password. A valid name has no zero byte, so no two pairs share the input.
type digest [sha256.Size]byte

// hasher is what one digest needs.
type hasher struct {
	mac hash.Hash
	in  []byte
	out []byte
}

func (s *Store) newHasher() any {
	return &hasher{mac: hmac.New(sha256.New, s.key[:]), out: make([]byte, 0, sha256.Size)}
}

func (s *Store) digest(name, password string) (d digest) {
	h := s.hashers.Get().(*hasher)
	h.in = append(h.in[:0], name...)
	h.in = append(h.in, 0)
	h.in = append(h.in, password...)
	h.mac.Reset()
	h.mac.Write(h.in)
	h.out = h.mac.Sum(h.out[:0])
	copy(d[:], h.out)
	clear(h.in)
	if cap(h.in) <= maxHasherBuffer {
		s.hashers.Put(h)
	}
	return d
}

// Authenticate returns the account of name if password is its password. name is
// without parameters; see [SplitUsername]. The account may be disabled or
// expired, or barred from the customer's address: that is for the caller to
// look at, and is no reason for a 407.
//
// The error is [ErrRefused], or wraps [ErrBusy] and, if that was the reason,
// ctx's. An unknown name costs what a known one costs. A password is
// compared with a bcrypt hash once: the right one is remembered until it
// changes, wrong ones (some 64,000 of them) until the next reload. A comparison
// waits for a worker as long as ctx lets it, and once begun it is not
// interrupted.
func (s *Store) Authenticate(ctx context.Context, name, password string) (*Account, error) {
	q, r, verdict := s.look(name, password)
	if verdict == unverified {
		ok, err := s.flights.do(ctx, flightKey{q.snap, q.d}, func() bool { return s.verify(q) })
		if err != nil {
			return nil, err
		}
		if ok && q.known {
			verdict = right
		}
	}
	if verdict != right {
		return nil, ErrRefused
	}
	return r.Account, nil
}

// Known is Authenticate for callers that must not wait. known is false if only a
// bcrypt comparison can tell, which is Authenticate's to do. The error is ErrRefused.
func (s *Store) Known(name, password string) (a *Account, known bool, err error) {
	_, r, verdict := s.look(name, password)
	switch verdict {
	case unverified:
		return nil, false, nil
	case right:
		return r.Account, true, nil
	default:
		return nil, true, ErrRefused
	}
}

// verdict is what is known of a name and a password.
type verdict int

const (
	wrong      verdict = iota
	right              // the name is known and the password its own
	unverified         // nobody has compared them yet
)

// look finds the record whose verifier judges name and password, and what can be
// said without a bcrypt comparison.
func (s *Store) look(name, password string) (question, *record, verdict) {
	snap := s.current.Load()
	d := s.digest(name, password)
	r, decoy := snap.byName[name], snap.decoy(s.seed, name)
	known := r != nil
	if !known {
		r = decoy
	}
	if r == nil {
		return question{}, nil, wrong
	}
	// An unknown name's digest is never the one that its decoy's verifier knows.
	ok := r.verifier.knows(&d)
	if !ok && r.verifier.hash != nil && !snap.wrong.has(d) {
		return question{snap, r.verifier, d, password, known}, r, unverified
	}
	if ok && known {
		return question{}, r, right
	}
	return question{}, r, wrong
}

// clientKey is the context key of a client's network.
type clientKey struct{}

// WithClient returns a context for [Store.Authenticate] that says whose turn it is: of
// all verifications under way, a quarter of the queue at the most is one client's. An
// IPv6 client is its /64. Without it there is no such bound.
func WithClient(ctx context.Context, client netip.Addr) context.Context {
	client = client.Unmap().WithZone("")
	bits := client.BitLen()
	if client.Is6() {
		bits = 64
	}
	network, err := client.Prefix(bits)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, clientKey{}, network)
}

// question is whether a password is that of a verifier's hash.
type question struct {
	snap     *snapshot
	verifier *verifier
	d        digest
	password string
	known    bool // the name is one of the snapshot's
}

// verify compares the password with the hash and remembers the outcome. For an
// unknown name that is always that it was wrong.
func (s *Store) verify(q question) bool {
	// A flight may have landed between the caller's look and its own take-off.
	if q.verifier.knows(&q.d) {
		return true
	}
	if q.snap.wrong.has(q.d) {
		return false
	}
	if s.compare(q.verifier.hash, []byte(q.password)) == nil && q.known {
		q.verifier.known.Store(&q.d)
		return true
	}
	q.snap.wrong.add(q.d)
	return false
}

// flightKey identifies a question. A reload makes a new question of it.
type flightKey struct {
	snap *snapshot
	d    digest
}

// flight is the answer to a question, once done is closed.
type flight struct {
	client netip.Prefix // whose it is; invalid = nobody's
	done   chan struct{}
	ok     bool
	// abandoned reports that whoever asked gave up before it was answered.
	abandoned bool
}

// flights asks each question once at a time, a bounded number of them together,
// with a bounded number waiting. The work is done in the callers' goroutines.
type flights struct {
	workers chan struct{} // holds one element for each busy worker

	mu      sync.Mutex // guards what follows
	open    map[flightKey]*flight
	clients map[netip.Prefix]int // flights of each; no zeros
}

func newFlights(workers int) *flights {
	return &flights{
		workers: make(chan struct{}, workers), open: make(map[flightKey]*flight), clients: make(map[netip.Prefix]int),
	}
}

// do returns the answer of work, or that of another call with the same key which
// is under way. Errors wrap ErrBusy.
func (fs *flights) do(ctx context.Context, key flightKey, work func() bool) (bool, error) {
	for {
		if ctx.Err() != nil {
			return false, busy(ctx)
		}
		f, mine, err := fs.join(ctx, key)
		switch {
		case err != nil:
			return false, err
		case mine:
			return fs.fly(ctx, key, f, work)
		}
		select {
		case <-f.done:
			if !f.abandoned {
				return f.ok, nil
			}
		case <-ctx.Done():
			return false, busy(ctx)
		}
	}
}

// join returns the open flight of key, or a new one, which is the caller's to fly.
func (fs *flights) join(ctx context.Context, key flightKey) (f *flight, mine bool, err error) {
	client, _ := ctx.Value(clientKey{}).(netip.Prefix)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.open[key]; f != nil {
		return f, false, nil
	}
	if len(fs.open) >= cap(fs.workers)+maxWaiting || fs.clients[client] >= maxOfClient {
		return nil, false, ErrBusy
	}
	f = &flight{client: client, done: make(chan struct{}), abandoned: true}
	fs.open[key] = f
	if client.IsValid() {
		fs.clients[client]++
	}
	return f, true, nil
}

// fly waits for a worker, works and lands, whatever happens.
func (fs *flights) fly(ctx context.Context, key flightKey, f *flight, work func() bool) (bool, error) {
	defer fs.land(key, f)
	select {
	case fs.workers <- struct{}{}:
	case <-ctx.Done():
		return false, busy(ctx)
	}
	defer func() { <-fs.workers }()
	f.ok = work()
	f.abandoned = false
	return f.ok, nil
}

func (fs *flights) land(key flightKey, f *flight) {
	fs.mu.Lock()
	delete(fs.open, key)
	if f.client.IsValid() {
		if fs.clients[f.client]--; fs.clients[f.client] == 0 {
			delete(fs.clients, f.client)
		}
	}
	fs.mu.Unlock()
	close(f.done)
}

func busy(ctx context.Context) error { return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx)) }
