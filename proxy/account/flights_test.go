package account

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/crypto/bcrypt"
)

// keyOf is the key of a test's question.
func keyOf(n int) flightKey {
	var k flightKey
	k.d[0], k.d[1], k.d[2] = byte(n), byte(n>>8), byte(n>>16)
	return k
}

func clientNo(ctx context.Context, n byte) context.Context {
	return WithClient(ctx, netip.AddrFrom4([4]byte{192, 0, 2, n}))
}

// wantIdle checks that nothing is left over.
func wantIdle[T any](t *testing.T, fs *flights[T], workers int) {
	t.Helper()
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.free != workers || len(fs.open)+len(fs.waiting)+len(fs.clients) != 0 {
		t.Errorf("%d of %d workers are free, %d questions open, %d waiting, %d clients", fs.free, workers, len(fs.open), len(fs.waiting), len(fs.clients))
	}
}

// crowd asks questions in a synctest bubble, of flights whose only worker is held.
type crowd struct {
	t       *testing.T
	fs      *flights[int]
	release chan struct{}

	mu    sync.Mutex
	order []int          // of the work done
	ends  map[int]string // of each asker of a question, one letter: answered, busy, or wrong
}

func newCrowd(t *testing.T) *crowd {
	c := &crowd{t: t, fs: newFlights[int](1), release: make(chan struct{}), ends: make(map[int]string)}
	go func() {
		_, _ = c.fs.do(t.Context(), keyOf(-1), func() (int, bool) { <-c.release; return 0, true })
	}()
	synctest.Wait()
	return c
}

// ask has so many ask question n, and returns when they wait.
func (c *crowd) ask(ctx context.Context, n, askers int) {
	for range askers {
		go func() {
			got, err := c.fs.do(ctx, keyOf(n), func() (int, bool) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.order = append(c.order, n)
				return n, true
			})
			end := "a"
			if err != nil {
				end = "b"
			}
			if err == nil && got != n || err != nil && !errors.Is(err, ErrBusy) {
				end = "w"
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.ends[n] += end
		}()
	}
	synctest.Wait()
}

// done lets the worker go and waits until all is over.
func (c *crowd) done() {
	c.t.Helper()
	close(c.release)
	synctest.Wait()
	wantIdle(c.t, c.fs, 1)
}

// count is how many askers of the questions from..to-1 ended so.
func (c *crowd) count(from, to int, end byte) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := from; i < to; i++ {
		for _, e := range []byte(c.ends[i]) {
			if e == end {
				n++
			}
		}
	}
	return n
}

func TestManyAskersAndTheOldestInTurns(t *testing.T) {
	tests := []struct {
		name   string
		askers []int // of question 0, 1, …
		want   []int
	}{
		{"all alike", []int{1, 1, 1, 1}, []int{0, 1, 2, 3}},
		{"one with many", []int{1, 1, 1, 20}, []int{3, 0, 1, 2}},
		{"ties by age", []int{1, 3, 1, 3, 2}, []int{1, 0, 3, 2, 4}},
		{"the oldest is not starved", []int{1, 9, 9, 9, 9}, []int{1, 0, 2, 3, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t)
				all := 0
				for n, askers := range tt.askers {
					c.ask(t.Context(), n, askers)
					all += askers
				}
				c.done()
				if !slices.Equal(c.order, tt.want) {
					t.Errorf("the order is %v, want %v", c.order, tt.want)
				}
				if n := c.count(0, len(tt.askers), 'a'); n != all {
					t.Errorf("%d of %d were answered", n, all)
				}
			})
		})
	}
}

func TestNewcomersTakePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		const many, flood = maxWaiting, 5 * maxWaiting
		c.ask(t.Context(), many, 2)
		for n := range many - 1 {
			c.ask(t.Context(), n, 1)
		}
		if n := c.count(0, many+1, 'b'); n != 0 {
			t.Fatalf("%d were turned away before the queue was full", n)
		}
		for n := many + 1; n <= many+flood; n++ {
			c.ask(t.Context(), n, 1)
			if len(c.fs.waiting) != maxWaiting || len(c.fs.open) != maxWaiting+1 {
				t.Fatalf("%d wait of %d", len(c.fs.waiting), len(c.fs.open))
			}
		}
		if n := c.count(0, many+flood+1, 'b'); n != flood {
			t.Errorf("%d gave way to %d newcomers", n, flood)
		}
		if c.count(many+flood, many+flood+1, 'b') != 0 {
			t.Error("a newcomer did not get a place")
		}
		c.done()
		if c.ends[many] != "aa" {
			t.Errorf("a question with two askers ended %q", c.ends[many])
		}
		if a, w := c.count(0, many+flood+1, 'a'), c.count(0, many+flood+1, 'w'); a != maxWaiting+1 || w != 0 {
			t.Errorf("%d answered, %d wrongly; want %d", a, w, maxWaiting+1)
		}
		if len(c.order) != maxWaiting {
			t.Errorf("work for %d questions, want %d: who gave way costs nothing", len(c.order), maxWaiting)
		}
	})
}

func TestNewcomersTakeNoPlaceOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		for n := range maxWaiting {
			c.ask(t.Context(), n, 2)
		}
		c.ask(t.Context(), maxWaiting, 1)
		if c.ends[maxWaiting] != "b" {
			t.Errorf("the newcomer ended %q", c.ends[maxWaiting])
		}
		c.done()
		if n := c.count(0, maxWaiting, 'a'); n != 2*maxWaiting {
			t.Errorf("%d of %d were answered", n, 2*maxWaiting)
		}
	})
}

// A client whose part is full makes room in it, and in nobody else's.
func TestClientsTakePlacesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		one, other := clientNo(t.Context(), 1), clientNo(t.Context(), 2)
		c.ask(other, 1000, 1)
		for n := range 3 * maxOfClient {
			c.ask(one, n, 1)
		}
		if n := c.count(0, 3*maxOfClient, 'b'); n != 2*maxOfClient || c.ends[1000] != "" {
			t.Errorf("%d of the client's gave way, want %d; another's ended %q", n, 2*maxOfClient, c.ends[1000])
		}
		if n := c.fs.clients[networkOf(clientOf(one))]; n != maxOfClient {
			t.Errorf("a client has %d places, want %d", n, maxOfClient)
		}
		c.done()
		if c.ends[1000] != "a" {
			t.Errorf("another client's question ended %q", c.ends[1000])
		}
	})
}

func TestAbandonedQuestionsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		ctx, cancel := context.WithCancel(clientNo(t.Context(), 1))
		for n := range 10 {
			c.ask(ctx, n, 3)
		}
		c.ask(clientNo(t.Context(), 2), 0, 1) // who stays
		cancel()
		synctest.Wait()
		if n := c.count(0, 10, 'b'); n != 30 || len(c.fs.waiting) != 1 || len(c.fs.open) != 2 {
			t.Errorf("%d are back, %d questions wait, %d are open; want 30, 1, 2", n, len(c.fs.waiting), len(c.fs.open))
		}
		if f := c.fs.open[keyOf(0)]; f == nil || f.askers != 1 {
			t.Errorf("what one still asks is %+v", f)
		}
		c.done()
		if !slices.Equal(c.order, []int{0}) {
			t.Errorf("work for %v", c.order)
		}
	})
}

// A turn that nobody has taken yet ends with the last asker, and the worker goes on.
func TestTurnThatNobodyTakes(t *testing.T) {
	fs := newFlights[int](1)
	first := fs.join(keyOf(1), netip.Prefix{})
	if fs.join(keyOf(1), netip.Prefix{}) != first {
		t.Fatal("two flights of one question")
	}
	second := fs.join(keyOf(2), netip.Prefix{})
	leave := func(f *flight[int]) {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.leaveLocked(f, false)
	}
	leave(first)
	if len(first.turn) != 1 || len(second.turn) != 0 {
		t.Fatal("one of two left, and the turn with him")
	}
	leave(first)
	if len(second.turn) != 1 {
		t.Error("the worker did not go on")
	}
	leave(second)
	wantIdle(t, fs, 1)
}

// Who is kept from an answer hands the work to another asker, who need not queue again.
func TestTurnIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newFlights[int](1)
		ctx, cancel := context.WithCancel(t.Context())
		left, results := make(chan error, 1), make(chan error, 2)
		go func() {
			_, err := fs.do(ctx, keyOf(1), func() (int, bool) { <-ctx.Done(); return 0, false })
			left <- err
		}()
		synctest.Wait()
		var order []int
		for _, n := range []int{2, 1} {
			go func() {
				_, err := fs.do(t.Context(), keyOf(n), func() (int, bool) { order = append(order, n); return n, true })
				results <- err
			}()
			synctest.Wait()
		}
		cancel()
		if err := <-left; !errors.Is(err, ErrBusy) || !errors.Is(err, context.Canceled) {
			t.Errorf("who left gets %v", err)
		}
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("who stayed gets %v", err)
			}
		}
		synctest.Wait()
		if !slices.Equal(order, []int{1, 2}) {
			t.Errorf("the order is %v", order)
		}
		wantIdle(t, fs, 1)
	})
}

