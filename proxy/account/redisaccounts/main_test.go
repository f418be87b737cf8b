package redisaccounts

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"maskrelay/integration/lab"
	"maskrelay/proxy/account"
	"maskrelay/proxy/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testHash is of the password "x", at the lowest cost.
var testHash = func() string {
	hash, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(hash)
}()

// located is a server or a cluster.
type located interface{ URL() string }

// opened returns a client of a server, which the test's end closes.
func opened(t testing.TB, server located) *fleet.Client {
	t.Helper()
	c, err := fleet.Open(fleet.Config{URL: server.URL(), Node: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// stored returns a Store of a new, empty Redis.
func stored(t testing.TB) (*Store, *lab.Redis) {
	t.Helper()
	server := lab.StartRedis(t)
	return New(opened(t, server)), server
}

// record is what account name may be stored as; n makes one unlike another.
func record(name string, n int) []byte {
	a, err := account.ParseJSON(name, []byte(`{"password":"`+testHash+`","max_conns":`+strconv.Itoa(n)+`}`))
	if err != nil {
		panic(err)
	}
	data, err := a.StoredJSON()
	if err != nil {
		panic(err)
	}
	return data
}

func mustPut(t testing.TB, s *Store, name string, n int) int64 {
	t.Helper()
	version, err := s.Put(t.Context(), name, record(name, n), AnyVersion)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// fill writes n accounts a00000, a00001, …
func fill(t testing.TB, s *Store, n int) {
	t.Helper()
	var writes []write
	for i := range n {
		name := fmt.Sprintf("a%05d", i)
		writes = append(writes, write{name, record(name, i+1), MustNotExist})
	}
	for len(writes) > 0 {
		part := writes[:min(batch, len(writes))]
		writes = writes[len(part):]
		results, err := s.write(t.Context(), part, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.err != nil {
				t.Fatal(r.err)
			}
		}
	}
}

// eventually waits for a state, as long as a slow machine may take for it.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	lab.Wait(t, 20*time.Second, what, ok)
}

// watched is an account.Store that is watched, with all that it told.
type watched struct {
	*account.Store
	mu      sync.Mutex // guards what follows
	changes []account.Change
	errs    []error
}

func (w *watched) told(c account.Change, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.errs = append(w.errs, err)
		return
	}
	w.changes = append(w.changes, c)
}

// wrong returns what was told as wrong.
func (w *watched) wrong() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var texts []string
	for _, err := range w.errs {
		texts = append(texts, err.Error())
	}
	return texts
}

// relay is a process of a fleet as far as accounts go.
func relay(t testing.TB, server located, config account.StoreConfig) (*watched, *Store) {
	t.Helper()
	client, err := fleet.Open(fleet.Config{URL: server.URL(), Node: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	s := New(client)
	config.Source = Source(s, client)
	accounts, err := account.NewStore(config)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Store: accounts}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { client.Run(ctx) })
	running.Go(func() { w.Watch(ctx, time.Second, w.told) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		_ = client.Close()
	})
	return w, s
}

// serves reports whether the relay serves account name with that cap.
func (w *watched) serves(name string, maxConns int) bool {
	a, ok := w.Lookup(name)
	return ok && a.MaxConns == maxConns
}
