package fleet_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// relay is a Client with its Run.
type relay struct {
	*fleet.Client
	changes  chan change
	returned atomic.Int64
	stop     func() // ends Run and waits for it
}

type change struct {
	up  bool
	err error
}

// open makes a Client whose Run has not begun; prepare is called before Run.
func open(t *testing.T, c fleet.Config, prepare func(*relay)) *relay {
	t.Helper()
	r := &relay{changes: make(chan change, 64)}
	c.Changed = func(up bool, err error) { r.changes <- change{up, err} }
	var err error
	if r.Client, err = fleet.Open(c); err != nil {
		t.Fatal(err)
	}
	r.OnReturn(func() { r.returned.Add(1) })
	if prepare != nil {
		prepare(r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	r.stop = func() { cancel(); running.Wait() }
	t.Cleanup(func() {
		r.stop()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// start is open with nothing to prepare, and waits until Redis answered.
func start(t *testing.T, url string) *relay {
	t.Helper()
	r := open(t, fleet.Config{URL: url}, nil)
	r.told(t, true)
	return r
}

// told waits for the next change.
func (r *relay) told(t *testing.T, up bool) {
	t.Helper()
	if err := r.next(t, up); err != nil {
		t.Log(err)
	}
}

// down waits for the next change, which must be a loss, and returns the reason told.
func (r *relay) down(t *testing.T) error {
	t.Helper()
	return r.next(t, false)
}

func (r *relay) next(t *testing.T, up bool) error {
	t.Helper()
	select {
	case got := <-r.changes:
		if got.up != up || (got.err == nil) != up {
			t.Fatalf("told up %v because %v, want up %v", got.up, got.err, up)
		}
		return got.err
	case <-time.After(patience):
		t.Fatalf("nothing told, want up %v", up)
		return nil
	}
}

// returns waits until the functions of OnReturn were called more often than before.
func (r *relay) returns(t *testing.T, before int64) {
	t.Helper()
	lab.Wait(t, patience, "OnReturn", func() bool { return r.returned.Load() > before })
}

// roomy is for calls that must work: on a busy machine CallTimeout passes without a fault.
func roomy(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// works tries what every part of the program needs.
func (r *relay) works(t *testing.T) {
	t.Helper()
	ctx := roomy(t)
	key := r.Key("test", "who: "+t.Name())
	if err := r.Redis().Set(ctx, key, "1", time.Minute).Err(); err != nil {
		t.Errorf("SET: %v", err)
	}
	if got, err := r.Redis().Eval(ctx, "return redis.call('GET', KEYS[1])", []string{key}).Text(); got != "1" || err != nil {
		t.Errorf("EVAL: %q, %v", got, err)
	}
	if err := r.Publish(ctx, "test", "x"); err != nil {
		t.Error(err)
	}
}
