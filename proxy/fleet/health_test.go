package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"maskrelay/integration/lab"
	"maskrelay/proxy/fleet"
)

func TestLossAndReturn(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	server.Kill(t)
	if err := r.down(t); r.Up() {
		t.Errorf("up after %v", err)
	}
	before := r.returned.Load()
	server.Restart(t)
	r.told(t, true)
	r.returns(t, before)
	r.works(t)
}

func TestFirstAnswerAfterABadStart(t *testing.T) {
	server := lab.StartRedis(t)
	server.Kill(t)
	r := open(t, fleet.Config{URL: server.URL()}, nil)
	r.told(t, false)
	server.Restart(t)
	r.told(t, true)
	r.returns(t, 0)
}

func TestFrozenIsFoundByTheFirstCall(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	r.works(t)
	server.Freeze(t)
	err := r.Redis().Get(t.Context(), r.Key("test", "x")).Err()
	if err == nil || r.Up() {
		t.Errorf("up %v after a call that ended with %v", r.Up(), err)
	}
	if got := fleet.Explain(err).Error(); got != "no answer from Redis in time" {
		t.Errorf("explained as %q", got)
	}
	r.told(t, false)
	server.Thaw(t)
	r.told(t, true)
	r.returns(t, 0)
	r.works(t)
}

func TestFrozenIsFoundWithoutACall(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	server.Freeze(t)
	r.told(t, false)
	server.Thaw(t)
	r.told(t, true)
}

// A pool that counts failed dials would answer with them for a second after the return, and one
// that keeps what callers did not wait for, as those with little time here, would hand it out.
func TestCallsWorkAsSoonAsRedisReturns(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	server.Kill(t)
	var calls sync.WaitGroup
	for i := range 400 {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
			defer cancel()
			if err := r.Redis().Ping(ctx).Err(); err == nil {
				t.Error("a call of a dead server worked")
			}
		})
	}
	calls.Wait()
	r.told(t, false)
	server.Restart(t)
	r.told(t, true)
	for range 50 {
		if err := r.Redis().Ping(roomy(t)).Err(); err != nil {
			t.Errorf("after the return: %v", err)
		}
	}
}

func TestEmptiedServerIsNoticed(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	for range 2 {
		before := r.returned.Load()
		server.Do(t, "FLUSHALL")
		r.returns(t, before)
	}
	if !r.Up() || len(r.changes) > 0 {
		t.Error("an emptied server is not down")
	}
}

func TestLostTakesDownForOutagesOnly(t *testing.T) {
	server := lab.StartRedis(t)
	wrongType := func(c *fleet.Client) error {
		key := c.Key("test", "list")
		return errors.Join(c.Redis().Del(roomy(t), key).Err(), c.Redis().LPush(roomy(t), key, "1").Err(), c.Redis().Incr(roomy(t), key).Err())
	}
	cases := []struct {
		name string
		err  func(*fleet.Client) error
		down bool
	}{
		{"no error", func(*fleet.Client) error { return nil }, false},
		{"no such key", func(c *fleet.Client) error { return c.Redis().Get(roomy(t), c.Key("test", "none")).Err() }, false},
		{"wrong type", wrongType, false},
		{"error of a script", func(c *fleet.Client) error { return c.Redis().Eval(roomy(t), "return nothing.x", nil).Err() }, false},
		{"canceled", func(c *fleet.Client) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return c.Redis().Ping(ctx).Err()
		}, false},
		{"pool is busy", func(*fleet.Client) error { return redis.ErrPoolTimeout }, false},
		{"of the program", func(*fleet.Client) error { return errors.New("own") }, false},
		{"deadline", func(*fleet.Client) error { return fmt.Errorf("call: %w", context.DeadlineExceeded) }, true},
		{"end of file", func(*fleet.Client) error { return io.EOF }, true},
		{"refused", func(*fleet.Client) error {
			conn, err := net.Dial("tcp", lab.FreeAddr(t))
			if err == nil {
				return conn.Close()
			}
			return err
		}, true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, server.URL())
			r.Lost(tc.err(r.Client))
			if !tc.down {
				if !r.Up() {
					t.Error("down")
				}
				return
			}
			r.told(t, false)
			r.told(t, true) // by Run, which asks at once
			r.returns(t, 0)
		})
	}
}

// A caller whose time is over before he begins knows nothing of Redis.
func TestLateCallerIsNoOutage(t *testing.T) {
	r := start(t, lab.StartRedis(t).URL())
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if err := r.Redis().Ping(ctx).Err(); !errors.Is(err, context.DeadlineExceeded) || !r.Up() {
		t.Errorf("up %v after %v", r.Up(), err)
	}
}

// A Redis that answers the probe alone must not be tried by customers again and again.
func TestFlappingIsHeldDown(t *testing.T) {
	r := start(t, lab.StartRedis(t).URL())
	begin := time.Now()
	for range 3 {
		r.Lost(context.DeadlineExceeded)
		r.told(t, false)
		r.told(t, true)
	}
	if took := time.Since(begin); took < 3*time.Second {
		t.Errorf("three losses were held down for %v, want 0+1+2 s", took)
	}
}

func TestServersThatCannotServe(t *testing.T) {
	dir := t.TempDir()
	full := []string{"--maxmemory", "1", "--maxmemory-policy", "noeviction"}
	cases := []struct {
		name    string
		args    []string
		prepare func(*lab.Redis)
		want    string
	}{
		{"replica", []string{"--replicaof", strings.Replace(lab.FreeAddr(t), ":", " ", 1)}, nil, "replica"},
		{"full", full, nil, "memory is full"},
		{"protected", []string{"--requirepass", "x"}, nil, "wants a password"},
		{"disk", []string{"--save", "3600 1", "--dir", dir}, func(s *lab.Redis) {
			s.Do(t, "BGSAVE")
			lab.Wait(t, patience, "a failed save", func() bool {
				return strings.Contains(s.Do(t, "INFO", "persistence")[0], "rdb_last_bgsave_status:err")
			})
		}, "cannot save"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			server := lab.StartRedis(t, tc.args...)
			if tc.prepare != nil {
				removeAll(t, dir)
				tc.prepare(server)
			}
			r := open(t, fleet.Config{URL: server.URL()}, nil)
			if err := r.down(t); !strings.Contains(err.Error(), tc.want) {
				t.Errorf("told %v, want %s", err, tc.want)
			}
		})
	}
}

// A primary that becomes a replica answers everything but writes.
func TestDemotedServer(t *testing.T) {
	server := lab.StartRedis(t)
	r := start(t, server.URL())
	server.Do(t, append([]string{"REPLICAOF"}, strings.Split(lab.FreeAddr(t), ":")...)...)
	if err := r.down(t); !strings.Contains(err.Error(), "replica") {
		t.Error(err)
	}
	server.Do(t, "REPLICAOF", "NO", "ONE")
	r.told(t, true)
	r.works(t)
}