// TestFlightsUnderStress: whatever happens at once, everybody gets an answer to his own
// question or ErrBusy, no question is worked on twice at a time, and nothing is lost count of.
func TestFlightsUnderStress(t *testing.T) {
	const workers, askers, rounds, keys = 3, 600, 60, 500
	fs := newFlights[int](workers)
	var running, answered, busy, wrong atomic.Int64
	var aloft [keys]atomic.Bool
	var all sync.WaitGroup
	for a := range askers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(a)))
			for range rounds {
				n := random.IntN(keys)
				ctx, cancel := context.WithCancel(clientNo(t.Context(), byte(random.IntN(5))))
				switch random.IntN(4) {
				case 0:
					go cancel() // ends by itself
				case 1:
					cancel()
				}
				got, err := fs.do(ctx, keyOf(n), func() (int, bool) {
					if running.Add(1) > workers || aloft[n].Swap(true) {
						wrong.Add(1)
					}
					runtime.Gosched()
					aloft[n].Store(false)
					running.Add(-1)
					return n, ctx.Err() == nil
				})
				cancel()
				switch {
				case err == nil && got == n:
					answered.Add(1)
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				default:
					wrong.Add(1)
				}
			}
		})
	}
	all.Wait()
	if wrong.Load() != 0 || answered.Load() == 0 || busy.Load() == 0 {
		t.Errorf("%d answered, %d turned away, %d wrong", answered.Load(), busy.Load(), wrong.Load())
	}
	wantIdle(t, fs, workers)
}

// TestNewcomersInAFlood: who brings many connections is verified at once, whether there is
// such a name or not.
func TestNewcomersInAFlood(t *testing.T) {
	for _, tt := range []struct {
		name, user string
		want       error
	}{{"known", "alice", nil}, {"unknown", "nobody", ErrRefused}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t, StoreConfig{List: []*Account{hashed("alice")}, BcryptWorkers: 1})
				step := make(chan struct{})
				s.compare = func(_, password []byte) error {
					<-step
					if string(password) != "hunter2" {
						return bcrypt.ErrMismatchedHashAndPassword
					}
					return nil
				}
				var guessed atomic.Int64
				guess := func(from, to int) {
					for i := from; i < to; i++ {
						go func() {
							client := WithClient(t.Context(), netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))
							if _, err := s.Authenticate(client, fmt.Sprint("guess", i), "x"); errors.Is(err, ErrRefused) {
								guessed.Add(1)
							}
						}()
					}
					synctest.Wait()
				}
				guess(0, 2*maxWaiting)
				const tasks = 20
				results := make(chan error, tasks)
				for range tasks {
					go func() {
						_, err := s.Authenticate(clientNo(t.Context(), 1), tt.user, "hunter2")
						results <- err
					}()
				}
				synctest.Wait()
				guess(2*maxWaiting, 10*maxWaiting)
				for range 3 { // what was at work, the oldest, the newcomer in either order
					step <- struct{}{}
					synctest.Wait()
				}
				if len(results) != tasks {
					t.Fatalf("%d of %d tasks are back after two guesses", len(results), tasks)
				}
				for range tasks {
					if err := <-results; !errors.Is(err, tt.want) {
						t.Errorf("a task gets %v, want %v", err, tt.want)
					}
				}
				close(step)
				synctest.Wait()
				if n := guessed.Load(); n != maxWaiting {
					t.Errorf("%d guesses were compared, want %d", n, maxWaiting)
				}
				wantIdle(t, s.flights, 1)
			})
		})
	}
}

// BenchmarkGuessInFullQueue is what a newcomer costs who takes another's place.
func BenchmarkGuessInFullQueue(b *testing.B) {
	fs := newFlights[int](1)
	n := 0
	join := func() {
		n++
		fs.join(keyOf(n), netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(n >> 8), byte(n)}), 32))
	}
	for range maxWaiting + 1 {
		join()
	}
	b.ReportAllocs()
	for b.Loop() {
		join()
	}
}
